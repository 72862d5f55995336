//! What a case for a Negotiator works with: keys that the suite's customer brings to the target, and what the target then asks.

use std::{sync::Arc, time::Duration};

use serde_json::{Value, json};
use tieline_openapi::{
    coordinator::{
        ActivationKey, AdminState, Channel, ConnectionPath, FeatureGuidance, GenerateFeatureGuidanceResponse,
        InterconnectState, KeyContents, OperationId as Op, Sensitive,
    },
    units::BandwidthMbps,
};
use uuid::Uuid;

use crate::{
    customer::{Brought, Wish, WishError},
    peer::{Heard, Key, Peer, State, Statics},
    session::{Place, Session},
    suite::{Stop, violation},
};

/// A connection that target and suite have agreed on, with a feature on every channel.
pub(crate) struct Agreed {
    /// Its name as the target calls it.
    pub name: String,
    /// The UUID that both know it by.
    pub uuid: Uuid,
    /// How many channels are enabled.
    pub channels: usize,
}

impl Session {
    /// The suite's own half, without which no Negotiator can be tested.
    pub(crate) fn peer(&self) -> Result<&Peer, Stop> {
        let why = "the target must be able to call the suite: --listen says where";
        self.settings().peer.as_ref().ok_or_else(|| Stop::Skipped(why.to_owned()))
    }

    pub(crate) fn statics(&self) -> Result<Arc<Statics>, Stop> {
        Ok(self.peer()?.stage().statics())
    }

    /// The first interconnect that takes connections and where the target negotiates itself.
    pub(crate) fn active(&self) -> Result<&Place, Stop> {
        self.open_place(false).ok_or_else(|| Stop::Skipped("no interconnect is INTERCONNECT_STATE_ACTIVE".to_owned()))
    }

    /// The first interconnect that takes connections where the target defers, or does not.
    pub(crate) fn open_place(&self, defers: bool) -> Option<&Place> {
        self.places().iter().find(|place| {
            let deferring = place.environment.1.defer_connection_provisioning == Some(true);
            place.interconnect.1.state == Some(InterconnectState::Active) && deferring == defers
        })
    }

    /// How many interconnects of a place's environment take connections.
    pub(crate) fn siblings(&self, place: &Place) -> usize {
        let same = |other: &&Place| {
            other.environment.0 == place.environment.0 && other.interconnect.1.state == Some(InterconnectState::Active)
        };
        self.places().iter().filter(same).count()
    }

    /// How many channels of an interconnect the target has enabled; the interconnect's name is either side's.
    pub(crate) fn enabled(&self, interconnect: &str) -> usize {
        let id = interconnect.rsplit('/').next().unwrap_or_default();
        let environment = interconnect.split('/').nth(3).unwrap_or_default();
        let here = |place: &&Place| {
            let path = &place.interconnect.0;
            path.interconnect.as_str() == id && path.environment.as_str() == environment
        };
        let on = |channel: &&Channel| channel.admin_state != Some(AdminState::Disabled);
        self.places().iter().find(here).map_or(0, |place| place.channels.iter().filter(on).count())
    }

    /// Tells the target's customer side something.
    pub(crate) async fn wish(&self, wish: Wish) -> Result<(), Stop> {
        let Some(customer) = &self.settings().customer else {
            let why = "it needs a customer who brings keys to the target: --trigger says how";
            return Err(Stop::Skipped(why.to_owned()));
        };
        customer.wish(wish).await.map_err(|error| match error {
            WishError::Refused(why) => Stop::NoAnswer(format!("the target's customer side did not do it: {why}")),
            WishError::Unsupported(why) => Stop::Skipped(why),
        })
    }

    /// A key of version 1 for the target's customer.
    pub(crate) fn issue(&self, place: &Place, mbps: i32, account: &str) -> Result<Brought, Stop> {
        self.issue_in(place.environment.0.environment.as_str(), &place.environment.0.to_string(), mbps, account)
    }

    /// The same for whatever environment.
    pub(crate) fn issue_in(&self, id: &str, uri: &str, mbps: i32, account: &str) -> Result<Brought, Stop> {
        let contents = self.contents(mbps, account)?;
        let text = ActivationKey::V1(contents.to_v1(uri)).encode();
        Ok(self.issued(contents, text, id))
    }

    pub(crate) fn contents(&self, mbps: i32, account: &str) -> Result<KeyContents, Stop> {
        let bandwidth = u64::try_from(mbps).ok().and_then(|mbps| BandwidthMbps::try_from(mbps).ok());
        let bandwidth = bandwidth.ok_or_else(|| violation(format!("{mbps} Mbit/s is no bandwidth")))?;
        let uuid = self.uuid();
        Ok(KeyContents { shared_connection_uuid: uuid, bandwidth, destination_account_id: account.to_owned() })
    }

    /// Remembers a key, so that what the target asks with it is this case's.
    pub(crate) fn issued(&self, contents: KeyContents, text: Sensitive, environment: &str) -> Brought {
        let brought = Brought {
            key: text.clone(),
            environment: environment.to_owned(),
            bandwidth_mbps: i32::try_from(contents.bandwidth.get()).unwrap_or(i32::MAX),
            connection: contents.shared_connection_uuid,
        };
        let environment = environment.to_owned();
        self.plot().state().keys.push(Key { text, contents, environment, valid: true, spent: false });
        brought
    }

    /// An ordinary key, brought to the target.
    pub(crate) async fn bring(&self) -> Result<Brought, Stop> {
        self.peer()?;
        let place = self.active()?;
        let brought = self.issue(place, place.bandwidth()?, &self.settings().account)?;
        self.wish(Wish::Bring(brought.clone())).await?;
        Ok(brought)
    }

    /// Waits until something is found in what the target asked and made.
    pub(crate) async fn until<T>(&self, what: &str, find: impl Fn(&State) -> Option<T>) -> Result<T, Stop> {
        let waited = self.plot().until(self.settings().patience, what, find).await;
        waited.map_err(|stop| match stop {
            Stop::Violation(why) if self.plot().state().heard.is_empty() => {
                let trouble = self.settings().peer.as_ref().and_then(Peer::trouble);
                let trouble = trouble.map(|why| format!(" The last TLS handshake with the suite failed: {why}."));
                violation(format!(
                    "{why}: the target has asked nothing at all. Is the suite's --listen address the endpoint of its peer?{}",
                    trouble.unwrap_or_default()
                ))
            }
            Stop::Violation(_) | Stop::Skipped(_) | Stop::NoAnswer(_) => stop,
        })
    }

    /// Sees that nothing wrong came since a time, nor comes as long as the settings say.
    pub(crate) async fn never(&self, since: Duration, why: &str, wrong: impl Fn(&Heard) -> bool) -> Result<(), Stop> {
        self.plot().never(since, self.settings().window, why, wrong).await
    }

    /// Waits for the n-th request of a kind.
    pub(crate) async fn nth(&self, op: Op, n: usize) -> Result<Heard, Stop> {
        let what = format!("there was no {}{}", op.as_str(), if n > 0 { " again" } else { "" });
        self.until(&what, |state| state.of(op).nth(n).cloned()).await
    }

    /// Waits until the case's connection has features on all channels that are enabled, less `but`.
    pub(crate) async fn negotiated(&self, uuid: Uuid, but: usize) -> Result<Agreed, Stop> {
        let what = "the target did not agree on a feature for every channel";
        let find = |state: &State| {
            let held = |held: &&(&String, &crate::peer::Held)| held.1.uuid == uuid.to_string();
            let all: Vec<_> = state.connections.iter().collect();
            let (name, held) = all.iter().find(held)?;
            let channels = self.enabled(name.split("/connections/").next().unwrap_or_default());
            (held.features.len() + but >= channels).then(|| ((*name).clone(), channels))
        };
        let (name, channels) = self.until(what, find).await?;
        Ok(Agreed { name, uuid, channels })
    }

    /// A connection with all its features, the ordinary way.
    pub(crate) async fn agreed(&self) -> Result<Agreed, Stop> {
        let brought = self.bring().await?;
        self.negotiated(brought.connection, 0).await
    }

    /// A name as the target calls it, as the suite calls it.
    pub(crate) fn theirs(&self, name: &str) -> Result<ConnectionPath, Stop> {
        let path: Result<ConnectionPath, _> = name.parse();
        let path = path.map_err(|error| violation(error.to_string()))?;
        Ok(ConnectionPath { provider: self.provider().provider.clone(), ..path })
    }

    /// What the target shows of a connection, if it shows one.
    pub(crate) async fn half(&self, name: &str) -> Result<Option<Value>, Stop> {
        let answer = self.get(Op::GetConnection, &self.theirs(name)?).await?;
        if answer.status == 404 { Ok(None) } else { answer.read().map(Some) }
    }

    /// Tells the target that the suite's half of a connection changed.
    pub(crate) async fn notify(&self, name: &str) -> Result<(), Stop> {
        let answer = self.call(Op::NotifyConnectionStatus, &self.theirs(name)?, &[], &json!({})).await?;
        answer.read::<Value>().map(drop)
    }

    /// What the target takes on the channels of a connection.
    pub(crate) async fn guidance(&self, path: &ConnectionPath) -> Result<Vec<FeatureGuidance>, Stop> {
        let answer = self.call(Op::GenerateFeatureGuidance, path, &[], &json!({})).await?;
        Ok(answer.read::<GenerateFeatureGuidanceResponse>()?.feature_guidance)
    }

    /// The connections that the target may have because of this case.
    pub(crate) fn brought_up(&self) -> Vec<ConnectionPath> {
        let state = self.plot().state();
        let mut names: Vec<String> = state.of(Op::CreateConnection).filter_map(Heard::connection).collect();
        names.extend(state.connections.keys().cloned());
        names.sort();
        names.dedup();
        drop(state);
        names.iter().filter_map(|name| self.theirs(name).ok()).collect()
    }
}
