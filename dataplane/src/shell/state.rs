//! What a gateway keeps on disk: its key, which never leaves, its credential, its last configuration.

use std::{
    collections::BTreeMap,
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    },
    path::{Path, PathBuf},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use boringtun::x25519::StaticSecret;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tieline_openapi::{
    ids::{ConnectionId, GatewayId},
    v1::{GatewayConfiguration, TunnelBackend},
};
use zeroize::{ZeroizeOnDrop, Zeroizing};

use super::random;
use crate::proto::path::Hold;

const KEY: &str = "wireguard.key";
const LANES: &str = "lanes.json";
const CREDENTIAL: &str = "credential.json";
const CONFIGURATION: &str = "configuration.json";
const KERNEL_KEY: &str = "wireguard-kernel.key";
const BACKEND: &str = "backend.json";
const HOLDS: &str = "holds.json";
const STARTS: &str = "starts.json";
const LOCK: &str = "lock";

/// Why the state cannot be read or kept.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The folder cannot be made.
    #[error("cannot make the state folder {path}")]
    Folder {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Others could read it.
    #[error("the state folder {path} is open to others (mode {mode:o}); run `chmod 700 {path}`")]
    Open {
        /// Which.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// Two gateways on one state.
    #[error("another gateway runs on the state folder {path}; give this one its own")]
    Locked {
        /// Which.
        path: PathBuf,
    },
    /// A file cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file cannot be written.
    #[error("cannot write {path}")]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file is not what this program wrote. Its content is not shown: it may be a secret.
    #[error("{path} is damaged; restore it, or remove it and join again with a new token")]
    Damaged {
        /// Which.
        path: PathBuf,
    },
}

/// Who this gateway is to the API.
#[derive(Clone)]
pub struct Credential {
    /// Its id.
    pub gateway_id: GatewayId,
    /// The bearer of its two endpoints.
    pub secret: SecretString,
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credential").field("gateway_id", &self.gateway_id).finish_non_exhaustive()
    }
}

#[derive(Serialize, Deserialize, ZeroizeOnDrop)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct CredentialFile {
    #[zeroize(skip)]
    gateway_id: GatewayId,
    credential: String,
}

/// The state folder, locked for this process.
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
    /// Locked for as long as any process has a copy of the descriptor.
    lock: File,
}

impl StateDir {
    /// Opens the folder, makes it (0700) where it is missing, and locks it.
    ///
    /// # Errors
    /// When it cannot be made, is open to others, or another gateway runs on it.
    pub fn open(path: &Path) -> Result<Self, StateError> {
        let folder = |source| StateError::Folder { path: path.to_owned(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(folder)?;
        let lock = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path.join(LOCK));
        Self::with(path, lock.map_err(folder)?)
    }

    /// Takes over the folder from the process that has it locked; `lock` is its own descriptor.
    ///
    /// # Errors
    /// As for [`open`](Self::open).
    pub fn take_over(path: &Path, lock: OwnedFd) -> Result<Self, StateError> {
        Self::with(path, lock.into())
    }

    /// The descriptor of the lock: whoever has a copy of it has the lock.
    #[must_use]
    pub fn lock(&self) -> BorrowedFd<'_> {
        self.lock.as_fd()
    }

    fn with(path: &Path, lock: File) -> Result<Self, StateError> {
        let folder = |source| StateError::Folder { path: path.to_owned(), source };
        let mode = fs::metadata(path).map_err(folder)?.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(StateError::Open { path: path.to_owned(), mode });
        }
        lock.try_lock().map_err(|_| StateError::Locked { path: path.to_owned() })?;
        Ok(Self { path: path.to_owned(), lock })
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The WireGuard private key of lane `n`; drawn and kept at the first call.
    ///
    /// # Errors
    /// When it cannot be read or kept.
    pub fn private_key(&self, n: u8) -> Result<StaticSecret, StateError> {
        if n == 0 { self.key(KEY) } else { self.key(&format!("wireguard-{n}.key")) }
    }

    /// The private key of the kernel's WireGuard, which no lane has; drawn and kept at the first call.
    ///
    /// # Errors
    /// When it cannot be read or kept.
    pub fn kernel_key(&self) -> Result<StaticSecret, StateError> {
        self.key(KERNEL_KEY)
    }

    fn key(&self, name: &str) -> Result<StaticSecret, StateError> {
        if let Some(text) = self.read(name)? {
            let bytes = Zeroizing::new(STANDARD.decode(text.trim_ascii()).map_err(|_| self.damaged(name))?);
            let bytes = Zeroizing::new(<[u8; 32]>::try_from(bytes.as_slice()).map_err(|_| self.damaged(name))?);
            return Ok(StaticSecret::from(*bytes));
        }
        let key = random::private_key();
        let text = Zeroizing::new(STANDARD.encode(key.as_bytes()));
        self.write(name, text.as_bytes())?;
        Ok(key)
    }

    /// Which WireGuard a person has ordered here; `None`: nothing was.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn backend(&self) -> Result<Option<TunnelBackend>, StateError> {
        self.read_json(BACKEND)
    }

    /// Keeps it.
    ///
    /// # Errors
    /// When it cannot be kept.
    pub fn keep_backend(&self, backend: TunnelBackend) -> Result<(), StateError> {
        self.write_json(BACKEND, &backend)
    }

    /// The lanes that this gateway has joined with; `None`: it joined before it kept the number, or not yet.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn lanes(&self) -> Result<Option<u8>, StateError> {
        self.read_json(LANES)
    }

    /// Keeps the number of lanes.
    ///
    /// # Errors
    /// When it cannot be kept.
    pub fn keep_lanes(&self, lanes: u8) -> Result<(), StateError> {
        self.write_json(LANES, &lanes)
    }

    /// Counts this start: 1 at the first. Peers tell a restarted gateway by it, so it must never fall.
    ///
    /// # Errors
    /// When it cannot be kept.
    pub fn count_start(&self) -> Result<u64, StateError> {
        let starts = self.read_json::<u64>(STARTS)?.unwrap_or(0) + 1;
        self.write_json(STARTS, &starts)?;
        Ok(starts)
    }

    /// Who this gateway is; `None` before it has joined.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn credential(&self) -> Result<Option<Credential>, StateError> {
        let file = self.read_json::<CredentialFile>(CREDENTIAL)?;
        Ok(file.map(|file| Credential {
            gateway_id: file.gateway_id,
            secret: SecretString::from(file.credential.clone()),
        }))
    }

    /// Keeps the credential.
    ///
    /// # Errors
    /// When it cannot be kept.
    pub fn keep_credential(&self, credential: &Credential) -> Result<(), StateError> {
        let secret = credential.secret.expose_secret().to_owned();
        self.write_json(CREDENTIAL, &CredentialFile { gateway_id: credential.gateway_id, credential: secret })
    }

    /// The last configuration.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn configuration(&self) -> Result<Option<GatewayConfiguration>, StateError> {
        self.read_json(CONFIGURATION)
    }

    /// Keeps a configuration for the time that the API is gone.
    ///
    /// # Errors
    /// When it cannot be kept.
    pub fn keep_configuration(&self, configuration: &GatewayConfiguration) -> Result<(), StateError> {
        self.write_json(CONFIGURATION, configuration)
    }

    /// The pins and freezes that people have ordered here.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn holds(&self) -> Result<BTreeMap<ConnectionId, Hold>, StateError> {
        Ok(self.read_json(HOLDS)?.unwrap_or_default())
    }

    /// Keeps them.
    ///
    /// # Errors
    /// When they cannot be kept.
    pub fn keep_holds(&self, holds: &BTreeMap<ConnectionId, Hold>) -> Result<(), StateError> {
        self.write_json(HOLDS, holds)
    }

    fn damaged(&self, name: &str) -> StateError {
        StateError::Damaged { path: self.path.join(name) }
    }

    fn read(&self, name: &str) -> Result<Option<Zeroizing<Vec<u8>>>, StateError> {
        let path = self.path.join(name);
        match fs::read(&path) {
            Ok(bytes) => Ok(Some(Zeroizing::new(bytes))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(StateError::Read { path, source }),
        }
    }

    fn read_json<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, StateError> {
        let Some(bytes) = self.read(name)? else { return Ok(None) };
        serde_json::from_slice(&bytes).map(Some).map_err(|_| self.damaged(name))
    }

    fn write_json<T: Serialize>(&self, name: &str, value: &T) -> Result<(), StateError> {
        let bytes = Zeroizing::new(
            serde_json::to_vec(value)
                .map_err(|error| StateError::Write { path: self.path.join(name), source: io::Error::other(error) })?,
        );
        self.write(name, &bytes)
    }

    /// Writes a file of mode 0600 so that a crash leaves the old one or the new one, whole.
    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), StateError> {
        let (path, new) = (self.path.join(name), self.path.join(format!("{name}.new")));
        let write = || {
            let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&new)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            fs::rename(&new, &path)?;
            File::open(&self.path)?.sync_all()
        };
        write().map_err(|source| StateError::Write { path: path.clone(), source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_everything_and_shows_it_to_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gateway");
        let credential =
            Credential { gateway_id: GatewayId(uuid::Uuid::from_u128(1)), secret: "s3cret".to_owned().into() };
        let key = {
            let state = StateDir::open(&path).unwrap();
            assert!(matches!(StateDir::open(&path), Err(StateError::Locked { .. })));
            assert!(state.credential().unwrap().is_none());
            assert_eq!(state.count_start().unwrap(), 1);
            state.keep_credential(&credential).unwrap();
            state.private_key(0).unwrap()
        };
        let state = StateDir::open(&path).unwrap();
        assert_eq!(state.private_key(0).unwrap().as_bytes(), key.as_bytes());
        let second = state.private_key(1).unwrap();
        assert_ne!(second.as_bytes(), key.as_bytes(), "each lane has its own");
        assert_eq!(state.private_key(1).unwrap().as_bytes(), second.as_bytes());
        let kernel = state.kernel_key().unwrap();
        assert!([key.as_bytes(), second.as_bytes()].iter().all(|lane| **lane != *kernel.as_bytes()), "and the kernel");
        assert_eq!(state.kernel_key().unwrap().as_bytes(), kernel.as_bytes());
        assert_eq!(state.backend().unwrap(), None);
        state.keep_backend(TunnelBackend::Kernel).unwrap();
        assert_eq!(state.backend().unwrap(), Some(TunnelBackend::Kernel));
        assert_eq!(state.lanes().unwrap(), None);
        state.keep_lanes(2).unwrap();
        assert_eq!(state.lanes().unwrap(), Some(2));
        assert_eq!(state.count_start().unwrap(), 2);
        let kept = state.credential().unwrap().unwrap();
        assert_eq!((kept.gateway_id, kept.secret.expose_secret()), (credential.gateway_id, "s3cret"));
        assert!(!format!("{kept:?}").contains("s3cret"));
        for entry in fs::read_dir(&path).unwrap() {
            let mode = entry.unwrap().metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
        fs::write(path.join(KEY), "not a key").unwrap();
        assert!(matches!(state.private_key(0), Err(StateError::Damaged { .. })));
        drop(state);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o750)).unwrap();
        assert!(matches!(StateDir::open(&path), Err(StateError::Open { mode: 0o750, .. })));
    }
}
