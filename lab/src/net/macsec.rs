//! A stand-in for MACsec on the trunks of routers that the operator configures: which keys each end holds, and what follows
//! from that for the wire between them.
//!
//! Frames are not encrypted. What IEEE 802.1X's key agreement makes of keys is kept: an end uses the key that it was told to
//! as soon as the other end has it too, and stays on the one before until then; what it sends arrives where the other end has
//! installed the key; an end that runs MACsec and uses no key sends nothing and takes nothing, in clear least of all.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tieline_openapi::coordinator::Sensitive;

use super::spec::End;

/// The most keys that a trunk takes.
const MOST: usize = 16;

/// A key: the name on the wire, and the secret, in hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MacSecKey {
    /// Its name.
    pub ckn: Sensitive,
    /// The secret.
    pub cak: Sensitive,
}

/// What a trunk is to hold, and nothing else.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MacSecWanted {
    /// The keys, the oldest first.
    pub keys: Vec<MacSecKey>,
    /// The name of the one to send under.
    pub active: Option<Sensitive>,
}

/// What a trunk holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MacSecHeld {
    /// Names of the keys that are installed.
    pub installed: Vec<Sensitive>,
    /// The name of the one in use.
    pub active: Option<Sensitive>,
}

/// What a status tells of a trunk's keys: no half of any.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MacSecStatus {
    /// Keys that are installed.
    pub installed: usize,
    /// Whether one of them is in use.
    pub active: bool,
    /// How often another one came into use.
    pub changes: u64,
}

/// Why keys are not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MacSecError {
    /// Too many.
    #[error("a trunk takes {MOST} MACsec keys at most")]
    TooMany,
    /// A malformed name (IEEE 802.1X-2020, 9.3.1: 1 to 32 octets).
    #[error("a MACsec key's name has 2 to 64 hexadecimal digits, two an octet")]
    Name,
    /// Two of one name.
    #[error("two MACsec keys have one name")]
    Twice,
    /// A malformed secret.
    #[error("a MACsec key has 64 hexadecimal digits: 256 bits")]
    Secret,
}

/// MACsec of the trunks of both routers, by channel; an end without is one on which it is not run.
#[derive(Debug, Default)]
pub(super) struct Trunks(BTreeMap<usize, [Option<Keyed>; 2]>);

/// One end of a trunk on which MACsec is run.
#[derive(Clone, Debug, Default)]
struct Keyed {
    wanted: MacSecWanted,
    active: Option<Sensitive>,
    changes: u64,
}

impl MacSecWanted {
    fn check(&self) -> Result<(), MacSecError> {
        if self.keys.len() > MOST {
            return Err(MacSecError::TooMany);
        }
        let digits = |text: &Sensitive| text.expose().bytes().all(|digit| digit.is_ascii_hexdigit());
        for (i, MacSecKey { ckn, cak }) in self.keys.iter().enumerate() {
            let length = ckn.expose().len();
            if !(2..=64).contains(&length) || !length.is_multiple_of(2) || !digits(ckn) {
                return Err(MacSecError::Name);
            }
            if cak.expose().len() != 64 || !digits(cak) {
                return Err(MacSecError::Secret);
            }
            if self.keys.iter().skip(i + 1).any(|other| is(&other.ckn, ckn)) {
                return Err(MacSecError::Twice);
            }
        }
        Ok(())
    }

    fn key(&self, ckn: &Sensitive) -> Option<&MacSecKey> {
        self.keys.iter().find(|key| is(&key.ckn, ckn))
    }
}

fn is(one: &Sensitive, other: &Sensitive) -> bool {
    one.expose().eq_ignore_ascii_case(other.expose())
}

impl Trunks {
    /// Makes the keys of one end what is wanted; how it is then, and whether what each end sends arrives.
    pub(super) fn put(
        &mut self,
        channel: usize,
        end: End,
        wanted: &MacSecWanted,
    ) -> Result<(MacSecHeld, [bool; 2]), MacSecError> {
        wanted.check()?;
        let ends = self.0.entry(channel).or_default();
        ends[end as usize].get_or_insert_default().wanted = wanted.clone();
        let arrives = agree(ends.each_mut().map(Option::as_mut));
        let held = ends[end as usize].as_ref().map(Keyed::held).unwrap_or_default();
        Ok((held, arrives))
    }

    /// What there is to tell of one router's trunks, by channel.
    pub(super) fn status(&self, end: End) -> BTreeMap<usize, MacSecStatus> {
        let told =
            |(channel, ends): (&usize, &[Option<Keyed>; 2])| Some((*channel, ends[end as usize].as_ref()?.status()));
        self.0.iter().filter_map(told).collect()
    }
}

impl Keyed {
    /// How it is.
    fn held(&self) -> MacSecHeld {
        let installed = self.wanted.keys.iter().map(|key| key.ckn.clone()).collect();
        MacSecHeld { installed, active: self.active.clone() }
    }

    fn status(&self) -> MacSecStatus {
        let (installed, active) = (self.wanted.keys.len(), self.active.is_some());
        MacSecStatus { installed, active, changes: self.changes }
    }

    /// Whether both ends have a key.
    fn shares(&self, other: &Self, ckn: &Sensitive) -> bool {
        let both = self.wanted.key(ckn).zip(other.wanted.key(ckn));
        both.is_some_and(|(one, other)| is(&one.cak, &other.cak))
    }

    fn settle(&mut self, other: &Self) {
        let wanted = self.wanted.active.as_ref();
        let next = [wanted, self.active.as_ref().filter(|_| wanted.is_some())];
        let next = next.into_iter().flatten().find(|ckn| self.shares(other, ckn)).cloned();
        if next.is_some() && next != self.active {
            self.changes += 1;
        }
        self.active = next;
    }
}

/// What both ends of a wire make of their keys, and whether what each sends arrives; `None` is an end without MACsec.
fn agree(ends: [Option<&mut Keyed>; 2]) -> [bool; 2] {
    match ends {
        [None, None] => [true, true],
        [Some(a), Some(b)] => {
            a.settle(b);
            b.settle(a);
            let arrives = |from: &Keyed, to: &Keyed| {
                to.active.is_some() && from.active.as_ref().is_some_and(|ckn| from.shares(to, ckn))
            };
            [arrives(a, b), arrives(b, a)]
        }
        [Some(one), None] | [None, Some(one)] => {
            one.settle(&Keyed::default());
            [false, false]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u8) -> MacSecKey {
        MacSecKey { ckn: name(n), cak: Sensitive::new(format!("{n:064x}")) }
    }

    fn name(n: u8) -> Sensitive {
        Sensitive::new(format!("{n:08x}"))
    }

    /// Both ends of one trunk.
    #[derive(Default)]
    struct Trunk(Trunks);

    impl Trunk {
        fn told(&mut self, end: End, keys: &[u8], active: Option<u8>) -> [bool; 2] {
            let wanted = MacSecWanted { keys: keys.iter().copied().map(key).collect(), active: active.map(name) };
            self.0.put(3, end, &wanted).unwrap().1
        }

        fn uses(&self, end: End) -> Option<Sensitive> {
            self.0.0[&3][end as usize].as_ref()?.held().active
        }
    }

    #[test]
    fn a_change_of_key_that_is_made_in_order_cuts_nothing() {
        let mut trunk = Trunk::default();
        assert_eq!(trunk.told(End::A, &[1], Some(1)), [false; 2], "the other end has no key yet");
        assert_eq!(trunk.uses(End::A), None);
        assert_eq!(trunk.told(End::B, &[1], Some(1)), [true; 2]);
        // Whichever end is told first: the one before stays in use until the other end has the new one.
        assert_eq!(trunk.told(End::A, &[1, 2], Some(2)), [true; 2]);
        assert_eq!([trunk.uses(End::A), trunk.uses(End::B)], [Some(name(1)), Some(name(1))]);
        assert_eq!(trunk.told(End::B, &[1, 2], Some(2)), [true; 2]);
        assert_eq!([trunk.uses(End::A), trunk.uses(End::B)], [Some(name(2)), Some(name(2))]);
        assert_eq!(trunk.told(End::B, &[2], Some(2)), [true; 2]);
        assert_eq!(trunk.told(End::A, &[2], Some(2)), [true; 2]);
        let status = trunk.0.status(End::A);
        assert_eq!(status, BTreeMap::from([(3, MacSecStatus { installed: 1, active: true, changes: 2 })]));
    }

    #[test]
    fn what_the_other_end_cannot_read_does_not_arrive_and_nothing_goes_in_clear() {
        let mut trunk = Trunk::default();
        assert_eq!(trunk.told(End::A, &[1], Some(1)), [false; 2], "the other end runs no MACsec");
        // One name, two secrets.
        let other = MacSecKey { ckn: name(1), cak: key(9).cak };
        let wanted = MacSecWanted { keys: vec![other], active: Some(name(1)) };
        assert_eq!(trunk.0.put(3, End::B, &wanted).unwrap().1, [false; 2]);
        assert_eq!(trunk.told(End::B, &[1], Some(1)), [true; 2]);
        // The old one is taken away before the new one is there: a cut, which the order above avoids.
        assert_eq!(trunk.told(End::B, &[2], Some(2)), [false; 2]);
        assert_eq!(trunk.told(End::B, &[1], None), [false; 2], "it is to use none");
        assert_eq!(agree([None, None]), [true; 2]);
    }

    #[test]
    fn malformed_keys_are_not_taken() {
        let take = |keys: Vec<MacSecKey>| {
            let mut trunks = Trunks::default();
            let taken = trunks.put(0, End::A, &MacSecWanted { keys, active: None });
            taken.map(|(held, _)| held.installed.len())
        };
        let with = |ckn: &str, cak: &str| vec![MacSecKey { ckn: Sensitive::new(ckn), cak: Sensitive::new(cak) }];
        let good = "0".repeat(64);
        assert_eq!(take(with("00", &good)), Ok(1));
        for name in ["", "0", "000", "zz", &"00".repeat(33)] {
            assert_eq!(take(with(name, &good)), Err(MacSecError::Name), "{name}");
        }
        for secret in ["", &good[1..], &good.replace('0', "x")] {
            assert_eq!(take(with("00", secret)), Err(MacSecError::Secret), "{secret}");
        }
        assert_eq!(take(vec![key(1), key(1)]), Err(MacSecError::Twice));
        assert_eq!(take((0..17).map(key).collect()), Err(MacSecError::TooMany));
        assert!(!format!("{:?}", key(7)).contains("07"));
    }
}
