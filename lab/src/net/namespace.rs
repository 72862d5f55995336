//! Named network namespaces, and work done inside them.
//!
//! A thread's network namespace is its own, so whatever must happen inside one runs on a short-lived thread that enters
//! it and ends: no thread of the runtime is ever left in a foreign namespace. A socket, a TAP or a netlink connection
//! keeps the namespace in which it was opened, wherever it is used later.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};

use super::error::NetError;

/// Where named namespaces are bound, as `ip netns` expects.
pub const DIRECTORY: &str = "/run/netns";

/// A named network namespace. It lives as long as its name is bound or something inside keeps it.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    fd: OwnedFd,
}

impl Namespace {
    /// Makes a new, empty namespace with its loopback down, bound to its name below [`DIRECTORY`].
    ///
    /// # Errors
    /// [`NetError::Namespace`] where the name is taken or the caller may not.
    pub fn create(name: &str) -> Result<Self, NetError> {
        let fail = |operation| move |source| NetError::Namespace { name: name.to_owned(), operation, source };
        let path = Self::path_of(name);
        File::options().write(true).create_new(true).open(&path).map_err(fail("make its name"))?;
        let fd = on_thread(|| -> io::Result<OwnedFd> {
            unshare(CloneFlags::CLONE_NEWNET)?;
            // The thread's own entry: the process' one would name the namespace of its first thread.
            let own = "/proc/thread-self/ns/net";
            mount(Some(own), &path, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
            Ok(File::open(&path)?.into())
        })
        .and_then(|fd| fd)
        .map_err(fail("make it"))?;
        Ok(Self { name: name.to_owned(), fd })
    }

    /// The namespace's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where the namespace is bound.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        Self::path_of(&self.name)
    }

    fn path_of(name: &str) -> PathBuf {
        Path::new(DIRECTORY).join(name)
    }

    /// Runs a closure on a thread inside the namespace and waits for it.
    ///
    /// # Errors
    /// [`NetError::Namespace`] where the namespace cannot be entered.
    ///
    /// # Panics
    /// With the closure's own panic.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, NetError> {
        let fd = self.fd.as_fd();
        on_thread(move || -> io::Result<T> {
            setns(fd, CloneFlags::CLONE_NEWNET)?;
            Ok(work())
        })
        .and_then(|done| done)
        .map_err(|source| NetError::Namespace { name: self.name.clone(), operation: "enter it", source })
    }

    /// A command that runs inside the namespace.
    #[must_use]
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let fd = self.fd.as_raw_fd();
        let mut command = Command::new(program);
        let enter = move || {
            // SAFETY: `fd` is the namespace's descriptor, inherited by the forked child: the command's owner keeps the
            // namespace for as long as it starts commands in it.
            let fd = unsafe { BorrowedFd::borrow_raw(fd) };
            setns(fd, CloneFlags::CLONE_NEWNET)?;
            Ok(())
        };
        // SAFETY: between fork and exec only setns(2) is called, which is async-signal-safe.
        unsafe { command.pre_exec(enter) };
        command
    }

    /// Writes a setting below `/proc/sys/net` of this namespace.
    ///
    /// # Errors
    /// [`NetError::Sysctl`] where the kernel has no such setting or refuses the value.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<(), NetError> {
        let path = Path::new("/proc/sys/net").join(key);
        self.run(|| std::fs::write(&path, value))?.map_err(|source| NetError::Sysctl {
            namespace: self.name.clone(),
            key: format!("net/{key}"),
            source,
        })
    }
}

impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Runs a closure on a thread of its own; its panic is the caller's.
fn on_thread<T: Send>(work: impl FnOnce() -> T + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("lab-namespace".into()).spawn_scoped(scope, work)?;
        match thread.join() {
            Ok(value) => Ok(value),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}
