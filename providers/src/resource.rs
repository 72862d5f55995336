//! Cloud resources as the engine sees them: wanted, looked up, observed.

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};
use std::{borrow::Cow, fmt};
use tieline_openapi::{
    ids::{InstallationId, InstanceId},
    units::{Mtu, Vlan},
    v1::{BfdState, BgpState, End, Timestamp},
};

use crate::feature::Ipv4Pair;

/// A type of cloud resource: `aws.privateVirtualInterface`, `google.interconnectAttachment`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ResourceKind(pub Cow<'static, str>);

impl ResourceKind {
    /// A kind from a literal.
    #[must_use]
    pub const fn of(name: &'static str) -> Self {
        Self(Cow::Borrowed(name))
    }
    /// The kind as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ResourceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Which resource of a channel: unique within (connection, channel).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ResourceKey {
    /// On which end.
    pub end: End,
    /// What.
    pub kind: ResourceKind,
}

/// How a create whose answer was lost is found again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum IdentityKind {
    /// The caller chooses a name that the cloud keeps unique: read it, retry it.
    Named,
    /// A parent plus a key that the cloud keeps unique: read the slot, retry it.
    Slot,
    /// The cloud replays an idempotency token for this many milliseconds; after that, as tagged.
    Token {
        /// The token's lifetime.
        lifetime_ms: u64,
    },
    /// Only tags tell whose it is, and lists lag.
    Tagged,
    /// Nothing tells: a human must look.
    Blind,
}

/// One resource that a side needs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ResourceSpec {
    /// Which.
    pub key: ResourceKey,
    /// Which resources must be usable before this one may be created; deleted in the reverse order.
    pub after: Vec<ResourceKey>,
    /// False while something that only another resource's read-back can tell is missing: nothing may be created yet.
    pub ready: bool,
    /// True where the resource lives inside an object that others write too: writes go under that object's own lease.
    pub shared_parent: Option<String>,
    /// The key within the parent that the cloud keeps unique, for [`IdentityKind::Slot`].
    pub slot: Option<String>,
    /// What is wanted, as an object in the adapter's own shape. Never a secret.
    pub fields: serde_json::Value,
    /// JSON pointers into `fields` that cannot be changed on a living resource.
    pub immutable: Vec<String>,
    /// Names of the secrets that the create and update calls need: `bgpPassword`.
    pub secrets: Vec<String>,
}

/// Who made a resource, as its name or tags tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct OwnerTag {
    /// The first 32 bits of the installation's id, as in names.
    pub installation: u32,
    /// The instance.
    pub instance: InstanceId,
}

impl OwnerTag {
    /// The tag of one instance.
    #[must_use]
    pub fn new(installation: InstallationId, instance: InstanceId) -> Self {
        Self { installation: short(installation), instance }
    }

    /// The resource's name: `tl-<installation, 8 hex digits>-<instance, 26 base32 characters>`; 38 characters, valid in
    /// every cloud's grammar of names.
    #[must_use]
    pub fn name(&self) -> String {
        format!("tl-{:08x}-{}", self.installation, base32(self.instance.uuid().as_u128()))
    }

    /// Reads a name back. Anything else is somebody else's.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        let (installation, instance) = name.strip_prefix("tl-")?.split_once('-')?;
        if installation.len() != 8 || instance.len() != 26 {
            return None;
        }
        let tag = Self {
            installation: u32::from_str_radix(installation, 16).ok()?,
            instance: InstanceId(uuid::Uuid::from_u128(unbase32(instance)?)),
        };
        // One tag has one spelling.
        (tag.name() == name).then_some(tag)
    }

    /// Whether this installation made it.
    #[must_use]
    pub fn is_of(&self, installation: InstallationId) -> bool {
        self.installation == short(installation)
    }
}

fn short(installation: InstallationId) -> u32 {
    // UUID v7 begins with the time; its last 32 bits are random.
    (installation.uuid().as_u128() & 0xffff_ffff) as u32
}

/// Crockford's alphabet in lower case: no i, l, o, u.
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

fn base32(value: u128) -> String {
    (0..26).rev().map(|i| char::from(ALPHABET[((value >> (5 * i)) & 31) as usize])).collect()
}

fn unbase32(text: &str) -> Option<u128> {
    text.bytes().try_fold(0u128, |value, byte| {
        let digit = ALPHABET.iter().position(|&a| a == byte)?;
        // 26 digits hold 130 bits: the first one may only use three.
        value.checked_mul(32)?.checked_add(digit as u128)
    })
}

/// How to find one instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Lookup {
    /// Who we say it is.
    pub owner: OwnerTag,
    /// The cloud's id, once known.
    pub cloud_id: Option<String>,
}

/// Whether a resource is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Presence {
    /// There, on its way to usable.
    Settling,
    /// There, and what comes after it may be built.
    Usable,
    /// There, and it will not become usable by itself.
    Failed,
    /// On its way out.
    Leaving,
    /// A tombstone: counts as absent.
    Gone,
}

/// What only the cloud could tell.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Learned {
    /// The addresses that the cloud picked, seen from this side.
    pub ipv4: Option<Ipv4Pair>,
    /// The VLAN.
    pub vlan: Option<Vlan>,
    /// The MTU.
    pub mtu: Option<Mtu>,
}

/// A resource as a cloud shows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Observed {
    /// What it is.
    pub kind: ResourceKind,
    /// The cloud's id.
    pub cloud_id: String,
    /// Whose, where its name, tags or parent tell.
    pub owner: Option<OwnerTag>,
    /// The state in the cloud's own words.
    pub provider_state: String,
    /// What that means.
    pub presence: Presence,
    /// BGP, where this resource tells.
    pub bgp: Option<BgpState>,
    /// BFD, where this resource tells.
    pub bfd: Option<BfdState>,
    /// What only the cloud could tell.
    pub learned: Learned,
    /// What it is configured as, in the same shape as [`ResourceSpec::fields`]; never a secret.
    pub fields: serde_json::Value,
    /// When it was made, where the cloud tells.
    pub created_at: Option<Timestamp>,
}

/// What a resource occupies, so that no other can have it. Ports and attach points are named as the cloud's answers name
/// them: `Rules::short_name` of what `tieline.toml` says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Occupied {
    /// A VLAN, and the port that it is on.
    pub vlan: Option<(String, Vlan)>,
    /// A point-to-point subnet, and the attach point that it is on.
    pub subnet: Option<(String, Ipv4Net)>,
}

/// One difference between wanted and observed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Change {
    /// JSON pointer into [`ResourceSpec::fields`].
    pub pointer: String,
    /// As observed.
    pub observed: serde_json::Value,
    /// As wanted.
    pub wanted: serde_json::Value,
    /// Whether the resource must be made anew.
    pub immutable: bool,
}
