//! Which process a lab's directory stands for, safe against a reused process number.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::CellError;

/// Name of the record in the lab's directory.
const FILE: &str = "cell.json";

/// The first process of a cell, as its directory remembers it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Record {
    /// Process number, as the spawner's namespace counts.
    pub(super) pid: i32,
    /// Start of the process in clock ticks after boot (proc_pid_stat(5), field 22).
    start_time: u64,
    /// The boot that both numbers belong to.
    boot_id: String,
    /// Whether the cell has a user namespace of its own.
    pub(super) user_namespace: bool,
    /// The hosts' network namespaces.
    pub(super) hosts: Vec<String>,
}

/// A living process that cannot be mistaken for another.
#[derive(Debug)]
pub(super) struct Living {
    pub(super) record: Record,
    pub(super) pidfd: OwnedFd,
}

impl Record {
    pub(super) fn of(pid: i32, user_namespace: bool, hosts: Vec<String>) -> io::Result<Self> {
        Ok(Self { pid, start_time: start_time(pid)?, boot_id: boot_id()?, user_namespace, hosts })
    }

    pub(super) fn write(&self, dir: &Path) -> Result<(), CellError> {
        let path = path(dir);
        let new = dir.join(format!("{FILE}.new"));
        let fail = |source| CellError::File { operation: "write", path: path.clone(), source };
        let text = serde_json::to_vec_pretty(self).map_err(|e| fail(e.into()))?;
        std::fs::write(&new, text).and_then(|()| std::fs::rename(&new, &path)).map_err(fail)
    }

    /// The process that the record stands for, where it still lives.
    fn living(self) -> io::Result<Option<Living>> {
        if self.boot_id != boot_id()? {
            return Ok(None);
        }
        // The descriptor is opened first: what it stands for cannot be replaced between the look and the use.
        let pidfd = match pidfd_open(self.pid) {
            Err(e) if e.raw_os_error() == Some(libc::ESRCH) => return Ok(None),
            opened => opened?,
        };
        match start_time(self.pid) {
            Ok(start) if start == self.start_time && !is_zombie(self.pid) => Ok(Some(Living { record: self, pidfd })),
            Ok(_) => Ok(None),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }
}

fn path(dir: &Path) -> PathBuf {
    dir.join(FILE)
}

/// The living cell of a directory.
pub(super) fn find(dir: &Path) -> Result<Option<Living>, CellError> {
    let path = path(dir);
    let fail = |source| CellError::File { operation: "read", path: path.clone(), source };
    let text = match std::fs::read(&path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        read => read.map_err(fail)?,
    };
    let record: Record =
        serde_json::from_slice(&text).map_err(|source| CellError::Damaged { path: path.clone(), source })?;
    record.living().map_err(|source| CellError::Kernel { operation: "look for the lab's process", source })
}

/// Forgets the cell of a directory.
pub(super) fn forget(dir: &Path) -> Result<(), CellError> {
    let path = path(dir);
    match std::fs::remove_file(&path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(CellError::File { operation: "remove", path, source: e }),
        _ => Ok(()),
    }
}

/// Whether the directory holds a running lab.
///
/// # Errors
/// Where its record cannot be read.
pub fn is_up(dir: &Path) -> Result<bool, CellError> {
    Ok(find(dir)?.is_some())
}

/// A descriptor of a process (pidfd_open(2)).
pub(super) fn pidfd_open(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: pidfd_open takes two integers.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor for the caller.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as libc::c_int) })
}

fn boot_id() -> io::Result<String> {
    Ok(std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

/// The fields of `/proc/PID/stat` behind the program's name, which itself may hold anything.
fn stat(pid: i32) -> io::Result<Vec<String>> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, fields) = text.rsplit_once(')').ok_or(io::ErrorKind::InvalidData)?;
    Ok(fields.split_whitespace().map(ToOwned::to_owned).collect())
}

fn start_time(pid: i32) -> io::Result<u64> {
    // Field 22 of the whole line; the first behind the name is field 3.
    let fields = stat(pid)?;
    fields.get(22 - 3).and_then(|field| field.parse().ok()).ok_or(io::ErrorKind::InvalidData.into())
}

fn is_zombie(pid: i32) -> bool {
    stat(pid).is_ok_and(|fields| fields.first().is_some_and(|state| state == "Z" || state == "X"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reused_number_is_not_the_lab() {
        let dir = tempfile::tempdir().unwrap();
        assert!(find(dir.path()).unwrap().is_none());
        let own = Record::of(std::process::id() as i32, false, vec![]).unwrap();
        own.write(dir.path()).unwrap();
        assert_eq!(find(dir.path()).unwrap().unwrap().record, own);
        for other in [
            Record { start_time: own.start_time + 1, ..own.clone() },
            Record { boot_id: "another".into(), ..own.clone() },
            Record { pid: i32::MAX, ..own.clone() },
        ] {
            other.write(dir.path()).unwrap();
            assert!(find(dir.path()).unwrap().is_none(), "{other:?}");
        }
        std::fs::write(dir.path().join(FILE), "{").unwrap();
        assert!(matches!(find(dir.path()), Err(CellError::Damaged { .. })));
        forget(dir.path()).unwrap();
        forget(dir.path()).unwrap();
    }
}
