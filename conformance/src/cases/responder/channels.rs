//! Maintenance and MACsec keys of channels.

use serde_json::{Value, json};
use tieline_openapi::coordinator::{Channel, ChannelPath, ListMacSecKeysResponse, MacSecKeyPath, OperationId as Op};

use crate::{
    session::{Session, name},
    suite::{Case, Stop, case, must},
};

pub(super) const CASES: &[Case] = &[
    case!(
        "channels/notify-maintenance",
        "A notification of a channel's maintenance is acknowledged, however often it comes.",
        "NotifyMaintenance",
        notify_maintenance
    ),
    case!(
        "channels/key-not-shown",
        "A channel's MACsec keys are listed without the secret half.",
        "ListMacSecKeys; security policy",
        key_not_shown
    ),
    case!(
        "channels/key-by-manager",
        "Only the channel's MACsec manager may create a key.",
        "CreateMacSecKey; Channel.macsecManagerProvider",
        key_by_manager
    ),
    case!(
        "channels/rotation-asked-of-manager",
        "A rotation is asked for by the provider that is not the manager.",
        "RequestMacSecKeyRotation",
        rotation_asked_of_manager
    ),
    case!("channels/key-unknown", "A key that does not exist is answered with 404.", "GetMacSecKey", key_unknown),
];

/// The first channel that the suite's provider manages the MACsec keys of, or does not.
fn channel(s: &Session, managed: bool) -> Result<ChannelPath, Stop> {
    let own = s.provider().to_string();
    let fits = |channel: &&Channel| (channel.macsec_manager_provider.as_deref() == Some(&own)) == managed;
    let whose = if managed { "manages" } else { "does not manage" };
    let none = || Stop::Skipped(format!("there is no channel whose MACsec keys {own} {whose}"));
    let found = s.place()?.channels.iter().find(fits).ok_or_else(none)?;
    name(found.name.as_deref())
}

async fn notify_maintenance(s: &Session) -> Result<(), Stop> {
    for channel in s.place()?.channels.iter().take(1) {
        let path: ChannelPath = name(channel.name.as_deref())?;
        for _ in 0..2 {
            s.call(Op::NotifyMaintenance, &path, &[], &json!({})).await?.read::<Value>()?;
        }
    }
    Ok(())
}

async fn key_not_shown(s: &Session) -> Result<(), Stop> {
    for channel in &s.place()?.channels {
        let path: ChannelPath = name(channel.name.as_deref())?;
        let listed: ListMacSecKeysResponse = s.get(Op::ListMacSecKeys, &path).await?.read()?;
        let told = listed.mac_sec_keys.iter().any(|key| key.cak.is_some());
        must(!told, || format!("ListMacSecKeys shows a CAK of {path}"))?;
        let active = listed.mac_sec_keys.iter().filter(|key| key.active == Some(true)).count();
        must(active <= 1, || format!("{active} keys of {path} are active"))?;
    }
    Ok(())
}

async fn key_by_manager(s: &Session) -> Result<(), Stop> {
    let path = channel(s, false)?;
    let body = json!({ "cak": "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff", "ckn": "c0ffee" });
    let id = s.uuid().to_string();
    s.call(Op::CreateMacSecKey, &path, &[("macSecKeyId", &id)], &body)
        .await?
        .refused("by a provider that is not the manager")
}

async fn rotation_asked_of_manager(s: &Session) -> Result<(), Stop> {
    let path = channel(s, true)?;
    let answer = s.call(Op::RequestMacSecKeyRotation, &path, &[], &json!({ "reason": "conformance" })).await?;
    answer.refused("of the provider that is not the manager")
}

async fn key_unknown(s: &Session) -> Result<(), Stop> {
    let at: ChannelPath = match s.place()?.channels.first() {
        Some(channel) => name(channel.name.as_deref())?,
        None => return Err(Stop::Skipped("there is no channel".to_owned())),
    };
    let ChannelPath { provider, environment, interconnect, channel } = at;
    let path = MacSecKeyPath { provider, environment, interconnect, channel, mac_sec_key: s.uuid().into() };
    s.get(Op::GetMacSecKey, &path).await?.refused_with(&[404], "for a key that does not exist")
}
