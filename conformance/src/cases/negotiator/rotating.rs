//! MACsec keys of channels that the target manages.

use std::{sync::Arc, time::Duration};

use serde_json::{Value, json};
use tieline_openapi::coordinator::{ChannelPath, ListFeaturesResponse, OperationId as Op, ProvisioningState};

use crate::{
    macsec::{Lines, is_active},
    peer::{Act, Channels, Heard, State},
    session::{Session, name},
    suite::{Case, Stop, asked, must, violation},
};

pub(super) const CASES: &[Case] = &[
    asked!(
        alone
        "rotating/asked",
        "A manager that is asked for a rotation makes a new key and sends it.",
        "RequestMacSecKeyRotation; CreateMacSecKey",
        new_key
    ),
    asked!(
        alone
        "rotating/whole",
        "A new key has a CAK of 128 or 256 bits and a CKN of up to 32 octets, and neither was used before.",
        "MacSecKey.cak, ckn; IEEE 802.1X-2020 section 9.3.1",
        whole
    ),
    asked!(
        alone
        "rotating/old-stays",
        "The old key is not deleted before the peer shows the new one as active.",
        "MACsec Key Rotation: fail closed",
        old_stays
    ),
    asked!(
        alone
        "rotating/old-goes",
        "Once the new key is active, the manager deletes the old one.",
        "DeleteMacSecKey; MACsec Key Rotation",
        old_goes
    ),
    asked!(
        alone
        "rotating/own-channels",
        "The target makes keys for the channels that it manages, and for no other.",
        "Channel.macsecManagerProvider",
        own_channels
    ),
    asked!(
        alone
        "rotating/one-channel",
        "While a channel of an interconnect is in rotation, the target begins no rotation of another.",
        "MACsec Key Rotation: one channel at a time",
        one_channel
    ),
    asked!(
        alone
        "rotating/bake-time",
        "Within the bake time after a rotation the target begins no other one of the interconnect.",
        "MACsec Key Rotation: bake time",
        bake_time
    ),
    asked!(
        alone
        "rotating/refused",
        "A key that the peer refuses is not sent again at once, and the old one stays.",
        "CreateMacSecKey: 409",
        refused
    ),
    asked!(
        alone
        "rotating/lost",
        "Where the answer is lost there is no second new key: the same one is sent again, or looked for.",
        "CreateMacSecKey; recovery: an answer was lost",
        lost
    ),
    asked!(
        "rotating/fail-closed",
        "Where MACsec is run and no key is in use, the target finishes no feature.",
        "MACsec Key Rotation: fail closed",
        fail_closed
    ),
];

/// The channels of an interconnect, and what the suite has on them.
struct Stand {
    lines: Lines,
    held: Arc<Channels>,
}

impl Stand {
    /// Where the target manages so many channels, all of which have one key that is in use.
    async fn set(s: &Session, theirs: usize) -> Result<Self, Stop> {
        let held = Arc::clone(s.peer()?.stage().channels());
        s.plot().state().manners.channels = true;
        let stand = Self { lines: s.lines(0, theirs)?, held };
        for at in &stand.lines.theirs {
            let name = stand.name(s, at)?;
            let settled = |_: &State| stand.held.held().is_settled(&name).then_some(());
            s.until(&format!("the target gave {at} no key, or a rotation did not end"), settled).await?;
        }
        s.baked().await?;
        Ok(stand)
    }

    /// A channel as the target calls it.
    fn name(&self, s: &Session, at: &ChannelPath) -> Result<String, Stop> {
        let own = format!("providers/{}/", s.statics()?.own);
        let target = format!("providers/{}/", s.statics()?.target);
        Ok(at.to_string().replacen(&own, &target, 1))
    }

    fn keys(&self, s: &Session, at: &ChannelPath) -> Result<Vec<Value>, Stop> {
        Ok(self.held.held().keys(&self.name(s, at)?).to_vec())
    }

    async fn ask(&self, s: &Session, at: &ChannelPath) -> Result<(), Stop> {
        let answer = s.call(Op::RequestMacSecKeyRotation, at, &[], &json!({ "reason": "conformance" })).await?;
        answer.read::<Value>().map(drop)
    }

    /// Asks for a rotation of the first channel, and waits for its new key.
    async fn rotation(&self, s: &Session) -> Result<Heard, Stop> {
        let at = &self.lines.theirs[0];
        // The first key of a channel may have come in the same case.
        let from = s.plot().state().heard.len();
        self.ask(s, at).await?;
        let sent = |state: &State| state.heard.iter().skip(from).find(|heard| creates(at)(heard)).cloned();
        s.until("the target made no new key for a channel that it was asked to rotate", sent).await
    }
}

/// A key was sent for this channel.
fn creates(at: &ChannelPath) -> impl Fn(&Heard) -> bool + Send + use<> {
    let at = at.clone();
    move |heard| heard.op == Op::CreateMacSecKey && heard.is_of(&at)
}

fn deletes(heard: &Heard) -> bool {
    heard.op == Op::DeleteMacSecKey
}

async fn new_key(s: &Session) -> Result<(), Stop> {
    let stand = Stand::set(s, 1).await?;
    let old = stand.keys(s, &stand.lines.theirs[0])?;
    let new = stand.rotation(s).await?;
    let id = new.asked("macSecKeyId").unwrap_or_default().to_owned();
    let same = old.iter().any(|key| key["name"].as_str().is_some_and(|name| name.ends_with(&format!("/{id}"))));
    must(!id.is_empty() && !same, || format!("macSecKeyId of the new key is {id:?}"))
}

async fn whole(s: &Session) -> Result<(), Stop> {
    let stand = Stand::set(s, 1).await?;
    let old = stand.keys(s, &stand.lines.theirs[0])?;
    let new = stand.rotation(s).await?.body;
    let digits = |name: &str| {
        let text = new[name].as_str().unwrap_or_default().to_owned();
        let hex = !text.is_empty() && text.len() % 2 == 0 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        if hex { Ok(text) } else { Err(violation(format!("{name} of the new key is no hexadecimal number"))) }
    };
    let (cak, ckn) = (digits("cak")?, digits("ckn")?);
    must([32, 64].contains(&cak.len()), || format!("the CAK has {} digits, and not 32 or 64", cak.len()))?;
    must(ckn.len() <= 64, || format!("the CKN has {} digits, and not 64 at most", ckn.len()))?;
    let again = old.iter().any(|key| key["cak"] == json!(cak) || key["ckn"] == json!(ckn));
    must(!again, || "the new key has the CAK or the CKN of the old one".to_owned())
}

async fn old_stays(s: &Session) -> Result<(), Stop> {
    let stand = Stand::set(s, 1).await?;
    stand.held.held().stand_by(true);
    let first = stand.rotation(s).await?;
    s.never(first.at, "a key was deleted while the peer did not yet use the new one", deletes).await
}

async fn old_goes(s: &Session) -> Result<(), Stop> {
    let stand = Stand::set(s, 1).await?;
    let at = &stand.lines.theirs[0];
    let new = stand.rotation(s).await?;
    let id = new.asked("macSecKeyId").unwrap_or_default().to_owned();
    let name = stand.name(s, at)?;
    let only = |_: &State| {
        let held = stand.held.held();
        let keys = held.keys(&name);
        let new = keys.first()?["name"].as_str()?.ends_with(&format!("/{id}"));
        (new && keys.len() == 1).then_some(())
    };
    s.until("the old key was not deleted after the new one came into use", only).await
}

async fn own_channels(s: &Session) -> Result<(), Stop> {
    let stand = Stand::set(s, 1).await?;
    stand.rotation(s).await?;
    let manager = format!("providers/{}", s.statics()?.target);
    let statics = s.statics()?;
    let strange = move |heard: &Heard| {
        let name = format!("{}/channels/{}", heard.interconnect(), heard.id("channel"));
        let managed = statics.channel(&name).is_some_and(|channel| channel["macsecManagerProvider"] == json!(manager));
        matches!(heard.op, Op::CreateMacSecKey | Op::DeleteMacSecKey) && !managed
    };
    let why = "a key was made or deleted on a channel that the target does not manage";
    s.never(Duration::ZERO, why, strange).await
}

async fn one_channel(s: &Session) -> Result<(), Stop> {
    let stand = Stand::set(s, 2).await?;
    stand.held.held().stand_by(true);
    let first = stand.rotation(s).await?;
    let other = &stand.lines.theirs[1];
    stand.ask(s, other).await?;
    let why = "a rotation began while another channel of the interconnect had two keys";
    s.never(first.at, why, creates(other)).await
}

async fn bake_time(s: &Session) -> Result<(), Stop> {
    let stand = Stand::set(s, 2).await?;
    let other = &stand.lines.theirs[1];
    let from = stand.rotation(s).await?.at;
    stand.ask(s, other).await?;
    let done = |state: &State| {
        let mut later = state.heard.iter().filter(|heard| heard.at >= from);
        later.find(|heard| deletes(heard) && heard.was_good()).map(|heard| heard.at)
    };
    let ended = s.until("the old key was not deleted after the new one came into use", done).await?;
    // Not later than the new key's first use, which is what counts: it was in use when the old one was deleted.
    let bake = s.settings().bake.min(s.settings().window);
    let began = creates(other);
    let early = |state: &State| state.heard.iter().find(|heard| heard.at >= from && began(heard)).map(|heard| heard.at);
    let why = |after: Duration| {
        format!(
            "{after:?} after a rotation the next one of the interconnect began: the bake time is {:?}",
            s.settings().bake
        )
    };
    let first = s.plot().until(bake, "", early).await;
    let slack = Duration::from_millis(1_500).min(bake / 2);
    match first.map(|at| at.saturating_sub(ended)) {
        Ok(after) if after + slack < bake => Err(violation(why(after))),
        Ok(_) | Err(_) => Ok(()),
    }
}

async fn refused(s: &Session) -> Result<(), Stop> {
    let stand = Stand::set(s, 1).await?;
    let at = &stand.lines.theirs[0];
    s.plot().spoil(1_000, Act::Refuse(409), creates(at));
    let first = stand.rotation(s).await?;
    s.never(first.at, "a key was deleted, and the peer had refused the new one", deletes).await?;
    let state = s.plot().state();
    let sent = state.heard.iter().filter(|heard| heard.at >= first.at && creates(at)(heard)).count();
    must(sent <= 5, || format!("a key that was refused was sent {sent} times within {:?}", s.settings().window))
}

async fn lost(s: &Session) -> Result<(), Stop> {
    let stand = Stand::set(s, 1).await?;
    let at = &stand.lines.theirs[0];
    s.plot().spoil(1, Act::Lose, creates(at));
    let first = stand.rotation(s).await?;
    tokio::time::sleep(s.settings().window).await;
    let state = s.plot().state();
    let later = state.heard.iter().filter(|heard| heard.at >= first.at && creates(at)(heard));
    let other = later.into_iter().find(|heard| {
        heard.asked("macSecKeyId") != first.asked("macSecKeyId") || heard.body["cak"] != first.body["cak"]
    });
    must(other.is_none(), || "the answer was lost, and another new key was sent".to_owned())
}

async fn fail_closed(s: &Session) -> Result<(), Stop> {
    let made = s.agreed().await?;
    let path = s.theirs(&made.name)?;
    let features: ListFeaturesResponse = s.get(Op::ListFeatures, &path).await?.read()?;
    for feature in features.features {
        let channel: ChannelPath = name(feature.channel.as_deref())?;
        let finished = feature.provisioning_state == Some(ProvisioningState::Final);
        let open = finished && !s.keys_of(&channel).await?.iter().any(is_active);
        must(!open, || format!("{channel} has no key in use, and a feature on it is finished"))?;
    }
    Ok(())
}
