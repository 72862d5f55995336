//! What cases about MACsec keys work with: channels by whom their keys are managed, and keys that the suite sends.

use std::time::Duration;

use serde_json::json;
use tieline_openapi::coordinator::{
    Channel, ChannelPath, InterconnectState, ListMacSecKeysResponse, MacSecKey, MacSecKeyPath, OperationId as Op,
};

use crate::{
    session::{Place, Session, name},
    suite::{Stop, must},
    wire::Answer,
};

/// How often is looked.
const LOOK: Duration = Duration::from_millis(200);

/// The channels of one interconnect.
#[derive(Debug, Clone)]
pub(crate) struct Lines {
    /// Those whose keys the suite's provider manages.
    pub ours: Vec<ChannelPath>,
    /// Those whose keys the target manages.
    pub theirs: Vec<ChannelPath>,
}

impl Lines {
    fn of(s: &Session, place: &Place) -> Result<Self, Stop> {
        let own = s.provider().to_string();
        let managed = |channel: &&Channel| channel.macsec_manager_provider.is_some();
        let by_us = |channel: &&Channel| channel.macsec_manager_provider.as_deref() == Some(&own);
        let (ours, theirs): (Vec<_>, Vec<_>) = place.channels.iter().filter(managed).partition(by_us);
        let names = |of: Vec<&Channel>| -> Result<Vec<ChannelPath>, Stop> {
            of.into_iter().map(|channel| name(channel.name.as_deref())).collect()
        };
        Ok(Self { ours: names(ours)?, theirs: names(theirs)? })
    }
}

/// A key of the suite's.
pub(crate) struct Sent {
    pub path: MacSecKeyPath,
    /// What CreateMacSecKey was sent with.
    pub body: serde_json::Value,
    pub answer: Answer,
}

pub(crate) fn is_active(key: &MacSecKey) -> bool {
    key.active == Some(true)
}

pub(crate) fn key_path(at: &ChannelPath, id: &str) -> Result<MacSecKeyPath, Stop> {
    name(Some(&format!("{at}/macSecKeys/{id}")))
}

impl Session {
    /// The interconnects whose channels run MACsec, the last first: what other cases make, they make on the first.
    pub(crate) fn macsec_lines(&self) -> Result<Vec<Lines>, Stop> {
        let active = |place: &&Place| place.interconnect.1.state == Some(InterconnectState::Active);
        self.places().iter().rev().filter(active).map(|place| Lines::of(self, place)).collect()
    }

    /// An interconnect with so many channels whose keys the suite's provider manages, and the target.
    pub(crate) fn lines(&self, ours: usize, theirs: usize) -> Result<Lines, Stop> {
        let found = self.macsec_lines()?.into_iter().find(|l| l.ours.len() >= ours && l.theirs.len() >= theirs);
        let none = || {
            Stop::Skipped(format!(
                "no interconnect has {ours} channels whose MACsec keys {} manages, and {theirs} of the target's",
                self.provider()
            ))
        };
        found.ok_or_else(none)
    }

    /// The keys that the target shows of a channel.
    pub(crate) async fn keys_of(&self, at: &ChannelPath) -> Result<Vec<MacSecKey>, Stop> {
        Ok(self.get(Op::ListMacSecKeys, at).await?.read::<ListMacSecKeysResponse>()?.mac_sec_keys)
    }

    /// Sends a new key.
    pub(crate) async fn send_key(&self, at: &ChannelPath) -> Result<Sent, Stop> {
        let digits = || format!("{}{}", self.uuid().simple(), self.uuid().simple());
        let path = key_path(at, &self.uuid().to_string())?;
        // The last one is the server's to set: what a client says of it counts for nothing.
        let body = json!({ "cak": digits(), "ckn": digits(), "startTime": "2000-01-01T00:00:00Z" });
        let answer = self.call(Op::CreateMacSecKey, at, &[("macSecKeyId", path.mac_sec_key.as_str())], &body).await?;
        Ok(Sent { path, body, answer })
    }

    /// Waits for something of the keys that the target shows.
    pub(crate) async fn until_keys<T>(
        &self,
        at: &ChannelPath,
        what: &str,
        find: impl Fn(&[MacSecKey]) -> Option<T>,
    ) -> Result<T, Stop> {
        let (began, patience) = (self.elapsed(), self.settings().patience);
        loop {
            if let Some(found) = find(&self.keys_of(at).await?) {
                return Ok(found);
            }
            must(self.elapsed().saturating_sub(began) < patience, || format!("within {patience:?} {what}"))?;
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Waits out the bake time, if that is short enough to be waited for.
    pub(crate) async fn baked(&self) -> Result<(), Stop> {
        let (bake, patience) = (self.settings().bake, self.settings().patience);
        if bake > patience {
            return Err(Stop::Skipped(format!(
                "the bake time of {bake:?} is too long to wait for: agree on a shorter one with the target, and say --bake"
            )));
        }
        // The target counts from its own observation, which is a moment earlier.
        tokio::time::sleep(bake + LOOK).await;
        Ok(())
    }

    /// Brings a channel whose keys the suite manages to one key, which is in use. The key.
    pub(crate) async fn settled_key(&self, at: &ChannelPath) -> Result<MacSecKey, Stop> {
        let keys = self.keys_of(at).await?;
        if keys.is_empty() {
            self.send_key(at).await?.answer.read::<MacSecKey>()?;
        }
        let unused = "the channel's key is not in use";
        let used = |keys: &[MacSecKey]| keys.iter().find(|key| is_active(key)).cloned();
        let active = self.until_keys(at, unused, used).await?;
        for other in self.keys_of(at).await?.iter().filter(|key| !is_active(key)) {
            let path: MacSecKeyPath = name(other.name.as_deref())?;
            self.get(Op::DeleteMacSecKey, &path).await?.read::<serde_json::Value>()?;
        }
        Ok(active)
    }

    /// Waits until no channel of an interconnect is in rotation and the bake time is over, for the suite's next change.
    pub(crate) async fn ready(&self, lines: &Lines) -> Result<(), Stop> {
        for at in &lines.ours {
            self.settled_key(at).await?;
        }
        for at in &lines.theirs {
            let calm = |keys: &[MacSecKey]| (keys.len() <= 1).then_some(());
            self.until_keys(at, "a rotation of the target's does not end", calm).await?;
        }
        self.baked().await
    }

    /// Gives a channel a second key, and waits until the target uses it: the old and the new one.
    pub(crate) async fn rotated(&self, at: &ChannelPath) -> Result<(MacSecKey, MacSecKey), Stop> {
        let old = self.settled_key(at).await?;
        let new = self.send_key(at).await?;
        new.answer.read::<MacSecKey>()?;
        let name = new.path.to_string();
        let used =
            |keys: &[MacSecKey]| keys.iter().find(|key| key.name.as_deref() == Some(&name) && is_active(key)).cloned();
        let new = self.until_keys(at, "the new key is not in use", used).await?;
        Ok((old, new))
    }
}
