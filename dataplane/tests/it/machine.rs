//! The kernel's WireGuard, in a machine of its own that qemu runs: what `scripts/install-kernel-machine.sh` has made, and
//! `TIELINE_KERNEL_MACHINE` names.
//!
//! It stands in the place of gateway 1: its first card has that gateway's address on the internet, by proxy ARP, and what comes
//! out of its tunnel goes on by its second card to the namespace, which has the inner address. So tests have both ends of their
//! traffic in namespaces, as with any other peer.

use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Mutex,
    time::{Duration, Instant},
};

use super::ns::Ns;

/// It has no processor of its own, but one that is computed.
const BOOT: Duration = Duration::from_secs(60);

pub(crate) struct Machine {
    child: Child,
    port: Mutex<UnixStream>,
    _folder: tempfile::TempDir,
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Machine {
    pub(crate) fn start(ns: &Ns, made: &Path) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let port: PathBuf = folder.path().join("port");
        let mut command = Command::new("qemu-system-x86_64");
        command.args(["-accel", "tcg", "-cpu", "max", "-m", "256"]);
        command.args(["-display", "none", "-no-reboot", "-monitor", "none"]);
        command.arg("-kernel").arg(made.join("vmlinuz")).arg("-initrd").arg(made.join("initramfs"));
        command.args(["-append", "console=ttyS0 quiet panic=-1", "-serial", "null", "-serial"]);
        command.arg(format!("unix:{},server=on,wait=off", port.display()));
        for (n, name) in ["kwan", "klan"].into_iter().enumerate() {
            command.args(["-netdev", &format!("tap,id=n{n},ifname={name},script=no,downscript=no")]);
            command.args(["-device", &format!("virtio-net-pci,netdev=n{n},mac=52:54:00:00:00:0{n}")]);
        }
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let child = ns.run(move || command.spawn()).join().unwrap().unwrap().unwrap();
        let started = Instant::now();
        let connected = loop {
            match UnixStream::connect(&port) {
                Ok(stream) => break stream,
                Err(error) => assert!(started.elapsed() < BOOT, "qemu does not start: {error}"),
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        connected.set_read_timeout(Some(BOOT)).unwrap();
        let machine = Self { child, port: Mutex::new(connected), _folder: folder };
        read_until(&mut machine.port.lock().unwrap(), "READY\n");
        machine.stand_between(ns);
        machine
    }

    fn stand_between(&self, ns: &Ns) {
        for line in [
            "ip address del 198.51.100.10/24 dev wan0",
            "ip address add 198.51.100.9/24 dev wan0",
            "ip address add 192.0.2.1/30 dev kwan",
            "ip address add 169.254.199.2/30 dev klan",
            "ip address add 169.254.200.2/32 dev klan",
            "ip link set kwan up",
            "ip link set klan up",
            "ip route replace default via 198.51.100.1",
            "ip route add 198.51.100.10/32 dev kwan",
            "ip route add 169.254.200.1/32 via 169.254.199.1 src 169.254.200.2 mtu 1420",
            "sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.wan0.proxy_arp=1",
        ] {
            ns.sh(line);
        }
        for line in [
            "ip address add 198.51.100.10/32 dev eth0",
            "ip link set eth0 up",
            "ip route add 192.0.2.0/30 dev eth0",
            "ip route add default via 192.0.2.1",
            "ip address add 169.254.199.1/30 dev eth1",
            "ip link set eth1 up",
            "ip route add 169.254.200.2/32 via 169.254.199.2",
            "echo 1 >/proc/sys/net/ipv4/ip_forward",
        ] {
            self.sh(line);
        }
    }

    /// Runs a line in it, and returns what that said.
    pub(crate) fn sh(&self, line: &str) -> String {
        let mut port = self.port.lock().unwrap();
        port.write_all(format!("{line}\n").as_bytes()).unwrap();
        let said = read_until(&mut port, "DONE ");
        assert_eq!(read_until(&mut port, "\n"), "0\n", "{line}: {said}");
        said.trim_end_matches("DONE ").to_owned()
    }
}

/// A byte at a time: what follows is the next one's.
fn read_until(port: &mut UnixStream, end: &str) -> String {
    let mut said = Vec::new();
    while !said.ends_with(end.as_bytes()) {
        let mut byte = [0];
        port.read_exact(&mut byte).expect("the machine answers");
        said.push(byte[0]);
    }
    String::from_utf8_lossy(&said).into_owned()
}
