//! Least privilege: a gateway keeps the capabilities that it needs, and can gain no other (`man 7 capabilities`).
//!
//! Capabilities belong to threads, so they are given up by starting this program once more in its own place (`execve`): what
//! runs then never had them, in none of its threads.

use std::{
    env,
    ffi::OsStr,
    fs::{self, DirBuilder},
    io,
    os::unix::{
        fs::{DirBuilderExt, chown},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::Command,
};

use caps::{CapSet, Capability, CapsHashSet, errors::CapsError};
use nix::{
    sys::{
        prctl,
        resource::{Resource, setrlimit},
    },
    unistd::{Gid, Uid, User, geteuid, initgroups, setgid, setuid},
};

/// Set for the second start, so that there is no third.
const AGAIN: &str = "TIELINE_GATEWAY_CONFINED";

/// What a gateway needs besides what anyone may.
#[derive(Debug, Clone, Copy)]
pub struct Confinement<'a> {
    /// Who it shall be; `None`: who it is.
    pub user: Option<&'a str>,
    /// Whether it enters a network namespace.
    pub netns: bool,
    /// Becomes the user's.
    pub state_dir: &'a Path,
    /// Where the sockets of `wg` are; becomes the user's where it is not there yet.
    pub uapi: Option<&'a Path>,
}

/// Why privileges are not given up.
#[derive(Debug, thiserror::Error)]
pub enum PrivilegeError {
    /// Nobody of this name.
    #[error("there is no user `{0}`; make one with `useradd --system {0}`, or leave out --user")]
    NoUser(String),
    /// The name cannot be looked up.
    #[error("the user `{user}` cannot be looked up")]
    User {
        /// Who.
        user: String,
        /// Why.
        #[source]
        source: nix::Error,
    },
    /// Only root becomes somebody else.
    #[error("only root can become `{0}`; start it as root, or as that user")]
    NotRoot(String),
    /// A folder cannot be given to the user.
    #[error("{path} cannot be given to `{user}`")]
    Own {
        /// Which.
        path: PathBuf,
        /// To whom.
        user: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The kernel refused to change the user.
    #[error("cannot become `{user}`")]
    Become {
        /// Who.
        user: String,
        /// Why.
        #[source]
        source: nix::Error,
    },
    /// The kernel refused to change capabilities.
    #[error("the capabilities that a gateway does not need cannot be given up")]
    Capabilities(#[source] CapsError),
    /// The program cannot be started again.
    #[error("cannot start this program once more with fewer privileges")]
    Again(#[source] io::Error),
}

/// What is needed, and for what.
fn needed(netns: bool) -> CapsHashSet {
    let mut needed: CapsHashSet = [
        // The TUN device, routes, rules, the packet filter, socket buffers beyond the limit, sysctls of the network.
        Capability::CAP_NET_ADMIN,
        // Real-time priority for the heartbeat. Without it a busy host may look like a bad path.
        Capability::CAP_SYS_NICE,
        // The program that steers flows to lanes, where only privileged programs may load one.
        Capability::CAP_BPF,
    ]
    .into_iter()
    .collect();
    if netns {
        // To enter a network namespace (`man 2 setns`).
        needed.insert(Capability::CAP_SYS_ADMIN);
    }
    needed
}

/// Makes this process one that holds what a gateway needs and nothing else: it returns when that is so, and starts the program
/// again, in the same process, when it is not.
///
/// # Errors
/// When the user is not there, this process may not become it, or the kernel refuses.
pub fn confine(confinement: &Confinement<'_>) -> Result<(), PrivilegeError> {
    // Keys are in memory: no core dump holds them.
    if let Err(error) = setrlimit(Resource::RLIMIT_CORE, 0, 0) {
        tracing::debug!(%error, "a core dump could hold keys");
    }
    let user = confinement.user.map(look_up).transpose()?;
    let held = caps::read(None, CapSet::Permitted).map_err(PrivilegeError::Capabilities)?;
    let keep: CapsHashSet = needed(confinement.netns).intersection(&held).copied().collect();
    let settled = user.as_ref().is_none_or(|user| user.uid == geteuid())
        && held.is_subset(&keep)
        && prctl::get_no_new_privs().unwrap_or(false);
    if settled {
        return Ok(());
    }
    if env::var_os(AGAIN).is_some() {
        tracing::warn!(?held, "this gateway holds more capabilities than it needs");
        return Ok(());
    }
    if let Some(user) = user.filter(|user| user.uid != geteuid()) {
        if !geteuid().is_root() {
            return Err(PrivilegeError::NotRoot(user.name));
        }
        give(confinement, &user)?;
        forget(&keep)?;
        turn_into(&user)?;
    } else {
        forget(&keep)?;
    }
    restrict(&keep)?;
    let mut again = Command::new("/proc/self/exe");
    again.args(env::args_os().skip(1)).env(AGAIN, "1");
    if let Some(name) = env::args_os().next() {
        again.arg0(AsRef::<OsStr>::as_ref(&name));
    }
    Err(PrivilegeError::Again(again.exec()))
}

fn look_up(user: &str) -> Result<User, PrivilegeError> {
    User::from_name(user)
        .map_err(|source| PrivilegeError::User { user: user.to_owned(), source })?
        .ok_or_else(|| PrivilegeError::NoUser(user.to_owned()))
}

/// Gives the state folder and what is in it to the user, and the folder of sockets where this makes it.
fn give(confinement: &Confinement<'_>, user: &User) -> Result<(), PrivilegeError> {
    let own = |path: &Path, source| PrivilegeError::Own { path: path.to_owned(), user: user.name.clone(), source };
    let to = |path: &Path| chown(path, Some(user.uid.as_raw()), Some(user.gid.as_raw())).map_err(|e| own(path, e));
    let state = confinement.state_dir;
    DirBuilder::new().recursive(true).mode(0o700).create(state).map_err(|error| own(state, error))?;
    to(state)?;
    // There are no folders in it.
    for entry in fs::read_dir(state).map_err(|error| own(state, error))? {
        let entry = entry.map_err(|error| own(state, error))?;
        if entry.file_type().is_ok_and(|kind| kind.is_file()) {
            to(&entry.path())?;
        }
    }
    if let Some(folder) = confinement.uapi.filter(|folder| !folder.exists()) {
        DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(|error| own(folder, error))?;
        to(folder)?;
    }
    Ok(())
}

/// What is not in the bounding set cannot be gained again by any program that is started.
fn forget(keep: &CapsHashSet) -> Result<(), PrivilegeError> {
    let effective = caps::read(None, CapSet::Effective).map_err(PrivilegeError::Capabilities)?;
    // As a user with ambient capabilities, say from systemd, which has bounded them.
    if !effective.contains(&Capability::CAP_SETPCAP) {
        return Ok(());
    }
    let bounding = caps::read(None, CapSet::Bounding).map_err(PrivilegeError::Capabilities)?;
    for capability in bounding.difference(keep) {
        caps::drop(None, CapSet::Bounding, *capability).map_err(PrivilegeError::Capabilities)?;
    }
    Ok(())
}

fn turn_into(user: &User) -> Result<(), PrivilegeError> {
    let become_ = |source| PrivilegeError::Become { user: user.name.clone(), source };
    caps::securebits::set_keepcaps(true).map_err(PrivilegeError::Capabilities)?;
    let name = std::ffi::CString::new(user.name.as_str()).map_err(|_| become_(nix::Error::EINVAL))?;
    let (uid, gid): (Uid, Gid) = (user.uid, user.gid);
    initgroups(&name, gid).and_then(|()| setgid(gid)).and_then(|()| setuid(uid)).map_err(become_)
}

/// Leaves this thread with these capabilities, and passes them on to the program that it becomes.
fn restrict(keep: &CapsHashSet) -> Result<(), PrivilegeError> {
    let refused = PrivilegeError::Capabilities;
    // Effective first: it cannot hold what is not permitted.
    caps::set(None, CapSet::Effective, keep).map_err(refused)?;
    caps::set(None, CapSet::Permitted, keep).map_err(refused)?;
    caps::set(None, CapSet::Inheritable, keep).map_err(refused)?;
    caps::set(None, CapSet::Ambient, keep).map_err(refused)?;
    prctl::set_no_new_privs().map_err(|errno| PrivilegeError::Again(errno.into()))
}
