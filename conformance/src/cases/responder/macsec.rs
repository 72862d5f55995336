//! MACsec keys of the channels that the suite's provider manages.

use futures::future::{join, join_all};
use serde_json::{Value, json};
use tieline_openapi::coordinator::{
    Channel, ChannelPath, ListMacSecKeysResponse, MacSecKey, MacSecKeyPath, OperationId as Op, ResourceId,
};

use crate::{
    session::{Session, name},
    suite::{Case, Stop, case, must},
    wire::Answer,
};

pub(super) const CASES: &[Case] = &[
    case!(
        alone
        "macsec/first-keys",
        "The manager may give all of its channels their first keys at once; each is shown and listed.",
        "CreateMacSecKey; first keys in parallel",
        first_keys
    ),
    case!(
        alone
        "macsec/start-time",
        "The server sets the start of a key, whatever the manager sends.",
        "MacSecKey.startTime",
        start_time
    ),
    case!(
        alone
        "macsec/two-keys",
        "A channel has two keys at most: a third is refused with 409.",
        "MacSecKey: two keys a channel",
        two_keys
    ),
    case!(
        alone
        "macsec/one-in-rotation",
        "One channel of an interconnect changes its key at a time, so N channels have N+1 keys at most.",
        "MacSecKey: N+1 keys over N channels; rotation of one channel",
        one_in_rotation
    ),
    case!(
        alone
        "macsec/exists",
        "A key of a name that is used is not made a second time with another secret.",
        "CreateMacSecKey: 409",
        exists
    ),
    case!(alone "macsec/delete", "A key that is not active can be deleted, and is gone.", "DeleteMacSecKey", delete),
    case!(
        alone
        "macsec/active-stays",
        "An active key cannot be deleted.",
        "MacSecKey.active",
        active_stays
    ),
    case!(
        alone
        "macsec/delete-by-manager",
        "Only the channel's MACsec manager may delete a key.",
        "DeleteMacSecKey; Channel.macsecManagerProvider",
        delete_by_manager
    ),
];

/// What the suite has made, to be deleted after the case.
struct Keys<'s> {
    s: &'s Session,
    made: std::sync::Mutex<Vec<MacSecKeyPath>>,
}

/// A fresh secret: 32 bytes of AES-256 (IEEE 802.1X-2020), in hexadecimal digits.
fn secret(s: &Session) -> String {
    format!("{}{}", s.uuid().simple(), s.uuid().simple())
}

impl<'s> Keys<'s> {
    fn path(&self, channel: &ChannelPath) -> MacSecKeyPath {
        let ChannelPath { provider, environment, interconnect, channel } = channel.clone();
        MacSecKeyPath { provider, environment, interconnect, channel, mac_sec_key: ResourceId::from(self.s.uuid()) }
    }

    fn body(&self) -> Value {
        json!({ "cak": secret(self.s), "ckn": self.s.uuid().simple().to_string() })
    }

    async fn send(&self, path: &MacSecKeyPath, body: &Value) -> Result<Answer, Stop> {
        self.made.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(path.clone());
        let at = ChannelPath {
            provider: path.provider.clone(),
            environment: path.environment.clone(),
            interconnect: path.interconnect.clone(),
            channel: path.channel.clone(),
        };
        self.s.call(Op::CreateMacSecKey, &at, &[("macSecKeyId", path.mac_sec_key.as_str())], body).await
    }

    async fn create(&self, channel: &ChannelPath) -> Result<(MacSecKeyPath, Answer), Stop> {
        let path = self.path(channel);
        let answer = self.send(&path, &self.body()).await?;
        Ok((path, answer))
    }

    /// A channel's first key, which must be taken.
    async fn first(&self, channel: &ChannelPath) -> Result<MacSecKeyPath, Stop> {
        let (path, answer) = self.create(channel).await?;
        answer.read::<MacSecKey>()?;
        Ok(path)
    }
}

async fn listed(s: &Session, channel: &ChannelPath) -> Result<Vec<MacSecKey>, Stop> {
    Ok(s.get(Op::ListMacSecKeys, channel).await?.read::<ListMacSecKeysResponse>()?.mac_sec_keys)
}

/// The channels of one interconnect that the suite's provider manages and that have no key.
async fn bare(s: &Session, least: usize) -> Result<Vec<ChannelPath>, Stop> {
    let own = s.provider().to_string();
    for place in s.places() {
        let managed = |channel: &&Channel| channel.macsec_manager_provider.as_deref() == Some(&own);
        let mut free = Vec::new();
        for channel in place.channels.iter().filter(managed) {
            let path: ChannelPath = name(channel.name.as_deref())?;
            if listed(s, &path).await?.is_empty() {
                free.push(path);
            }
        }
        if free.len() >= least {
            return Ok(free);
        }
    }
    Err(Stop::Skipped(format!("no interconnect has {least} channels without a key whose keys {own} manages")))
}

/// Runs a case, and takes its keys back.
async fn with<'s, F: Future<Output = Result<(), Stop>>>(
    s: &'s Session,
    least: usize,
    case: impl FnOnce(std::sync::Arc<Keys<'s>>, Vec<ChannelPath>) -> F,
) -> Result<(), Stop> {
    let channels = bare(s, least).await?;
    let keys = std::sync::Arc::new(Keys { s, made: std::sync::Mutex::default() });
    let ended = case(std::sync::Arc::clone(&keys), channels).await;
    let made = std::mem::take(&mut *keys.made.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
    // One that is in use by now stays: the target's devices are its own.
    for path in made.iter().rev() {
        let _ = s.get(Op::DeleteMacSecKey, path).await;
    }
    ended
}

async fn first_keys(s: &Session) -> Result<(), Stop> {
    with(s, 1, async |keys, channels| {
        let paths: Vec<_> = channels.iter().map(|channel| keys.path(channel)).collect();
        let bodies: Vec<_> = paths.iter().map(|_| keys.body()).collect();
        for answer in join_all(paths.iter().zip(&bodies).map(|(path, body)| keys.send(path, body))).await {
            answer?.read::<MacSecKey>()?;
        }
        for (path, channel) in paths.iter().zip(&channels) {
            let shown: MacSecKey = s.get(Op::GetMacSecKey, path).await?.read()?;
            must(shown.name.as_deref() == Some(&path.to_string()), || {
                format!("{path} is shown under the name {:?}", shown.name)
            })?;
            must(shown.cak.is_none(), || format!("GetMacSecKey shows the CAK of {path}"))?;
            let all = listed(s, channel).await?.len();
            must(all == 1, || format!("{channel} was given one key, and {all} are listed"))?;
        }
        Ok(())
    })
    .await
}

async fn start_time(s: &Session) -> Result<(), Stop> {
    with(s, 1, async |keys, channels| {
        let (path, mut body) = (keys.path(&channels[0]), keys.body());
        body["startTime"] = json!("2001-02-03T04:05:06Z");
        body["active"] = json!(false);
        keys.send(&path, &body).await?.read::<MacSecKey>()?;
        let shown: MacSecKey = s.get(Op::GetMacSecKey, &path).await?.read()?;
        let start = shown.start_time.map(|time| time.to_string());
        must(start.is_some(), || "a key is shown without startTime".to_owned())?;
        must(start.as_deref() != Some("2001-02-03T04:05:06Z"), || "startTime is what the manager sent".to_owned())
    })
    .await
}

async fn two_keys(s: &Session) -> Result<(), Stop> {
    with(s, 1, async |keys, channels| {
        keys.first(&channels[0]).await?;
        // The second may be too early, by the bake time of the first.
        keys.create(&channels[0]).await?;
        let (_, third) = keys.create(&channels[0]).await?;
        third.refused_with(&[409], "the third of a channel")?;
        let all = listed(s, &channels[0]).await?.len();
        must(all <= 2, || format!("{all} keys of one channel are listed"))
    })
    .await
}

async fn one_in_rotation(s: &Session) -> Result<(), Stop> {
    with(s, 2, async |keys, channels| {
        for channel in &channels {
            keys.first(channel).await?;
        }
        let (one, two) = join(keys.create(&channels[0]), keys.create(&channels[1])).await;
        let ((_, one), (_, two)) = (one?, two?);
        must(!(one.good() && two.good()), || {
            "two channels of one interconnect were given their next keys at once".to_owned()
        })?;
        let loser = if one.good() { &two } else { &one };
        loser.refused_with(&[409], "while another channel changes its key")
    })
    .await
}

async fn exists(s: &Session) -> Result<(), Stop> {
    with(s, 1, async |keys, channels| {
        let path = keys.first(&channels[0]).await?;
        let again = keys.send(&path, &keys.body()).await?;
        again.refused_with(&[409], "under the name of another key")
    })
    .await
}

async fn delete(s: &Session) -> Result<(), Stop> {
    with(s, 1, async |keys, channels| {
        let path = keys.first(&channels[0]).await?;
        let shown: MacSecKey = s.get(Op::GetMacSecKey, &path).await?.read()?;
        if shown.active == Some(true) {
            return Err(Stop::Skipped("the key is active at once".to_owned()));
        }
        s.get(Op::DeleteMacSecKey, &path).await?.read::<Value>()?;
        s.get(Op::GetMacSecKey, &path).await?.refused_with(&[404], "of a key that was deleted")
    })
    .await
}

async fn active_stays(s: &Session) -> Result<(), Stop> {
    for place in s.places() {
        for channel in &place.channels {
            let own = s.provider().to_string();
            if channel.macsec_manager_provider.as_deref() != Some(&own) {
                continue;
            }
            let path: ChannelPath = name(channel.name.as_deref())?;
            for key in listed(s, &path).await?.into_iter().filter(|key| key.active == Some(true)) {
                let key: MacSecKeyPath = name(key.name.as_deref())?;
                return s.get(Op::DeleteMacSecKey, &key).await?.refused("of an active key");
            }
        }
    }
    Err(Stop::Skipped("no channel that the suite's provider manages has an active key".to_owned()))
}

async fn delete_by_manager(s: &Session) -> Result<(), Stop> {
    let own = s.provider().to_string();
    for place in s.places() {
        let others = |channel: &&Channel| channel.macsec_manager_provider.as_deref().is_some_and(|manager| manager != own);
        if let Some(channel) = place.channels.iter().find(others) {
            let ChannelPath { provider, environment, interconnect, channel } = name(channel.name.as_deref())?;
            let path = MacSecKeyPath { provider, environment, interconnect, channel, mac_sec_key: s.uuid().into() };
            return s.get(Op::DeleteMacSecKey, &path).await?.refused("by a provider that is not the manager");
        }
    }
    Err(Stop::Skipped("no channel has a manager other than the suite's provider".to_owned()))
}
