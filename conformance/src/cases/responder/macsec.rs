//! MACsec keys of channels that the suite's provider manages.

use serde_json::{Value, json};
use tieline_openapi::coordinator::{Feature, MacSecKey, MacSecKeyPath, OperationId as Op, ProvisioningState};

use super::features::{Good, Stage};
use crate::{
    macsec::is_active,
    session::{Session, name},
    suite::{Case, Stop, case, must},
};

pub(super) const CASES: &[Case] = &[
    case!(
        alone
        "macsec/first-keys",
        "First keys of several channels are taken at the same time, and come into use.",
        "MACsec Key Rotation: initialization",
        first_keys
    ),
    case!(
        alone
        "macsec/key-taken",
        "A new key of the manager's is taken after the bake time, and shown without its secret half.",
        "CreateMacSecKey, GetMacSecKey; MACsec Key Rotation",
        key_taken
    ),
    case!(
        alone
        "macsec/start-time",
        "The server says when it took a key, whatever the caller says.",
        "MacSecKey.startTime",
        start_time
    ),
    case!(
        alone
        "macsec/one-active",
        "A new key comes into use, and then the old one is no longer active.",
        "MacSecKey.active; MACsec Key Rotation",
        one_active
    ),
    case!(
        alone
        "macsec/sent-again",
        "A key that is sent again, as after an answer that was lost, is not there twice.",
        "CreateMacSecKey; recovery: an answer was lost",
        sent_again
    ),
    case!(
        alone
        "macsec/active-stays",
        "The active key cannot be deleted: 409.",
        "DeleteMacSecKey; fail closed",
        active_stays
    ),
    case!(
        alone
        "macsec/old-goes",
        "A key that is not active any more can be deleted, and is gone then.",
        "DeleteMacSecKey",
        old_goes
    ),
    case!(alone "macsec/third-key", "A channel has two keys at most: a third is refused with 409.", "MacSecKey", third_key),
    case!(
        alone
        "macsec/one-channel",
        "While a channel of an interconnect is in rotation, a new key of another is refused with 409.",
        "MACsec Key Rotation: one channel at a time; N+1 keys",
        one_channel
    ),
    case!(
        alone
        "macsec/bake-time",
        "Within the bake time after a rotation, another one of the same channel is refused with 409.",
        "MACsec Key Rotation: bake time",
        bake_time
    ),
    case!(
        alone
        "macsec/bake-time-beside",
        "Within the bake time after a rotation, one of another channel of the interconnect is refused with 409.",
        "MACsec Key Rotation: bake time",
        bake_time_beside
    ),
    case!(
        alone
        "macsec/malformed",
        "A key whose CAK is no hexadecimal number is refused.",
        "MacSecKey.cak",
        malformed
    ),
    case!(
        alone
        "macsec/delete-by-manager",
        "Only the channel's manager may delete a key.",
        "DeleteMacSecKey; Channel.macsecManagerProvider",
        delete_by_manager
    ),
    case!(
        "macsec/fail-closed",
        "Where MACsec is run and no key is in use, no feature is finished.",
        "MACsec Key Rotation: fail closed",
        fail_closed
    ),
    case!(
        alone
        "macsec/rotation-taken",
        "A manager takes the request for a rotation.",
        "RequestMacSecKeyRotation",
        rotation_taken
    ),
];

async fn delete(s: &Session, key: &MacSecKey) -> Result<crate::wire::Answer, Stop> {
    let path: MacSecKeyPath = name(key.name.as_deref())?;
    s.get(Op::DeleteMacSecKey, &path).await
}

async fn first_keys(s: &Session) -> Result<(), Stop> {
    for lines in s.macsec_lines()? {
        let mut bare = Vec::new();
        for at in &lines.ours {
            if s.keys_of(at).await?.is_empty() {
                bare.push(at);
            }
        }
        if bare.len() < 2 {
            continue;
        }
        for at in &bare {
            let sent = s.send_key(at).await?;
            must(sent.answer.good(), || {
                format!("the first key of {at} was answered with {}: it waits for nobody", sent.answer.status)
            })?;
        }
        for at in bare {
            let used = |keys: &[MacSecKey]| keys.iter().any(is_active).then_some(());
            s.until_keys(at, &format!("the first key of {at} is not in use"), used).await?;
        }
        return Ok(());
    }
    Err(Stop::Skipped("no interconnect has two channels without keys whose manager the suite is".to_owned()))
}

async fn key_taken(s: &Session) -> Result<(), Stop> {
    let lines = s.lines(1, 0)?;
    s.ready(&lines).await?;
    let sent = s.send_key(&lines.ours[0]).await?;
    let answered: MacSecKey = sent.answer.read()?;
    let shown: MacSecKey = s.get(Op::GetMacSecKey, &sent.path).await?.read()?;
    let name = sent.path.to_string();
    for key in [&answered, &shown] {
        must(key.name.as_deref() == Some(&name), || format!("{name} is shown under the name {:?}", key.name))?;
    }
    must(shown.cak.is_none(), || "GetMacSecKey shows the CAK".to_owned())
}

async fn start_time(s: &Session) -> Result<(), Stop> {
    let lines = s.lines(1, 0)?;
    s.ready(&lines).await?;
    let sent = s.send_key(&lines.ours[0]).await?;
    sent.answer.read::<MacSecKey>()?;
    let shown: MacSecKey = s.get(Op::GetMacSecKey, &sent.path).await?.read()?;
    let said = sent.body["startTime"].as_str().unwrap_or_default();
    let start = shown.start_time.ok_or_else(|| Stop::Violation("a key is shown without its startTime".to_owned()))?;
    must(start.to_string() != said, || format!("startTime is {start}, as the caller said"))
}

async fn one_active(s: &Session) -> Result<(), Stop> {
    let lines = s.lines(1, 0)?;
    s.ready(&lines).await?;
    let (old, _) = s.rotated(&lines.ours[0]).await?;
    let keys = s.keys_of(&lines.ours[0]).await?;
    let still = keys.iter().any(|key| key.name == old.name && is_active(key));
    must(!still, || "both keys of the channel are active".to_owned())
}

async fn sent_again(s: &Session) -> Result<(), Stop> {
    let lines = s.lines(1, 0)?;
    let at = &lines.ours[0];
    s.ready(&lines).await?;
    let sent = s.send_key(at).await?;
    sent.answer.read::<MacSecKey>()?;
    let id = [("macSecKeyId", sent.path.mac_sec_key.as_str())];
    s.call(Op::CreateMacSecKey, at, &id, &sent.body).await?;
    let name = sent.path.to_string();
    let there = s.keys_of(at).await?.iter().filter(|key| key.name.as_deref() == Some(&name)).count();
    must(there == 1, || format!("a key that was sent twice is listed {there} times"))
}

async fn active_stays(s: &Session) -> Result<(), Stop> {
    let lines = s.lines(1, 0)?;
    let key = s.settled_key(&lines.ours[0]).await?;
    delete(s, &key).await?.refused_with(&[409], "of the active key")?;
    let keys = s.keys_of(&lines.ours[0]).await?;
    must(keys.iter().any(|other| other.name == key.name), || "the active key is gone".to_owned())
}

async fn old_goes(s: &Session) -> Result<(), Stop> {
    let lines = s.lines(1, 0)?;
    s.ready(&lines).await?;
    let (old, _) = s.rotated(&lines.ours[0]).await?;
    delete(s, &old).await?.read::<Value>()?;
    let keys = s.keys_of(&lines.ours[0]).await?;
    must(keys.iter().all(|key| key.name != old.name), || "a key that was deleted is listed".to_owned())
}

async fn third_key(s: &Session) -> Result<(), Stop> {
    let lines = s.lines(1, 0)?;
    s.ready(&lines).await?;
    s.rotated(&lines.ours[0]).await?;
    // So that nothing but their number is against it.
    s.baked().await?;
    s.send_key(&lines.ours[0]).await?.answer.refused_with(&[409], "of a third key of a channel")
}

async fn one_channel(s: &Session) -> Result<(), Stop> {
    let lines = s.lines(2, 0)?;
    s.ready(&lines).await?;
    s.rotated(&lines.ours[0]).await?;
    s.baked().await?;
    s.send_key(&lines.ours[1]).await?.answer.refused_with(&[409], "while another channel has two keys")
}

/// One channel's key was changed just now; a new key of a channel then must be refused.
async fn bakes(s: &Session, which: usize, why: &str) -> Result<(), Stop> {
    let lines = s.lines(2, 0)?;
    s.ready(&lines).await?;
    let (old, _) = s.rotated(&lines.ours[0]).await?;
    delete(s, &old).await?.read::<Value>()?;
    s.send_key(&lines.ours[which]).await?.answer.refused_with(&[409], why)
}

async fn bake_time(s: &Session) -> Result<(), Stop> {
    bakes(s, 0, "within the bake time of the channel").await
}

async fn bake_time_beside(s: &Session) -> Result<(), Stop> {
    bakes(s, 1, "within the bake time of another channel").await
}

async fn malformed(s: &Session) -> Result<(), Stop> {
    let lines = s.lines(1, 0)?;
    let body = json!({ "cak": "no hexadecimal number", "ckn": "c0ffee" });
    let id = s.uuid().to_string();
    let answer = s.call(Op::CreateMacSecKey, &lines.ours[0], &[("macSecKeyId", &id)], &body).await?;
    answer.refused("with a CAK that is no hexadecimal number")
}

async fn delete_by_manager(s: &Session) -> Result<(), Stop> {
    let lines = s.lines(0, 1)?;
    let none = "the target has made no key for a channel that it manages";
    let first = |keys: &[MacSecKey]| keys.first().cloned();
    let found = s.until_keys(&lines.theirs[0], none, first).await;
    let Ok(key) = found else { return Err(Stop::Skipped(none.to_owned())) };
    delete(s, &key).await?.refused("by a provider that is not the manager")
}

async fn fail_closed(s: &Session) -> Result<(), Stop> {
    let stage = Stage::set(s).await?;
    for n in 0..stage.channels() {
        let channel = stage.channel(n)?;
        if s.keys_of(&channel).await?.iter().any(is_active) {
            continue;
        }
        let Good { path, .. } = stage.made(s, n, None).await?;
        let shown: Feature = s.get(Op::GetFeature, &path).await?.read()?;
        return must(shown.provisioning_state != Some(ProvisioningState::Final), || {
            format!("{channel} has no key in use, and a feature on it is finished")
        });
    }
    Err(Stop::Skipped("every channel with MACsec has a key in use".to_owned()))
}

async fn rotation_taken(s: &Session) -> Result<(), Stop> {
    let lines = s.lines(0, 1)?;
    let body = json!({ "reason": "conformance" });
    s.call(Op::RequestMacSecKeyRotation, &lines.theirs[0], &[], &body).await?.read::<Value>().map(drop)
}
