//! The text that a customer carries: base64 (RFC 4648) of an activation key's JSON.

use base64::{
    Engine,
    alphabet::{STANDARD as ALPHABET, URL_SAFE as URL_ALPHABET},
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig, general_purpose::STANDARD},
};

use super::{ActivationKey, Sensitive};

/// The longest text that is looked at. A key of version 2 under an 8192-bit RSA key has less than 2,000 bytes.
pub const MAX_KEY_BYTES: usize = 8 * 1_024;

const LENIENT: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
const PLAIN: GeneralPurpose = GeneralPurpose::new(&ALPHABET, LENIENT);
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&URL_ALPHABET, LENIENT);

/// Why a text is no activation key. Nothing of the text is told.
#[derive(Debug, thiserror::Error)]
pub enum KeyTextError {
    /// Too long.
    #[error("an activation key has at most {MAX_KEY_BYTES} characters: copy it again")]
    TooLong,
    /// Not base64.
    #[error("an activation key is base64 text: copy it again, whole")]
    Base64,
    /// Not JSON of a key.
    #[error("the text holds no activation key: copy it again, whole")]
    Json,
}

/// Writes a key as a customer carries it.
#[must_use]
pub fn encode_key(key: &ActivationKey) -> Sensitive {
    // A key is numbers and text: it can always be written as JSON.
    Sensitive::new(STANDARD.encode(serde_json::to_vec(key).unwrap_or_default()))
}

/// Reads a key as a customer brings it: with or without padding, in either alphabet of RFC 4648, white space from copying
/// left out.
///
/// # Errors
/// [`KeyTextError`].
pub fn decode_key(text: &Sensitive) -> Result<ActivationKey, KeyTextError> {
    if text.expose().len() > MAX_KEY_BYTES {
        return Err(KeyTextError::TooLong);
    }
    let text: Vec<u8> = text.expose().bytes().filter(|b| !b.is_ascii_whitespace()).collect();
    let json = PLAIN.decode(&text).or_else(|_| URL_SAFE.decode(&text)).map_err(|_| KeyTextError::Base64)?;
    // The source is dropped: serde's words quote what they did not like.
    serde_json::from_slice(&json).map_err(|_| KeyTextError::Json)
}
