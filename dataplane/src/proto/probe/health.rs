//! How a way fares, as far as a session can tell.

use tieline_openapi::v1::{PathKind, PathState};

/// How the traffic *towards* the peer fares on one way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Health {
    /// Not probed.
    #[default]
    Off,
    /// Probed, never answered.
    Unknown,
    /// Within bounds.
    Up,
    /// Loses 1 % or more.
    Lossy,
    /// A round trip of 10 ms or more above its best.
    Slow,
    /// So many source ports dead that a channel is.
    DeadPorts,
    /// Silent while the other way was heard in the same rounds.
    Silent,
    /// Silent, and so is the other way: the peer or this host has stalled, and nothing follows from it.
    Stalled,
}

impl Health {
    /// As the API names it.
    #[must_use]
    pub const fn state(self) -> PathState {
        match self {
            Self::Off | Self::Unknown => PathState::Unknown,
            Self::Up => PathState::Up,
            Self::Lossy | Self::Slow | Self::DeadPorts => PathState::Degraded,
            Self::Silent | Self::Stalled => PathState::Down,
        }
    }

    /// Whether traffic sent now is expected to arrive, at least in part.
    #[must_use]
    pub const fn is_heard(self) -> bool {
        matches!(self, Self::Up | Self::Lossy | Self::Slow | Self::DeadPorts)
    }
}

/// One source port of a way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PortHealth {
    /// Never answered.
    Never,
    /// Answered, or heard by the peer.
    Alive,
    /// Unanswered; whether the way or the peer is to blame is open.
    Overdue,
    /// The peer is deaf on it.
    Dead,
}

/// Both ways of a session.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Link {
    /// The private bundle.
    pub private: Health,
    /// The tunnel.
    pub tunnel: Health,
}

impl Link {
    /// One of them.
    #[must_use]
    pub const fn get(&self, path: PathKind) -> Health {
        match path {
            PathKind::Private => self.private,
            PathKind::Tunnel => self.tunnel,
        }
    }
}
