//! Activation keys of version 2: what a key says is encrypted to the environment where it will be brought, RSAES-OAEP with
//! SHA-256 (RFC 8017 section 7.1). The environment's key pair changes weekly, and the four newest open.
//!
//! AWS-LC draws the pairs and the padding by itself, from the operating system's generator: RSA key generation and OAEP
//! take no randomness from outside there. Nothing that is decided anywhere depends on either.

use aws_lc_rs::{
    encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der},
    rsa::{KeySize, OAEP_SHA256_MGF1SHA256, OaepPrivateDecryptingKey, OaepPublicEncryptingKey, PrivateDecryptingKey},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use jiff::SignedDuration;
use secrecy::{ExposeSecret, SecretString};
use tieline_openapi::coordinator::{
    ActivationKeyEncryptedPayload, ActivationKeyV2, EncryptionParameters, GetActivationKeyParametersResponse,
    KeyContents, KeyVersion, Timestamp,
};
use zeroize::Zeroizing;

/// The one algorithm, by its name in RFC 7518 section 4.3.
const ALGORITHM: &str = "RSA-OAEP-256";
/// The one key format. The specification's word; the text is a SubjectPublicKeyInfo (RFC 5280) in PEM (RFC 7468).
const FORMAT: &str = "PKCS8";
const PEM_TAG: &str = "PUBLIC KEY";
/// The specification's: keys under the four newest public keys are taken.
const ACCEPTED: usize = 4;
/// The specification's: a new key pair every week.
const ROTATION: SignedDuration = SignedDuration::from_hours(7 * 24);

/// Why an activation key could not be encrypted or opened. Nothing of its contents is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ActivationKeyError {
    /// No key pair could be made.
    #[error("no key pair could be made")]
    Generate,
    /// What is stored is no key pair.
    #[error("what is stored is no key pair of an environment")]
    Stored,
    /// Another algorithm than ours, or what comes is no RSA key of 2048 to 8192 bits.
    #[error("the peer's public key is not {ALGORITHM} in {FORMAT}, or no RSA key of 2048 to 8192 bits")]
    PublicKey,
    /// The peer's key is too small for the contents.
    #[error("the contents do not fit under the peer's public key")]
    TooLong,
    /// Encrypted to another key, or to one that is too old, or altered.
    #[error(
        "the activation key cannot be opened: it was altered, made for somebody else, or more than three weeks ago"
    )]
    Unopened,
}

/// One key pair of an environment.
pub struct EncryptionKey {
    made_at: Timestamp,
    private: PrivateDecryptingKey,
}

impl std::fmt::Debug for EncryptionKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EncryptionKey").field("made_at", &self.made_at).finish_non_exhaustive()
    }
}

impl EncryptionKey {
    /// A fresh pair: 3072 bits, which NIST SP 800-57 part 1 counts as 128 bits of security.
    ///
    /// # Errors
    /// [`ActivationKeyError::Generate`].
    pub fn generate(now: Timestamp) -> Result<Self, ActivationKeyError> {
        let private = PrivateDecryptingKey::generate(KeySize::Rsa3072).map_err(|_| ActivationKeyError::Generate)?;
        Ok(Self { made_at: now, private })
    }

    /// A pair as [`EncryptionKey::to_secret`] wrote it.
    ///
    /// # Errors
    /// [`ActivationKeyError::Stored`].
    pub fn from_secret(made_at: Timestamp, secret: &SecretString) -> Result<Self, ActivationKeyError> {
        let der =
            STANDARD.decode(secret.expose_secret()).map(Zeroizing::new).map_err(|_| ActivationKeyError::Stored)?;
        let private = PrivateDecryptingKey::from_pkcs8(&der).map_err(|_| ActivationKeyError::Stored)?;
        Ok(Self { made_at, private })
    }

    /// The pair as text, to be sealed: PKCS #8 (RFC 5208) in base64.
    ///
    /// # Errors
    /// [`ActivationKeyError::Stored`].
    pub fn to_secret(&self) -> Result<SecretString, ActivationKeyError> {
        let der: Pkcs8V1Der<'_> = self.private.as_der().map_err(|_| ActivationKeyError::Stored)?;
        let text = Zeroizing::new(STANDARD.encode(der.as_ref()));
        Ok(SecretString::from(text.as_str()))
    }

    /// When it was made.
    #[must_use]
    pub const fn made_at(&self) -> Timestamp {
        self.made_at
    }

    fn public_pem(&self) -> Result<String, ActivationKeyError> {
        let public = self.private.public_key();
        let der: PublicKeyX509Der<'_> = public.as_der().map_err(|_| ActivationKeyError::Stored)?;
        Ok(pem::encode(&pem::Pem::new(PEM_TAG, der.as_ref())))
    }

    fn open(&self, ciphertext: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let key = OaepPrivateDecryptingKey::new(self.private.clone()).ok()?;
        let mut message = Zeroizing::new(vec![0; key.min_output_size()]);
        let length = key.decrypt(&OAEP_SHA256_MGF1SHA256, ciphertext, &mut message, None).ok()?.len();
        message.truncate(length);
        Some(message)
    }
}

/// The key pairs of an environment, the newest first.
#[derive(Debug, Default)]
pub struct EncryptionKeys(Vec<EncryptionKey>);

impl EncryptionKeys {
    /// The pairs, in any order; those beyond the four newest are dropped.
    #[must_use]
    pub fn new(mut keys: Vec<EncryptionKey>) -> Self {
        keys.sort_by_key(|key| std::cmp::Reverse(key.made_at));
        keys.truncate(ACCEPTED);
        Self(keys)
    }

    /// Whether it is time for a new pair: there is none, or the newest is a week old.
    #[must_use]
    pub fn is_rotation_due(&self, now: Timestamp) -> bool {
        self.0.first().is_none_or(|newest| now.duration_since(newest.made_at) >= ROTATION)
    }

    /// Takes a new pair, and drops the fifth.
    #[must_use]
    pub fn rotated(mut self, fresh: EncryptionKey) -> Self {
        self.0.push(fresh);
        Self::new(self.0)
    }

    /// How many pairs open.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether no pair is there.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What is told to those who encrypt: both versions and the newest public key, or version 1 alone without any pair.
    ///
    /// # Errors
    /// [`ActivationKeyError::Stored`].
    pub fn parameters(&self) -> Result<GetActivationKeyParametersResponse, ActivationKeyError> {
        let Some(newest) = self.0.first() else {
            return Ok(GetActivationKeyParametersResponse { supported_versions: vec![1], encryption: None });
        };
        let encryption = EncryptionParameters {
            public_key: Some(newest.public_pem()?),
            algorithm: Some(ALGORITHM.to_owned()),
            key_format: Some(FORMAT.to_owned()),
        };
        Ok(GetActivationKeyParametersResponse { supported_versions: vec![1, 2], encryption: Some(encryption) })
    }

    /// Opens a key.
    ///
    /// # Errors
    /// [`ActivationKeyError::Unopened`], for every reason the same.
    pub fn open(&self, key: &ActivationKeyV2) -> Result<KeyContents, ActivationKeyError> {
        let unopened = ActivationKeyError::Unopened;
        let ciphertext = STANDARD.decode(&key.encrypted_contents).map_err(|_| unopened)?;
        let message = self.0.iter().find_map(|pair| pair.open(&ciphertext)).ok_or(unopened)?;
        let payload: ActivationKeyEncryptedPayload = serde_json::from_slice(&message).map_err(|_| unopened)?;
        KeyContents::of_payload(&payload).map_err(|_| unopened)
    }
}

/// Encrypts what a key says to the environment where it will be brought.
///
/// # Errors
/// [`ActivationKeyError::PublicKey`] and [`ActivationKeyError::TooLong`].
pub fn encrypt(
    contents: &KeyContents,
    destination_environment_uri: &str,
    to: &EncryptionParameters,
) -> Result<ActivationKeyV2, ActivationKeyError> {
    let wrong = ActivationKeyError::PublicKey;
    if to.algorithm.as_deref() != Some(ALGORITHM) || to.key_format.as_deref() != Some(FORMAT) {
        return Err(wrong);
    }
    let public = pem::parse(to.public_key.as_deref().unwrap_or_default()).map_err(|_| wrong)?;
    if public.tag() != PEM_TAG {
        return Err(wrong);
    }
    let public = aws_lc_rs::rsa::PublicEncryptingKey::from_der(public.contents()).map_err(|_| wrong)?;
    let key = OaepPublicEncryptingKey::new(public).map_err(|_| wrong)?;
    // The payload is numbers and text: it can always be written as JSON.
    let message = Zeroizing::new(serde_json::to_vec(&contents.to_payload()).unwrap_or_default());
    if message.len() > key.max_plaintext_size(&OAEP_SHA256_MGF1SHA256) {
        return Err(ActivationKeyError::TooLong);
    }
    let mut sealed = vec![0; key.ciphertext_size()];
    let sealed = key.encrypt(&OAEP_SHA256_MGF1SHA256, &message, &mut sealed, None).map_err(|_| wrong)?;
    Ok(ActivationKeyV2 {
        version: KeyVersion,
        destination_environment_uri: destination_environment_uri.to_owned(),
        encrypted_contents: STANDARD.encode(&*sealed),
    })
}

#[cfg(test)]
mod tests {
    use std::sync::OnceLock;

    use proptest::prelude::*;
    use tieline_openapi::{
        coordinator::{ActivationKey, Sensitive, decode_key},
        units::BandwidthMbps,
    };
    use uuid::Uuid;

    use super::*;

    const URI: &str = "providers/south/environments/e1";

    fn start() -> Timestamp {
        "2026-01-05T00:00:00Z".parse().unwrap()
    }

    fn week(n: i64) -> Timestamp {
        start() + SignedDuration::from_hours(n * 7 * 24)
    }

    /// Five pairs, a week apart: making one takes a moment.
    fn pair(n: usize) -> EncryptionKey {
        static PAIRS: OnceLock<Vec<SecretString>> = OnceLock::new();
        let make = || (0..5).map(|_| EncryptionKey::generate(start()).unwrap().to_secret().unwrap()).collect();
        EncryptionKey::from_secret(week(n as i64), &PAIRS.get_or_init(make)[n]).unwrap()
    }

    fn contents(account: &str) -> KeyContents {
        KeyContents {
            shared_connection_uuid: Uuid::from_u128(7),
            bandwidth: BandwidthMbps::try_from(800_000).unwrap(),
            destination_account_id: account.to_owned(),
        }
    }

    fn encryption(keys: &EncryptionKeys) -> EncryptionParameters {
        keys.parameters().unwrap().encryption.unwrap()
    }

    #[test]
    fn a_key_opens_under_the_four_newest_pairs() {
        let mut keys = EncryptionKeys::default();
        assert!(keys.is_empty() && keys.is_rotation_due(start()));
        assert_eq!(keys.parameters().unwrap().supported_versions, [1]);
        let mut made = Vec::new();
        for n in 0..5 {
            assert!(keys.is_rotation_due(week(n as i64)));
            keys = keys.rotated(pair(n));
            assert!(!keys.is_rotation_due(week(n as i64)));
            assert!(!keys.is_rotation_due(week(n as i64 + 1) - SignedDuration::from_secs(1)));
            // A clock that was set back makes no pair.
            assert!(!keys.is_rotation_due(week(n as i64 - 9)));
            made.push(encrypt(&contents("123456789012"), URI, &encryption(&keys)).unwrap());
        }
        assert_eq!(keys.len(), 4);
        assert_eq!(keys.open(&made[0]), Err(ActivationKeyError::Unopened));
        for key in &made[1..] {
            let text = ActivationKey::V2(key.clone()).encode();
            let ActivationKey::V2(back) = decode_key(&text).unwrap() else { panic!("another version") };
            assert_eq!(keys.open(&back).unwrap(), contents("123456789012"));
        }
        assert_ne!(made[4], encrypt(&contents("123456789012"), URI, &encryption(&keys)).unwrap(), "padding is random");
        assert!(!format!("{:?}", made[4]).contains("123456789012"));
    }

    #[test]
    fn the_longest_account_fits_under_the_smallest_key() {
        let small = PrivateDecryptingKey::generate(KeySize::Rsa2048).unwrap();
        let keys = EncryptionKeys::new(vec![EncryptionKey { made_at: start(), private: small }]);
        let account = "9".repeat(tieline_openapi::coordinator::MAX_ACCOUNT_ID_BYTES);
        let key = encrypt(&contents(&account), URI, &encryption(&keys)).unwrap();
        assert_eq!(keys.open(&key).unwrap(), contents(&account));
        assert_eq!(encrypt(&contents(&"9".repeat(80)), URI, &encryption(&keys)), Err(ActivationKeyError::TooLong));
    }

    #[test]
    fn another_algorithm_or_no_key_is_refused() {
        let keys = EncryptionKeys::new(vec![pair(0)]);
        let good = encryption(&keys);
        let private = pem::encode(&pem::Pem::new("PRIVATE KEY", b"x".as_slice()));
        for wrong in [
            EncryptionParameters { algorithm: Some("RSA-OAEP".to_owned()), ..good.clone() },
            EncryptionParameters { algorithm: None, ..good.clone() },
            EncryptionParameters { key_format: Some("JWK".to_owned()), ..good.clone() },
            EncryptionParameters { public_key: None, ..good.clone() },
            EncryptionParameters { public_key: Some(private), ..good.clone() },
            EncryptionParameters { public_key: good.public_key.map(|pem| pem.replace('M', "A")), ..encryption(&keys) },
        ] {
            assert_eq!(encrypt(&contents("1"), URI, &wrong), Err(ActivationKeyError::PublicKey), "{wrong:?}");
        }
        let error = EncryptionKey::from_secret(start(), &SecretString::from("AAAA")).unwrap_err();
        assert_eq!(error, ActivationKeyError::Stored);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

        /// Whatever stands in a key, it opens as it was made or not at all.
        #[test]
        fn an_altered_key_does_not_open(at: prop::sample::Index, flip in 1u8.., cut: bool, noise: Vec<u8>) {
            let keys = EncryptionKeys::new(vec![pair(1), pair(2)]);
            let good = encrypt(&contents("1"), URI, &encryption(&keys)).unwrap();
            let mut bytes = STANDARD.decode(&good.encrypted_contents).unwrap();
            let at = at.index(bytes.len());
            if cut { bytes.truncate(at) } else { bytes[at] ^= flip }
            for bytes in [bytes, noise] {
                let key = ActivationKeyV2 { encrypted_contents: STANDARD.encode(bytes), ..good.clone() };
                prop_assert_eq!(keys.open(&key), Err(ActivationKeyError::Unopened));
            }
        }

        #[test]
        fn no_contents_are_a_panic(text in "\\PC{0,200}") {
            let keys = EncryptionKeys::new(vec![pair(0)]);
            let key = ActivationKeyV2 {
                version: KeyVersion, destination_environment_uri: URI.to_owned(), encrypted_contents: text.clone(),
            };
            prop_assert_eq!(keys.open(&key), Err(ActivationKeyError::Unopened));
            let _ = decode_key(&Sensitive::new(text));
        }
    }
}
