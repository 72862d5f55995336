//! Drawing secrets.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use secrecy::SecretString;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::engine::clock::Random;

/// Characters that every cloud and every router takes in a TCP MD5 key (RFC 2385).
const ALPHANUMERICS: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

/// Characters of a BGP password: 142 bits. AWS takes 6 to 80 characters, Google up to 80.
const PASSWORD: usize = 24;

/// A BGP password: 24 alphanumerics, each equally likely.
#[must_use]
pub fn bgp_password(random: &dyn Random) -> SecretString {
    let mut password = Zeroizing::new(String::with_capacity(PASSWORD));
    let mut bytes = Zeroizing::new([0u8; 64]);
    while password.len() < PASSWORD {
        random.fill(&mut *bytes);
        // 248 is four times 62: what lies above would favour the first characters.
        for byte in bytes.iter().filter(|&&byte| byte < 248).take(PASSWORD - password.len()) {
            password.push(char::from(ALPHANUMERICS[usize::from(byte % 62)]));
        }
    }
    SecretString::from(password.as_str())
}

/// A bearer secret, of an API token, a join token or a gateway: `tl_` and 256 random bits in base64url (RFC 4648
/// section 5), 43 characters.
#[must_use]
pub fn token_secret(random: &dyn Random) -> SecretString {
    let mut bytes = Zeroizing::new([0u8; 32]);
    random.fill(&mut *bytes);
    let text = Zeroizing::new(format!("tl_{}", URL_SAFE_NO_PAD.encode(bytes.as_slice())));
    SecretString::from(text.as_str())
}

/// What is stored of a bearer secret: its SHA-256. With 256 random bits in it, nothing slower is needed.
#[must_use]
pub fn token_hash(secret: &str) -> [u8; 32] {
    Sha256::digest(secret.as_bytes()).into()
}
