//! What is to be done about the interfaces of one peer. Pure: the keeper does it.
//!
//! A peer has two interfaces at most. Where it shall be talked to by another key, the second is made first, and the first
//! goes when the second carries. What is not used any more goes on receiving for a while ([`LINGER`]): the other end may
//! still send there, and what is on its way comes.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use zeroize::Zeroizing;

use super::{Offer, Wanted, netlink::Device};

/// How long WireGuard uses a session (whitepaper, section 6.1: REJECT_AFTER_TIME).
const REJECT_AFTER: Duration = Duration::from_secs(180);
/// Without a byte for this long two keepalives are lost, as for a lane of the process.
pub(super) const SILENT: Duration = Duration::from_secs(35);
/// What is not used any more receives for so long.
pub(crate) const LINGER: Duration = Duration::from_secs(10);
/// The same where the peer may not have heard of it, since the API has not taken it.
const LINGER_UNHEARD: Duration = Duration::from_secs(120);
/// An interface that takes another's place does so after this time, alive or not.
const PATIENCE: Duration = Duration::from_secs(60);

/// One interface.
#[derive(Debug, Clone)]
pub(super) struct Interface {
    pub(super) name: String,
    /// Which of the two names it has.
    pub(super) second: bool,
    pub(super) index: u32,
    pub(super) port: u16,
    /// Whom it talks to.
    pub(super) key: [u8; 32],
    /// As it was last told; the peer may have roamed since.
    pub(super) endpoint: SocketAddr,
    pub(super) preshared: Zeroizing<[u8; 32]>,
    pub(super) mtu_bytes: u16,
    pub(super) made_at: Instant,
    /// Since when nothing is to be sent there any more.
    pub(super) retired: Option<Instant>,
    pub(super) seen: Seen,
}

/// What the kernel has told of an interface.
#[derive(Debug, Clone, Default)]
pub(super) struct Seen {
    pub(super) up: bool,
    pub(super) endpoint: Option<SocketAddr>,
    handshake: (i64, i64),
    /// When it was first seen to be this one.
    handshake_at: Option<Instant>,
    pub(super) bytes_in: u64,
    pub(super) bytes_out: u64,
    heard_at: Option<Instant>,
}

impl Seen {
    /// Of one that has just been brought up.
    pub(super) fn up() -> Self {
        Self { up: true, ..Self::default() }
    }

    /// Takes what there is. `wall`: seconds of the wall clock, which the handshake's time is given by; it counts for one that
    /// this process has not seen before only, since the wall clock may jump.
    pub(super) fn update(&mut self, device: &Device, up: bool, now: Instant, wall: i64) {
        self.up = up;
        self.endpoint = device.endpoint;
        if device.handshake != self.handshake {
            let first = self.handshake == (0, 0);
            let age =
                if first { wall.saturating_sub(device.handshake.0).clamp(0, REJECT_AFTER.as_secs() as i64) } else { 0 };
            self.handshake = device.handshake;
            self.handshake_at = now.checked_sub(Duration::from_secs(age as u64));
        }
        if device.handshake == (0, 0) {
            self.handshake_at = None;
        }
        if device.bytes_in != self.bytes_in {
            self.heard_at = Some(now);
        }
        (self.bytes_in, self.bytes_out) = (device.bytes_in, device.bytes_out);
    }

    /// What was heard counts no more.
    pub(super) fn doubt(&mut self) {
        self.heard_at = None;
    }

    pub(super) fn handshake_age(&self, now: Instant) -> Option<Duration> {
        let age = now.saturating_duration_since(self.handshake_at?);
        (age < REJECT_AFTER).then_some(age)
    }
}

impl Interface {
    /// Whether what is sent into it is likely to arrive.
    pub(super) fn is_alive(&self, now: Instant) -> bool {
        let heard = self.seen.heard_at.is_some_and(|at| now.saturating_duration_since(at) < SILENT);
        self.seen.up && heard && self.seen.handshake_age(now).is_some()
    }

    fn is_current(&self, wanted: &Wanted) -> bool {
        self.retired.is_none() && self.key == wanted.key
    }

    /// Whether the peer still has the key that it talks to.
    fn is_answered(&self, wanted: &Wanted) -> bool {
        self.retired.is_none() && (self.key == wanted.key || self.key == wanted.standing)
    }
}

/// One thing to do; the number is that of the interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Make one, with the second name or the first.
    Make { second: bool },
    /// Tell it endpoint, preshared key and MTU.
    Configure(usize),
    /// Send nothing into it any more.
    Retire(usize),
    /// Remove it.
    Remove(usize),
}

/// When the API was told that there is no interface, and whether it has taken that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Heard {
    /// At this time.
    At(Instant),
    /// Not yet.
    NotYet,
}

/// The next thing to do; `None`: it is as it shall be. `carried`: the interfaces that routes lead to.
pub(super) fn step(
    wanted: Option<&Wanted>,
    had: &[Interface],
    carried: impl Fn(u32) -> bool,
    heard: Heard,
    now: Instant,
) -> Option<Step> {
    let current = wanted.and_then(|wanted| had.iter().position(|interface| interface.is_current(wanted)));
    for (n, interface) in had.iter().enumerate() {
        let used = carried(interface.index);
        if let Some(since) = interface.retired {
            let since_heard = match (wanted, heard) {
                (Some(_), _) => Some(since),
                (None, Heard::At(at)) => Some(at.max(since)),
                (None, Heard::NotYet) => None,
            };
            let over = since_heard.is_some_and(|since| now.saturating_duration_since(since) >= LINGER)
                || now.saturating_duration_since(since) >= LINGER_UNHEARD;
            if over && !used {
                return Some(Step::Remove(n));
            }
            continue;
        }
        let Some(wanted) = wanted else { return Some(Step::Retire(n)) };
        if interface.key == wanted.key {
            let preshared = wanted.preshared.as_deref().unwrap_or(&[0; 32]);
            if interface.endpoint != wanted.endpoint || *interface.preshared != *preshared {
                return Some(Step::Configure(n));
            }
            continue;
        }
        if !interface.is_answered(wanted) {
            return Some(Step::Retire(n));
        }
        match current.map(|current| &had[current]) {
            // The other name may be taken by one that lingers, and this one carries nothing.
            None if !interface.is_alive(now) && !used => return Some(Step::Remove(n)),
            None => {}
            Some(new) => {
                let carries = new.is_alive(now) && carried(new.index);
                if carries || now.saturating_duration_since(new.made_at) >= PATIENCE {
                    return Some(Step::Retire(n));
                }
            }
        }
    }
    if wanted.is_some() && current.is_none() {
        let free = |second: &bool| had.iter().all(|interface| interface.second != *second);
        return [false, true].into_iter().find(free).map(|second| Step::Make { second });
    }
    None
}

/// The interface that carries what is sent into it, the one with the wanted key first.
pub(super) fn offer(wanted: &Wanted, had: &[Interface], now: Instant) -> Option<Offer> {
    let alive = |interface: &&Interface| interface.is_answered(wanted) && interface.is_alive(now);
    let best = had.iter().filter(alive).max_by_key(|interface| interface.key == wanted.key)?;
    Some(Offer { index: best.index, mtu_bytes: best.mtu_bytes })
}

/// The interface that the peer is told of.
pub(super) fn told<'a>(wanted: &Wanted, had: &'a [Interface]) -> Option<&'a Interface> {
    had.iter().find(|interface| interface.is_current(wanted) && interface.seen.up)
}

/// Bytes of the longest packet inside: the connections' MTU, at most the underlay's less outer IP, UDP and WireGuard's own
/// headers (60 bytes over IPv4, 80 over IPv6), and not below IPv6's minimum (RFC 8200, section 5), for which the kernel
/// cuts the outer packet.
pub(super) fn mtu(wanted: u16, underlay: Option<u32>, endpoint: SocketAddr) -> u16 {
    const USUAL: u32 = 1_500;
    const MIN: u16 = 1_280;
    let headers = if endpoint.is_ipv4() { 60 } else { 80 };
    let fits = underlay.unwrap_or(USUAL).saturating_sub(headers);
    wanted.min(u16::try_from(fits).unwrap_or(u16::MAX)).max(MIN)
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "any instant will do, and there is no other way to have one")]
mod tests {
    use tieline_openapi::ids::GatewayId;

    use super::*;

    const LANE: [u8; 32] = [1; 32];
    const KERNEL: [u8; 32] = [2; 32];

    fn wanted(key: [u8; 32]) -> Wanted {
        Wanted {
            gateway: GatewayId(uuid::Uuid::from_u128(1)),
            key,
            endpoint: "192.0.2.1:51820".parse().unwrap(),
            standing: LANE,
            preshared: None,
            mtu_bytes: 1_440,
            underlay: None,
        }
    }

    fn interface(second: bool, key: [u8; 32], now: Instant) -> Interface {
        Interface {
            name: format!("tlk{second}"),
            second,
            index: 10 + u32::from(second),
            port: 51_900 + u16::from(second),
            key,
            endpoint: wanted(key).endpoint,
            preshared: Zeroizing::new([0; 32]),
            mtu_bytes: 1_420,
            made_at: now,
            retired: None,
            seen: Seen::up(),
        }
    }

    fn alive(second: bool, key: [u8; 32], now: Instant) -> Interface {
        let mut alive = interface(second, key, now);
        alive.seen.update(&device((1_000, 5), 100), true, now, 1_000);
        assert!(alive.is_alive(now));
        alive
    }

    fn device(handshake: (i64, i64), bytes_in: u64) -> Device {
        Device {
            public: [0; 32],
            port: 0,
            peer: LANE,
            preshared: Zeroizing::new([0; 32]),
            endpoint: None,
            handshake,
            bytes_in,
            bytes_out: 0,
        }
    }

    fn next(wanted: Option<&Wanted>, had: &[Interface], carried: &[u32], now: Instant) -> Option<Step> {
        step(wanted, had, |index| carried.contains(&index), Heard::NotYet, now)
    }

    #[test]
    fn one_is_made_and_told_and_offered_when_it_is_alive() {
        let (now, wanted) = (Instant::now(), wanted(LANE));
        assert_eq!(next(Some(&wanted), &[], &[], now), Some(Step::Make { second: false }));
        let mut had = [interface(false, LANE, now)];
        assert_eq!(next(Some(&wanted), &had, &[], now), None);
        assert!(offer(&wanted, &had, now).is_none() && told(&wanted, &had).is_some());
        had[0] = alive(false, LANE, now);
        assert_eq!(offer(&wanted, &had, now).unwrap().index, 10);
        // Silence, and an old handshake.
        assert!(offer(&wanted, &had, now + SILENT).is_none());
        had[0].seen.update(&device((1_000, 5), 200), true, now + REJECT_AFTER, 0);
        assert!(offer(&wanted, &had, now + REJECT_AFTER).is_none());
        had[0].seen.update(&device((9_000, 5), 300), true, now + REJECT_AFTER, 0);
        assert!(offer(&wanted, &had, now + REJECT_AFTER).is_some());
        had[0].seen.doubt();
        had[0].seen.update(&device((9_000, 5), 300), true, now + REJECT_AFTER, 0);
        assert!(offer(&wanted, &had, now + REJECT_AFTER).is_none(), "nothing new is heard");
        had[0].seen.update(&device((9_000, 5), 301), true, now + REJECT_AFTER, 0);
        assert!(offer(&wanted, &had, now + REJECT_AFTER).is_some());
        had[0].seen.update(&device((9_000, 5), 301), false, now + REJECT_AFTER, 0);
        assert!(offer(&wanted, &had, now + REJECT_AFTER).is_none(), "it is down");
    }

    #[test]
    fn what_is_told_anew_is_told() {
        let now = Instant::now();
        let had = [interface(false, LANE, now)];
        for change in [
            Wanted { endpoint: "192.0.2.9:1".parse().unwrap(), ..wanted(LANE) },
            Wanted { preshared: Some(Zeroizing::new([7; 32])), ..wanted(LANE) },
        ] {
            assert_eq!(next(Some(&change), &had, &[], now), Some(Step::Configure(0)));
        }
    }

    #[test]
    fn the_second_comes_first_and_the_first_goes_when_it_carries() {
        let (now, wanted) = (Instant::now(), wanted(KERNEL));
        let old = alive(false, LANE, now);
        assert_eq!(next(Some(&wanted), std::slice::from_ref(&old), &[10], now), Some(Step::Make { second: true }));
        let mut had = [old, interface(true, KERNEL, now)];
        assert_eq!(next(Some(&wanted), &had, &[10], now), None);
        assert_eq!((offer(&wanted, &had, now).unwrap().index, told(&wanted, &had).unwrap().index), (10, 11));
        had[1] = alive(true, KERNEL, now);
        assert_eq!(offer(&wanted, &had, now).unwrap().index, 11);
        assert_eq!(next(Some(&wanted), &had, &[10], now), None, "routes lead to the old one still");
        assert_eq!(next(Some(&wanted), &had, &[11], now), Some(Step::Retire(0)));
        had[0].retired = Some(now);
        assert_eq!(next(Some(&wanted), &had, &[11], now), None, "it receives for a while");
        assert_eq!(next(Some(&wanted), &had, &[11], now + LINGER), Some(Step::Remove(0)));
        assert_eq!(next(Some(&wanted), &had, &[10, 11], now + LINGER), None, "a route leads there");
    }

    #[test]
    fn one_that_never_comes_alive_takes_the_place_of_the_other_after_a_while() {
        let (now, wanted) = (Instant::now(), wanted(KERNEL));
        let had = [alive(false, LANE, now), interface(true, KERNEL, now)];
        assert_eq!(next(Some(&wanted), &had, &[10], now + PATIENCE), Some(Step::Retire(0)));
    }

    #[test]
    fn a_key_that_the_peer_has_no_more_is_not_sent_to() {
        let (now, wanted) = (Instant::now(), wanted(LANE));
        let had = [alive(false, KERNEL, now)];
        assert!(offer(&wanted, &had, now).is_none());
        assert_eq!(next(Some(&wanted), &had, &[10], now), Some(Step::Retire(0)));
    }

    #[test]
    fn one_that_was_never_alive_makes_room_at_once() {
        let (now, wanted) = (Instant::now(), wanted(KERNEL));
        assert_eq!(next(Some(&wanted), &[interface(false, LANE, now)], &[], now), Some(Step::Remove(0)));
    }

    #[test]
    fn switched_off_it_receives_until_the_peer_has_heard_of_it() {
        let now = Instant::now();
        let mut had = [alive(false, LANE, now)];
        let next = |had: &[Interface], heard, at| step(None, had, |_| false, heard, at);
        assert_eq!(next(&had, Heard::NotYet, now), Some(Step::Retire(0)));
        had[0].retired = Some(now);
        let told = now + Duration::from_secs(30);
        assert_eq!(next(&had, Heard::NotYet, told), None);
        assert_eq!(next(&had, Heard::At(told), told + LINGER - Duration::from_secs(1)), None);
        assert_eq!(next(&had, Heard::At(told), told + LINGER), Some(Step::Remove(0)));
        assert_eq!(next(&had, Heard::NotYet, now + LINGER_UNHEARD), Some(Step::Remove(0)), "no API, no wait for ever");
    }

    #[test]
    fn the_mtu_fits_the_underlay() {
        let (v4, v6) = ("192.0.2.1:1".parse().unwrap(), "[2001:db8::1]:1".parse().unwrap());
        assert_eq!(mtu(1_500, Some(1_500), v4), 1_440);
        assert_eq!(mtu(1_500, Some(1_500), v6), 1_420);
        assert_eq!(mtu(1_400, Some(9_000), v4), 1_400);
        assert_eq!(mtu(8_900, Some(9_000), v4), 8_900);
        assert_eq!(mtu(1_500, None, v4), 1_440);
        assert_eq!(mtu(1_400, Some(1_280), v4), 1_280);
    }
}
