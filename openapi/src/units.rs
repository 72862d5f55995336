//! Bounded numbers: a value of one of these types is valid by construction.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Why a number is not what it should be. The text names the rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// Outside IEEE 802.1Q's usable range.
    #[error("VLAN {0} is outside 1 to 4094 (IEEE 802.1Q reserves 0 and 4095)")]
    Vlan(u64),
    /// A reserved autonomous system number.
    #[error("AS number {0} is reserved ({1})")]
    Asn(u64, &'static str),
    /// No usable MTU.
    #[error("MTU {0} bytes is outside 576 (RFC 791) to 9216")]
    Mtu(u64),
    /// No usable bandwidth.
    #[error("bandwidth {0} Mbit/s is outside 1 to 800000")]
    Bandwidth(u64),
}

macro_rules! bounded {
    ($(#[$doc:meta])* $name:ident($inner:ty, $min:tt, $max:tt) = $check:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
        #[serde(try_from = "u64", into = "u64")]
        #[schema(value_type = u64, minimum = $min, maximum = $max)]
        pub struct $name($inner);

        impl $name {
            /// The number itself.
            #[must_use]
            pub const fn get(self) -> $inner { self.0 }
        }
        impl TryFrom<u64> for $name {
            type Error = UnitError;
            fn try_from(n: u64) -> Result<Self, UnitError> {
                let check: fn(u64) -> Result<(), UnitError> = $check;
                check(n)?;
                Ok(Self(n as $inner))
            }
        }
        impl From<$name> for u64 { fn from(n: $name) -> u64 { u64::from(n.0) } }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { self.0.fmt(f) }
        }
    };
}

bounded! {
    /// An IEEE 802.1Q VLAN identifier, 1 to 4094.
    Vlan(u16, 1, 4094) = |n| if (1..=4094).contains(&n) { Ok(()) } else { Err(UnitError::Vlan(n)) }
}
bounded! {
    /// An autonomous system number that may be configured on a router: 0 (RFC 7607), 23456 (RFC 6793), 65535 and
    /// 4294967295 (RFC 7300) are refused.
    Asn(u32, 1, 4294967294u64) = |n| match n {
        0 => Err(UnitError::Asn(n, "RFC 7607")),
        23456 => Err(UnitError::Asn(n, "AS_TRANS, RFC 6793")),
        65535 | 4_294_967_295.. => Err(UnitError::Asn(n, "RFC 7300")),
        _ => Ok(()),
    }
}
bounded! {
    /// A maximum transmission unit in bytes of the IP packet.
    Mtu(u16, 576, 9216) = |n| if (576..=9216).contains(&n) { Ok(()) } else { Err(UnitError::Mtu(n)) }
}
impl Mtu {
    /// What Ethernet carries: 1500 bytes (RFC 894).
    pub const ETHERNET: Self = Self(1_500);
}
bounded! {
    /// Bandwidth in Mbit/s (10^6 bit/s).
    BandwidthMbps(u32, 1, 800000) = |n| if (1..=800_000).contains(&n) { Ok(()) } else { Err(UnitError::Bandwidth(n)) }
}
