//! A well-behaved Responder: MACsec keys and maintenance of channels.

use serde_json::{Value, json};
use tieline_openapi::coordinator::OperationId as Op;

use super::{
    heard::Heard,
    plot::{Said, State},
    stage::Statics,
};

impl State {
    pub(super) fn of_channel(&mut self, heard: &Heard, statics: &Statics) -> Said {
        let channel = format!("{}/channels/{}", heard.interconnect(), heard.id("channel"));
        let Some(known) = statics.channel(&channel) else { return Said::no(404, "there is no such channel") };
        if heard.op == Op::NotifyMaintenance {
            return Said::good(json!({}));
        }
        if heard.op == Op::GetMaintenanceEvents {
            return Said::good(json!({ "events": self.maintenance.get(&channel).cloned().unwrap_or_default() }));
        }
        let manager = format!("providers/{}", statics.target);
        if heard.op == Op::RequestMacSecKeyRotation {
            let ours = known["macsecManagerProvider"] == json!(format!("providers/{}", statics.own));
            return if ours { Said::good(json!({})) } else { Said::no(403, "the caller manages the keys itself") };
        }
        if known["macsecManagerProvider"] != json!(manager) {
            return Said::no(403, "only the channel's manager uses the key API");
        }
        let under = format!("{channel}/macSecKeys/");
        if heard.op == Op::CreateMacSecKey {
            return self.create_key(&under, heard);
        }
        if heard.op == Op::ListMacSecKeys {
            let of = self.mac_sec_keys.iter().filter(|(name, _)| name.starts_with(&under));
            return Said::good(json!({ "macSecKeys": of.map(|(_, key)| shown(key)).collect::<Vec<_>>() }));
        }
        let name = format!("{under}{}", heard.id("macSecKey"));
        let Some(key) = self.mac_sec_keys.get(&name) else { return Said::no(404, "there is no such key") };
        if heard.op == Op::GetMacSecKey {
            return Said::good(shown(key));
        }
        if key["active"] == json!(true) {
            return Said::no(409, "an active key cannot be deleted");
        }
        self.mac_sec_keys.remove(&name);
        Said::good(json!({}))
    }

    fn create_key(&mut self, under: &str, heard: &Heard) -> Said {
        let Some(id) = heard.asked("macSecKeyId") else { return Said::no(400, "macSecKeyId is required") };
        let name = format!("{under}{id}");
        if self.mac_sec_keys.contains_key(&name) {
            return Said::no(409, "the key is there already");
        }
        let same = self.mac_sec_keys.keys().filter(|other| other.starts_with(under)).count();
        if same >= 2 {
            return Said::no(409, "a channel has two keys at most");
        }
        let mut key = heard.body.clone();
        key["name"] = json!(name);
        key["active"] = json!(same == 0);
        key["startTime"] = json!(jiff::Timestamp::UNIX_EPOCH.to_string());
        self.mac_sec_keys.insert(name, key.clone());
        Said::good(shown(&key))
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
