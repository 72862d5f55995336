//! What the fuzzer runs for hours, here for a second: the committed corpus, what is near to it, and random bytes.

use std::{fs, path::PathBuf};

use proptest::prelude::*;

use super::entries::{ENTRIES, Entry};

fn corpus(name: &str) -> Vec<Vec<u8>> {
    let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus")).join(name);
    let mut files: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.into_iter().map(|file| fs::read(file).unwrap()).collect()
}

#[test]
fn the_corpus_and_all_that_is_one_byte_from_it() {
    for (name, entry) in ENTRIES {
        let corpus = corpus(name);
        assert!(!corpus.is_empty(), "{name} has no corpus");
        for seed in corpus {
            entry(&seed);
            for at in 0..seed.len().min(200) {
                entry(&seed[..at]);
                for new in [0, 0xff, seed[at] ^ 1, seed[at].wrapping_add(1)] {
                    let mut bytes = seed.clone();
                    bytes[at] = new;
                    entry(&bytes);
                }
            }
        }
    }
}

fn any_entry() -> impl Strategy<Value = Entry> {
    prop::sample::select(ENTRIES.map(|(_, entry)| entry).to_vec())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn any_bytes(entry in any_entry(), bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        entry(&bytes);
    }

    /// The corpus spliced with itself and with random bytes.
    #[test]
    fn what_is_near_the_corpus(
        which in 0..ENTRIES.len(),
        seeds in any::<[prop::sample::Index; 2]>(),
        cut in any::<[prop::sample::Index; 2]>(),
        bytes in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        let (name, entry) = ENTRIES[which];
        let corpus = corpus(name);
        let [one, other] = seeds.map(|seed| seed.get(&corpus).clone());
        let (head, tail) = (cut[0].index(one.len() + 1), cut[1].index(other.len() + 1));
        entry(&[&one[..head], &bytes, &other[tail..]].concat());
    }
}
