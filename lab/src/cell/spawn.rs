//! The outer side: starts a cell, waits for it, ends it.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::fcntl::OFlag;
use nix::unistd::pipe2;
use serde::{Deserialize, Serialize};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::unix::pipe;

use super::control::Client;
use super::record::{self, Record};
use super::{CellError, LabSpec};

/// Name of the lab's parameters in its directory.
pub(super) const SPEC: &str = "cell-spec.json";
/// Name of the log of the lab's own process.
pub(super) const LOG: &str = "lab.log";
/// Environment variable that tells a process that it is the first of a cell, and its descriptors.
pub(super) const DESCRIPTORS: &str = "TIELINE_CELL";
/// What the spawner writes to the lifeline when the cell may outlive it.
pub(super) const DETACH: u8 = b'd';

/// How long a lab may take to come up.
const COME_UP: Duration = Duration::from_secs(60);
/// How long a lab may take to end by itself before it is killed.
const END: Duration = Duration::from_secs(10);

/// How a cell is started.
#[derive(Clone, Debug)]
pub struct SpawnOptions {
    /// The lab's directory; it is made where it is not there. Two labs never share one.
    pub dir: PathBuf,
    /// What the lab is made of.
    pub spec: LabSpec,
    /// Arguments with which this same program reaches [`run_inside`](super::run_inside).
    pub arguments: Vec<OsString>,
    /// The cell ends when the [`Cell`] is dropped or its process ends; otherwise it goes on alone.
    pub attached: bool,
    /// A user namespace of its own; `None` where the caller is not root.
    pub user_namespace: Option<bool>,
}

impl SpawnOptions {
    /// A detached cell, with a user namespace where the caller is not root.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>, spec: LabSpec, arguments: Vec<OsString>) -> Self {
        Self { dir: dir.into(), spec, arguments, attached: false, user_namespace: None }
    }
}

/// What the inside says when it is up, or why it is not.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Word {
    Ready(serde_json::Value),
    Failed(String),
}

/// A running cell, seen from outside.
#[derive(Debug)]
pub struct Cell {
    dir: PathBuf,
    pid: i32,
    pidfd: AsyncFd<OwnedFd>,
    ready: serde_json::Value,
    /// The other end of this pipe tells the cell that its owner is gone: however it ends, the kernel closes this one.
    lifeline: Option<OwnedFd>,
}

impl Cell {
    /// The lab's directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Process number of the cell's first process.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// What the inside said when it was up.
    #[must_use]
    pub fn ready(&self) -> &serde_json::Value {
        &self.ready
    }

    /// Waits until the cell has ended, and returns its exit code; a signal counts as 128 and its number.
    ///
    /// # Errors
    /// Where the process cannot be waited for.
    pub async fn wait(&self) -> Result<i32, CellError> {
        let fail = |source| CellError::Kernel { operation: "wait for the lab's process", source };
        ended(&self.pidfd).await.map_err(fail)?;
        reap(self.pid).map_err(fail)
    }

    /// Lets the cell go on alone when its owner is gone.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn detach(&mut self) -> Result<(), CellError> {
        let fail = |e: nix::Error| CellError::Kernel { operation: "let the lab go on alone", source: e.into() };
        let Some(lifeline) = self.lifeline.take() else { return Ok(()) };
        nix::unistd::write(&lifeline, &[DETACH]).map(drop).map_err(fail)
    }

    /// Ends the cell and waits until nothing of it is left.
    ///
    /// # Errors
    /// As [`down`].
    pub async fn down(self) -> Result<(), CellError> {
        down(&self.dir).await?;
        self.wait().await.map(drop)
    }

    /// Kills the cell's first process, and with it everything inside, without asking.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn kill(&self) -> Result<(), CellError> {
        kill(self.pidfd.get_ref())
    }
}

/// Starts a lab and waits until its inside says that it is up.
///
/// # Errors
/// [`CellError::AlreadyUp`], or [`CellError::Failed`] with the inside's own words.
pub async fn spawn(options: SpawnOptions) -> Result<Cell, CellError> {
    let dir = prepare(&options)?;
    let user_namespace = options.user_namespace.unwrap_or(!nix::unistd::geteuid().is_root());
    let pipes =
        (|| Ok::<_, nix::Error>((pipe2(OFlag::O_CLOEXEC)?, pipe2(OFlag::O_CLOEXEC)?, pipe2(OFlag::O_CLOEXEC)?)))();
    let fail = |operation| move |source| CellError::Kernel { operation, source };
    let (word, lifeline, number) = pipes.map_err(|e| fail("make a pipe")(e.into()))?;
    let ends = Ends { word: word.1.as_raw_fd(), lifeline: lifeline.0.as_raw_fd(), number: number.1.as_raw_fd() };
    let command = first_process(&options, &dir, ends, user_namespace)?;
    let started = tokio::task::spawn_blocking(move || start(command, number)).await;
    let pid = started.map_err(io::Error::other).and_then(|s| s).map_err(fail("start the lab's process"))?;
    drop((word.1, lifeline.0));
    let log = dir.join(LOG);
    let pidfd = record::pidfd_open(pid).and_then(hold).map_err(fail("hold the lab's process"))?;
    let mut cell = Cell { dir, pid, pidfd, ready: serde_json::Value::Null, lifeline: Some(lifeline.1) };
    let heard = tokio::time::timeout(COME_UP, hear(word.0)).await;
    let reason = match heard {
        Ok(Ok(Some(Word::Ready(ready)))) => {
            cell.ready = ready;
            let hosts = hosts();
            let record = Record::of(pid, user_namespace, hosts).map_err(fail("read the lab's process"))?;
            record.write(&cell.dir)?;
            if !options.attached {
                cell.detach()?;
            }
            return Ok(cell);
        }
        Ok(Ok(Some(Word::Failed(reason)))) => reason,
        Ok(Ok(None)) => "it ended at once".to_owned(),
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("it said nothing for {} s", COME_UP.as_secs()),
    };
    cell.kill()?;
    cell.wait().await?;
    Err(CellError::Failed { reason, log })
}

/// The network namespaces that every lab has.
fn hosts() -> Vec<String> {
    let sites = ["a", "b"].iter().flat_map(|l| ["host", "gw", "router"].map(|n| format!("{l}-{n}")));
    sites.chain([crate::net::INTERNET.to_owned()]).collect()
}

async fn hear(word: OwnedFd) -> io::Result<Option<Word>> {
    nix::fcntl::fcntl(&word, nix::fcntl::FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    let mut line = String::new();
    BufReader::new(pipe::Receiver::from_owned_fd(word)?).read_line(&mut line).await?;
    if line.is_empty() {
        return Ok(None);
    }
    Ok(Some(serde_json::from_str(&line)?))
}

fn prepare(options: &SpawnOptions) -> Result<PathBuf, CellError> {
    let file = |operation, path: &Path| {
        let path = path.to_owned();
        move |source| CellError::File { operation, path, source }
    };
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&options.dir);
    made.map_err(file("make", &options.dir))?;
    let dir = options.dir.canonicalize().map_err(file("find", &options.dir))?;
    if record::find(&dir)?.is_some() {
        return Err(CellError::AlreadyUp { dir });
    }
    let path = dir.join(SPEC);
    let text = serde_json::to_vec_pretty(&options.spec).map_err(io::Error::from).map_err(file("write", &path))?;
    std::fs::write(&path, text).map_err(file("write", &path))?;
    Ok(dir)
}

/// Descriptors that the first process inherits.
#[derive(Clone, Copy, Debug)]
struct Ends {
    word: RawFd,
    lifeline: RawFd,
    number: RawFd,
}

fn first_process(options: &SpawnOptions, dir: &Path, ends: Ends, user_namespace: bool) -> Result<Command, CellError> {
    let path = dir.join(LOG);
    let open = || -> io::Result<(Stdio, Stdio)> {
        let log = std::fs::File::options().create(true).append(true).mode(0o600).open(&path)?;
        Ok((log.try_clone()?.into(), log.into()))
    };
    let (out, err) = open().map_err(|source| CellError::File { operation: "write", path: path.clone(), source })?;
    // Not the path that the program was started by: that may name another one by now.
    let mut command = Command::new("/proc/self/exe");
    command
        .args(&options.arguments)
        .env(DESCRIPTORS, format!("{},{}", ends.word, ends.lifeline))
        .current_dir(dir)
        .stdin(Stdio::null())
        .stdout(out)
        .stderr(err);
    let mut flags = libc::CLONE_NEWNS | libc::CLONE_NEWPID;
    if user_namespace {
        flags |= libc::CLONE_NEWUSER;
    }
    let maps = user_namespace.then(|| {
        let (uid, gid) = (nix::unistd::geteuid(), nix::unistd::getegid());
        [
            (c"/proc/self/setgroups", "deny".to_owned()),
            (c"/proc/self/uid_map", format!("0 {uid} 1")),
            (c"/proc/self/gid_map", format!("0 {gid} 1")),
        ]
    });
    let separate = move || {
        // SAFETY: setsid and unshare take no pointers.
        check(unsafe { libc::setsid() })?;
        // SAFETY: as above.
        check(unsafe { libc::unshare(flags) })?;
        for (path, text) in maps.iter().flatten() {
            write_file(path, text.as_bytes())?;
        }
        for fd in [ends.word, ends.lifeline] {
            // SAFETY: the descriptors are open in the forked child; F_SETFD takes an integer.
            check(unsafe { libc::fcntl(fd, libc::F_SETFD, 0) })?;
        }
        become_first_process(ends.number)
    };
    // SAFETY: `separate` makes only system calls on values that were prepared before the fork; it allocates nothing.
    unsafe { command.pre_exec(separate) };
    Ok(command)
}

/// Goes on in a new process, the first of the pid namespace just made, and a child of whoever started this one.
fn become_first_process(number: RawFd) -> io::Result<()> {
    let flags = libc::CLONE_PARENT | libc::SIGCHLD;
    // SAFETY: without CLONE_VM this is a fork: no stack and no pointers are passed. The process has a single thread.
    let pid = unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) };
    if pid < 0 {
        return Err(io::Error::last_os_error());
    }
    if pid == 0 {
        return Ok(());
    }
    let bytes = (pid as i32).to_ne_bytes();
    // SAFETY: the bytes are live for the call. _exit ends this process without running anything of the caller's.
    unsafe {
        libc::write(number, bytes.as_ptr().cast(), bytes.len());
        libc::_exit(0)
    }
}

fn write_file(path: &std::ffi::CStr, text: &[u8]) -> io::Result<()> {
    // SAFETY: the path is a C string and the text is live for the call; the descriptor is closed once.
    unsafe {
        let fd = libc::open(path.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
        check(fd)?;
        let written = libc::write(fd, text.as_ptr().cast(), text.len());
        let error = io::Error::last_os_error();
        libc::close(fd);
        if written < 0 { Err(error) } else { Ok(()) }
    }
}

pub(super) fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Starts the command and returns the number of the cell's first process.
fn start(mut command: Command, number: (OwnedFd, OwnedFd)) -> io::Result<i32> {
    let (number, far_end) = number;
    let spawned = command.spawn();
    // What remains open is only the child's copy, so that the read below ends even where nothing was written.
    drop((command, far_end));
    let mut bytes = [0; 4];
    let known = match nix::unistd::read(&number, &mut bytes) {
        Ok(4) => Some(i32::from_ne_bytes(bytes)),
        _ => None,
    };
    match (spawned, known) {
        (Ok(mut go_between), Some(pid)) => {
            go_between.wait()?;
            Ok(pid)
        }
        (Ok(mut go_between), None) => {
            let status = go_between.wait()?;
            Err(io::Error::other(format!("its first step ended with {status}")))
        }
        (Err(error), known) => {
            if let Some(pid) = known {
                reap(pid)?;
            }
            Err(error)
        }
    }
}

fn hold(pidfd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: the descriptor is owned, and stays open and the same until the registration is dropped with it.
    unsafe { AsyncFd::register(pidfd) }.map_err(io::Error::from)
}

/// Waits until the process of a pidfd has ended.
async fn ended(pidfd: &AsyncFd<OwnedFd>) -> io::Result<()> {
    pidfd.readable().await.map(drop)
}

/// Takes the exit code of a child that has ended.
fn reap(pid: i32) -> io::Result<i32> {
    use nix::sys::wait::{WaitStatus, waitpid};
    Ok(match waitpid(nix::unistd::Pid::from_raw(pid), None)? {
        WaitStatus::Exited(_, code) => code,
        WaitStatus::Signaled(_, signal, _) => 128 + signal as i32,
        WaitStatus::Stopped(..)
        | WaitStatus::PtraceEvent(..)
        | WaitStatus::PtraceSyscall(_)
        | WaitStatus::Continued(_)
        | WaitStatus::StillAlive => 0,
    })
}

fn kill(pidfd: &OwnedFd) -> Result<(), CellError> {
    // SAFETY: the descriptor is open, and no signal information is passed.
    let sent = unsafe {
        let none = std::ptr::null::<libc::siginfo_t>();
        libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_fd().as_raw_fd(), libc::SIGKILL, none, 0)
    };
    let error = io::Error::last_os_error();
    if sent == 0 || error.raw_os_error() == Some(libc::ESRCH) {
        return Ok(());
    }
    Err(CellError::Kernel { operation: "kill the lab's process", source: error })
}

/// Ends the lab of a directory: asks it to, and kills it where it does not within 10 s. Returns whether there was one.
///
/// # Errors
/// Where its record cannot be read or the kernel refuses.
pub async fn down(dir: &Path) -> Result<bool, CellError> {
    let Some(living) = record::find(dir)? else {
        record::forget(dir)?;
        return Ok(false);
    };
    let fail = |source| CellError::Kernel { operation: "wait for the lab's process", source };
    let pidfd = hold(living.pidfd).map_err(fail)?;
    let gentle = async {
        if let Err(error) = Client::open(dir)?.shutdown().await {
            tracing::debug!(error = super::chain(&error), "the lab does not hear its shutdown");
            return Ok(false);
        }
        ended(&pidfd).await.map_err(fail).map(|()| true)
    };
    let gone = tokio::time::timeout(END, gentle).await.unwrap_or(Ok(false))?;
    if !gone {
        kill(pidfd.get_ref())?;
        ended(&pidfd).await.map_err(fail)?;
    }
    record::forget(dir)?;
    Ok(true)
}
