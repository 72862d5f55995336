//! The inner side: what the first process of a cell does.

use std::io;
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork, getpid};
use tokio_util::sync::CancellationToken;

use crate::net::LabNetwork;
use crate::net::namespace::DIRECTORY;

use super::spawn::{DESCRIPTORS, DETACH, SPEC, Word};
use super::{CellError, LabSpec, chain};
use super::{control, record};

/// What the body of a lab gets.
#[derive(Clone, Debug)]
pub struct Inside {
    /// The lab's directory.
    pub dir: PathBuf,
    /// The network, up.
    pub network: Arc<LabNetwork>,
    /// [`LabSpec::parameters`].
    pub parameters: serde_json::Value,
    /// Cancelled when the lab shall end: the body then returns soon.
    pub shutdown: CancellationToken,
    word: Arc<Mutex<Option<OwnedFd>>>,
    said: Arc<Mutex<serde_json::Value>>,
}

impl Inside {
    /// Tells the spawner that the lab is up, with what it shall know (addresses of servers). Later calls only change
    /// what the control socket's status says.
    pub fn ready(&self, value: serde_json::Value) {
        self.said.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&value);
        say(&self.word, &Word::Ready(value));
    }

    /// What was said to be ready last.
    pub(super) fn said(&self) -> serde_json::Value {
        self.said.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn say(to: &Mutex<Option<OwnedFd>>, word: &Word) {
    let Some(pipe) = to.lock().unwrap_or_else(PoisonError::into_inner).take() else { return };
    let Ok(mut line) = serde_json::to_vec(word) else { return };
    line.push(b'\n');
    // A spawner that is gone hears nothing; then the lifeline ends the cell.
    let _ = io::Write::write_all(&mut std::fs::File::from(pipe), &line);
}

/// Runs a lab in the calling process, which [`spawn`](super::spawn()) has started: its namespaces, its network, the
/// control socket, and then `body`. The lab ends when the body returns. Call this before any runtime or thread is
/// started.
///
/// # Errors
/// [`CellError::NotInside`] where the process was not started by [`spawn`](super::spawn()), or what failed while the
/// namespaces were made. Failures after that are told to the spawner and are this process' exit code.
pub fn run_inside<F, B>(dir: &Path, body: F) -> Result<ExitCode, CellError>
where
    F: FnOnce(Inside) -> B,
    B: Future<Output = Result<(), Box<dyn std::error::Error + Send + Sync>>>,
{
    let (word, lifeline) = descriptors()?;
    let word = Arc::new(Mutex::new(Some(word)));
    let prepared = mounts().and_then(|()| block_signals());
    let told = |error: CellError| {
        say(&word, &Word::Failed(chain(&error)));
        error
    };
    let signals = prepared.map_err(told)?;
    let failed =
        |source: Errno| CellError::Kernel { operation: "start the lab's second process", source: source.into() };
    // SAFETY: the process has a single thread here, so the child may go on as it likes. (Were there others, only this
    // thread's memory would be consistent, and the child's own runtime starts from that.)
    match unsafe { fork() }.map_err(failed).map_err(told)? {
        ForkResult::Parent { child } => {
            drop(word);
            Ok(watch(child, &signals, lifeline))
        }
        ForkResult::Child => {
            drop((lifeline, signals));
            let unblocked = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None);
            let lived = AssertUnwindSafe(|| unblocked.map_err(failed).and_then(|()| live(dir, &word, body)));
            // Whatever happens, this process ends here: it must not return into the program twice.
            let failure = match std::panic::catch_unwind(lived) {
                Ok(Ok(())) => std::process::exit(0),
                Ok(Err(error)) => chain(&error),
                Err(_) => "it panicked".to_owned(),
            };
            tracing::error!(error = failure, "the lab failed");
            say(&word, &Word::Failed(failure));
            std::process::exit(1);
        }
    }
}

/// The descriptors that the spawner has left for the first process.
fn descriptors() -> Result<(OwnedFd, OwnedFd), CellError> {
    if getpid().as_raw() != 1 {
        return Err(CellError::NotInside);
    }
    let text = std::env::var(DESCRIPTORS).map_err(|_| CellError::NotInside)?;
    let (word, lifeline) = text.split_once(',').ok_or(CellError::NotInside)?;
    let own = |number: &str| -> Result<OwnedFd, CellError> {
        let number = number.parse().map_err(|_| CellError::NotInside)?;
        // SAFETY: F_SETFD takes an integer, and answers an error where the descriptor is not open.
        if number < 3 || unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) } < 0 {
            return Err(CellError::NotInside);
        }
        // SAFETY: the descriptor is open, and was left by the spawner for nobody else.
        Ok(unsafe { OwnedFd::from_raw_fd(number) })
    };
    Ok((own(word)?, own(lifeline)?))
}

/// Private mounts, a `/proc` of the own pid namespace, and an empty `/run/netns`.
fn mounts() -> Result<(), CellError> {
    let none = None::<&str>;
    let failed = |operation| move |e: Errno| CellError::Kernel { operation, source: e.into() };
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).map_err(failed("make the mounts private"))?;
    let hardened = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("proc"), "/proc", Some("proc"), hardened, none).map_err(failed("mount /proc"))?;
    // Where the directory is missing, it is made in a /run of the cell's own: the machine's is left as it was.
    if !Path::new(DIRECTORY).is_dir() {
        mount(Some("tmpfs"), "/run", Some("tmpfs"), hardened, Some("mode=755")).map_err(failed("mount /run"))?;
        std::fs::create_dir(DIRECTORY).map_err(|source| CellError::Kernel { operation: "make /run/netns", source })?;
    }
    mount(Some("tmpfs"), DIRECTORY, Some("tmpfs"), hardened, Some("mode=755")).map_err(failed("mount /run/netns"))
}

fn block_signals() -> Result<SignalFd, CellError> {
    let failed = |e: Errno| CellError::Kernel { operation: "watch signals", source: e.into() };
    let set = SigSet::from_iter([Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT]);
    sigprocmask(SigmaskHow::SIG_BLOCK, Some(&set), None).map_err(failed)?;
    SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK).map_err(failed)
}

/// The first process' whole work: takes up orphans, hands on the wish to end, and ends with its child, or when the
/// spawner to which it is attached is gone. Its end is the end of every process inside.
fn watch(child: Pid, signals: &SignalFd, lifeline: OwnedFd) -> ExitCode {
    // The child's end is seen by its descriptor, the orphans' by signal: who ends the cell must not be missed where
    // another thread takes the signal.
    let Ok(ended) = record::pidfd_open(child.as_raw()) else { return ExitCode::FAILURE };
    let mut lifeline = Some(lifeline);
    loop {
        let mut events =
            vec![PollFd::new(signals.as_fd(), PollFlags::POLLIN), PollFd::new(ended.as_fd(), PollFlags::POLLIN)];
        events.extend(lifeline.iter().map(|l| PollFd::new(l.as_fd(), PollFlags::POLLIN)));
        if !matches!(poll(&mut events, PollTimeout::NONE), Ok(_) | Err(Errno::EINTR)) {
            return ExitCode::FAILURE;
        }
        let heard = events.get(2).and_then(PollFd::revents).is_some_and(|r| !r.is_empty());
        if heard && let Some(line) = &lifeline {
            let mut byte = [0];
            match nix::unistd::read(line, &mut byte) {
                Ok(1) if byte[0] == DETACH => lifeline = None,
                Err(Errno::EINTR) => {}
                _ => return ExitCode::SUCCESS,
            }
        }
        while let Ok(Some(signal)) = signals.read_signal() {
            if signal.ssi_signo != Signal::SIGCHLD as u32 {
                // The child may have ended this very moment; the next turn finds that.
                let _ = kill(child, Signal::SIGTERM);
            }
        }
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, code)) if pid == child => {
                    return ExitCode::from(u8::try_from(code).unwrap_or(1));
                }
                Ok(WaitStatus::Signaled(pid, signal, _)) if pid == child => {
                    return ExitCode::from(128 + signal as u8);
                }
                Ok(WaitStatus::StillAlive) | Err(_) => break,
                Ok(_) => {}
            }
        }
    }
}

/// The second process' work: everything that a lab is.
fn live<F, B>(dir: &Path, word: &Arc<Mutex<Option<OwnedFd>>>, body: F) -> Result<(), CellError>
where
    F: FnOnce(Inside) -> B,
    B: Future<Output = Result<(), Box<dyn std::error::Error + Send + Sync>>>,
{
    let path = dir.join(SPEC);
    let text =
        std::fs::read(&path).map_err(|source| CellError::File { operation: "read", path: path.clone(), source })?;
    let spec: LabSpec = serde_json::from_slice(&text).map_err(|source| CellError::Damaged { path, source })?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|source| CellError::Kernel { operation: "start the lab's runtime", source })?;
    runtime.block_on(async {
        let network = Arc::new(LabNetwork::build(spec.network, dir).await?);
        let inside = Inside {
            dir: dir.to_owned(),
            network,
            parameters: spec.parameters,
            shutdown: CancellationToken::new(),
            word: Arc::clone(word),
            said: Arc::default(),
        };
        let server = control::serve(inside.clone())?;
        let asked = end_when_asked(inside.shutdown.clone())?;
        let lab = Box::pin(body(inside.clone())).await;
        inside.shutdown.cancel();
        asked.abort();
        server.await.map_err(|e| CellError::Kernel { operation: "end the control socket", source: e.into() })?;
        lab.map_err(|error| CellError::Refused(chain(error.as_ref())))
    })
}

fn end_when_asked(shutdown: CancellationToken) -> Result<tokio::task::JoinHandle<()>, CellError> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut asked =
        signal(SignalKind::terminate()).map_err(|source| CellError::Kernel { operation: "watch signals", source })?;
    Ok(tokio::spawn(async move {
        asked.recv().await;
        shutdown.cancel();
    }))
}
