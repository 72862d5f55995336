//! Tells systemd that the gateway carries, and which process it is (`man 3 sd_notify`): after a hot restart it is another one.

use std::{
    env, io,
    os::{
        linux::net::SocketAddrExt,
        unix::{
            ffi::OsStrExt,
            net::{SocketAddr, UnixDatagram},
        },
    },
};

/// Says so, where systemd has started this process. Nothing follows from a failure but that systemd takes the gateway for slow.
pub(super) fn ready() {
    if let Err(error) = say(&format!("READY=1\nMAINPID={}", std::process::id())) {
        tracing::warn!(%error, "systemd does not hear that the gateway carries");
    }
}

fn say(text: &str) -> io::Result<()> {
    let Some(to) = env::var_os("NOTIFY_SOCKET") else { return Ok(()) };
    let address = match to.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(&to)?,
    };
    UnixDatagram::unbound()?.send_to_addr(text.as_bytes(), &address).map(drop)
}
