//! Bounded numbers: a value of one of these types is valid by construction.
//!
//! They are written as numbers. Read, an [`Asn`] may also stand as text, in asdot too, and a [`BandwidthMbps`] as `500Mbps`
//! or `1Gbps`.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, de};
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
    /// A text that is no such number.
    #[error("`{text}` is not {expected}")]
    Text {
        /// The text.
        text: String,
        /// What would be one.
        expected: &'static str,
    },
}

macro_rules! bounded {
    (
        $(#[$doc:meta])* $name:ident($inner:ty, $min:tt, $max:tt),
        $expected:literal, text: $text:expr, check: $check:expr
    ) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, ToSchema)]
        #[serde(into = "u64")]
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
                // The check leaves only what fits.
                Ok(Self(n as $inner))
            }
        }
        impl FromStr for $name {
            type Err = UnitError;
            fn from_str(text: &str) -> Result<Self, UnitError> {
                let read: fn(&str) -> Option<u64> = $text;
                match plain(text).or_else(|| read(text)) {
                    Some(n) => Self::try_from(n),
                    None => Err(UnitError::Text { text: shown(text), expected: $expected }),
                }
            }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Visitor;
                impl de::Visitor<'_> for Visitor {
                    type Value = $name;
                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { f.write_str($expected) }
                    fn visit_u64<E: de::Error>(self, n: u64) -> Result<$name, E> {
                        $name::try_from(n).map_err(E::custom)
                    }
                    fn visit_i64<E: de::Error>(self, n: i64) -> Result<$name, E> {
                        match u64::try_from(n) {
                            Ok(n) => self.visit_u64(n),
                            Err(_) => Err(E::invalid_value(de::Unexpected::Signed(n), &self)),
                        }
                    }
                    fn visit_str<E: de::Error>(self, text: &str) -> Result<$name, E> {
                        let read: fn(&str) -> Option<u64> = $text;
                        match read(text) {
                            Some(n) => self.visit_u64(n),
                            None => Err(E::invalid_value(de::Unexpected::Str(text), &self)),
                        }
                    }
                }
                deserializer.deserialize_any(Visitor)
            }
        }
        impl From<$name> for u64 { fn from(n: $name) -> u64 { u64::from(n.0) } }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { self.0.fmt(f) }
        }
    };
}

/// A decimal number without sign, spaces or leading zeros: one number has one spelling.
fn plain(text: &str) -> Option<u64> {
    let canonical = text == "0" || !text.starts_with('0');
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if canonical && digits { text.parse().ok() } else { None }
}

/// No more of a text than an error has room for.
fn shown(text: &str) -> String {
    text.chars().take(40).collect()
}

/// asplain and asdot (RFC 5396 section 2): `65546` and `1.10` are the same number.
fn asn(text: &str) -> Option<u64> {
    match text.split_once('.') {
        None => plain(text),
        Some((high, low)) => {
            let (high, low) = (plain(high)?, plain(low)?);
            let both = high <= u64::from(u16::MAX) && low <= u64::from(u16::MAX);
            both.then_some(high * 65_536 + low)
        }
    }
}

/// `500Mbps` and `1Gbps`, as the clouds write them.
fn bandwidth(text: &str) -> Option<u64> {
    match (text.strip_suffix("Mbps"), text.strip_suffix("Gbps")) {
        (Some(mega), _) => plain(mega),
        (None, Some(giga)) => plain(giga)?.checked_mul(1_000),
        (None, None) => None,
    }
}

bounded! {
    /// An IEEE 802.1Q VLAN identifier, 1 to 4094.
    Vlan(u16, 1, 4094),
    "a VLAN, 1 to 4094",
    text: |_| None,
    check: |n| if (1..=4094).contains(&n) { Ok(()) } else { Err(UnitError::Vlan(n)) }
}
bounded! {
    /// An autonomous system number that may be configured on a router: 0 (RFC 7607), 23456 (RFC 6793), 65535 and
    /// 4294967295 (RFC 7300) are refused. Read, it may also be text, in asdot too (RFC 5396).
    Asn(u32, 1, 4294967294u64),
    "an AS number, 1 to 4294967294",
    text: asn,
    check: |n| match n {
        0 => Err(UnitError::Asn(n, "RFC 7607")),
        23456 => Err(UnitError::Asn(n, "AS_TRANS, RFC 6793")),
        65535 | 4_294_967_295 => Err(UnitError::Asn(n, "RFC 7300")),
        4_294_967_296.. => Err(UnitError::Asn(n, "an AS number has 32 bits, RFC 6793")),
        _ => Ok(()),
    }
}
bounded! {
    /// A maximum transmission unit in bytes of the IP packet.
    Mtu(u16, 576, 9216),
    "an MTU in bytes, 576 to 9216",
    text: |_| None,
    check: |n| if (576..=9216).contains(&n) { Ok(()) } else { Err(UnitError::Mtu(n)) }
}
impl Mtu {
    /// What Ethernet carries: 1500 bytes (RFC 894).
    pub const ETHERNET: Self = Self(1_500);
}
bounded! {
    /// Bandwidth in Mbit/s (10^6 bit/s). Read, it may also be text such as `500Mbps` or `1Gbps`.
    BandwidthMbps(u32, 1, 800000),
    "a bandwidth in Mbit/s, 1 to 800000, or a text such as 500Mbps or 1Gbps",
    text: bandwidth,
    check: |n| if (1..=800_000).contains(&n) { Ok(()) } else { Err(UnitError::Bandwidth(n)) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn reserved_numbers_are_refused_by_name() {
        for (n, words) in [
            (0, "RFC 7607"),
            (23_456, "AS_TRANS"),
            (65_535, "RFC 7300"),
            (4_294_967_295, "RFC 7300"),
            (4_294_967_296, "32 bits"),
        ] {
            assert!(Asn::try_from(n).unwrap_err().to_string().contains(words), "{n}");
        }
        assert_eq!(Vlan::try_from(4_095).unwrap_err().to_string(), UnitError::Vlan(4_095).to_string());
        assert!(Mtu::try_from(575).is_err() && Mtu::try_from(9_217).is_err());
        assert_eq!(Mtu::ETHERNET, Mtu::try_from(1_500).unwrap());
    }

    #[test]
    fn text_is_read_and_never_written() {
        let gbps: BandwidthMbps = serde_json::from_value(json!("10Gbps")).unwrap();
        assert_eq!((gbps.get(), serde_json::to_value(gbps).unwrap()), (10_000, json!(10_000)));
        assert_eq!(serde_json::from_value::<BandwidthMbps>(json!("500Mbps")).unwrap().get(), 500);
        let dotted: Asn = serde_json::from_value(json!("1.10")).unwrap();
        assert_eq!((dotted.get(), serde_json::to_value(dotted).unwrap()), (65_546, json!(65_546)));
        assert_eq!("64512".parse::<Asn>().unwrap().get(), 64_512);
        for bad in ["10 Gbps", "10gbps", "1.5Gbps", "+1Gbps", "01Gbps", "Gbps", "801Gbps", "10MBps", "1000"] {
            assert!(serde_json::from_value::<BandwidthMbps>(json!(bad)).is_err(), "{bad}");
        }
        for bad in ["0.0", "65536.1", "1.65536", "1.", ".1", "0.23456", "65535.65535", "AS1"] {
            assert!(serde_json::from_value::<Asn>(json!(bad)).is_err(), "{bad}");
        }
        assert!(serde_json::from_value::<Vlan>(json!("7")).is_err(), "a VLAN is a number in JSON");
        assert_eq!("7".parse::<Vlan>().unwrap().get(), 7, "but text on a command line");
    }

    #[test]
    fn a_wrong_value_is_told_what_would_be_right() {
        let error = serde_json::from_value::<Vlan>(json!(4_095)).unwrap_err().to_string();
        assert!(error.contains("4095 is outside 1 to 4094"), "{error}");
        let error = serde_json::from_value::<Mtu>(json!(-1)).unwrap_err().to_string();
        assert!(error.contains("an MTU in bytes"), "{error}");
        let error = serde_json::from_value::<BandwidthMbps>(json!("fast")).unwrap_err().to_string();
        assert!(error.contains("fast") && error.contains("1Gbps"), "{error}");
        let error = serde_json::from_value::<Asn>(json!(1.5)).unwrap_err().to_string();
        assert!(error.contains("an AS number"), "{error}");
    }

    proptest! {
        /// A number is taken as a number exactly where it is in range, and comes back the same.
        #[test]
        fn numbers_come_back(n in prop_oneof![0u64..10_000, 0u64..1_000_000, any::<u64>()]) {
            prop_assert_eq!(Vlan::try_from(n).is_ok(), (1..=4094).contains(&n));
            prop_assert_eq!(Mtu::try_from(n).is_ok(), (576..=9216).contains(&n));
            prop_assert_eq!(BandwidthMbps::try_from(n).is_ok(), (1..=800_000).contains(&n));
            for value in [Vlan::try_from(n).map(u64::from), Asn::try_from(n).map(u64::from)].into_iter().flatten() {
                prop_assert_eq!(value, n);
            }
            if let Ok(asn) = Asn::try_from(n) {
                prop_assert_eq!(asn, serde_json::from_value(json!(n)).unwrap());
                prop_assert_eq!(asn, asn.to_string().parse().unwrap());
                prop_assert_eq!(asn, format!("{}.{}", n >> 16, n & 0xffff).parse().unwrap());
            }
        }

        /// Whatever text comes, it is a value or an error.
        #[test]
        fn no_text_is_a_panic(text in "\\PC{0,40}") {
            let _ = text.parse::<Asn>();
            let _ = text.parse::<BandwidthMbps>();
        }
    }
}
