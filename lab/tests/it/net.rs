//! The network: sessions over tagged wires, what must keep them down, cuts, and the spread over channels.
//!
//! A scenario runs inside a cell of its own: the test starts this same binary again as the cell's first process.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tieline_lab::cell::{self, Inside, LabSpec, SpawnOptions};
use tieline_lab::clouds::network::{Bfd, LearnedRoute, Network, NetworkError, Session, SessionStatus};
use tieline_lab::net::flows::{self, UdpFlow};
use tieline_lab::net::wire::{Cut, WireChange};
use tieline_lab::net::{LabNetwork, NetSpec, VlanWay};
use tieline_openapi::v1::{BfdState, BgpState};
use tokio_util::sync::CancellationToken;

pub(crate) type Outcome = Result<(), Box<dyn std::error::Error + Send + Sync>>;

/// The slowest wait in any scenario; a loaded machine is far below it.
const PATIENCE: Duration = Duration::from_secs(30);

/// The inside of every cell of these tests.
#[test]
#[ignore = "the inside of a lab; other tests start it"]
fn inside() -> ExitCode {
    if std::env::var_os("TIELINE_CELL").is_none() {
        return ExitCode::SUCCESS;
    }
    cell::run_inside(Path::new("."), body).unwrap_or(ExitCode::FAILURE)
}

async fn body(inside: Inside) -> Outcome {
    let name = inside.parameters.as_str().unwrap_or_default().to_owned();
    inside.ready(serde_json::json!({ "scenario": name }));
    let outcome = scenario(&name, inside).await;
    if let Err(error) = &outcome {
        println!("{name}: {error:?}");
    }
    outcome
}

async fn scenario(name: &str, inside: Inside) -> Outcome {
    match name {
        "established" => established(inside).await,
        "wrong" => wrong(inside).await,
        "ecmp" => ecmp(inside).await,
        "hosts" => hosts(inside).await,
        "refused" => refused(inside).await,
        "idle" => {
            inside.shutdown.cancelled().await;
            Ok(())
        }
        other => crate::macsec::scenario(other, inside).await,
    }
}

pub(crate) fn options(dir: &Path, scenario: &str, network: NetSpec) -> SpawnOptions {
    let arguments = ["net::inside", "--exact", "--ignored", "--nocapture", "--test-threads=1"];
    let spec = LabSpec { network, parameters: scenario.into() };
    let mut options = SpawnOptions::new(dir, spec, arguments.map(Into::into).to_vec());
    options.attached = true;
    options
}

/// Whether this machine can run a lab; says why not.
pub(crate) fn able() -> bool {
    let missing = cell::preflight();
    for lack in &missing {
        println!("skipped: needs {}: {}", lack.what, lack.remedy);
    }
    missing.is_empty()
}

async fn in_a_lab(scenario: &str, network: NetSpec, user_namespace: Option<bool>) {
    if !able() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut options = options(dir.path(), scenario, network);
    options.user_namespace = user_namespace;
    let cell = cell::spawn(options).await.unwrap_or_else(|e| panic!("{e:?}\n{}", logs(dir.path())));
    let code = tokio::time::timeout(Duration::from_secs(120), cell.wait()).await;
    let ended = matches!(code, Ok(Ok(0)));
    assert!(ended, "the scenario ended with {code:?}\n{}", logs(dir.path()));
}

pub(crate) fn logs(dir: &Path) -> String {
    ["lab.log", "a-router/bird.log", "b-router/bird.log"]
        .iter()
        .map(|file| format!("--- {file}\n{}", std::fs::read_to_string(dir.join(file)).unwrap_or_default()))
        .collect()
}

#[tokio::test]
async fn a_session_over_a_tagged_wire_comes_up_carries_and_goes_down_with_the_wire() {
    in_a_lab("established", NetSpec::default(), None).await;
}

#[tokio::test]
async fn the_same_without_bpf() {
    in_a_lab("established", NetSpec { vlan: Some(VlanWay::Relay), ..NetSpec::default() }, None).await;
}

#[tokio::test]
async fn the_same_with_bpf() {
    let release = nix::sys::utsname::uname().unwrap().release().to_string_lossy().into_owned();
    let version: Vec<u32> = release.split(['.', '-']).map_while(|part| part.parse().ok()).take(2).collect();
    if version < vec![6, 6] || !nix::unistd::geteuid().is_root() {
        println!("skipped: needs root and tcx (Linux 6.6), this is {release}");
        return;
    }
    in_a_lab("established", NetSpec { vlan: Some(VlanWay::Bpf), ..NetSpec::default() }, None).await;
}

#[tokio::test]
async fn the_same_in_a_user_namespace() {
    in_a_lab("established", NetSpec::default(), Some(true)).await;
}

#[tokio::test]
async fn a_wrong_key_tag_address_or_number_keeps_the_session_down() {
    in_a_lab("wrong", NetSpec::with_channels(7), None).await;
}

#[tokio::test]
async fn two_channels_share_the_flows() {
    in_a_lab("ecmp", NetSpec::default(), None).await;
}

#[tokio::test]
async fn hosts_reach_each_other_through_their_gateways() {
    in_a_lab("hosts", NetSpec::default(), None).await;
}

#[tokio::test]
async fn sessions_that_no_router_could_run_are_refused_whole() {
    in_a_lab("refused", NetSpec::default(), None).await;
}

/// Both ends of one session over a channel.
fn pair(channel: usize) -> (Session, Session) {
    let subnet = 10 + channel as u8;
    let [a_ip, b_ip] = [1, 2].map(|host| Ipv4Addr::new(169, 254, subnet, host));
    let ports = NetSpec::with_channels(channel + 1).channels.remove(channel);
    let a = Session {
        id: format!("dxvif-{channel}"),
        site: "aws".into(),
        port: ports.a_port,
        vlan: 100 + channel as u16,
        mtu: 1500,
        local_ip: a_ip,
        prefix_len: 30,
        peer_ip: b_ip,
        local_asn: 64_512,
        peer_asn: 16_550,
        md5: Some("3f9c0a".into()),
        // Slow enough that a machine busy with other things does not look like a cut wire.
        bfd: Some(Bfd { min_tx_ms: 500, min_rx_ms: 500, multiplier: 6 }),
        advertised: vec!["10.0.0.0/16".parse().unwrap()],
        import_limit: Some(100),
        enabled: true,
    };
    let b = Session {
        id: format!("router/peer-{channel}"),
        site: "google".into(),
        port: ports.b_port,
        local_ip: b_ip,
        peer_ip: a_ip,
        local_asn: 16_550,
        peer_asn: 64_512,
        advertised: vec!["10.1.0.0/16".parse().unwrap()],
        ..a.clone()
    };
    (a, b)
}

/// Asks until it is so, and says what was last seen where it never is.
async fn until<T: std::fmt::Debug>(
    what: &str,
    mut ask: impl AsyncFnMut() -> Result<T, NetworkError>,
    so: impl Fn(&T) -> bool,
) -> Result<T, Box<dyn std::error::Error + Send + Sync>> {
    let mut pause = tokio::time::interval(Duration::from_millis(20));
    let mut last = None;
    let waited = tokio::time::timeout(PATIENCE, async {
        loop {
            pause.tick().await;
            let seen = ask().await?;
            if so(&seen) {
                return Ok::<T, NetworkError>(seen);
            }
            last = Some(seen);
        }
    });
    match waited.await {
        Ok(seen) => Ok(seen?),
        Err(_) => Err(format!("not {what} within {PATIENCE:?}; last seen: {last:?}").into()),
    }
}

fn up(sessions: &BTreeMap<String, SessionStatus>) -> bool {
    !sessions.is_empty()
        && sessions.values().all(|s| {
            s.bgp == BgpState::Established && s.bfd == BfdState::Up && s.learned.len() == 1 && s.advertised.len() == 1
        })
}

async fn both_up(network: &LabNetwork) -> Outcome {
    for site in ["aws", "google"] {
        until("up", async || network.status(site).await, up).await?;
    }
    Ok(())
}

/// A socket bound inside a namespace.
fn socket(network: &LabNetwork, namespace: &str, address: (Ipv4Addr, u16)) -> UdpSocket {
    let socket = network.namespaces()[namespace].run(|| UdpSocket::bind(address)).unwrap().unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    socket
}

/// Sends a datagram and waits for its echo; asks again as a host would, for first packets wait for neighbours.
fn echoes(from: &UdpSocket, at: &UdpSocket, tries: usize) -> bool {
    let to: SocketAddr = at.local_addr().unwrap();
    let mut buffer = [0; 2_000];
    for i in 0..tries {
        let sent = [i as u8; 1_400];
        from.send_to(&sent, to).unwrap();
        let heard = match at.recv_from(&mut buffer) {
            Ok((length, source)) => at.send_to(&buffer[..length], source).and_then(|_| from.recv_from(&mut buffer)),
            Err(error) => Err(error),
        };
        match heard {
            Ok((length, _)) => return length == sent.len(),
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(e) => panic!("{e}"),
        }
    }
    false
}

async fn established(inside: Inside) -> Outcome {
    let network = &inside.network;
    let (a, b) = pair(0);
    assert!(network.status("aws").await?.is_empty(), "no session runs before one is configured");
    network.configure("aws", vec![a.clone()]).await?;
    network.configure("google", vec![b.clone()]).await?;
    both_up(network).await?;
    let seen = network.status("aws").await?.remove(&a.id).ok_or("no status")?;
    assert_eq!((seen.routes_in, seen.routes_out), (1, 1));
    let learned = LearnedRoute { prefix: b.advertised[0], as_path: vec![b.local_asn], next_hop: b.local_ip };
    assert_eq!((seen.learned, seen.advertised), (vec![learned], a.advertised.clone()));
    assert!(seen.established_since.is_some());
    println!("tagged interfaces: {:?}", network.vlan_way().await);

    let (from, at) = (
        socket(network, "a-gw", (Ipv4Addr::new(10, 0, 2, 10), 0)),
        socket(network, "b-gw", (Ipv4Addr::new(10, 1, 2, 10), 4_000)),
    );
    assert!(echoes(&from, &at, 10), "the gateways reach each other");
    let wire = &network.wires()["ch0"];
    for direction in [&wire.a_to_b, &wire.b_to_a] {
        assert_eq!(direction.tags.keys().collect::<Vec<_>>(), [&100], "only the session's tag is on the trunk");
        assert!(direction.bytes > 1_400 && direction.lost == 0, "{direction:?}");
    }
    assert_eq!(network.wires()["ch1"].a_to_b.tags.len(), 0);

    // The same configuration again disturbs nothing.
    let before = network.status("aws").await?;
    network.configure("aws", vec![a.clone()]).await?;
    assert_eq!(network.status("aws").await?, before);

    // A silent cut is found by BFD; the light stays on, and nothing is forwarded.
    let cut = |cut| WireChange { cut: Some(cut), ..WireChange::default() };
    network.change_wire("ch0", &cut(Cut::BToA))?;
    let down = |s: &BTreeMap<String, SessionStatus>| {
        s.values().all(|s| s.bgp != BgpState::Established && s.bfd != BfdState::Up && s.learned.is_empty())
    };
    for site in ["aws", "google"] {
        until("down after the cut", async || network.status(site).await, down).await?;
    }
    assert!(network.link_up("aws", &a.port).await?);
    assert!(!echoes(&from, &at, 1), "without a route nothing is forwarded");
    network.change_wire("ch0", &cut(Cut::None))?;
    both_up(network).await?;

    // Without light the session ends at once, on both sides, and the ports say so.
    let carrier = |on| WireChange { carrier: Some(on), ..WireChange::default() };
    network.change_wire("ch0", &carrier(false))?;
    for (site, port) in [("aws", &a.port), ("google", &b.port)] {
        until("dark", async || network.link_up(site, port).await, |up| !up).await?;
        until("down without light", async || network.status(site).await, down).await?;
    }
    assert!(network.link_up("aws", &pair(1).0.port).await?);
    network.change_wire("ch0", &carrier(true))?;
    both_up(network).await?;
    assert!(echoes(&from, &at, 10), "the gateways reach each other again");

    // Disabled keeps the interface; gone takes it away.
    network.configure("aws", vec![Session { enabled: false, ..a.clone() }]).await?;
    until("disabled", async || network.status("aws").await, |s| s[&a.id].bgp == BgpState::Down).await?;
    network.configure("aws", vec![a.clone()]).await?;
    both_up(network).await?;
    network.configure("aws", vec![]).await?;
    assert!(network.status("aws").await?.is_empty());
    let links = network.namespaces()["a-router"].run(|| std::fs::read_to_string("/proc/thread-self/net/dev"))??;
    assert!(links.contains("ch0:") && !links.contains("ch0.100"), "{links}");
    Ok(())
}

/// What is wrong, and how it is made so.
type Fault = (&'static str, fn(&mut Session));

async fn wrong(inside: Inside) -> Outcome {
    let network = &inside.network;
    let faults: [Fault; 6] = [
        ("MD5 key", |s| s.md5 = Some("3f9c0b".into())),
        ("missing MD5 key", |s| s.md5 = None),
        ("VLAN", |s| s.vlan += 100),
        ("address", |s| s.local_ip = Ipv4Addr::from_bits(s.local_ip.to_bits() + 1)),
        ("own number", |s| s.local_asn += 1),
        ("neighbour's number", |s| s.peer_asn += 1),
    ];
    // Every fault on a channel of its own, and one channel more that stays right.
    let (on_a, right): (Vec<_>, Vec<_>) = (0..=faults.len()).map(pair).unzip();
    let mut faulty = right.clone();
    for (session, (_, spoil)) in faulty.iter_mut().zip(faults) {
        spoil(session);
    }
    network.configure("aws", on_a.clone()).await?;
    network.configure("google", right.clone()).await?;
    both_up(network).await?;
    let established = |statuses: &BTreeMap<String, SessionStatus>, sessions: &[Session]| -> Vec<usize> {
        let up = |id: &String| statuses.get(id).is_some_and(|s| s.bgp == BgpState::Established);
        (0..sessions.len()).filter(|i| up(&sessions[*i].id)).collect()
    };
    network.configure("google", faulty.clone()).await?;
    let only = [faults.len()];
    for (site, sessions) in [("google", &faulty), ("aws", &on_a)] {
        until("down", async || network.status(site).await, |s| established(s, sessions) == only).await?;
    }
    // Longer than either side waits between attempts.
    let mut watch = tokio::time::interval(Duration::from_millis(50));
    for _ in 0..80 {
        watch.tick().await;
        for (site, sessions) in [("google", &faulty), ("aws", &on_a)] {
            let up = established(&network.status(site).await?, sessions);
            let wrong: Vec<_> = up.iter().filter_map(|i| faults.get(*i)).map(|(what, _)| what).collect();
            assert!(wrong.is_empty(), "{site} is established in spite of {wrong:?}");
            assert_eq!(up, only, "the right session is not disturbed");
        }
    }
    let errors = network.status("aws").await?;
    let bad = errors[&on_a[4].id].last_error.as_deref();
    assert!(bad.is_some_and(|error| error.contains("Bad peer AS")), "{errors:?}");
    network.configure("google", right).await?;
    both_up(network).await
}

async fn ecmp(inside: Inside) -> Outcome {
    let network = &inside.network;
    let (sessions_a, sessions_b): (Vec<_>, Vec<_>) = (0..2).map(pair).unzip();
    network.configure("aws", sessions_a.clone()).await?;
    network.configure("google", sessions_b).await?;
    both_up(network).await?;
    let at = socket(network, "b-gw", (Ipv4Addr::new(10, 1, 2, 10), 4_000));
    let spread = || -> Vec<u64> {
        let sent = |network: &LabNetwork| ["ch0", "ch1"].map(|w| network.wires()[w].a_to_b.bytes);
        let before = sent(network);
        for port in 0..48 {
            let from = socket(network, "a-gw", (Ipv4Addr::new(10, 0, 2, 10), 50_000 + port));
            assert!((0..3).all(|_| echoes(&from, &at, 10)), "port {port} gets through");
        }
        sent(network).iter().zip(before).map(|(after, before)| after - before).collect()
    };
    let both = spread();
    // Each of 48 ports takes either way with the same chance: 2 or fewer on one would be 1 in 100,000,000,000.
    assert!(both.iter().all(|bytes| *bytes > 2 * 3 * 1_400), "both channels carry: {both:?}");
    // One channel is enough when the other is cut.
    network.change_wire("ch0", &WireChange { cut: Some(Cut::Both), ..WireChange::default() })?;
    let id = &sessions_a[0].id;
    for (site, id) in [("aws", id.clone()), ("google", "router/peer-0".to_owned())] {
        until("down", async || network.status(site).await, |s| s[&id].learned.is_empty()).await?;
    }
    let one = spread();
    assert!(one[1] >= 16 * 3 * 1_400, "the other channel carries all: {one:?}");
    Ok(())
}

async fn hosts(inside: Inside) -> Outcome {
    let network = &inside.network;
    let (a, b) = pair(1);
    network.configure("aws", vec![a]).await?;
    network.configure("google", vec![b]).await?;
    both_up(network).await?;
    let from = socket(network, "a-host", (Ipv4Addr::new(10, 0, 1, 10), 0));
    let at = socket(network, "b-host", (Ipv4Addr::new(10, 1, 1, 10), 4_000));
    assert!(echoes(&from, &at, 10), "hosts reach each other over the channel");
    flows_arrive_whole(network).await?;
    // The gateways reach each other over the internet by their own addresses only, 8 ms each way.
    let from = socket(network, "a-gw", (Ipv4Addr::new(203, 0, 113, 10), 0));
    let at = socket(network, "b-gw", (Ipv4Addr::new(198, 51, 100, 10), 4_000));
    assert!(echoes(&from, &at, 10), "gateways reach each other over the internet");
    assert!(network.wires()["internet"].a_to_b.bytes > 1_400);
    network.change_wire("internet", &WireChange { cut: Some(Cut::Both), ..WireChange::default() })?;
    assert!(!echoes(&from, &at, 1), "the internet is cut");
    Ok(())
}

/// A numbered flow and a bulk connection between the hosts: nothing lost, nothing changed, long segments passed whole.
async fn flows_arrive_whole(network: &LabNetwork) -> Outcome {
    let (a_host, b_host) = (&network.namespaces()["a-host"], &network.namespaces()["b-host"]);
    let (a, b) = (Ipv4Addr::new(10, 0, 1, 10), Ipv4Addr::new(10, 1, 1, 10));
    let plain = |socket: UdpSocket| {
        socket.set_nonblocking(true)?;
        tokio::net::UdpSocket::from_std(socket)
    };
    let (from, to) = (plain(socket(network, "a-host", (a, 0)))?, plain(socket(network, "b-host", (b, 0)))?);
    let address = to.local_addr()?;
    let (stop, end) = (CancellationToken::new(), CancellationToken::new());
    let total = AtomicU64::new(u64::MAX);
    let received = flows::udp_receive(&to, Duration::from_millis(100), end.clone(), |report| {
        if report.received >= 500 {
            stop.cancel();
        }
        if report.received == total.load(Relaxed) {
            end.cancel();
        }
    });
    let sent = async {
        let sent = flows::udp_send(&from, address, UdpFlow::default(), stop.clone()).await?;
        total.store(sent.sent, Relaxed);
        Ok(sent)
    };
    let (sent, received) = tokio::time::timeout(PATIENCE, futures::future::try_join(sent, received)).await??;
    assert_eq!((received.lost, received.reordered, received.received), (0, 0, sent.sent), "{received:?}");
    assert!(received.least_delay_us >= 3_000, "the channel's own delay: {received:?}");

    let before = network.wires()["ch1"].a_to_b.clone();
    let listener = b_host.run(|| TcpListener::bind((b, 0)))??;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let stop = CancellationToken::new();
    let echo = tokio::spawn(flows::tcp_echo(tokio::net::TcpListener::from_std(listener)?, stop.clone()));
    let stream = a_host.run(|| TcpStream::connect(address))??;
    stream.set_nonblocking(true)?;
    let enough = stop.clone();
    let stream = tokio::net::TcpStream::from_std(stream)?;
    let checked = flows::tcp_check(stream, 400_000_000, Duration::from_millis(20), stop, |report| {
        if report.echoed_bytes > 4 << 20 {
            enough.cancel();
        }
    });
    let checked = tokio::time::timeout(PATIENCE, checked).await??;
    assert!(checked.echoed_bytes > 4 << 20);
    echo.await??;
    let after = &network.wires()["ch1"].a_to_b;
    let average = (after.bytes - before.bytes) / (after.frames - before.frames);
    // Only the relayed interface has no offloads.
    let whole = network.vlan_way().await != Some(VlanWay::Relay);
    assert!(average > 1_600 || !whole, "segments longer than the MTU pass whole: {average} bytes a frame");
    Ok(())
}

async fn refused(inside: Inside) -> Outcome {
    let network = &inside.network;
    let ((a, b), (right, right_b)) = (pair(0), pair(1));
    network.configure("google", vec![b, right_b]).await?;
    let refused = async |change: &dyn Fn(&mut Session)| {
        let mut session = a.clone();
        change(&mut session);
        network.configure("aws", vec![session, right.clone()]).await.unwrap_err().to_string()
    };
    assert!(refused(&|s| s.port = "dxlag-other".into()).await.contains("dxlag-other"));
    assert!(refused(&|s| s.md5 = Some("a\"; }".into())).await.contains("MD5"));
    assert!(refused(&|s| s.vlan = 4_095).await.contains("4095"));
    assert!(refused(&|s| s.site = "google".into()).await.contains("google"));
    assert!(refused(&|s| s.local_asn = 0).await.contains('0'));
    assert!(refused(&|s| (s.port, s.vlan, s.mtu) = (right.port.clone(), right.vlan, 8_500)).await.contains("MTU"));
    assert!(refused(&|s| s.id.clone_from(&right.id)).await.contains("two of this id"));
    // What can be run goes on all the while.
    until("up", async || network.status("aws").await, |s| s.keys().eq([&right.id]) && up(s)).await?;
    assert!(matches!(network.configure("azure", vec![]).await.unwrap_err(), NetworkError::UnknownSite { .. }));
    assert!(matches!(network.link_up("aws", "x").await.unwrap_err(), NetworkError::UnknownPort { .. }));
    Ok(())
}
