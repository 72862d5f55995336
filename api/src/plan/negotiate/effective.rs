//! What holds end to end: the minimum over all paths, and how soon a silent failure is noticed.

use tieline_openapi::{
    units::Mtu,
    v1::{AddressFamily, DetectMs, Effective, End},
};

use super::{
    super::checks::{Findings, Note},
    channel::Draft,
    frame::Frame,
};

/// What WireGuard over IPv4 adds to each packet, in bytes: IPv4 header 20 (RFC 791), UDP header 8 (RFC 768), and 32 of
/// the transport data message (WireGuard whitepaper, section 5.4.6: type and reserved 4, receiver 4, counter 8, tag 16).
pub const TUNNEL_OVERHEAD_IPV4: u16 = 60;

/// The same over IPv6, whose header has 40 bytes (RFC 8200).
pub const TUNNEL_OVERHEAD_IPV6: u16 = 80;

/// IPv4 and TCP headers without options, in bytes (RFC 9293 section 3.7.1).
const MSS_OVERHEAD_IPV4: u16 = 40;

/// The same for IPv6 (RFC 8200 section 8.3).
const MSS_OVERHEAD_IPV6: u16 = 60;

/// The MTU inside a WireGuard tunnel over IPv4, for an MTU of the packets outside: 1440 within 1500, 1400 within 1460.
#[must_use]
pub fn tunnel_mtu(outer: Mtu) -> Mtu {
    // No IPv4 path need carry more than 576 bytes (RFC 791), and no MTU here is less.
    Mtu::try_from(u64::from(outer.get().saturating_sub(TUNNEL_OVERHEAD_IPV4))).unwrap_or(outer)
}

/// What holds end to end.
pub(super) fn effective(frame: &Frame<'_>, drafts: &[Draft<'_>], findings: &mut Findings) -> Effective {
    let outer = End::BOTH.map(|end| {
        let view = frame.ends.get(end);
        view.rules.internet_mtu(view.point).value
    });
    let smallest_outer = outer[0].min(outer[1]);
    let tunnel = frame.intent.fallback.tunnel.then(|| tunnel_mtu(smallest_outer));
    // At least one channel is chosen, so the default is never used.
    let private = drafts.iter().map(|draft| draft.mtu).min().unwrap_or(smallest_outer);
    let mtu = tunnel.map_or(private, |tunnel| tunnel.min(private));
    if let Some(tunnel) = tunnel.filter(|tunnel| *tunnel < private) {
        findings.info(Note {
            code: "mtu-by-tunnel",
            pointer: "/fallback/tunnel",
            message: format!(
                "packets of at most {tunnel} bytes pass everywhere; the private path alone takes {private}"
            ),
            rule: format!("WireGuard over IPv4 adds {TUNNEL_OVERHEAD_IPV4} bytes within {smallest_outer}"),
            source: "WireGuard whitepaper section 5.4.6, RFC 768, RFC 791".to_owned(),
            resolve: "set fallback.tunnel to false to use the private path's MTU, without a fallback".to_owned(),
        });
    }
    let headers =
        if frame.intent.families.contains(&AddressFamily::Ipv6) { MSS_OVERHEAD_IPV6 } else { MSS_OVERHEAD_IPV4 };
    let detect_ms = drafts.iter().map(|draft| draft.detect).fold(DetectMs { a_to_b: 0, b_to_a: 0 }, |worst, one| {
        DetectMs { a_to_b: worst.a_to_b.max(one.a_to_b), b_to_a: worst.b_to_a.max(one.b_to_a) }
    });
    Effective {
        mtu_bytes: mtu,
        private_mtu_bytes: private,
        tunnel_mtu_bytes: tunnel,
        mss_bytes: mtu.get().saturating_sub(headers),
        detect_ms,
    }
}

/// BGP's hold time in milliseconds where routers agree on nothing else (RFC 4271 section 10): without BFD a silent failure is
/// noticed no sooner.
const HOLD_MS: u32 = 90_000;

/// What holds where there is no tunnel, and BFD is not agreed on.
#[must_use]
pub const fn private_only(mtu: Mtu) -> Effective {
    Effective {
        mtu_bytes: mtu,
        private_mtu_bytes: mtu,
        tunnel_mtu_bytes: None,
        mss_bytes: mtu.get().saturating_sub(MSS_OVERHEAD_IPV4),
        detect_ms: DetectMs { a_to_b: HOLD_MS, b_to_a: HOLD_MS },
    }
}

/// The same with other MTUs of the channels: clouds may give another than was asked for.
pub(super) fn refitted(before: Effective, mtus: impl Iterator<Item = Mtu>) -> Effective {
    let private = mtus.min().unwrap_or(before.private_mtu_bytes);
    let mtu = before.tunnel_mtu_bytes.map_or(private, |tunnel| tunnel.min(private));
    let headers = before.mtu_bytes.get().saturating_sub(before.mss_bytes);
    Effective { mtu_bytes: mtu, private_mtu_bytes: private, mss_bytes: mtu.get().saturating_sub(headers), ..before }
}
