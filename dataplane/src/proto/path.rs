//! Path choice: which way this gateway sends a connection's traffic. Each direction is chosen by its sender.
//!
//! The rules:
//! - the first way that is heard carries at once;
//! - the private bundle is left at once when it is silent *while the tunnel is heard*, or when so many of its source ports
//!   are dead that a channel is; when both are silent the peer has stalled, and nothing moves;
//! - a degraded bundle is left only when the measured load fits into the tunnel;
//! - traffic returns after the private bundle has been well for the whole hold-down;
//! - a pin or a freeze by a person wins over everything.

use std::time::{Duration, Instant};

use tieline_openapi::v1::PathKind;

use super::probe::{Health, Link};

/// Why a path was changed; [`as_str`](Reason::as_str) is the contract's word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// Nothing carried before.
    First,
    /// The private bundle is silent while the tunnel is heard.
    PrivateSilent,
    /// A channel of the private bundle is dead.
    PrivateDeadPorts,
    /// The private bundle loses packets and the load fits the tunnel.
    PrivateLossy,
    /// The private bundle has become slow and the load fits the tunnel.
    PrivateSlow,
    /// The private bundle is not to be used any more.
    PrivateWithdrawn,
    /// The private bundle was well for the hold-down.
    PrivateBetter,
    /// The tunnel is silent while the private bundle is heard.
    TunnelSilent,
    /// The tunnel is not to be used any more.
    TunnelWithdrawn,
    /// A person pinned it.
    Pinned,
}

impl Reason {
    /// The word that reports and events carry.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::PrivateSilent => "private-silent",
            Self::PrivateDeadPorts => "private-dead-ports",
            Self::PrivateLossy => "private-lossy",
            Self::PrivateSlow => "private-slow",
            Self::PrivateWithdrawn => "private-withdrawn",
            Self::PrivateBetter => "private-better",
            Self::TunnelSilent => "tunnel-silent",
            Self::TunnelWithdrawn => "tunnel-withdrawn",
            Self::Pinned => "pinned",
        }
    }
}

/// A change of path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    /// What carried before.
    pub from: Option<PathKind>,
    /// What carries now.
    pub to: PathKind,
    /// Why.
    pub reason: Reason,
}

/// What a person has ordered, here at the gateway.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Hold {
    /// Always this way, however it fares.
    pub pin: Option<PathKind>,
    /// No change at all.
    pub frozen: bool,
}

/// The state machine.
#[derive(Debug, Clone)]
pub struct PathChooser {
    hold_down: Duration,
    hold: Hold,
    chosen: Option<PathKind>,
    changed: Option<(Instant, Reason)>,
    private_well_since: Option<Instant>,
}

impl PathChooser {
    /// Nothing chosen yet.
    #[must_use]
    pub fn new(hold_down: Duration) -> Self {
        Self { hold_down, hold: Hold::default(), chosen: None, changed: None, private_well_since: None }
    }

    /// This carries already: another process has chosen it.
    pub fn resume(&mut self, path: PathKind) {
        self.chosen = Some(path);
    }

    /// How long the private bundle must have been well before traffic returns to it.
    pub fn set_hold_down(&mut self, hold_down: Duration) {
        self.hold_down = hold_down;
    }

    /// A person's order; [`Hold::default`] ends it.
    pub fn set_hold(&mut self, hold: Hold) {
        self.hold = hold;
    }

    /// The order in force.
    #[must_use]
    pub fn hold(&self) -> Hold {
        self.hold
    }

    /// What carries now.
    #[must_use]
    pub fn chosen(&self) -> Option<PathKind> {
        self.chosen
    }

    /// Since when, and why.
    #[must_use]
    pub fn since(&self) -> Option<(Instant, Reason)> {
        self.changed
    }

    /// Looks at both ways and decides. `load_fits`: the traffic measured now fits into what the tunnel may carry.
    pub fn step(&mut self, now: Instant, link: Link, load_fits: bool) -> Option<Change> {
        if link.private == Health::Up {
            self.private_well_since.get_or_insert(now);
        } else {
            self.private_well_since = None;
        }
        let (to, reason) = self.want(now, link, load_fits)?;
        if self.chosen == Some(to) {
            return None;
        }
        let from = self.chosen.replace(to);
        self.changed = Some((now, reason));
        Some(Change { from, to, reason })
    }

    fn want(&self, now: Instant, link: Link, load_fits: bool) -> Option<(PathKind, Reason)> {
        if let Some(pin) = self.hold.pin {
            return Some((pin, Reason::Pinned));
        }
        if self.hold.frozen {
            return None;
        }
        match self.chosen {
            None if link.tunnel.is_heard() => Some((PathKind::Tunnel, Reason::First)),
            None if link.private.is_heard() => Some((PathKind::Private, Reason::First)),
            None => None,
            Some(PathKind::Private) => {
                self.leave_private(now, link, load_fits).map(|reason| (PathKind::Tunnel, reason))
            }
            Some(PathKind::Tunnel) => self.leave_tunnel(now, link).map(|reason| (PathKind::Private, reason)),
        }
    }

    fn leave_private(&self, now: Instant, link: Link, load_fits: bool) -> Option<Reason> {
        if !link.tunnel.is_heard() {
            return None;
        }
        // A tunnel that was silent a moment ago is no refuge from a bundle that still carries part of the traffic.
        let refuge = !self.changed.is_some_and(|(at, reason)| {
            reason == Reason::TunnelSilent && now.saturating_duration_since(at) < self.hold_down
        });
        let fits = load_fits && refuge && link.tunnel == Health::Up;
        match link.private {
            Health::Off => Some(Reason::PrivateWithdrawn),
            Health::Silent => Some(Reason::PrivateSilent),
            Health::DeadPorts if refuge => Some(Reason::PrivateDeadPorts),
            Health::Lossy if fits => Some(Reason::PrivateLossy),
            Health::Slow if fits => Some(Reason::PrivateSlow),
            Health::Unknown | Health::Up | Health::Lossy | Health::Slow | Health::DeadPorts | Health::Stalled => None,
        }
    }

    fn leave_tunnel(&self, now: Instant, link: Link) -> Option<Reason> {
        if !link.private.is_heard() {
            return None;
        }
        match link.tunnel {
            Health::Off => return Some(Reason::TunnelWithdrawn),
            Health::Silent => return Some(Reason::TunnelSilent),
            Health::Unknown | Health::Up | Health::Lossy | Health::Slow | Health::DeadPorts | Health::Stalled => {}
        }
        let well = |since: Instant| now.saturating_duration_since(since) >= self.hold_down;
        let settled = self.changed.is_none_or(|(at, _)| well(at));
        (settled && self.private_well_since.is_some_and(well)).then_some(Reason::PrivateBetter)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOLD: Duration = Duration::from_millis(3_000);
    const HEALTHS: [Health; 8] = [
        Health::Off,
        Health::Unknown,
        Health::Up,
        Health::Lossy,
        Health::Slow,
        Health::DeadPorts,
        Health::Silent,
        Health::Stalled,
    ];

    fn origin() -> Instant {
        #[expect(clippy::disallowed_methods, reason = "an arbitrary origin; only differences matter")]
        Instant::now()
    }

    fn health() -> impl Strategy<Value = Health> {
        prop::sample::select(&HEALTHS[..])
    }

    /// Steps of 1 to 2,000 ms, each with what both ways look like.
    fn story() -> impl Strategy<Value = Vec<(u64, Link, bool)>> {
        prop::collection::vec(
            (1..2_000_u64, health(), health(), any::<bool>())
                .prop_map(|(ms, private, tunnel, fits)| (ms, Link { private, tunnel }, fits)),
            1..200,
        )
    }

    fn play(chooser: &mut PathChooser, story: &[(u64, Link, bool)]) -> Vec<(u64, Link, bool, Change)> {
        let (start, mut ms, mut changes) = (origin(), 0, Vec::new());
        for &(step, link, fits) in story {
            ms += step;
            if let Some(change) = chooser.step(start + Duration::from_millis(ms), link, fits) {
                changes.push((ms, link, fits, change));
            }
        }
        changes
    }

    proptest! {
        #[test]
        fn both_silent_never_changes(story in story()) {
            for (_, link, _, change) in play(&mut PathChooser::new(HOLD), &story) {
                prop_assert!(link.get(change.to).is_heard(), "moved to a way that is not heard: {link:?} {change:?}");
            }
        }

        #[test]
        fn returns_only_after_the_whole_hold_down(story in story()) {
            let changes = play(&mut PathChooser::new(HOLD), &story);
            for pair in changes.windows(2) {
                if pair[1].3.reason == Reason::PrivateBetter {
                    prop_assert!(pair[1].0 - pair[0].0 >= 3_000, "{pair:?}");
                }
            }
            // One who may go to the tunnel and back without a silence in between does so once a hold-down at most.
            let voluntary: Vec<u64> = changes.iter().filter(|c| c.3.reason == Reason::PrivateBetter).map(|c| c.0).collect();
            prop_assert!(voluntary.windows(2).all(|pair| pair[1] - pair[0] >= 3_000));
        }

        #[test]
        fn never_alternates_without_a_silence(story in story()) {
            let changes = play(&mut PathChooser::new(HOLD), &story);
            for three in changes.windows(3) {
                let silent = |r: Reason| matches!(r, Reason::PrivateSilent | Reason::TunnelSilent | Reason::PrivateWithdrawn | Reason::TunnelWithdrawn | Reason::First);
                if three[2].0 - three[0].0 < 3_000 {
                    prop_assert!(three.iter().any(|c| silent(c.3.reason)), "{three:?}");
                }
            }
        }

        #[test]
        fn a_pin_wins(story in story(), private in any::<bool>()) {
            let pin = if private { PathKind::Private } else { PathKind::Tunnel };
            let mut chooser = PathChooser::new(HOLD);
            chooser.set_hold(Hold { pin: Some(pin), frozen: false });
            let changes = play(&mut chooser, &story);
            prop_assert_eq!(changes.len(), 1);
            prop_assert_eq!(changes[0].3.to, pin);
            prop_assert_eq!(changes[0].3.reason, Reason::Pinned);
        }

        #[test]
        fn frozen_never_changes(before in story(), after in story()) {
            let mut chooser = PathChooser::new(HOLD);
            play(&mut chooser, &before);
            chooser.set_hold(Hold { pin: None, frozen: true });
            prop_assert!(play(&mut chooser, &after).is_empty());
        }

        #[test]
        fn a_degraded_bundle_is_left_only_for_a_tunnel_that_can_take_the_load(story in story()) {
            for (_, link, fits, change) in play(&mut PathChooser::new(HOLD), &story) {
                if matches!(change.reason, Reason::PrivateLossy | Reason::PrivateSlow) {
                    prop_assert!(fits && link.tunnel == Health::Up);
                }
            }
        }

        #[test]
        fn dead_is_left_at_once(story in story(), dead in prop::sample::select(&[Health::Silent, Health::DeadPorts][..])) {
            let mut chooser = PathChooser::new(HOLD);
            play(&mut chooser, &story);
            let calm = Link { private: Health::Up, tunnel: Health::Up };
            let start = origin() + Duration::from_secs(3_600);
            chooser.step(start, calm, true);
            chooser.step(start + HOLD, calm, true);
            chooser.step(start + 2 * HOLD, calm, true);
            prop_assert_eq!(chooser.chosen(), Some(PathKind::Private));
            let change = chooser.step(start + 2 * HOLD + Duration::from_millis(1), Link { private: dead, tunnel: Health::Up }, false);
            prop_assert_eq!(change.map(|c| c.to), Some(PathKind::Tunnel));
        }
    }

    #[test]
    fn the_tunnel_is_left_after_exactly_the_hold_down() {
        let (start, well) = (origin(), Link { private: Health::Up, tunnel: Health::Up });
        let mut chooser = PathChooser::new(HOLD);
        assert_eq!(chooser.step(start, well, true).map(|c| (c.to, c.reason)), Some((PathKind::Tunnel, Reason::First)));
        assert_eq!(chooser.step(start + HOLD - Duration::from_millis(1), well, true), None);
        let change = chooser.step(start + HOLD, well, true);
        assert_eq!(
            change,
            Some(Change { from: Some(PathKind::Tunnel), to: PathKind::Private, reason: Reason::PrivateBetter })
        );
    }
}
