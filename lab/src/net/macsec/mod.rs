//! MACsec on the trunks of routers that the operator configures: which keys each end holds, which of them it uses, and what
//! follows from that.
//!
//! What IEEE 802.1X's key agreement makes of keys is kept: an end uses the key that it was told to as soon as the other end
//! has it too, and stays on the one before until then; what it sends arrives where the other end has installed the key; an
//! end that runs MACsec and uses no key sends nothing and takes nothing, in clear least of all.
//!
//! Where the kernel has MACsec, a [`device`] on either end does all that, and says what it does. Elsewhere there is a
//! stand-in: frames are not encrypted, and the wire carries what the far end could read. See [`MacSecWay`].

pub mod device;
mod genl;
pub(super) mod keeper;
pub mod sak;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tieline_openapi::coordinator::Sensitive;

use super::spec::{End, MacSecWay};

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
    /// How MACsec is run.
    #[serde(default)]
    pub way: MacSecWay,
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
    /// More than association numbers tell apart.
    #[error(
        "both ends of a trunk hold at most {} MACsec keys between them, by two bits in each frame",
        device::NUMBERS
    )]
    Numbers,
}

/// What both routers were told of each trunk's keys, by channel; an end without is one on which MACsec is not run.
#[derive(Debug, Default)]
pub(super) struct Trunks(BTreeMap<usize, [Option<Keyed>; 2]>);

/// One end of a trunk on which MACsec is run.
#[derive(Clone, Debug, Default)]
struct Keyed {
    wanted: MacSecWanted,
    /// Those of the wanted keys that it has.
    installed: Vec<MacSecKey>,
    /// What it shall use, by what both ends have.
    to_use: Option<Sensitive>,
    /// What it uses.
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
}

fn is(one: &Sensitive, other: &Sensitive) -> bool {
    one.expose().eq_ignore_ascii_case(other.expose())
}

impl Trunks {
    /// Makes the keys of one end of a trunk without devices what is wanted; how it is then, and whether what each end sends
    /// arrives.
    fn put(&mut self, channel: usize, end: End, wanted: &MacSecWanted) -> Result<(MacSecHeld, [bool; 2]), MacSecError> {
        wanted.check()?;
        self.tell(channel, end, wanted);
        self.install(channel, end, |_| true);
        let arrives = self.settle(channel);
        for end in [End::A, End::B] {
            self.report(channel, end, self.to_use(channel, end).cloned());
        }
        Ok((self.held(channel, end), arrives))
    }

    fn end(&self, channel: usize, end: End) -> Option<&Keyed> {
        self.0.get(&channel)?[end as usize].as_ref()
    }

    fn end_mut(&mut self, channel: usize, end: End) -> Option<&mut Keyed> {
        self.0.get_mut(&channel)?[end as usize].as_mut()
    }

    /// Notes what is wanted, which [`MacSecWanted::check`] takes.
    fn tell(&mut self, channel: usize, end: End, wanted: &MacSecWanted) {
        self.0.entry(channel).or_default()[end as usize].get_or_insert_default().wanted = wanted.clone();
    }

    /// Notes which of the wanted keys an end has.
    fn install(&mut self, channel: usize, end: End, has: impl Fn(&MacSecKey) -> bool) {
        if let Some(keyed) = self.end_mut(channel, end) {
            keyed.installed = keyed.wanted.keys.iter().filter(|key| has(key)).cloned().collect();
        }
    }

    /// Finds what each end shall use, and whether what it sends arrives then.
    fn settle(&mut self, channel: usize) -> [bool; 2] {
        agree(self.0.entry(channel).or_default().each_mut().map(Option::as_mut))
    }

    /// The key that an end shall use.
    fn to_use(&self, channel: usize, end: End) -> Option<&Sensitive> {
        self.end(channel, end)?.to_use.as_ref()
    }

    /// Notes the key that an end uses.
    fn report(&mut self, channel: usize, end: End, active: Option<Sensitive>) {
        if let Some(keyed) = self.end_mut(channel, end) {
            if active.is_some() && active != keyed.active {
                keyed.changes += 1;
            }
            keyed.active = active;
        }
    }

    /// Whether an end has been told of a key, or has it.
    fn knows(&self, channel: usize, ckn: &Sensitive) -> bool {
        let ends = self.0.get(&channel).into_iter().flatten().flatten();
        ends.flat_map(|keyed| keyed.wanted.keys.iter().chain(&keyed.installed)).any(|key| is(&key.ckn, ckn))
    }

    /// What an end holds.
    fn held(&self, channel: usize, end: End) -> MacSecHeld {
        let Some(keyed) = self.end(channel, end) else { return MacSecHeld::default() };
        let installed = keyed.installed.iter().map(|key| key.ckn.clone()).collect();
        MacSecHeld { installed, active: keyed.active.clone() }
    }

    /// Channels on which one router runs MACsec, with how often a key came into use there.
    fn run(&self, end: End) -> impl Iterator<Item = (usize, u64)> {
        self.0.iter().filter_map(move |(channel, ends)| Some((*channel, ends[end as usize].as_ref()?.changes)))
    }
}

impl Keyed {
    fn key(&self, ckn: &Sensitive) -> Option<&MacSecKey> {
        self.installed.iter().find(|key| is(&key.ckn, ckn))
    }

    /// Whether both ends have a key.
    fn shares(&self, other: &Self, ckn: &Sensitive) -> bool {
        let both = self.key(ckn).zip(other.key(ckn));
        both.is_some_and(|(one, other)| is(&one.cak, &other.cak))
    }

    fn settle(&mut self, other: &Self) {
        let wanted = self.wanted.active.as_ref();
        let next = [wanted, self.active.as_ref().filter(|_| wanted.is_some())];
        self.to_use = next.into_iter().flatten().find(|ckn| self.shares(other, ckn)).cloned();
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
                to.to_use.is_some() && from.to_use.as_ref().is_some_and(|ckn| from.shares(to, ckn))
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
mod tests;
