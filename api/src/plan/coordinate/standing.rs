//! How a customer's connection stands with a peer: every place where it is, and the activation key that may still make it.

use tieline_openapi::{
    coordinator::{ConnectionPath, ResourceId, Timestamp},
    units::BandwidthMbps,
};
use uuid::Uuid;

use super::state::{Book, IssuedKey, Local, Remote, Row, SEVEN_DAYS, Source, Theirs};

/// A connection at one place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    /// The row; its passwords are nobody's business here.
    pub row: Row,
    /// Whether both providers have told each other that every channel works.
    pub verified: bool,
    /// How many channels something can be made on there.
    pub channels: usize,
}

impl Placed {
    /// Whether it stays.
    #[must_use]
    pub const fn stays(&self) -> bool {
        self.row.leaving.is_none()
    }

    /// Whether every channel's configuration is agreed.
    #[must_use]
    pub fn is_agreed(&self) -> bool {
        self.row.remote == Remote::Present && self.channels > 0 && self.row.agreed().count() >= self.channels
    }

    /// Whether every channel's session is up as both providers report it; `None` where nothing is configured here.
    #[must_use]
    pub fn is_established(&self) -> Option<bool> {
        let configured = self.row.agreed().any(|(_, feature)| feature.ours != Local::Reserved);
        let up = |ours: Local| matches!(ours, Local::Up | Local::Drained);
        let all = self.row.agreed().all(|(_, feature)| up(feature.ours) && feature.theirs == Theirs::Final);
        configured.then_some(all && self.is_agreed())
    }
}

/// A customer's connection with a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// Our provider id.
    pub us: String,
    /// The peer's.
    pub them: String,
    /// The key that was handed out here for it.
    pub key: Option<IssuedKey>,
    /// Where it is, in order of place.
    pub places: Vec<Placed>,
}

impl Standing {
    /// Until when the key that was handed out may be brought; `None` where it was brought, taken back, or has ended.
    #[must_use]
    pub fn key_ends_at(&self, now: Timestamp) -> Option<Timestamp> {
        let key = self.key.as_ref().filter(|key| !key.spent)?;
        let end = key.issued_at.checked_add(SEVEN_DAYS).unwrap_or(Timestamp::MAX);
        (now < end).then_some(end)
    }

    /// The places where it stays.
    pub fn staying(&self) -> impl Iterator<Item = &Placed> {
        self.places.iter().filter(|placed| placed.stays())
    }

    /// Whether nothing of it is left, and nothing can make it any more.
    #[must_use]
    pub fn is_over(&self, now: Timestamp) -> bool {
        self.places.is_empty() && self.key_ends_at(now).is_none()
    }

    /// Whether it moves: one place comes in another's stead.
    #[must_use]
    pub fn is_moving(&self) -> bool {
        self.places.len() > 1
    }

    /// Whether its bandwidth is being changed.
    #[must_use]
    pub fn is_resizing(&self) -> bool {
        self.staying().any(|placed| placed.row.resize.is_some())
    }

    /// What it has.
    #[must_use]
    pub fn bandwidth(&self) -> Option<BandwidthMbps> {
        let mbps = self.staying().map(|placed| placed.row.bandwidth_mbps).min()?;
        u64::from(mbps).try_into().ok()
    }

    /// Whether another place comes in the stead of this one.
    #[must_use]
    pub fn is_left(&self, row: &Row) -> bool {
        self.places.iter().any(|other| other.row.source == Source::Connection(row.place.clone()))
    }

    /// Whether it comes in the stead of another place.
    #[must_use]
    pub fn is_moved_to(&self, row: &Row) -> bool {
        self.places.iter().any(|other| row.source == Source::Connection(other.row.place.clone()))
    }

    /// The name that both providers know it by at a place, under the peer's id: what the peer calls us by.
    #[must_use]
    pub fn name(&self, row: &Row) -> Option<String> {
        let place = &row.place;
        let path = ConnectionPath {
            provider: self.them.parse::<ResourceId>().ok()?,
            environment: place.environment.clone(),
            interconnect: place.interconnect.clone(),
            connection: place.connection.clone(),
        };
        Some(path.to_string())
    }
}

impl Book {
    /// How a connection stands.
    #[must_use]
    pub fn standing(&self, uuid: Uuid) -> Standing {
        let of_row = |row: &Row| Placed {
            verified: row.is_verified(&self.terms),
            channels: self.terms.interconnect(&row.place).map_or(0, |interconnect| interconnect.usable().count()),
            row: row.clone(),
        };
        Standing {
            us: self.terms.us.clone(),
            them: self.terms.them.clone(),
            key: self.keys.get(&uuid).cloned(),
            places: self.rows.values().filter(|row| row.uuid == uuid).map(of_row).collect(),
        }
    }
}
