//! A kernel MACsec device on a router's end of a trunk (IEEE 802.1AE): what is sent through it leaves encrypted, and it takes
//! nothing that was not sent under a key that it holds.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use super::genl::{Association, Extended, Genl, Sci, Told};
use super::sak::{KeyId, Sak};
use crate::net::error::NetError;
use crate::net::links::Links;
use crate::net::namespace::Namespace;
use crate::net::spec::End;

/// Secure associations of one channel: numbers of two bits.
pub(super) const NUMBERS: usize = 4;

/// How late a packet may be, in packets. No wire here reorders; a kernel that encrypts on several cores may.
const WINDOW: u32 = 64;

/// Packet numbers that are left out where a key is installed again: one that was taken while the last was read is not used
/// twice.
const SKIPPED: u64 = 1_024;

/// The cipher of a device, by its identifier of IEEE 802.1AE-2018, table 14-1. Both encrypt under 256 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cipher {
    /// GCM-AES-XPN-256: packet numbers of 64 bits.
    Xpn256,
    /// GCM-AES-256: of 32.
    Gcm256,
}

/// Why a device does not do what it shall.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// The kernel's MACsec cannot be talked to.
    #[error("cannot talk to the kernel's MACsec")]
    Open(#[source] io::Error),
    /// It takes nothing of the other end.
    #[error("cannot make it listen to the other end")]
    AddReceiver(#[source] io::Error),
    /// A key to send under is not taken.
    #[error("cannot install a key to send under")]
    AddSending(#[source] io::Error),
    /// A key to take under is not taken.
    #[error("cannot install a key to take under")]
    AddTaking(#[source] io::Error),
    /// A key cannot be made one to use or one not to use.
    #[error("cannot switch a key on or off")]
    Switch(#[source] io::Error),
    /// A key cannot be removed.
    #[error("cannot remove a key")]
    Remove(#[source] io::Error),
    /// What it holds is not known.
    #[error("cannot read what it holds")]
    Read(#[source] io::Error),
}

impl DeviceError {
    /// The kernel's error number.
    pub(crate) fn errno(&self) -> Option<i32> {
        let (Self::Open(source)
        | Self::AddReceiver(source)
        | Self::AddSending(source)
        | Self::AddTaking(source)
        | Self::Switch(source)
        | Self::Remove(source)
        | Self::Read(source)) = self;
        source.raw_os_error()
    }
}

/// What a device holds, as the kernel tells it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// The keys that it has for both directions.
    pub installed: BTreeSet<KeyId>,
    /// The one that what is sent goes under.
    pub active: Option<KeyId>,
}

impl Held {
    /// Whether a key is there.
    #[must_use]
    pub fn has(&self, key: &KeyId) -> bool {
        self.installed.contains(key)
    }
}

/// Packet numbers that a key has come to: it goes on from there when it is installed again, and no number comes twice.
#[derive(Clone, Copy, Debug)]
struct Reached {
    sent: u64,
    taken: u64,
}

/// One device. It goes with its trunk.
#[derive(Debug)]
pub struct Device {
    name: String,
    index: u32,
    cipher: Cipher,
    end: End,
    /// The channel that it listens to.
    other: Sci,
    genl: Genl,
    reached: BTreeMap<KeyId, Reached>,
}

/// The identifier of an end's channel: both ends know both, as each would tell the other by key agreement.
fn sci(channel: u8, end: End) -> Sci {
    // A locally administered address, and the first port.
    [0x02, b'T', b'L', 0, channel, end as u8, 0, 1]
}

/// The short one of a cipher with extended packet numbers.
fn ssci(end: End) -> u32 {
    end as u32 + 1
}

impl Device {
    /// Makes the device `{trunk}-sec` of the given channel's end on a trunk, up and without a key: nothing passes. Both ends
    /// name the same channel.
    ///
    /// # Errors
    /// Where this kernel has no MACsec, or takes no keys of this process.
    pub async fn create(
        namespace: &Namespace,
        links: &Links,
        trunk: &str,
        channel: u8,
        end: End,
    ) -> Result<Self, NetError> {
        let name = name(trunk);
        let parent = links.index(trunk).await?;
        let own = u64::from_ne_bytes(sci(channel, end));
        let cipher = match links.add_macsec(&name, parent, own, Cipher::Xpn256, WINDOW).await {
            Ok(()) => Cipher::Xpn256,
            // As kernels before 5.7 say of extended packet numbers.
            Err(error) if error.is_errno(libc::EINVAL) => {
                links.add_macsec(&name, parent, own, Cipher::Gcm256, WINDOW).await?;
                Cipher::Gcm256
            }
            Err(other) => return Err(other),
        };
        let made = async {
            let index = links.index(&name).await?;
            let genl = Genl::open(namespace).map_err(DeviceError::Open);
            let genl = genl.map_err(|source| failed(&name, source))?;
            let (other, reached) = (sci(channel, end.other()), BTreeMap::new());
            let mut device = Self { name: name.clone(), index, cipher, end, other, genl, reached };
            device.prove().map_err(|source| failed(&name, source))?;
            links.set_up(&name, true).await?;
            Ok(device)
        };
        match made.await {
            Ok(device) => Ok(device),
            Err(error) => {
                links.delete(&name).await?;
                Err(error)
            }
        }
    }

    /// Listens to the other end, and finds out whether a key is taken: in a user namespace, none is.
    fn prove(&mut self) -> Result<(), DeviceError> {
        self.genl.add_receiver(self.index, &self.other).map_err(DeviceError::AddReceiver)?;
        let extended = self.extended(self.end);
        let added = self.genl.add(self.index, None, 0, &Sak::trial(), 1, extended);
        added.map_err(DeviceError::AddSending)?;
        self.genl.delete(self.index, None, 0).map_err(DeviceError::Remove)
    }

    /// The device's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its cipher.
    #[must_use]
    pub fn cipher(&self) -> Cipher {
        self.cipher
    }

    fn extended(&self, sender: End) -> Option<Extended> {
        (self.cipher == Cipher::Xpn256).then(|| Extended { ssci: ssci(sender) })
    }

    /// Installs a key under an association number for both directions, and uses it in neither yet. May be repeated; another
    /// key of that number goes.
    ///
    /// # Errors
    /// [`DeviceError`].
    pub fn install(&mut self, an: u8, sak: &Sak) -> Result<(), DeviceError> {
        let mut told = self.read()?;
        let is = |of: &BTreeMap<u8, Association>| of.get(&an).map(|found| found.id == sak.id);
        if is(&told.sending) == Some(false) || is(&told.taking) == Some(false) {
            self.remove(an, &told)?;
            told = self.read()?;
        }
        let Reached { sent, taken } = self.reached.get(&sak.id).copied().unwrap_or(Reached { sent: 1, taken: 1 });
        // What comes can be read before anything is sent.
        if is(&told.taking).is_none() {
            let extended = self.extended(self.end.other());
            let added = self.genl.add(self.index, Some(&self.other), an, sak, taken, extended);
            added.map_err(DeviceError::AddTaking)?;
        }
        if is(&told.sending).is_none() {
            let added = self.genl.add(self.index, None, an, sak, sent, self.extended(self.end));
            added.map_err(DeviceError::AddSending)?;
        }
        Ok(())
    }

    /// Sends under this key, which is installed, and takes what comes under any that is; with `None` it sends and takes
    /// nothing.
    ///
    /// # Errors
    /// [`NetError::MacSecDevice`], or where the kernel refuses another number to send under.
    pub async fn send_under(&mut self, links: &Links, key: Option<KeyId>) -> Result<(), NetError> {
        let fail = |name: &str| {
            let name = name.to_owned();
            move |source| failed(&name, source)
        };
        let told = self.read().map_err(fail(&self.name))?;
        let number = key.and_then(|id| told.sending.iter().find(|(_, found)| found.id == id).map(|(an, _)| *an));
        for an in told.taking.keys() {
            self.switch(Some(self.other), *an, number.is_some(), &told.taking).map_err(fail(&self.name))?;
        }
        if let Some(an) = number {
            self.switch(None, an, true, &told.sending).map_err(fail(&self.name))?;
            if told.encoding != an {
                links.set_macsec_number(&self.name, an).await?;
            }
        }
        for an in told.sending.keys().filter(|an| Some(**an) != number) {
            self.switch(None, *an, false, &told.sending).map_err(fail(&self.name))?;
        }
        Ok(())
    }

    fn switch(
        &mut self,
        from: Option<Sci>,
        an: u8,
        on: bool,
        told: &BTreeMap<u8, Association>,
    ) -> Result<(), DeviceError> {
        if told.get(&an).is_none_or(|found| found.active == on) {
            return Ok(());
        }
        self.genl.switch(self.index, from.as_ref(), an, on).map_err(DeviceError::Switch)
    }

    /// Removes every key but these, from both directions.
    ///
    /// # Errors
    /// [`DeviceError`].
    pub fn keep_only(&mut self, keys: &BTreeSet<KeyId>) -> Result<(), DeviceError> {
        let told = self.read()?;
        for an in 0..NUMBERS as u8 {
            let mut here = [&told.sending, &told.taking].into_iter().filter_map(|of| of.get(&an));
            if here.any(|found| !keys.contains(&found.id)) {
                self.remove(an, &told)?;
            }
        }
        Ok(())
    }

    fn remove(&mut self, an: u8, told: &Told) -> Result<(), DeviceError> {
        for (from, held) in [(None, &told.sending), (Some(self.other), &told.taking)] {
            if held.contains_key(&an) {
                self.switch(from, an, false, held)?;
            }
        }
        // Read when nothing is counted any more.
        let last = self.read()?;
        for (from, held) in [(None, &last.sending), (Some(self.other), &last.taking)] {
            let Some(found) = held.get(&an) else { continue };
            let reached = self.reached.entry(found.id).or_insert(Reached { sent: 1, taken: 1 });
            match from {
                None => reached.sent = reached.sent.max(found.next.saturating_add(SKIPPED)),
                Some(_) => reached.taken = reached.taken.max(found.next),
            }
            self.genl.delete(self.index, from.as_ref(), an).map_err(DeviceError::Remove)?;
        }
        Ok(())
    }

    fn read(&mut self) -> Result<Told, DeviceError> {
        self.genl.read(self.index).map_err(DeviceError::Read)
    }

    /// What it holds.
    ///
    /// # Errors
    /// [`DeviceError::Read`].
    pub fn held(&mut self) -> Result<Held, DeviceError> {
        Ok(held(&self.read()?))
    }
}

fn held(told: &Told) -> Held {
    let both = |(an, found): (&u8, &Association)| told.taking.get(an).is_some_and(|taken| taken.id == found.id);
    let installed = told.sending.iter().filter(|sent| both(*sent)).map(|(_, found)| found.id).collect();
    let active = told.sending.get(&told.encoding).filter(|found| found.active).map(|found| found.id);
    Held { installed, active }
}

/// The name of the device on a trunk.
pub(crate) fn name(trunk: &str) -> String {
    format!("{trunk}-sec")
}

pub(crate) fn failed(device: &str, source: DeviceError) -> NetError {
    NetError::MacSecDevice { device: device.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_held_that_both_directions_have_and_active_that_what_is_sent_goes_under() {
        let one = |an: u8, id: u8, active| (an, Association { id: KeyId([id; 16]), active, next: 1 });
        let told = |encoding, sending: &[_], taking: &[_]| Told {
            encoding,
            sending: sending.iter().copied().collect(),
            taking: taking.iter().copied().collect(),
        };
        let both = told(1, &[one(0, 7, false), one(1, 8, true)], &[one(0, 7, true), one(1, 8, true)]);
        let ids = |ids: &[u8]| ids.iter().map(|id| KeyId([*id; 16])).collect::<BTreeSet<_>>();
        assert_eq!(held(&both), Held { installed: ids(&[7, 8]), active: Some(KeyId([8; 16])) });
        let half = told(1, &[one(0, 7, false), one(1, 8, false)], &[one(0, 9, true)]);
        assert_eq!(held(&half), Held { installed: ids(&[]), active: None });
        assert_eq!(held(&told(3, &[one(0, 7, true)], &[])).active, None, "the number to send under has no key");
    }

    #[test]
    fn no_two_ends_of_a_lab_have_one_identifier() {
        let all = (0..64).flat_map(|channel| [End::A, End::B].map(|end| sci(channel, end)));
        assert_eq!(all.collect::<BTreeSet<_>>().len(), 128);
        assert_ne!(ssci(End::A), ssci(End::B));
    }
}
