//! BIRD 2: its control socket and answers, and a router whose sessions are files that its configuration includes.
//!
//! A session is one file `{name}.conf` in a folder that `bird.conf` includes as `include "…/tl-*.conf";`. Its first line
//! tells what the file holds. The folder is the record: a session's file is there before its tagged interface is made, and
//! is the last to go, so that a crash leaves nothing that no list shows.

mod config;
mod control;
mod parse;

use std::{
    collections::BTreeMap,
    fs, io,
    net::IpAddr,
    path::{Path, PathBuf},
};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tieline_openapi::{
    config::BirdConfig,
    ids::RouterId,
    v1::{BfdState, BgpState},
};
use tokio::sync::Mutex;

use super::{Device, DeviceError, Listed, Owner, Program, Session, SessionName, command::Done, file};

#[cfg(test)]
pub(super) use config::session;
pub use config::{MAX_KEY, key_fits};
pub use control::{Control, ControlError, Reply};
pub use parse::{BfdLine, Protocol, Route, parse_bfd, parse_protocols, parse_routes};

/// Sessions that the folder may hold.
const MOST: usize = 10_000;
/// What a file's first line begins with.
const HEAD: &str = "# tieline ";

/// A router that is BIRD on this machine.
#[derive(Debug)]
pub struct Bird {
    folder: PathBuf,
    control: PathBuf,
    hook: Program,
    /// Whether the files may differ from what the daemon has taken: one change at a time, and after a start or a failure
    /// all of it is read again.
    unread: Mutex<bool>,
}

/// A tagged interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Link {
    /// Its name, `{parent}.{vlan}`.
    name: String,
    parent: String,
    vlan: u16,
}

/// What a session's file holds, as its first line tells.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Head {
    /// Empty where the session is half made or half gone.
    fingerprint: String,
    link: Link,
    peer_ip: std::net::Ipv4Addr,
}

#[derive(Serialize)]
#[serde(tag = "verb", rename_all = "camelCase", rename_all_fields = "camelCase")]
enum Request<'a> {
    PutLink { link: &'a Link, mtu_bytes: u16, address: ipnet::Ipv4Net },
    DeleteLink { link: &'a Link },
}

impl Bird {
    /// A router by its configuration. Nothing is called yet.
    #[must_use]
    pub fn new(id: RouterId, config: &BirdConfig) -> Self {
        Self {
            folder: config.includes.clone().into(),
            control: config.control.clone().into(),
            hook: Program::new(id, &config.hook),
            unread: Mutex::new(true),
        }
    }

    fn path(&self, name: &SessionName) -> PathBuf {
        self.folder.join(format!("{name}.conf"))
    }

    /// The heads of the folder's files.
    fn heads(&self) -> Result<BTreeMap<SessionName, Head>, DeviceError> {
        let failed = |source| DeviceError::File { path: self.folder.clone(), source };
        let mut heads = BTreeMap::new();
        for entry in fs::read_dir(&self.folder).map_err(failed)?.take(2 * MOST) {
            let path = entry.map_err(failed)?.path();
            let name = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_suffix(".conf"));
            let Some(name) = name.and_then(|name| name.parse::<SessionName>().ok()) else { continue };
            heads.extend(head(&path)?.map(|head| (name, head)));
        }
        Ok(heads)
    }

    fn write(&self, name: &SessionName, head: &Head, body: &str) -> Result<(), DeviceError> {
        let path = self.path(name);
        let failed = |source| DeviceError::File { path: path.clone(), source };
        let line = serde_json::to_string(head).map_err(|error| failed(error.into()))?;
        file::replace(&path, format!("{HEAD}{line}\n{body}").as_bytes()).map_err(failed)
    }

    async fn open(&self) -> Result<Control, DeviceError> {
        Ok(Control::connect(&self.control).await?)
    }

    /// Lets the daemon read its configuration. Sessions whose part of it is unchanged are not disturbed.
    async fn configure(&self, unread: &mut bool) -> Result<(), DeviceError> {
        *unread = true;
        self.open().await?.ask("configure").await?;
        *unread = false;
        Ok(())
    }
}

/// A file's first line; none where there is no such file.
fn head(path: &Path) -> Result<Option<Head>, DeviceError> {
    let failed = |source| DeviceError::File { path: path.to_owned(), source };
    let text = match fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        text => text.map_err(failed)?,
    };
    let line = text.lines().next().and_then(|line| line.strip_prefix(HEAD)).unwrap_or_default();
    serde_json::from_str(line).map(Some).map_err(|error| failed(error.into()))
}

impl Head {
    fn of(session: &Session) -> Self {
        let (parent, vlan) = (session.interface.clone(), session.vlan.get());
        let link = Link { name: format!("{parent}.{vlan}"), parent, vlan };
        Self { fingerprint: session.fingerprint(), link, peer_ip: session.peer_ip }
    }

    fn half(&self) -> Self {
        Self { fingerprint: String::new(), ..self.clone() }
    }
}

#[async_trait]
impl Device for Bird {
    async fn list(&self, owner: &Owner) -> Result<BTreeMap<SessionName, Listed>, DeviceError> {
        let mut unread = self.unread.lock().await;
        if *unread {
            self.configure(&mut unread).await?;
        }
        let mut heads = self.heads()?;
        heads.retain(|name, _| owner.owns(name));
        let mut control = self.open().await?;
        let protocols = parse_protocols(&control.ask("show protocols all").await?);
        let bfd = parse_bfd(&control.ask("show bfd sessions").await?);
        drop(unread);
        let listed = |(name, head): (SessionName, Head)| {
            let protocol = protocols.iter().find(|protocol| protocol.name == name.to_string());
            let bgp = protocol.and_then(|protocol| protocol.bgp).unwrap_or(BgpState::Down);
            let up = bgp == BgpState::Established;
            let (routes_in, routes_out) = protocol.and_then(|p| p.routes).filter(|_| up).unwrap_or_default();
            let heard = |line: &&BfdLine| line.neighbour == IpAddr::V4(head.peer_ip);
            let bfd: Option<BfdState> = bfd.iter().find(heard).map(|line| line.state);
            let last_error = protocol.and_then(|protocol| protocol.last_error.clone());
            let fingerprint = head.fingerprint;
            (name, Listed { fingerprint, bgp, bfd, routes_in, routes_out, last_error })
        };
        Ok(heads.into_iter().map(listed).collect())
    }

    async fn put(&self, session: &Session) -> Result<(), DeviceError> {
        let name = &session.name;
        let body = config::session(session).map_err(|rule| DeviceError::Invalid { name: name.clone(), rule })?;
        let invalid =
            |error: ipnet::PrefixLenError| DeviceError::Invalid { name: name.clone(), rule: error.to_string() };
        let address = ipnet::Ipv4Net::new(session.local_ip, session.prefix_len).map_err(invalid)?;
        let mut unread = self.unread.lock().await;
        let path = self.path(name);
        let head = Head::of(session);
        let before = match self::head(&path)? {
            Some(before) if before.link != head.link => {
                drop(unread);
                self.delete(name).await?;
                unread = self.unread.lock().await;
                None
            }
            before => before,
        };
        let before = match before {
            Some(_) => Some(fs::read(&path).map_err(|source| DeviceError::File { path: path.clone(), source })?),
            None => None,
        };
        if before.is_none() {
            self.write(name, &head.half(), "")?;
        }
        let request = Request::PutLink { link: &head.link, mtu_bytes: session.mtu_bytes.get(), address };
        let Done {} = self.hook.ask(&request, None).await?;
        self.write(name, &head, &body)?;
        let configured = self.configure(&mut unread).await;
        if let Err(DeviceError::Bird(ControlError::Refused { .. })) = &configured {
            // One session that the daemon does not take must not keep it from taking others.
            match before {
                Some(before) => {
                    file::replace(&path, &before).map_err(|source| DeviceError::File { path: path.clone(), source })?
                }
                None => self.write(name, &head.half(), "")?,
            }
        }
        configured
    }

    async fn delete(&self, name: &SessionName) -> Result<(), DeviceError> {
        let mut unread = self.unread.lock().await;
        let path = self.path(name);
        let Some(head) = head(&path)? else { return Ok(()) };
        self.write(name, &head.half(), "")?;
        self.configure(&mut unread).await?;
        let Done {} = self.hook.ask(&Request::DeleteLink { link: &head.link }, None).await?;
        match fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => Err(DeviceError::File { path, source }),
            _ => Ok(()),
        }
    }
}
