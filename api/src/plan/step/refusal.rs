//! What follows from a refusal: another try, other values, or a person.

use tieline_openapi::{problem::ProviderDetail, units::Vlan, v1::Verb};
use tieline_providers::{Addressing, CallErrorKind, FeatureSide};

use super::{
    NegotiatedChannel, ProviderCall, Refused, Step, Trouble, TroubleCode, Why,
    instance::{Case, Need},
    time::plus,
};

/// Walk-backs of a channel before a person is asked.
const MAX_WALK_BACKS: u32 = 3;

impl Case<'_> {
    pub(super) fn after_refusal(
        &self,
        channel: &NegotiatedChannel,
        last: &ProviderCall,
        kind: &str,
        detail: &ProviderDetail,
        again: Need,
    ) -> Need {
        let since = self.decided(last);
        let tries = self.streak(last.verb);
        let what = if last.verb == Verb::Update { "the update" } else { "the create" };
        let kind = kind_of_name(kind);
        match kind {
            CallErrorKind::Throttled | CallErrorKind::NotSent => {
                self.not_before(plus(since, self.backoff(tries)), again)
            }
            CallErrorKind::NotFound if tries < 4 => self.not_before(plus(since, self.backoff(tries)), again),
            CallErrorKind::SlotTaken if last.verb == Verb::Create => {
                // A conflict means "look again": what holds the slot may be our own, not visible yet.
                let until = plus(since, self.config.visibility_lag_ms);
                if self.situation.now < until {
                    Need::Wait(self.soon(until), Why::Unanswered(self.instance.key.clone()))
                } else {
                    self.walk_back(channel, Some(detail))
                }
            }
            CallErrorKind::Invalid if names_negotiated(detail, channel.sides.get(self.instance.key.end)) => {
                self.walk_back(channel, Some(detail))
            }
            CallErrorKind::Invalid
            | CallErrorKind::NotFound
            | CallErrorKind::Quota
            | CallErrorKind::Forbidden
            | CallErrorKind::Unauthenticated
            | CallErrorKind::SlotTaken
            | CallErrorKind::Conflict
            | CallErrorKind::Unavailable
            | CallErrorKind::Unknown
            | CallErrorKind::Malformed => {
                let until = plus(since, self.slow(tries));
                if self.situation.now >= until { again } else { Need::Trouble(self.refusal(kind, what, detail), until) }
            }
        }
    }

    fn refusal(&self, kind: CallErrorKind, what: &str, detail: &ProviderDetail) -> Trouble {
        let (code, remediation) = match kind {
            CallErrorKind::Quota => (
                TroubleCode::Quota,
                "raise the quota with the cloud, or free some of it; Tieline tries again by itself",
            ),
            CallErrorKind::Forbidden => (
                TroubleCode::Forbidden,
                "give the account's credential the permission that the cloud names; Tieline tries again by itself",
            ),
            CallErrorKind::Unauthenticated => {
                (TroubleCode::Unauthenticated, "renew the account's credential; Tieline tries again by itself")
            }
            CallErrorKind::NotFound => (
                TroubleCode::ParentMissing,
                "check that the port and the attach point of tieline.toml still exist; Tieline tries again by itself",
            ),
            CallErrorKind::Invalid
            | CallErrorKind::SlotTaken
            | CallErrorKind::Conflict
            | CallErrorKind::Throttled
            | CallErrorKind::Unavailable
            | CallErrorKind::Unknown
            | CallErrorKind::NotSent
            | CallErrorKind::Malformed => {
                (TroubleCode::Invalid, "change the connection so that the cloud takes it, or delete it")
            }
        };
        let message = format!("{} refused {what} of {}: {}", detail.name, self.instance.key.kind, detail.message);
        self.trouble(code, message, remediation.to_owned(), Some(detail.clone()))
    }

    pub(super) fn walk_back(&self, channel: &NegotiatedChannel, detail: Option<&ProviderDetail>) -> Need {
        if let Some(trouble) = self.situation.stuck.get(&channel.channel_id) {
            return Need::Trouble(trouble.clone(), plus(self.situation.now, self.slow(2)));
        }
        if self.situation.walk_backs.get(&channel.channel_id).copied().unwrap_or(0) >= MAX_WALK_BACKS {
            let trouble = self.trouble(
                TroubleCode::WalkBacksUsedUp,
                format!("{MAX_WALK_BACKS} configurations of channel {} were refused", channel.channel_id),
                "wish for another VLAN or subnet in `wanted`, or free what is in use on the ports".to_owned(),
                detail.cloned(),
            );
            return Need::Trouble(trouble, plus(self.situation.now, self.slow(2)));
        }
        let mut refused = Refused::default();
        for side in [&channel.sides.a, &channel.sides.b] {
            refused.vlans.insert(side.vlan.get());
        }
        refused.subnets.extend(channel.reserved_subnets.iter().copied());
        if let Some(observed) = self.instance.present() {
            let picked = self.picked(channel, channel.sides.get(self.instance.key.end), observed).unwrap_or_default();
            refused.vlans.extend(picked.vlan.map(Vlan::get));
            refused.subnets.extend(picked.ipv4.map(|pair| pair.subnet));
        }
        Need::Act(Step::WalkBack {
            channel_id: channel.channel_id.clone(),
            generation: channel.generation,
            refused,
            detail: detail.cloned(),
        })
    }

    pub(super) fn after_refused_delete(
        &self,
        last: &ProviderCall,
        kind: &str,
        detail: &ProviderDetail,
        tries: u32,
    ) -> Need {
        let since = self.decided(last);
        match kind_of_name(kind) {
            CallErrorKind::Throttled | CallErrorKind::NotSent | CallErrorKind::NotFound => {
                self.not_before(plus(since, self.backoff(tries)), Need::Delete)
            }
            // Something that still hangs on it is on its way out: a few tries, then a person.
            CallErrorKind::Invalid | CallErrorKind::SlotTaken | CallErrorKind::Quota | CallErrorKind::Conflict
                if tries < 5 =>
            {
                self.not_before(plus(since, self.backoff(tries)), Need::Delete)
            }
            kind @ (CallErrorKind::Invalid
            | CallErrorKind::SlotTaken
            | CallErrorKind::Quota
            | CallErrorKind::Conflict
            | CallErrorKind::Unauthenticated
            | CallErrorKind::Forbidden
            | CallErrorKind::Unavailable
            | CallErrorKind::Unknown
            | CallErrorKind::Malformed) => {
                let until = plus(since, self.slow(tries));
                if self.situation.now >= until {
                    Need::Delete
                } else {
                    Need::Trouble(self.refusal(kind, "the delete", detail), until)
                }
            }
        }
    }
}

/// Whether a refusal is about a value that was negotiated: clouds quote the value that they refuse.
fn names_negotiated(detail: &ProviderDetail, side: &FeatureSide) -> bool {
    let mut values = vec![side.vlan.to_string()];
    match &side.ipv4 {
        Addressing::Fixed(pair) => {
            values.extend([pair.subnet.to_string(), pair.host.to_string(), pair.peer.to_string()]);
        }
        Addressing::CloudPicks(subnets) | Addressing::Awaited(subnets) => {
            values.extend(subnets.iter().map(ToString::to_string));
        }
    }
    let words = |c: char| !(c.is_ascii_alphanumeric() || c == '.' || c == '/' || c == ':');
    detail.message.split(words).any(|word| {
        let word = word.trim_matches(['.', ':', '/']);
        values.iter().any(|value| word == value || word.split('/').next() == Some(value.as_str()))
    })
}

/// The name of an error kind, as verdicts hold it.
#[must_use]
pub const fn kind_name(kind: CallErrorKind) -> &'static str {
    match kind {
        CallErrorKind::Throttled => "Throttled",
        CallErrorKind::Unauthenticated => "Unauthenticated",
        CallErrorKind::Forbidden => "Forbidden",
        CallErrorKind::Invalid => "Invalid",
        CallErrorKind::NotFound => "NotFound",
        CallErrorKind::SlotTaken => "SlotTaken",
        CallErrorKind::Conflict => "Conflict",
        CallErrorKind::Quota => "Quota",
        CallErrorKind::Unavailable => "Unavailable",
        CallErrorKind::Unknown => "Unknown",
        CallErrorKind::NotSent => "NotSent",
        CallErrorKind::Malformed => "Malformed",
    }
}

/// The error kind of a verdict's name. A name that a newer version wrote is the one that a person must look at.
#[must_use]
pub fn kind_of_name(name: &str) -> CallErrorKind {
    const ALL: [CallErrorKind; 12] = [
        CallErrorKind::Throttled,
        CallErrorKind::Unauthenticated,
        CallErrorKind::Forbidden,
        CallErrorKind::Invalid,
        CallErrorKind::NotFound,
        CallErrorKind::SlotTaken,
        CallErrorKind::Conflict,
        CallErrorKind::Quota,
        CallErrorKind::Unavailable,
        CallErrorKind::Unknown,
        CallErrorKind::NotSent,
        CallErrorKind::Malformed,
    ];
    ALL.into_iter().find(|kind| kind_name(*kind) == name).unwrap_or(CallErrorKind::Invalid)
}
