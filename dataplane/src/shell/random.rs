//! The gateway's randomness: the WireGuard key, drawn once in its life.

use boringtun::x25519::StaticSecret;
use rand::Rng as _;
use zeroize::Zeroizing;

/// A fresh X25519 private key.
#[expect(clippy::disallowed_methods, reason = "the one place of the data plane that draws randomness")]
pub(crate) fn private_key() -> StaticSecret {
    let mut bytes = Zeroizing::new([0; 32]);
    rand::rng().fill_bytes(bytes.as_mut_slice());
    StaticSecret::from(*bytes)
}
