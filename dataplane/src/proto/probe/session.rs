//! The probe session of one connection with one peer gateway.

use std::time::{Duration, Instant};

use tieline_openapi::{ids::ConnectionId, v1::PathKind};

use super::{
    health::{Health, Link, PortHealth},
    stats::{Loss, PathReport},
    way::{Heard, Port, Way},
    wire::{HeardReport, Kind, PROBE_LEN, Probe, ProbeKeys},
};
use crate::proto::pmtu::{PathMtu, Trial};

/// How long loss is gathered before it is judged.
const WINDOW: Duration = Duration::from_millis(500);
/// While a new tunnel is not answered, so many rounds come so many times as often.
const EAGER_ROUNDS: u64 = 10;
const EAGER: u32 = 10;
/// No peer may ask for rounds that are further apart.
const MAX_PACE: Duration = Duration::from_secs(5);

/// What a session is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionSettings {
    /// Whose ways are measured.
    pub connection: ConnectionId,
    /// Between two rounds.
    pub interval: Duration,
    /// At least so much between two rounds, of either side, where the tunnel is the only way: nothing is chosen then, and a
    /// gateway with a thousand peers has better things to do.
    pub pace: Duration,
    /// Rounds without an answer after which a port is dead.
    pub dead_after: u32,
    /// Dead ports that make the private way bad.
    pub dead_ports: u32,
    /// Source ports of the private bundle, at most 32; `None`: the private way is not probed.
    pub private_ports: Option<u8>,
    /// Whether there is a tunnel.
    pub tunnel: bool,
    /// Bytes of the longest packet that goes through the tunnel; up to here its path MTU is searched.
    pub mtu_bytes: u16,
    /// Bytes of the IP and UDP headers of a probe inside the tunnel: 28 over IPv4, 48 over IPv6.
    pub header_bytes: u16,
}

/// A request to send.
#[derive(Debug, Clone, Copy)]
pub struct Transmit {
    /// Which way.
    pub path: PathKind,
    /// From which source port.
    pub port: u8,
    /// The datagram.
    pub bytes: [u8; PROBE_LEN],
    /// Its length, up to which zeroes follow. A longer one than [`PROBE_LEN`] tries a size: it must go in one piece.
    pub length: usize,
}

/// What became of a datagram.
#[derive(Debug, Clone, Copy)]
pub enum Received {
    /// A request: send this back to where it came from, from the socket that it came to.
    Reply([u8; PROBE_LEN]),
    /// An answer, taken into account.
    Answer,
    /// Not a probe of this session, not authentic, a replay, or too late.
    Ignored,
}

/// The state machine: [`poll_transmit`](Self::poll_transmit) what to send, [`receive`](Self::receive) what came, ask
/// for the [`health`](Self::health).
#[derive(Debug)]
pub struct ProbeSession {
    settings: SessionSettings,
    keys: ProbeKeys,
    session: u64,
    epoch: Instant,
    private: Option<Way>,
    tunnel: Option<Way>,
    /// Of the tunnel.
    pmtu: PathMtu,
    /// Whether sizes are tried.
    sizes: bool,
    round: u64,
    cursor: Option<u8>,
    next_round: Instant,
    /// What the peer asks for as [`SessionSettings::pace`].
    peer_pace: Duration,
    window_ends: Instant,
    carries: Option<PathKind>,
    peer_session: u64,
    peer_since: Instant,
    peer_report: Option<(u64, Instant, HeardReport)>,
    heard: [Heard; 32],
    heard_tunnel: Heard,
}

impl ProbeSession {
    /// A session that sends its first round at once. `session` counts the starts of this gateway and never falls.
    #[must_use]
    pub fn new(settings: SessionSettings, keys: ProbeKeys, session: u64, epoch: Instant, now: Instant) -> Self {
        let heard = Heard::nothing(now);
        let mut new = Self {
            settings,
            keys,
            session,
            epoch,
            private: None,
            tunnel: None,
            pmtu: PathMtu::new(settings.mtu_bytes, now),
            sizes: true,
            round: 0,
            cursor: None,
            next_round: now,
            peer_pace: Duration::ZERO,
            window_ends: now + WINDOW,
            carries: None,
            peer_session: 0,
            peer_since: now,
            peer_report: None,
            heard: [heard; 32],
            heard_tunnel: heard,
        };
        new.configure(settings, now);
        new
    }

    /// Takes new settings; a way that was probed and still is goes on undisturbed.
    pub fn configure(&mut self, settings: SessionSettings, now: Instant) {
        self.settings = settings;
        self.pmtu.set_ceiling(settings.mtu_bytes, now);
        let ports = settings.private_ports.map(|ports| ports.clamp(1, 32));
        if self.private.as_ref().map(|way| way.ports.len()) != ports.map(usize::from) {
            self.private = ports.map(Way::new);
        }
        if self.tunnel.is_some() != settings.tunnel {
            self.tunnel = settings.tunnel.then(|| Way::new(1));
        }
        self.cursor = None;
    }

    /// Tells the peer which way this gateway sends.
    pub fn set_carries(&mut self, path: Option<PathKind>) {
        self.carries = path;
    }

    /// Which way the peer last said that it sends.
    #[must_use]
    pub fn peer_carries(&self) -> Option<PathKind> {
        self.peer_report.and_then(|(_, _, report)| report.carries)
    }

    /// When to call [`poll_transmit`](Self::poll_transmit) next.
    #[must_use]
    pub fn next_round(&self) -> Instant {
        self.next_round
    }

    /// The next datagram to send; call it until it has none. The private ports go before the tunnel, so that a round heard
    /// through the tunnel says that the private requests of the round before it had their time.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<Transmit> {
        if self.cursor.is_none() {
            if now < self.next_round {
                return None;
            }
            self.round += 1;
            self.cursor = Some(0);
            let interval = self.interval();
            self.next_round += interval;
            if self.next_round <= now {
                // The host stalled: rounds are not made up for, or a burst would follow.
                self.next_round = now + interval;
            }
        }
        let index = self.cursor?;
        let now_ns = self.ns(now);
        let private = self.private.as_ref().map_or(0, |way| way.ports.len());
        let (path, port, way) = if usize::from(index) < private {
            (PathKind::Private, index, self.private.as_mut())
        } else if usize::from(index) == private && self.tunnel.is_some() {
            (PathKind::Tunnel, 0, self.tunnel.as_mut())
        } else {
            self.cursor = None;
            return self.try_size(now, now_ns);
        };
        way?.ports[usize::from(port)].send(self.round, now_ns);
        self.cursor = Some(index + 1);
        let probe = self.probe(now, Kind::Request, path, port);
        let bytes = Probe { round: self.round, sent_ns: now_ns, ..probe }.encode(&self.keys);
        Some(Transmit { path, port, bytes, length: PROBE_LEN })
    }

    /// A probe of a size, where one is to be tried now. At the end of a round, so at most one each interval.
    fn try_size(&mut self, now: Instant, now_ns: u64) -> Option<Transmit> {
        self.tunnel.as_ref()?;
        let heard = self.sizes && self.way_health(now, PathKind::Tunnel).is_heard();
        let trial = self.pmtu.poll(now, heard, self.round)?;
        let length = trial.size.saturating_sub(self.settings.header_bytes);
        let probe = self.probe(now, Kind::Size, PathKind::Tunnel, 0);
        let heard_count = u32::from(length);
        let bytes = Probe { round: trial.number, sent_ns: now_ns, heard_count, ..probe }.encode(&self.keys);
        Some(Transmit { path: PathKind::Tunnel, port: 0, bytes, length: usize::from(length).max(PROBE_LEN) })
    }

    /// The path MTU of the tunnel.
    #[must_use]
    pub fn path_mtu(&self) -> &PathMtu {
        &self.pmtu
    }

    /// The size that passes the tunnel, in bytes, by what another process has found.
    pub fn resume_mtu(&mut self, size: u16, now: Instant) {
        self.pmtu.resume(size, now);
    }

    /// Has the path MTU searched, or not for now: where what carries cuts the outer packet, a size that passes says nothing.
    pub fn search_sizes(&mut self, sizes: bool) {
        self.sizes = sizes;
    }

    /// The own interface refused a packet of this size, in bytes.
    pub fn size_refused(&mut self, now: Instant, size: u16) {
        self.pmtu.refused(size, now);
        self.pmtu.hint(size, now);
    }

    /// Between two rounds.
    #[must_use]
    pub fn interval(&self) -> Duration {
        if self.private.is_some() {
            return self.settings.interval;
        }
        let pace = self.settings.pace.max(self.peer_pace);
        let answered = self.tunnel.as_ref().is_some_and(|way| way.newest_answer().is_some());
        // In the beginning somebody waits for the tunnel.
        let eager = !answered && self.round < EAGER_ROUNDS;
        self.settings.interval.max(if eager { pace / EAGER } else { pace })
    }

    fn probe(&self, now: Instant, kind: Kind, path: PathKind, port: u8) -> Probe {
        Probe {
            kind,
            path,
            port,
            connection: self.settings.connection,
            session: self.session,
            round: 0,
            sent_ns: 0,
            received_ns: 0,
            stamped_ns: self.ns(now),
            heard_count: 0,
            pace_ms: u16::try_from(self.settings.pace.as_millis()).unwrap_or(u16::MAX),
            report: self.hears(now),
        }
    }

    fn ns(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.epoch).as_nanos()).unwrap_or(u64::MAX)
    }

    /// Takes a datagram that came from the peer's address by `path`.
    pub fn receive(&mut self, now: Instant, path: PathKind, bytes: &[u8]) -> Received {
        let Ok(probe) = Probe::decode(bytes) else { return Received::Ignored };
        if probe.connection != self.settings.connection || probe.path != path || !self.keys.verify(bytes) {
            return Received::Ignored;
        }
        if probe.session < self.peer_session {
            return Received::Ignored;
        }
        if probe.session > self.peer_session {
            self.peer_restarted(now, probe.session);
        }
        let (Some(received), answer) = (match probe.kind {
            Kind::Request => (self.request(now, &probe), false),
            Kind::Reply => (self.answer(now, &probe), true),
            Kind::Size => (self.size_arrived(now, &probe), false),
            Kind::SizeReply => (self.size_passed(now, &probe), true),
        }) else {
            return Received::Ignored;
        };
        if self.peer_report.is_none_or(|(stamped, _, _)| stamped < probe.stamped_ns) {
            self.peer_report = Some((probe.stamped_ns, now, probe.report));
            self.peer_pace = Duration::from_millis(u64::from(probe.pace_ms)).min(MAX_PACE);
        }
        if answer { Received::Answer } else { Received::Reply(received) }
    }

    fn peer_restarted(&mut self, now: Instant, session: u64) {
        self.peer_session = session;
        self.peer_since = now;
        self.peer_report = None;
        let silent = Heard::nothing(now);
        self.heard = [silent; 32];
        self.heard_tunnel = silent;
        for port in self.private.iter_mut().chain(&mut self.tunnel).flat_map(|way| &mut way.ports) {
            port.rebase = true;
        }
    }

    fn request(&mut self, now: Instant, probe: &Probe) -> Option<[u8; PROBE_LEN]> {
        let heard = match probe.path {
            PathKind::Private => self.heard.get_mut(usize::from(probe.port))?,
            PathKind::Tunnel => &mut self.heard_tunnel,
        };
        if !heard.admit(probe.round) {
            return None;
        }
        heard.last_at = now;
        let heard_count = heard.count;
        let reply = self.probe(now, Kind::Reply, probe.path, probe.port);
        let received_ns = reply.stamped_ns;
        Some(Probe { round: probe.round, sent_ns: probe.sent_ns, received_ns, heard_count, ..reply }.encode(&self.keys))
    }

    fn size_arrived(&mut self, now: Instant, probe: &Probe) -> Option<[u8; PROBE_LEN]> {
        self.tunnel.as_ref().filter(|_| probe.path == PathKind::Tunnel)?;
        let reply = self.probe(now, Kind::SizeReply, PathKind::Tunnel, probe.port);
        let (round, sent_ns, heard_count) = (probe.round, probe.sent_ns, probe.heard_count);
        let received_ns = reply.stamped_ns;
        Some(Probe { round, sent_ns, received_ns, heard_count, ..reply }.encode(&self.keys))
    }

    fn size_passed(&mut self, now: Instant, probe: &Probe) -> Option<[u8; PROBE_LEN]> {
        let size = u16::try_from(probe.heard_count).ok()?.checked_add(self.settings.header_bytes)?;
        self.pmtu.answered(Trial { number: probe.round, size }, now);
        Some([0; PROBE_LEN])
    }

    fn answer(&mut self, now: Instant, probe: &Probe) -> Option<[u8; PROBE_LEN]> {
        let now_ns = self.ns(now);
        let way = match probe.path {
            PathKind::Private => self.private.as_mut(),
            PathKind::Tunnel => self.tunnel.as_mut(),
        }?;
        if !way.ports.get_mut(usize::from(probe.port))?.answer(probe) {
            return None;
        }
        if probe.path == PathKind::Tunnel {
            self.pmtu.heard(probe.round);
        }
        let held = probe.stamped_ns.saturating_sub(probe.received_ns);
        let trip_ns = now_ns.saturating_sub(probe.sent_ns).saturating_sub(held);
        way.round_trip(u32::try_from(trip_ns / 1_000).unwrap_or(u32::MAX));
        Some([0; PROBE_LEN])
    }

    fn patience(&self) -> Duration {
        self.settings.interval * self.settings.dead_after
    }

    /// What this gateway hears of its peer.
    ///
    /// A way is deaf only when the *other* way was heard over the same rounds: a peer that sends nothing at all has stalled.
    /// A port is deaf by itself only when another port of its bundle was heard over those rounds; a bundle that falls
    /// silent does so as one, though its last round may have been cut in two.
    fn hears(&self, now: Instant) -> HeardReport {
        let dead_after = u64::from(self.settings.dead_after);
        let deaf = |heard: &Heard, other: u64| {
            heard.last_round == 0
                || (other >= heard.last_round.saturating_add(dead_after)
                    && now.saturating_duration_since(heard.last_at) >= self.patience())
        };
        let newest = self.heard.iter().max_by_key(|heard| heard.last_round).unwrap_or(&self.heard_tunnel);
        let silent = deaf(newest, self.heard_tunnel.last_round);
        let heard_ports =
            (0..32).filter(|&i| !silent && !deaf(&self.heard[i], newest.last_round)).fold(0, |bits, i| bits | 1 << i);
        HeardReport {
            heard_ports,
            valid: newest.last_round.max(self.heard_tunnel.last_round) > 0
                && now.saturating_duration_since(self.peer_since) >= self.patience() + self.settings.interval,
            tunnel_heard: !deaf(&self.heard_tunnel, newest.last_round),
            carries: self.carries,
        }
    }

    /// What the peer hears of us, if it has told so lately.
    fn told(&self, now: Instant) -> Option<HeardReport> {
        self.peer_report
            .filter(|(_, at, report)| report.valid && now.saturating_duration_since(*at) < self.patience())
            .map(|(_, _, report)| report)
    }

    fn port_health(&self, now: Instant, way: &Way, port: &Port, heard: Option<bool>, other: Option<u64>) -> PortHealth {
        let dead_after = u64::from(self.settings.dead_after);
        let Some(answered) = port.last_answered else { return PortHealth::Never };
        match heard {
            Some(true) => return PortHealth::Alive,
            Some(false) => return PortHealth::Dead,
            None => {}
        }
        let timeout = u64::try_from(way.timeout(self.settings.interval).as_nanos()).unwrap_or(u64::MAX);
        if !port.overdue(self.ns(now), self.settings.dead_after, timeout) {
            PortHealth::Alive
        } else if way.newest_answer().is_some_and(|newest| {
            // By itself, or with its whole way.
            newest >= answered + dead_after || other.is_some_and(|other| other >= newest + dead_after)
        }) {
            PortHealth::Dead
        } else {
            PortHealth::Overdue
        }
    }

    /// Health of each source port of a way.
    #[must_use]
    pub fn ports(&self, now: Instant, path: PathKind) -> Vec<PortHealth> {
        self.each_port(now, path).collect()
    }

    fn each_port(&self, now: Instant, path: PathKind) -> impl Iterator<Item = PortHealth> + '_ {
        let told = self.told(now);
        let newest = |way: &Option<Way>| way.as_ref().and_then(Way::newest_answer);
        let (way, other) = match path {
            PathKind::Private => (&self.private, newest(&self.tunnel)),
            PathKind::Tunnel => (&self.tunnel, newest(&self.private)),
        };
        let heard = move |i: usize| {
            told.map(|told| match path {
                PathKind::Private => told.heard_ports & (1 << i) != 0,
                PathKind::Tunnel => told.tunnel_heard,
            })
        };
        way.iter().flat_map(move |way| {
            way.ports.iter().enumerate().map(move |(i, port)| self.port_health(now, way, port, heard(i), other))
        })
    }

    /// How the traffic towards the peer fares now.
    #[must_use]
    pub fn health(&self, now: Instant) -> Link {
        Link { private: self.way_health(now, PathKind::Private), tunnel: self.way_health(now, PathKind::Tunnel) }
    }

    fn way_health(&self, now: Instant, path: PathKind) -> Health {
        let (way, bad_from) = match path {
            PathKind::Private => (&self.private, self.settings.dead_ports),
            PathKind::Tunnel => (&self.tunnel, 1),
        };
        let Some(way) = way else { return Health::Off };
        let (mut all, mut never, mut alive, mut dead) = (0, 0, 0, 0);
        for health in self.each_port(now, path) {
            all += 1;
            match health {
                PortHealth::Never => never += 1,
                PortHealth::Alive => alive += 1,
                PortHealth::Dead => dead += 1,
                PortHealth::Overdue => {}
            }
        }
        let bad_from = usize::try_from(bad_from).unwrap_or(usize::MAX).clamp(1, all);
        if never == all {
            Health::Unknown
        } else if alive == 0 {
            if self.is_silent(now, path) { Health::Silent } else { Health::Stalled }
        } else if dead >= bad_from {
            Health::DeadPorts
        } else if never >= bad_from {
            Health::Unknown
        } else if way.lossy {
            Health::Lossy
        } else if way.is_slow() {
            Health::Slow
        } else {
            Health::Up
        }
    }

    /// Whether a way without a live port is silent by itself: the peer says so, or the other way was answered meanwhile.
    fn is_silent(&self, now: Instant, path: PathKind) -> bool {
        let newest = |way: &Option<Way>| way.as_ref().and_then(Way::newest_answer);
        let (own, other) = match path {
            PathKind::Private => (newest(&self.private), newest(&self.tunnel)),
            PathKind::Tunnel => (newest(&self.tunnel), newest(&self.private)),
        };
        let ahead = own.zip(other).is_some_and(|(own, other)| other >= own + u64::from(self.settings.dead_after));
        ahead || self.told(now).is_some()
    }

    /// Judges loss and delay at the end of each window.
    pub fn advance(&mut self, now: Instant) {
        if now < self.window_ends {
            return;
        }
        self.window_ends = now + WINDOW;
        let private = self.private.as_mut().and_then(Way::judge);
        let tunnel = self.tunnel.as_mut().and_then(Way::judge);
        if let Some(way) = &mut self.private {
            way.weigh(private, tunnel);
        }
        if let Some(way) = &mut self.tunnel {
            way.weigh(tunnel, private);
        }
    }

    /// What has been seen of a way since the last call.
    pub fn take_report(&mut self, now: Instant, path: PathKind) -> PathReport {
        let ports = self.ports(now, path);
        let hears = self.hears(now);
        let told = self.told(now);
        let way = match path {
            PathKind::Private => &mut self.private,
            PathKind::Tunnel => &mut self.tunnel,
        };
        let Some(way) = way else { return PathReport::default() };
        let mut loss = Loss::default();
        let mut dead_ports = 0;
        for (i, (port, health)) in way.ports.iter_mut().zip(&ports).enumerate() {
            let unanswered = port.is.acked_sent == port.reported.acked_sent;
            if matches!(health, PortHealth::Dead | PortHealth::Overdue)
                || (unanswered && port.is.sent > port.reported.sent + 1)
            {
                let (peer_hears, we_hear) = match path {
                    PathKind::Private => {
                        (told.map(|told| told.heard_ports & (1 << i) != 0), hears.heard_ports & (1 << i) != 0)
                    }
                    PathKind::Tunnel => (told.map(|told| told.tunnel_heard), hears.tunnel_heard),
                };
                loss.add_dead(&port.reported, &port.is, peer_hears != Some(true), !we_hear || peer_hears == Some(true));
            } else {
                loss.add(&port.reported, &port.is);
            }
            dead_ports += u8::from(matches!(health, PortHealth::Dead | PortHealth::Overdue));
            port.reported = port.is;
        }
        let trips = way.trips.take();
        PathReport {
            sent: u32::try_from(loss.sent).unwrap_or(u32::MAX),
            received: u32::try_from(loss.answered).unwrap_or(u32::MAX),
            rtt_us: trips.map(|(median, _)| median),
            rtt_p99_us: trips.map(|(_, p99)| p99),
            jitter_us: trips.and(way.jitter.us()),
            loss_out_ppm: loss.out_ppm(),
            loss_in_ppm: loss.in_ppm(),
            dead_ports,
        }
    }
}
