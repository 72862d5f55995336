//! A well-behaved peer's channels: MACsec keys that the target has sent, and maintenance. They are no case's: they stay when
//! it ends.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use serde_json::{Value, json};
use tieline_openapi::coordinator::OperationId as Op;

use super::{heard::Heard, plot::Said, stage::Statics};

/// Keys that are kept at most: two a channel are the specification's.
const KEYS: usize = 2;

/// What the suite has on its channels, by their names as the target calls them.
#[derive(Debug, Default)]
pub(crate) struct Held {
    /// The keys of a channel, the oldest first.
    keys: BTreeMap<String, Vec<Value>>,
    /// Work of the suite's.
    maintenance: BTreeMap<String, Vec<Value>>,
    /// Whether a second key of a channel stays unused.
    standby: bool,
}

impl Held {
    /// The keys of a channel, the oldest first.
    pub(crate) fn keys(&self, channel: &str) -> &[Value] {
        self.keys.get(channel).map_or(&[], Vec::as_slice)
    }

    /// Whether a channel has one key, which is in use.
    pub(crate) fn is_settled(&self, channel: &str) -> bool {
        matches!(self.keys(channel), [key] if key["active"] == json!(true))
    }

    /// Keeps new keys unused, or takes the newest of each channel into use.
    pub(crate) fn stand_by(&mut self, standby: bool) {
        self.standby = standby;
        if !standby {
            self.keys.values_mut().for_each(|keys| use_newest(keys));
        }
    }

    /// Says that there is work on a channel, for as long as anybody asks, or none.
    pub(crate) fn works(&mut self, channel: &str, at_work: bool) {
        let event = json!({
            "maintenanceId": "work-of-the-suite",
            "startTime": "2000-01-01T00:00:00Z",
            "endTime": "2100-01-01T00:00:00Z",
        });
        self.maintenance.insert(channel.to_owned(), if at_work { vec![event] } else { Vec::new() });
    }

    /// No work anywhere, and every key in use.
    pub(crate) fn calm(&mut self) {
        self.maintenance.clear();
        self.stand_by(false);
    }

    fn create(&mut self, channel: &str, heard: &Heard) -> Said {
        let Some(id) = heard.asked("macSecKeyId") else { return Said::no(400, "macSecKeyId is required") };
        let (name, standby) = (format!("{channel}/macSecKeys/{id}"), self.standby);
        let keys = self.keys.entry(channel.to_owned()).or_default();
        if keys.iter().any(|key| key["name"] == json!(name)) {
            return Said::no(409, "the key is there already");
        }
        if keys.len() >= KEYS {
            return Said::no(409, "a channel has two keys at most");
        }
        let mut key = heard.body.clone();
        key["name"] = json!(name);
        key["active"] = json!(false);
        key["startTime"] = json!(jiff::Timestamp::UNIX_EPOCH.to_string());
        keys.push(key.clone());
        // Without a key nothing goes over the channel: the first one never waits.
        if !standby || keys.len() == 1 {
            use_newest(keys);
        }
        Said::good(shown(&key))
    }
}

fn use_newest(keys: &mut [Value]) {
    let newest = keys.len().saturating_sub(1);
    for (n, key) in keys.iter_mut().enumerate() {
        key["active"] = json!(n == newest);
    }
}

/// A key without its secret half.
fn shown(key: &Value) -> Value {
    let mut shown = key.clone();
    if let Some(members) = shown.as_object_mut() {
        members.remove("cak");
    }
    shown
}

/// The suite's half of the channels.
#[derive(Debug, Default)]
pub(crate) struct Channels(Mutex<Held>);

impl Channels {
    pub(crate) fn held(&self) -> MutexGuard<'_, Held> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers a request about a channel.
    pub(super) fn serve(&self, heard: &Heard, statics: &Statics) -> Said {
        let channel = format!("{}/channels/{}", heard.interconnect(), heard.id("channel"));
        let Some(known) = statics.channel(&channel) else { return Said::no(404, "there is no such channel") };
        if heard.op == Op::NotifyMaintenance {
            return Said::good(json!({}));
        }
        let mut held = self.held();
        if heard.op == Op::GetMaintenanceEvents {
            return Said::good(json!({ "events": held.maintenance.get(&channel).cloned().unwrap_or_default() }));
        }
        if heard.op == Op::RequestMacSecKeyRotation {
            let ours = known["macsecManagerProvider"] == json!(format!("providers/{}", statics.own));
            return if ours { Said::good(json!({})) } else { Said::no(403, "the caller manages the keys itself") };
        }
        if known["macsecManagerProvider"] != json!(format!("providers/{}", statics.target)) {
            return Said::no(403, "only the channel's manager uses the key API");
        }
        if heard.op == Op::CreateMacSecKey {
            return held.create(&channel, heard);
        }
        if heard.op == Op::ListMacSecKeys {
            return Said::good(json!({ "macSecKeys": held.keys(&channel).iter().map(shown).collect::<Vec<_>>() }));
        }
        let name = json!(format!("{channel}/macSecKeys/{}", heard.id("macSecKey")));
        let keys = held.keys.entry(channel).or_default();
        let Some(at) = keys.iter().position(|key| key["name"] == name) else {
            return Said::no(404, "there is no such key");
        };
        if heard.op == Op::GetMacSecKey {
            return Said::good(shown(&keys[at]));
        }
        if keys[at]["active"] == json!(true) {
            return Said::no(409, "an active key cannot be deleted");
        }
        keys.remove(at);
        Said::good(json!({}))
    }
}
