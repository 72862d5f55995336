//! Network namespaces. A namespace belongs to a thread, so everything that lives in the gateway's runs on threads made here.

use std::{
    fs::File,
    io,
    os::fd::{AsFd, BorrowedFd},
    path::{Path, PathBuf},
    sync::Arc,
    thread::{Builder, JoinHandle},
};

use nix::sched::{CloneFlags, setns, unshare};

/// The namespace of the data path.
#[derive(Debug, Clone)]
pub struct NetNs(Option<Arc<File>>);

/// Why a namespace cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum NetNsError {
    /// No such file.
    #[error("cannot open the network namespace {path}; list them with `ip netns`")]
    Open {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Not a namespace, or no right to it.
    #[error("cannot enter the network namespace {path}; it needs CAP_SYS_ADMIN")]
    Enter {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The machine has no thread left.
    #[error("cannot start a thread")]
    Thread(#[source] io::Error),
}

impl NetNs {
    /// The namespace at `path`, or the current one, and whether it can be entered.
    ///
    /// # Errors
    /// When it cannot be.
    pub fn open(path: Option<&Path>) -> Result<Self, NetNsError> {
        let Some(path) = path else { return Ok(Self(None)) };
        let file = File::open(path).map_err(|source| NetNsError::Open { path: path.to_owned(), source })?;
        let netns = Self(Some(Arc::new(file)));
        let tried = netns.clone();
        Builder::new()
            .spawn(move || tried.enter())
            .map_err(NetNsError::Thread)?
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("the thread panicked")))
            .map_err(|source| NetNsError::Enter { path: path.to_owned(), source })?;
        Ok(netns)
    }

    /// A new one without a name, gone with the last that holds it.
    ///
    /// # Errors
    /// When this process may not make one.
    pub fn fresh() -> io::Result<Self> {
        let made = Builder::new().spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET)?;
            File::open("/proc/thread-self/ns/net")
        })?;
        let file = made.join().unwrap_or_else(|_| Err(io::Error::other("the thread panicked")))?;
        Ok(Self(Some(Arc::new(file))))
    }

    /// Its descriptor; `None`: it is the current one.
    #[must_use]
    pub fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.0.as_ref().map(|file| file.as_fd())
    }

    fn enter(&self) -> io::Result<()> {
        match &self.0 {
            Some(file) => Ok(setns(file, CloneFlags::CLONE_NEWNET)?),
            None => Ok(()),
        }
    }

    /// Runs `work` on a thread of its own inside the namespace.
    ///
    /// # Errors
    /// When there is no thread, or (from the thread) when the namespace cannot be entered any more.
    pub fn spawn<T: Send + 'static>(
        &self,
        name: &str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<JoinHandle<io::Result<T>>> {
        let netns = self.clone();
        Builder::new().name(name.to_owned()).spawn(move || {
            netns.enter()?;
            Ok(work())
        })
    }
}
