//! The key of a secure association, from the key of a connectivity association.
//!
//! Between two real devices, IEEE 802.1X's key agreement does this: one end draws the association's key at random and hands it to
//! the other, wrapped under the CAK, with an association number. No such daemon runs in a lab. Both ends derive the key
//! alone instead, from CAK and CKN by HKDF (RFC 5869, SHA-256), salted with what the lab drew when it began: a key that is
//! used in a second lab encrypts under another association's key there, and no packet number comes twice under one.

use std::fmt;

use data_encoding::HEXLOWER_PERMISSIVE;
use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::Zeroizing;

use super::{MacSecError, MacSecKey};

/// Octets of a key of GCM-AES-256.
pub(super) const KEY: usize = 32;
/// Octets of the salt of a cipher with extended packet numbers (IEEE 802.1AE-2018, 10.7.8).
pub(super) const SALT: usize = 12;
/// Octets of a key's identifier.
const ID: usize = 16;

/// What an association's key is known by (IEEE 802.1X's key identifier): tells nothing of the key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(pub(super) [u8; ID]);

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER_PERMISSIVE.encode(&self.0))
    }
}

/// The key of a secure association. It is wiped when it goes.
pub struct Sak {
    pub(super) id: KeyId,
    pub(super) key: Zeroizing<[u8; KEY]>,
    pub(super) salt: Zeroizing<[u8; SALT]>,
}

impl fmt::Debug for Sak {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sak").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Sak {
    /// The key that stands for `key` on a trunk of the lab that drew `lab`.
    ///
    /// # Errors
    /// [`MacSecError::Name`] or [`MacSecError::Secret`] where the key is malformed.
    pub fn derive(lab: &[u8; 32], trunk: &str, key: &MacSecKey) -> Result<Self, MacSecError> {
        let ckn = decode(key.ckn.expose()).ok_or(MacSecError::Name)?;
        let cak = decode(key.cak.expose()).filter(|cak| cak.len() == KEY).ok_or(MacSecError::Secret)?;
        let lengths = [trunk.len(), ckn.len()].map(|length| u8::try_from(length).map_err(|_| MacSecError::Name));
        let [trunk_length, ckn_length] = lengths;
        let info: [&[u8]; 5] =
            [b"Tieline lab, MACsec SAK", &[trunk_length?], trunk.as_bytes(), &[ckn_length?], ckn.as_slice()];
        let mut material = Zeroizing::new([0; KEY + SALT + ID]);
        let expanded = Hkdf::<Sha256>::new(Some(lab), &cak).expand_multi_info(&info, material.as_mut_slice());
        // Not reached: SHA-256 expands to 8160 octets.
        expanded.map_err(|_| MacSecError::Secret)?;
        let mut sak = Self { id: KeyId([0; ID]), key: Zeroizing::default(), salt: Zeroizing::default() };
        let (key, rest) = material.split_at(KEY);
        let (salt, id) = rest.split_at(SALT);
        sak.key.copy_from_slice(key);
        sak.salt.copy_from_slice(salt);
        sak.id.0.copy_from_slice(id);
        Ok(sak)
    }

    /// What it is known by.
    #[must_use]
    pub fn id(&self) -> KeyId {
        self.id
    }

    /// A key to find out with whether this machine takes any. Nothing ever goes under it.
    pub(super) fn trial() -> Self {
        Self { id: KeyId([0xa5; ID]), key: Zeroizing::new([0xa5; KEY]), salt: Zeroizing::new([0xa5; SALT]) }
    }
}

fn decode(digits: &str) -> Option<Zeroizing<Vec<u8>>> {
    HEXLOWER_PERMISSIVE.decode(digits.as_bytes()).ok().map(Zeroizing::new)
}

#[cfg(test)]
mod tests {
    use tieline_openapi::coordinator::Sensitive;

    use super::*;

    fn key(ckn: &str, digit: &str) -> MacSecKey {
        MacSecKey { ckn: Sensitive::new(ckn), cak: Sensitive::new(digit.repeat(64)) }
    }

    #[test]
    fn both_ends_derive_the_same_and_nothing_else_leads_to_it() {
        let sak = |lab: u8, trunk: &str, key: &MacSecKey| Sak::derive(&[lab; 32], trunk, key).unwrap();
        let one = sak(1, "ch0", &key("0a0b", "c"));
        let again = sak(1, "ch0", &key("0A0B", "C"));
        assert_eq!((one.id, *one.key, *one.salt), (again.id, *again.key, *again.salt), "a digit is one in either case");
        let others = [
            sak(2, "ch0", &key("0a0b", "c")),
            sak(1, "ch1", &key("0a0b", "c")),
            sak(1, "ch0", &key("0a0c", "c")),
            sak(1, "ch0", &key("0a0b00", "c")),
            sak(1, "ch0", &key("0a0b", "d")),
        ];
        for other in others {
            assert!(other.id != one.id && *other.key != *one.key && *other.salt != *one.salt);
        }
        assert!(!format!("{one:?}").contains(&HEXLOWER_PERMISSIVE.encode(one.key.as_slice())));
        assert_eq!(Sak::derive(&[0; 32], "ch0", &key("0a0", "c")).unwrap_err(), MacSecError::Name);
        assert_eq!(Sak::derive(&[0; 32], "ch0", &key("0a", "x")).unwrap_err(), MacSecError::Secret);
    }

    /// Made by another implementation of RFC 5869, of twelve lines over HMAC.
    #[test]
    fn the_derivation_stays_what_it_is() {
        let sak = Sak::derive(&[7; 32], "ch0", &key("0a0b", "c")).unwrap();
        let expected = "f8c991b8ff9323eba34e1bf99d86fa28c5fbc1344f4c392247b48b08fb9bf3d0";
        assert_eq!(HEXLOWER_PERMISSIVE.encode(sak.key.as_slice()), expected);
    }
}
