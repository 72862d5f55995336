use std::{fs, os::unix::fs::PermissionsExt};

use proptest::prelude::*;
use secrecy::{ExposeSecret, SecretString};

use super::*;
use crate::engine::clock::ChaChaRandom;

const OLD: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
const NEW: &str = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=";

fn ring(text: &str) -> Sealer {
    Sealer::from_text(&SecretString::from(text)).unwrap()
}

fn place() -> Place {
    Place::new("bgpPassword", "row 1")
}

proptest! {
    #[test]
    fn what_is_sealed_opens(secret: String, seed: u64, purpose: String, row: String) {
        let (sealer, place) = (ring(NEW), Place::new(purpose, row));
        let sealed = sealer.seal(&ChaChaRandom::from_seed(seed), &place, &SecretString::from(secret.as_str())).unwrap();
        let opened = sealer.open(&place, &sealed).unwrap();
        prop_assert_eq!(opened.expose_secret(), secret);
    }

    #[test]
    fn any_changed_byte_is_noticed(secret in "[a-z]{1,40}", at: prop::sample::Index, flip in 1u8..) {
        let sealer = ring(NEW);
        let random = ChaChaRandom::from_seed(1);
        let mut sealed = sealer.seal(&random, &place(), &SecretString::from(secret)).unwrap();
        let at = at.index(sealed.len());
        sealed[at] ^= flip;
        prop_assert!(sealer.open(&place(), &sealed).is_err());
    }

    #[test]
    fn any_cut_is_noticed(secret in "[a-z]{1,40}", at: prop::sample::Index) {
        let sealer = ring(NEW);
        let sealed = sealer.seal(&ChaChaRandom::from_seed(1), &place(), &SecretString::from(secret)).unwrap();
        prop_assert!(sealer.open(&place(), &sealed[..at.index(sealed.len())]).is_err());
    }

    #[test]
    fn a_ciphertext_opens_at_its_own_place_only(purpose in "[a-c]{0,3}", row in "[a-c]{0,3}", at in "[a-c]{0,3}", to in "[a-c]{0,3}") {
        let (from, moved) = (Place::new(purpose, row), Place::new(at, to));
        let sealer = ring(NEW);
        let sealed = sealer.seal(&ChaChaRandom::from_seed(1), &from, &SecretString::from("secret")).unwrap();
        prop_assert_eq!(sealer.open(&moved, &sealed).is_ok(), from == moved);
    }
}

#[test]
fn the_newest_key_seals_and_older_ones_open() {
    let random = ChaChaRandom::from_seed(1);
    let secret = SecretString::from("secret");
    let old = ring(OLD).seal(&random, &place(), &secret).unwrap();
    let both = ring(&format!("# comment\n{OLD}\n\n{NEW}\n"));
    let new = both.seal(&random, &place(), &secret).unwrap();
    assert_eq!(both.open(&place(), &old).unwrap().expose_secret(), "secret");
    assert_eq!(ring(NEW).open(&place(), &new).unwrap().expose_secret(), "secret");
    assert!(matches!(ring(NEW).open(&place(), &old), Err(SecretError::UnknownKey(_))));
}

#[test]
fn two_seals_of_one_secret_differ() {
    let random = ChaChaRandom::from_seed(1);
    let seal = || ring(NEW).seal(&random, &place(), &SecretString::from("secret")).unwrap();
    assert_ne!(seal(), seal());
}

#[test]
fn nothing_secret_is_printed() {
    let random = ChaChaRandom::from_seed(1);
    let (password, sealer) = (bgp_password(&random), ring(NEW));
    let printed = format!("{password:?} {sealer:?} {:?}", sealer.open(&Place::new("x", "y"), &[1; 80]));
    assert!(!printed.contains(password.expose_secret()) && !printed.contains("AQEB"), "{printed}");
}

#[test]
fn what_is_no_key_is_refused() {
    let refused = |text: &str| Sealer::from_text(&SecretString::from(text)).unwrap_err();
    assert!(matches!(refused("\n# only a comment\n"), KeyError::Empty));
    assert!(matches!(refused(&format!("{NEW}\nAAAA\n")), KeyError::Malformed { line: 2 }));
    assert!(matches!(refused("not base64"), KeyError::Malformed { line: 1 }));
}

#[test]
fn a_key_file_is_made_once_and_kept_private() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tieline.key");
    let random = ChaChaRandom::from_seed(1);
    let (first, made) = Sealer::from_key_file_or_new(&path, &random).unwrap();
    assert!(made);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside it");
    let sealed = first.seal(&random, &place(), &SecretString::from("secret")).unwrap();
    let (again, made) = Sealer::from_key_file_or_new(&path, &random).unwrap();
    assert!(!made && again.open(&place(), &sealed).is_ok());

    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    assert!(matches!(Sealer::from_key_file_or_new(&path, &random), Err(KeyError::Exposed { mode: 0o644, .. })));
    let nowhere = folder.path().join("no/such/folder");
    assert!(matches!(Sealer::from_key_file_or_new(&nowhere, &random), Err(KeyError::Make { .. })));
    // A key that was lost is never replaced by another one.
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(&path, "").unwrap();
    assert!(matches!(Sealer::from_key_file_or_new(&path, &random), Err(KeyError::Empty)));
}

#[test]
fn a_password_favours_no_character() {
    // A remainder of a whole byte would give the first eight characters a quarter more than the others.
    let random = ChaChaRandom::from_seed(1);
    let mut counts = std::collections::BTreeMap::new();
    for _ in 0..2_600 {
        let password = bgp_password(&random);
        assert_eq!(password.expose_secret().len(), 24);
        for c in password.expose_secret().chars() {
            *counts.entry(c).or_insert(0u32) += 1;
        }
    }
    // 62,400 draws: 1,006 each, with a standard deviation of 32.
    assert_eq!(counts.len(), 62);
    assert!(counts.values().all(|n| (846..=1_166).contains(n)), "{counts:?}");
}

#[test]
fn a_bearer_secret_is_long_and_hashed() {
    let random = ChaChaRandom::from_seed(1);
    let (one, two) = (token_secret(&random), token_secret(&random));
    assert!(one.expose_secret().starts_with("tl_") && one.expose_secret().len() == 46);
    assert_ne!(one.expose_secret(), two.expose_secret());
    // The example of FIPS 180-4 for SHA-256.
    let hash: String = token_hash("abc").iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(hash, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}
