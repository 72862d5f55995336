//! Runs commands inside a lab.

use std::ffi::{CString, OsStr};
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitStatus};

use super::CellError;
use super::record;
use super::spawn::check;

/// Where inside a lab a command runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the lab's processes and mounts, with the network of a host: `a-host`, `a-gw`, `a-router`, ….
    Host(String),
    /// In the lab's processes and mounts, with the network that the lab itself has: that of whoever started it.
    Outside,
}

impl Place {
    /// Reads a host's name; `-` is [`Place::Outside`].
    #[must_use]
    pub fn parse(name: &str) -> Self {
        if name == "-" { Self::Outside } else { Self::Host(name.to_owned()) }
    }
}

/// A command that runs inside the lab of a directory, as a child of the caller.
///
/// The child that the caller holds is a go-between in the caller's own pid namespace: it hands on every signal that it
/// is sent, ends with the command's exit code (128 and the number for a signal), and takes the command with it when it
/// is killed; [`kill_command`] kills the command and lets the go-between see its end. The command ends with the lab.
///
/// # Errors
/// [`CellError::NotUp`] where there is no lab, [`CellError::UnknownHost`] where it has no such host.
pub fn command(dir: &Path, place: &Place, program: impl AsRef<OsStr>) -> Result<Command, CellError> {
    let living = record::find(dir)?.ok_or_else(|| CellError::NotUp { dir: dir.to_owned() })?;
    let network = match place {
        Place::Outside => None,
        Place::Host(host) if living.record.hosts.contains(host) => {
            let path = Path::new(crate::net::namespace::DIRECTORY).join(host);
            let path = CString::new(path.as_os_str().as_encoded_bytes());
            Some(path.map_err(|e| CellError::Kernel { operation: "name the host's network", source: e.into() })?)
        }
        Place::Host(host) => {
            return Err(CellError::UnknownHost { host: host.clone(), known: living.record.hosts.join(", ") });
        }
    };
    let mut flags = libc::CLONE_NEWNS | libc::CLONE_NEWPID;
    if living.record.user_namespace {
        flags |= libc::CLONE_NEWUSER;
    }
    let mut command = Command::new(program);
    let kill = kill_signal();
    let enter = move || {
        enter(living.pidfd.as_raw_fd(), flags, network.as_deref())?;
        go_between(kill)
    };
    // SAFETY: `enter` makes only system calls on values that were prepared before the fork; it allocates nothing.
    unsafe { command.pre_exec(enter) };
    Ok(command)
}

/// Runs a command inside the lab of a directory with the caller's own input and output, and waits for it.
///
/// # Errors
/// As [`command`], or where the program cannot be started.
pub fn exec(
    dir: &Path,
    place: &Place,
    program: impl AsRef<OsStr>,
    arguments: impl IntoIterator<Item = impl AsRef<OsStr>>,
) -> Result<ExitStatus, CellError> {
    let mut command = command(dir, place, program)?;
    let done = command.args(arguments).status();
    done.map_err(|source| CellError::Kernel { operation: "run the command in the lab", source })
}

/// Kills what runs behind a go-between, as `SIGKILL` does. The go-between, which the caller must not have waited for yet,
/// ends once nothing of the command is left: its files are closed and its locks are free.
///
/// # Errors
/// Where the kernel refuses; a go-between that has ended is none.
pub fn kill_command(go_between: u32) -> io::Result<()> {
    let pid = libc::pid_t::try_from(go_between).map_err(io::Error::other)?;
    // SAFETY: kill takes two integers.
    check(unsafe { libc::kill(pid, kill_signal()) }).map(drop)
}

/// What a go-between is sent to kill its command: `SIGKILL` itself cannot be handed on.
fn kill_signal() -> libc::c_int {
    libc::SIGRTMAX()
}

/// Enters the namespaces, and goes back to the working directory, which entering mounts resets.
fn enter(pidfd: RawFd, flags: libc::c_int, network: Option<&std::ffi::CStr>) -> io::Result<()> {
    let mut directory = [0; libc::PATH_MAX as usize];
    // SAFETY: the buffer is live and of the given length; setns takes integers; the paths are C strings; the descriptor
    // is used while it is open.
    unsafe {
        let here = !libc::getcwd(directory.as_mut_ptr(), directory.len()).is_null();
        check(libc::setns(pidfd, flags))?;
        if here {
            // A directory that the lab does not see leaves the command at the root.
            libc::chdir(directory.as_ptr());
        }
        if let Some(path) = network {
            let fd = check(libc::open(path.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC))?;
            check(libc::setns(fd, libc::CLONE_NEWNET))?;
            libc::close(fd);
        }
    }
    Ok(())
}

/// Goes on in a new process inside the pid namespace that was entered; the calling one stays as go-between.
fn go_between(kill: libc::c_int) -> io::Result<()> {
    // SAFETY: sigset_t and siginfo_t are plain data, filled by the calls that take them; fork is called in a process
    // with a single thread, and both sides only make system calls until exec or _exit.
    unsafe {
        let mut every: libc::sigset_t = std::mem::zeroed();
        let mut before: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut every);
        check(libc::sigprocmask(libc::SIG_SETMASK, &raw const every, &raw mut before))?;
        let pid = libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0) as libc::pid_t;
        if pid == 0 {
            check(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL))?;
            check(libc::sigprocmask(libc::SIG_SETMASK, &raw const before, std::ptr::null_mut()))?;
            return Ok(());
        }
        if pid < 0 {
            return Err(io::Error::last_os_error());
        }
        // The caller's pipes must not stay open here: who reads them waits for their end.
        libc::syscall(libc::SYS_close_range, 0, libc::c_uint::MAX, 0);
        loop {
            let mut information: libc::siginfo_t = std::mem::zeroed();
            let signal = libc::sigwaitinfo(&raw const every, &raw mut information);
            if signal == libc::SIGCHLD {
                let mut status = 0;
                if libc::waitpid(pid, &raw mut status, libc::WNOHANG) == pid {
                    let signalled = libc::WIFSIGNALED(status);
                    libc::_exit(if signalled { 128 + libc::WTERMSIG(status) } else { libc::WEXITSTATUS(status) });
                }
            } else if signal > 0 && information.si_code <= 0 {
                // A terminal signals the command itself; only what a process sent to the go-between is handed on.
                libc::kill(pid, if signal == kill { libc::SIGKILL } else { signal });
            }
        }
    }
}
