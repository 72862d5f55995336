//! The key ring: one key a line, the last one seals, all of them open.

use std::{
    fmt,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::engine::clock::Random;

/// Bytes of a key.
const KEY: usize = 32;

/// Which key: the first 64 bits of a hash of it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyId(pub(super) [u8; Self::BYTES]);

impl KeyId {
    /// Bytes of an id.
    pub const BYTES: usize = 8;

    fn of(key: &[u8; KEY]) -> Self {
        let hash = Sha256::new().chain_update(b"tieline key id").chain_update(key).finalize();
        let mut id = [0; Self::BYTES];
        id.copy_from_slice(&hash[..Self::BYTES]);
        Self(id)
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyId({self})")
    }
}

/// Why there is no key ring.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file cannot be read.
    #[error("the key file {path} cannot be read: check that it exists and who may read it")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file cannot be made.
    #[error("the key file {path} cannot be made: check that its folder exists and who may write there")]
    Make {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Anybody may read it.
    #[error("the key file {path} is open to everybody (mode {mode:o}): run `chmod 600 {path}`")]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A line is no key.
    #[error(
        "line {line} of the keys is no key: a key is 32 random bytes in base64, as `openssl rand -base64 32` prints"
    )]
    Malformed {
        /// Counts from 1.
        line: usize,
    },
    /// Nothing in it.
    #[error("there is no key in the key file: restore it, what was sealed under it cannot be opened without")]
    Empty,
}

/// Seals and opens secrets. To rotate, append a line to the key file: new secrets are sealed under the last key, older ones
/// open under theirs until that line is taken out.
pub struct Sealer {
    keys: Vec<(KeyId, Zeroizing<[u8; KEY]>)>,
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.keys.iter().map(|(id, _)| id)).finish()
    }
}

impl Sealer {
    /// A ring from text: one key a line, 32 bytes in base64; empty lines and lines that begin with `#` do not count.
    ///
    /// # Errors
    /// [`KeyError::Malformed`] and [`KeyError::Empty`].
    pub fn from_text(text: &SecretString) -> Result<Self, KeyError> {
        let mut keys = Vec::new();
        for (n, line) in text.expose_secret().lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let bytes = STANDARD.decode(line).map(Zeroizing::new).map_err(|_| KeyError::Malformed { line: n + 1 })?;
            let mut key = Zeroizing::new([0; KEY]);
            if bytes.len() != KEY {
                return Err(KeyError::Malformed { line: n + 1 });
            }
            key.copy_from_slice(&bytes);
            keys.push((KeyId::of(&key), key));
        }
        if keys.is_empty() { Err(KeyError::Empty) } else { Ok(Self { keys }) }
    }

    /// The ring of a key file, which must not be open to everybody.
    ///
    /// # Errors
    /// [`KeyError::Read`], [`KeyError::Exposed`], and as [`Sealer::from_text`].
    pub fn from_key_file(path: &Path) -> Result<Self, KeyError> {
        let unread = |source| KeyError::Read { path: path.to_owned(), source };
        let file = File::open(path).map_err(unread)?;
        let mode = file.metadata().map_err(unread)?.mode() & 0o777;
        if mode & 0o007 != 0 {
            return Err(KeyError::Exposed { path: path.to_owned(), mode });
        }
        let text = io::read_to_string(file).map_err(unread)?;
        Self::from_text(&SecretString::from(text))
    }

    /// The ring of a key file, which is made with a fresh key (mode 0600) if it is not there. The flag tells whether it was.
    ///
    /// # Errors
    /// [`KeyError::Make`], and as [`Sealer::from_key_file`].
    pub fn from_key_file_or_new(path: &Path, random: &dyn Random) -> Result<(Self, bool), KeyError> {
        match Self::from_key_file(path) {
            Err(KeyError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
            found => return Ok((found?, false)),
        }
        let made = make(path, random).map_err(|source| KeyError::Make { path: path.to_owned(), source })?;
        Ok((Self::from_key_file(path)?, made))
    }

    pub(super) fn newest(&self) -> (KeyId, &[u8; KEY]) {
        // Every constructor refuses an empty ring.
        let (id, key) = &self.keys[self.keys.len() - 1];
        (*id, key)
    }

    pub(super) fn key(&self, id: KeyId) -> Option<&[u8; KEY]> {
        self.keys.iter().find(|(known, _)| *known == id).map(|(_, key)| &**key)
    }
}

/// Writes a fresh key beside the file and links it into place whole: neither a crash nor another process that starts at
/// the same moment leaves half a key, or replaces one that is in use. False if another was first.
fn make(path: &Path, random: &dyn Random) -> io::Result<bool> {
    let mut key = Zeroizing::new([0; KEY]);
    random.fill(&mut *key);
    let line = Zeroizing::new(format!("{}\n", STANDARD.encode(key.as_slice())));
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{}", std::process::id()));
    let beside = PathBuf::from(beside);
    let written = write_whole(&beside, line.as_bytes()).and_then(|()| match fs::hard_link(&beside, path) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(e) => Err(e),
    });
    let removed = fs::remove_file(&beside);
    let written = written?;
    removed?;
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()?;
    Ok(written)
}

fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    // What a crashed process of the same id left is no key of anybody.
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}
