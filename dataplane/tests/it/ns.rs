//! Network namespaces of a test's own.

use std::{fs::File, io, os::fd::AsRawFd, path::PathBuf, process::Command, thread::JoinHandle};

use nix::sched::{CloneFlags, unshare};
use tieline_dataplane::shell::netns::NetNs;

/// A network namespace without a name: gone with this process, however that ends.
pub(crate) struct Ns {
    file: File,
}

impl Ns {
    pub(crate) fn new() -> Self {
        let made = std::thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET)?;
            File::open("/proc/thread-self/ns/net")
        });
        let ns = Self { file: made.join().unwrap().unwrap() };
        ns.sh("ip link set lo up");
        ns
    }

    /// A path that other processes can open too.
    pub(crate) fn path(&self) -> PathBuf {
        format!("/proc/{}/fd/{}", std::process::id(), self.file.as_raw_fd()).into()
    }

    pub(crate) fn netns(&self) -> NetNs {
        NetNs::open(Some(&self.path())).unwrap()
    }

    pub(crate) fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> JoinHandle<io::Result<T>> {
        self.netns().spawn("test", work).unwrap()
    }

    /// What a command line, split at spaces, prints.
    pub(crate) fn try_sh(&self, line: &str) -> Result<String, String> {
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        let output =
            self.run(move || Command::new(&words[0]).args(&words[1..]).output()).join().unwrap().unwrap().unwrap();
        if output.status.success() {
            Ok(String::from_utf8(output.stdout).unwrap())
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        }
    }

    pub(crate) fn sh(&self, line: &str) -> String {
        self.try_sh(line).unwrap_or_else(|error| panic!("`{line}`: {error}"))
    }

    pub(crate) fn link(&self, name: &str, address: &str, other: &Self, other_name: &str, other_address: &str) {
        self.sh(&format!("ip link add {name} type veth peer name {other_name} netns {}", other.path().display()));
        for (ns, name, address) in [(self, name, address), (other, other_name, other_address)] {
            ns.sh(&format!("ip address add {address} dev {name}"));
            ns.sh(&format!("ip link set {name} up"));
        }
    }
}
