//! The pure half of an adapter.

use crate::{
    constraints::{Constraints, PrefixControl, Rule, Sourced},
    costs::CostDriver,
    feature::FeatureSide,
    resource::{Change, IdentityKind, Observed, Occupied, ResourceKind, ResourceSpec},
};
use serde_json::Value;
use tieline_openapi::{
    units::Mtu,
    v1::{AttachPoint, ChannelPort, Disruption},
};

/// What both sides of a channel agreed on, as it stands in the fields of a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Agreed {
    /// What the channel was ordered with.
    Bandwidth,
    /// The VLAN on this side's port.
    Vlan,
    /// The MTU of the private path.
    Mtu,
    /// The point-to-point addresses.
    Ipv4,
    /// The other side's AS number.
    PeerAsn,
    /// BFD as this side runs it.
    Bfd,
    /// What this side announces.
    Prefixes,
}

/// What is known of a field of a resource, apart from its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FieldFacts {
    /// What stands in it; none where it is this side's own affair.
    pub agreed: Option<Agreed>,
    /// What a change of it does to the channel's traffic.
    pub disruption: Disruption,
}

impl FieldFacts {
    /// A field of which nothing else is known: a change of it is taken to interrupt traffic for seconds.
    #[must_use]
    pub const fn of(agreed: Option<Agreed>) -> Self {
        Self { agreed, disruption: Disruption::Brief }
    }
}

/// What a cloud allows and needs. No IO, no clock, no randomness: same input, same output.
pub trait Rules: Send + Sync {
    /// What this side allows on a channel, for an attach point.
    fn constraints(&self, attach_point: &AttachPoint, port: &ChannelPort) -> Constraints;

    /// The MTU of what a gateway of this attach point's network sends over the internet, outside any tunnel: what the
    /// tunnel's own packets must fit into. By default Ethernet's 1500 bytes (RFC 894).
    fn internet_mtu(&self, _attach_point: &AttachPoint) -> Sourced<Mtu> {
        Sourced::new(Mtu::ETHERNET, Rule::new("Ethernet carries IP packets of up to 1500 bytes", "RFC 894"))
    }

    /// What of a session's prefix rules this cloud holds. By default nothing.
    fn prefix_control(&self, _attach_point: &AttachPoint) -> Sourced<PrefixControl> {
        let rule = Rule::new("sessions are made without a list of prefixes", "Tieline, the provider's adapter");
        Sourced::new(PrefixControl::default(), rule)
    }

    /// The resources that a side needs, in any order; `after` holds the order.
    fn decompose(&self, side: &FeatureSide) -> Vec<ResourceSpec>;

    /// Every kind that [`Rules::decompose`] can give.
    fn kinds(&self) -> &'static [ResourceKind];

    /// Resources on the longest page that this cloud's lists have. Where the lists of all other ends have longer ones, those
    /// are looked at more often.
    fn list_page(&self) -> u32;

    /// How a lost create of this kind is found again.
    fn identity(&self, kind: &ResourceKind) -> IdentityKind;

    /// What is known of a field of this kind's resources, by its JSON pointer into [`ResourceSpec::fields`].
    fn field(&self, _kind: &ResourceKind, _pointer: &str) -> FieldFacts {
        FieldFacts::of(None)
    }

    /// What the cloud bills because of a connection, beyond the port and the attach point. By default nothing is known.
    fn costs(&self) -> &'static [CostDriver] {
        &[]
    }

    /// The object that resources of this kind live in, at an attach point in a region, where they live in one (a Cloud
    /// Router): the same text as [`ResourceSpec::shared_parent`]. Lists of such kinds are taken one object at a time.
    fn parent(&self, _kind: &ResourceKind, _attach_point: &AttachPoint, _region: &str) -> Option<String> {
        None
    }

    /// What a listed resource, whoever made it, occupies of a port or an attach point. By default nothing.
    fn occupies(&self, _observed: &Observed) -> Occupied {
        Occupied::default()
    }

    /// A port or attach point as the cloud's answers name it, where `tieline.toml` may name it by a longer path.
    fn short_name<'n>(&self, name: &'n str) -> &'n str {
        name
    }

    /// What differs between wanted and observed, by default over every field that the wanted object names. Fields that
    /// the cloud adds are no drift.
    fn diff(&self, spec: &ResourceSpec, observed: &Observed) -> Vec<Change> {
        diff_fields(&spec.fields, &observed.fields, &spec.immutable)
    }
}

/// What differs, over every field that `wanted` names. `immutable` holds JSON pointers.
#[must_use]
pub fn diff_fields(wanted: &Value, observed: &Value, immutable: &[String]) -> Vec<Change> {
    let mut changes = Vec::new();
    diff_value("", wanted, observed, immutable, &mut changes);
    changes
}

fn diff_value(pointer: &str, wanted: &Value, observed: &Value, immutable: &[String], changes: &mut Vec<Change>) {
    if let (Value::Object(wanted), Value::Object(observed)) = (wanted, observed) {
        for (key, value) in wanted {
            let escaped = key.replace('~', "~0").replace('/', "~1");
            let seen = observed.get(key).unwrap_or(&Value::Null);
            diff_value(&format!("{pointer}/{escaped}"), value, seen, immutable, changes);
        }
    } else if wanted != observed {
        changes.push(Change {
            pointer: pointer.to_owned(),
            observed: observed.clone(),
            wanted: wanted.clone(),
            immutable: immutable.iter().any(|p| pointer == p || pointer.starts_with(&format!("{p}/"))),
        });
    }
}
