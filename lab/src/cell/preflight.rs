//! What this machine lacks for a lab.

use std::path::Path;

use serde::Serialize;

use crate::net::bird;

/// Something that a lab needs and this machine does not have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Missing {
    /// What is missing, and for what.
    pub what: String,
    /// The command that provides it.
    pub remedy: String,
}

/// Everything that a lab of the calling user would lack here; empty where it will come up.
#[must_use]
pub fn preflight() -> Vec<Missing> {
    let mut missing = Vec::new();
    let mut lacks = |what: &str, remedy: &str| missing.push(Missing { what: what.into(), remedy: remedy.into() });
    if bird::program().is_none() {
        lacks("`bird` (BIRD 2), the routers' BGP daemon", "apt-get install bird2");
    }
    match std::fs::File::options().read(true).write(true).open("/dev/net/tun") {
        Ok(_) => {}
        Err(e) if e.kind() == std::io::ErrorKind::PermissionDenied => {
            lacks("access to /dev/net/tun, for the wires", "sudo chmod 0666 /dev/net/tun");
        }
        Err(_) => lacks("/dev/net/tun, for the wires", "sudo modprobe tun"),
    }
    if !nix::unistd::geteuid().is_root() {
        for (key, bad, what, remedy) in USER_NAMESPACES {
            let value = std::fs::read_to_string(Path::new("/proc/sys").join(key));
            if value.is_ok_and(|v| v.trim() == bad) {
                lacks(what, remedy);
            }
        }
    }
    for kind in ["net", "pid", "mnt"] {
        if !Path::new("/proc/self/ns").join(kind).exists() {
            lacks(&format!("a kernel with {kind} namespaces"), "install the distribution's own kernel");
        }
    }
    missing
}

/// Settings that keep an ordinary user from a user namespace: below `/proc/sys`, the value that does, and what to do.
const USER_NAMESPACES: [(&str, &str, &str, &str); 3] = [
    (
        "user/max_user_namespaces",
        "0",
        "user namespaces, which a lab without root lives in",
        "sudo sysctl -w user.max_user_namespaces=10000 (or run the lab with sudo)",
    ),
    (
        "kernel/unprivileged_userns_clone",
        "0",
        "user namespaces for ordinary users",
        "sudo sysctl -w kernel.unprivileged_userns_clone=1 (or run the lab with sudo)",
    ),
    (
        "kernel/apparmor_restrict_unprivileged_userns",
        "1",
        "user namespaces that AppArmor does not restrict (Ubuntu 23.10 and later do)",
        "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0 (or run the lab with sudo)",
    ),
];
