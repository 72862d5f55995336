//! The peer asks, we answer: the server's half of the protocol.

use serde::{Deserialize, Serialize};
use tieline_openapi::coordinator::{L3Base, ResourceId, Timestamp};
use uuid::Uuid;

use super::{
    choose::ChannelGuidance,
    state::{
        Book, Change, FeatureRow, IssuedKey, Kind, Local, Place, Reason, Remote, Replay, Role, Row, SEVEN_DAYS, Source,
        Theirs, put,
    },
    step::Ask,
};

/// A request of the peer, authenticated and decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// What it asks.
    pub ask: Ask,
    /// What tells it from others; a peer of the published revision sends none.
    pub request_id: Option<Uuid>,
    /// A digest of method, path and body as they came.
    pub digest: [u8; 32],
}

/// What a server shows of a feature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeenFeature {
    /// The last id of its name.
    pub id: ResourceId,
    /// Its channel.
    pub channel: ResourceId,
    /// Its configuration.
    pub config: L3Base,
    /// Whether it is finished there.
    pub is_final: bool,
}

/// Why a server refuses. The texts name rules, never what others hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// The HTTP status.
    pub status: u16,
    /// The rule.
    pub rule: String,
}

/// A server's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// It is done.
    Done,
    /// Whether the key is good.
    Key(bool),
    /// What it takes.
    Guidance(Vec<ChannelGuidance>),
    /// The connection as it is.
    Seen {
        /// Its bandwidth in Mbit/s.
        bandwidth_mbps: u32,
        /// Whether the server counts it as verified.
        verified: bool,
        /// Its features.
        features: Vec<SeenFeature>,
    },
    /// No.
    Refused(Refusal),
}

impl Reply {
    pub(super) fn no(status: u16, rule: &str) -> Self {
        Self::Refused(Refusal { status, rule: rule.to_owned() })
    }
}

/// An answer, and what is to be stored before it is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Served {
    /// The answer.
    pub reply: Reply,
    /// The changes, one transaction.
    pub changes: Vec<Change>,
}

type Outcome = Result<Vec<Change>, Reply>;

impl Book {
    /// Answers the peer. A change that came before, by its request id, is answered as it was then and changes nothing; the
    /// same id with other content is a conflict.
    #[must_use]
    pub fn serve(&self, request: &Request, now: Timestamp) -> Served {
        let read = |reply| Served { reply, changes: Vec::new() };
        let outcome = match &request.ask {
            Ask::Confirm { environment, key, bandwidth_mbps } => {
                return read(Reply::Key(self.is_key_good(*key, environment, *bandwidth_mbps, now)));
            }
            Ask::Look { place, .. } => return read(self.show(place)),
            Ask::Guidance { place } => {
                return read(self.visible(place).map_or_else(|no| no, |_| Reply::Guidance(self.guidance(place))));
            }
            change @ (Ask::Create { .. }
            | Ask::Resize { .. }
            | Ask::Delete { .. }
            | Ask::CreateFeature { .. }
            | Ask::DeleteFeature { .. }
            | Ask::Notify { .. }) => match request.request_id.and_then(|id| self.replays.get(&id)) {
                Some(replay) if replay.digest == request.digest => return read(replay.reply.clone()),
                Some(_) => return read(Reply::no(409, "requestId was used for another request")),
                None => self.changed(change, now),
            },
        };
        let (reply, mut changes) = match outcome {
            Ok(changes) => (Reply::Done, changes),
            // A delete that finds nothing leaves a mark: the create that it overtook must find it.
            Err(reply) => (reply, self.mark(&request.ask, now)),
        };
        let replay = |id| Change::Replay(id, Replay { digest: request.digest, reply: reply.clone(), at: now });
        changes.extend(request.request_id.map(replay));
        Served { reply, changes }
    }

    fn changed(&self, ask: &Ask, now: Timestamp) -> Outcome {
        match ask {
            Ask::Create { .. } => self.create(ask, now),
            Ask::Delete { place, .. } => self.delete(place, now),
            Ask::Resize { place, to_mbps, .. } => self.resize_for_peer(place, *to_mbps),
            Ask::CreateFeature { place, channel, feature, config, request_id } => {
                self.create_feature(place, channel, feature, config, *request_id)
            }
            Ask::DeleteFeature { place, feature, .. } => self.delete_feature(place, feature),
            Ask::Notify { place, .. } => {
                let mut row = self.visible(place)?.clone();
                row.notified = true;
                // The specification: refresh at once.
                row.look_again(now);
                Ok(vec![put(row)])
            }
            Ask::Confirm { .. } | Ask::Look { .. } | Ask::Guidance { .. } => Ok(Vec::new()),
        }
    }

    fn mark(&self, ask: &Ask, now: Timestamp) -> Vec<Change> {
        if let Ask::Delete { place, .. } = ask
            && !self.rows.contains_key(place)
        {
            return vec![Change::Tombstone { place: place.clone(), at: now }];
        }
        Vec::new()
    }

    /// A row that the peer may know of.
    fn visible(&self, place: &Place) -> Result<&Row, Reply> {
        let row = self.rows.get(place).filter(|row| row.leaving.is_none());
        row.ok_or_else(|| Reply::no(404, "there is no such connection"))
    }

    fn show(&self, place: &Place) -> Reply {
        let Some(row) = self.rows.get(place).filter(|row| row.leaving != Some(Reason::Peer)) else {
            return Reply::no(404, "there is no such connection");
        };
        let shown = row.features.iter().filter(|(_, feature)| !feature.closing);
        let seen = |(channel, feature): (&ResourceId, &FeatureRow)| SeenFeature {
            id: feature.id.clone(),
            channel: channel.clone(),
            config: feature.config.clone(),
            is_final: feature.ours == Local::Up,
        };
        Reply::Seen {
            bandwidth_mbps: row.bandwidth_mbps,
            verified: row.is_verified(&self.terms),
            features: shown.map(seen).collect(),
        }
    }

    fn good_key(&self, key: Uuid, environment: &ResourceId, mbps: u32, now: Timestamp) -> Option<&IssuedKey> {
        self.keys.get(&key).filter(|issued| {
            !issued.spent
                && issued.environment == *environment
                && issued.bandwidth_mbps == mbps
                && now.duration_since(issued.issued_at) < SEVEN_DAYS
        })
    }

    fn is_key_good(&self, key: Uuid, environment: &ResourceId, mbps: u32, now: Timestamp) -> bool {
        self.good_key(key, environment, mbps, now).is_some()
    }

    fn create(&self, ask: &Ask, now: Timestamp) -> Outcome {
        let Ask::Create { place, source, uuid, bandwidth_mbps, kind, defer, request_id } = ask else {
            return Ok(Vec::new());
        };
        if self.tombstones.contains_key(place) {
            return Err(Reply::no(409, "a connection of this name was deleted"));
        }
        if self.rows.contains_key(place) {
            return Err(Reply::no(409, "the connection is there already"));
        }
        let unknown = || Reply::no(404, "there is no such interconnect");
        let environment = self.terms.environments.get(&place.environment).ok_or_else(unknown)?;
        let interconnect = environment.interconnects.get(&place.interconnect).ok_or_else(unknown)?;
        if *defer && !environment.takes_deferral {
            return Err(Reply::no(400, "provisioning is not taken over here"));
        }
        let mut changes = Vec::new();
        let uuid = match source {
            Source::Key(key) => {
                let good = self.good_key(*key, &place.environment, *bandwidth_mbps, now);
                let good = good.ok_or_else(|| Reply::no(400, "the activation key is not valid"))?;
                changes.push(Change::Key(IssuedKey { spent: true, ..good.clone() }));
                *key
            }
            Source::Connection(from) => {
                let from = self.visible(from)?;
                let moves = from.place.environment == place.environment
                    && from.place.interconnect != place.interconnect
                    && from.bandwidth_mbps == *bandwidth_mbps
                    && from.resize.is_none();
                if !moves || *uuid != from.uuid {
                    return Err(Reply::no(400, "the source is no connection that could move here"));
                }
                from.uuid
            }
        };
        if *kind != Kind::Test && !environment.sizes_mbps.contains(bandwidth_mbps) {
            return Err(Reply::no(400, "the bandwidth is none of the supported sizes"));
        }
        let mut row = Row::new(place.clone(), uuid, *kind, *bandwidth_mbps, source.clone(), now);
        row.role = Role::Responder;
        row.drives = *defer;
        row.confirmed = true;
        row.remote = Remote::Present;
        row.requests = (*request_id, *request_id);
        self.has_room(&row, interconnect.open)?;
        changes.push(put(row));
        Ok(changes)
    }

    /// Whether a connection fits. What only we know of yields to a peer that goes first.
    fn has_room(&self, row: &Row, open: bool) -> Result<(), Reply> {
        let alone = |other: &Row| {
            other.kind == Kind::Monitoring
                && other.place != row.place
                && other.place.environment == row.place.environment
                && other.place.interconnect == row.place.interconnect
        };
        if row.kind == Kind::Monitoring && self.rows.values().any(alone) {
            return Err(Reply::no(409, "an interconnect has one monitoring connection"));
        }
        if !open || row.held_mbps() > self.free_mbps(&row.place, self.terms.peer_goes_first()) {
            return Err(Reply::no(409, "the interconnect has no room"));
        }
        Ok(())
    }

    /// It cannot be declined (the specification's rule).
    fn delete(&self, place: &Place, now: Timestamp) -> Outcome {
        let row = self.rows.get(place).ok_or_else(|| Reply::no(404, "there is no such connection"))?;
        let mut row = row.clone();
        row.leaving = Some(row.leaving.unwrap_or(Reason::Peer));
        row.remote = Remote::Absent { since: now };
        row.look_again(now);
        row.attempts = Default::default();
        Ok(vec![put(row), Change::Tombstone { place: place.clone(), at: now }])
    }

    fn resize_for_peer(&self, place: &Place, to_mbps: u32) -> Outcome {
        let mut row = self.visible(place)?.clone();
        // While we ask, what the peer asks is refused (the specification's rule).
        if row.resize.is_some() || row.is_tentative() {
            return Err(Reply::no(409, "an update is under way"));
        }
        let sizes = self.terms.environments.get(&place.environment).map(|environment| &environment.sizes_mbps);
        if row.kind != Kind::Test && !sizes.is_some_and(|sizes| sizes.contains(&to_mbps)) {
            return Err(Reply::no(400, "the bandwidth is none of the supported sizes"));
        }
        row.bandwidth_mbps = to_mbps;
        if row.held_mbps() > self.free_mbps(place, self.terms.peer_goes_first()) {
            return Err(Reply::no(409, "the interconnect has no room"));
        }
        Ok(vec![put(row)])
    }

    fn create_feature(
        &self,
        place: &Place,
        channel: &ResourceId,
        id: &ResourceId,
        config: &L3Base,
        request_id: Uuid,
    ) -> Outcome {
        let mut row = self.visible(place)?.clone();
        let interconnect = self.terms.interconnect(place);
        let terms = interconnect.and_then(|interconnect| interconnect.channels.get(channel));
        let terms = terms.ok_or_else(|| Reply::no(400, "there is no such channel"))?;
        if let Some(there) = row.features.get(channel) {
            let same = there.id == *id && there.config == *config && !there.closing;
            let no = Reply::no(409, "a channel of a connection has one layer 3 feature");
            return if same { Ok(Vec::new()) } else { Err(no) };
        }
        if row.drives {
            return Err(Reply::no(409, "this side makes the features of this connection"));
        }
        if !terms.enabled || terms.in_maintenance {
            return Err(Reply::no(409, "the channel is disabled or in maintenance"));
        }
        if let Some(rule) = self.breaks(terms, config) {
            return Err(Reply::no(400, rule));
        }
        if !self.is_free(place, channel, config, self.terms.peer_goes_first()) {
            return Err(Reply::no(409, "the VLAN or the subnet is taken"));
        }
        let feature = FeatureRow {
            id: id.clone(),
            request_id,
            config: config.clone(),
            ours: Local::Reserved,
            theirs: Theirs::Pending,
            closing: false,
            since_version: row.version + 1,
        };
        row.features.insert(channel.clone(), feature);
        Ok(vec![put(row)])
    }

    fn delete_feature(&self, place: &Place, id: &ResourceId) -> Outcome {
        let mut row = self.visible(place)?.clone();
        let feature = row.features.values_mut().find(|feature| feature.id == *id && !feature.closing);
        let feature = feature.ok_or_else(|| Reply::no(404, "there is no such feature"))?;
        feature.closing = true;
        row.drop_closed();
        Ok(vec![put(row)])
    }
}
