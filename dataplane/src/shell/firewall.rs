//! What only the kernel's packet filter can do for traffic that it forwards itself, over the private bundle or through its own
//! WireGuard: clamp the MSS of TCP connections from their first SYN, and count bytes; and drop what a peer sends out of a
//! WireGuard interface from or to where it may not. Done through the `nft` command.
//!
//! Without `nft` the gateway runs, but: full segments of a new TCP connection are corrected by an ICMP "fragmentation
//! needed" (the routes carry the connection's MTU) instead of the clamp; the private path's bytes are reported as 0; and a
//! degraded private path is never left for load reasons, since the load is unknown. The kernel's WireGuard is not used then.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    io::{self, Write as _},
    process::{Command, Stdio},
};

use ipnet::IpNet;
use serde::Deserialize;
use tieline_openapi::ids::{ConnectionId, GatewayId};

use super::kernel;

/// What the filter does for one connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guard {
    /// Which.
    pub connection: ConnectionId,
    /// What is behind the peers.
    pub remote: Vec<IpNet>,
    /// The MSS of IPv4 in bytes; that of IPv6 is 20 less, by the size of its header.
    pub mss_bytes: u16,
}

/// What the filter does with what a peer sends out of its WireGuard interfaces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerGuard {
    /// Which.
    pub peer: GatewayId,
    /// From where it may send: the remote prefixes of the connections with it, and its inner address.
    pub sources: Vec<IpNet>,
    /// To where: the local prefixes, and this gateway's inner address.
    pub destinations: Vec<IpNet>,
}

/// All that the filter does.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rules {
    /// For each connection.
    pub guards: Vec<Guard>,
    /// For each peer with WireGuard in the kernel; `None`: nothing is in the kernel.
    pub peers: Option<Vec<PeerGuard>>,
}

/// Bytes that the kernel forwarded for one connection: out, in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Bytes {
    /// Over the private bundle.
    pub private: (u64, u64),
    /// Through its WireGuard.
    pub kernel: (u64, u64),
}

/// What the filter has counted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Forwarded {
    /// Bytes of each connection.
    pub connections: BTreeMap<ConnectionId, Bytes>,
    /// Packets of each peer that were dropped for their source or destination.
    pub foreign: BTreeMap<GatewayId, u64>,
}

/// Why the filter cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FirewallError {
    /// Not installed, or not to be started.
    #[error("cannot run `nft`; install nftables to have TCP's MSS clamped and bytes counted on the private path")]
    Run(#[source] io::Error),
    /// It refused.
    #[error("`nft` refused: {0}")]
    Refused(String),
    /// It answered something else than its JSON.
    #[error("`nft` answered something that is not its JSON")]
    Answer(#[source] serde_json::Error),
}

/// Replaces the whole ruleset of the gateway in one transaction, in this thread's namespace; counters go on. `before`: what was
/// in force.
///
/// # Errors
/// When `nft` is missing or refuses.
pub fn apply(private: &str, rules: &Rules, before: &Rules) -> Result<(), FirewallError> {
    nft(&["-f", "-"], &script(private, rules, before)).map(drop)
}

/// Whether `nft` can be run.
#[must_use]
pub fn is_there() -> bool {
    Command::new("nft").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
}

/// Removes it.
///
/// # Errors
/// When `nft` is missing or refuses.
pub fn remove() -> Result<(), FirewallError> {
    nft(&["-f", "-"], "add table inet tieline\ndelete table inet tieline\n").map(drop)
}

/// Reads the counters.
///
/// # Errors
/// When `nft` is missing, refuses or answers nonsense.
pub fn forwarded(rules: &Rules) -> Result<Forwarded, FirewallError> {
    let answer = nft(&["-j", "list", "counters", "table", "inet", "tieline"], "")?;
    let counters = parse(&answer).map_err(FirewallError::Answer)?;
    let bytes = |way: &str, id: ConnectionId| counters.get(&counter(way, id)).map_or(0, |counter| counter.bytes);
    let both = |out: &str, back: &str, id| (bytes(out, id), bytes(back, id));
    let of = |guard: &Guard| {
        let id = guard.connection;
        (id, Bytes { private: both("out", "in", id), kernel: both("kout", "kin", id) })
    };
    let foreign =
        |peer: &PeerGuard| (peer.peer, counters.get(&foreign(peer.peer)).map_or(0, |counter| counter.packets));
    Ok(Forwarded {
        connections: rules.guards.iter().map(of).collect(),
        foreign: rules.peers.iter().flatten().map(foreign).collect(),
    })
}

fn counter(way: &str, connection: ConnectionId) -> String {
    format!("{way}_{}", connection.uuid().simple())
}

fn foreign(peer: GatewayId) -> String {
    format!("foreign_{}", peer.uuid().simple())
}

fn from(peer: GatewayId) -> String {
    format!("from_{}", peer.uuid().simple())
}

/// Those of one family, as the elements of a set, which may not overlap; `None`: there are none.
fn set(nets: &[IpNet], v4: bool) -> Option<String> {
    let of: Vec<IpNet> = nets.iter().filter(|net| net.addr().is_ipv4() == v4).copied().collect();
    let texts: Vec<String> = IpNet::aggregate(&of).iter().map(ToString::to_string).collect();
    (!texts.is_empty()).then(|| texts.join(", "))
}

fn script(private: &str, rules: &Rules, before: &Rules) -> String {
    // Writing to a String cannot fail.
    let mut script = String::from(
        "add table inet tieline\n\
         add chain inet tieline forward { type filter hook forward priority -150; policy accept; }\n\
         flush chain inet tieline forward\n",
    );
    check_sources(&mut script, rules, before);
    for guard in &rules.guards {
        let kernel = format!("{}*", kernel::PREFIX);
        let mut ways = vec![(private, counter("out", guard.connection), counter("in", guard.connection))];
        if rules.peers.is_some() {
            ways.push((&kernel, counter("kout", guard.connection), counter("kin", guard.connection)));
        }
        for (_, out, back) in &ways {
            let _ = writeln!(script, "add counter inet tieline {out}\nadd counter inet tieline {back}");
        }
        for (family, v4) in [("ip", true), ("ip6", false)] {
            let Some(set) = set(&guard.remote, v4) else { continue };
            let mss = if v4 { guard.mss_bytes } else { guard.mss_bytes.saturating_sub(20) };
            for (interface, out, back) in &ways {
                let _ = writeln!(
                    script,
                    "add rule inet tieline forward oifname \"{interface}\" {family} daddr {{ {set} }} counter name {out}\n\
                     add rule inet tieline forward iifname \"{interface}\" {family} saddr {{ {set} }} counter name {back}"
                );
            }
            for direction in ["daddr", "saddr"] {
                let _ = writeln!(
                    script,
                    "add rule inet tieline forward {family} {direction} {{ {set} }} tcp flags syn \
                     tcp option maxseg size > {mss} tcp option maxseg size set {mss}"
                );
            }
        }
    }
    script
}

/// What comes out of a WireGuard interface is looked at before it is routed. One that is not known yet lets nothing through.
fn check_sources(script: &mut String, rules: &Rules, before: &Rules) {
    let Some(peers) = &rules.peers else { return };
    script.push_str(
        "add chain inet tieline kernel { type filter hook prerouting priority -290; policy accept; }\n\
         flush chain inet tieline kernel\n",
    );
    let kept: BTreeSet<GatewayId> = peers.iter().map(|guard| guard.peer).collect();
    let known = before.peers.iter().flatten().map(|guard| guard.peer);
    for gone in known.filter(|peer| !kept.contains(peer)) {
        // Added first, should somebody have deleted it.
        let chain = from(gone);
        let _ = writeln!(script, "add chain inet tieline {chain}\ndelete chain inet tieline {chain}");
    }
    let mut ways = Vec::new();
    for guard in peers {
        let (chain, counter) = (from(guard.peer), foreign(guard.peer));
        let _ = writeln!(
            script,
            "add counter inet tieline {counter}\nadd chain inet tieline {chain}\nflush chain inet tieline {chain}"
        );
        for (family, v4) in [("ip", true), ("ip6", false)] {
            if let (Some(sources), Some(destinations)) = (set(&guard.sources, v4), set(&guard.destinations, v4)) {
                let _ = writeln!(
                    script,
                    "add rule inet tieline {chain} {family} saddr {{ {sources} }} {family} daddr {{ {destinations} }} accept"
                );
            }
        }
        let _ = writeln!(script, "add rule inet tieline {chain} counter name {counter} drop");
        for second in [false, true] {
            ways.push(format!("\"{}\" : jump {chain}", kernel::name(guard.peer, second)));
        }
    }
    if !ways.is_empty() {
        let _ = writeln!(script, "add rule inet tieline kernel iifname vmap {{ {} }}", ways.join(", "));
    }
    let _ = writeln!(script, "add rule inet tieline kernel iifname \"{}*\" drop", kernel::PREFIX);
}

fn nft(arguments: &[&str], input: &str) -> Result<String, FirewallError> {
    let mut child = Command::new("nft")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(FirewallError::Run)?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes()).map_err(FirewallError::Run)?;
    }
    let output = child.wait_with_output().map_err(FirewallError::Run)?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        let said = String::from_utf8_lossy(&output.stderr);
        Err(FirewallError::Refused(said.lines().next().unwrap_or("nothing said").trim().to_owned()))
    }
}

#[derive(Deserialize)]
struct Listing {
    nftables: Vec<Item>,
}

#[derive(Deserialize)]
struct Item {
    counter: Option<Counter>,
}

#[derive(Deserialize)]
struct Counter {
    name: String,
    packets: u64,
    bytes: u64,
}

fn parse(answer: &str) -> Result<BTreeMap<String, Counter>, serde_json::Error> {
    let listing: Listing = serde_json::from_str(answer)?;
    Ok(listing.nftables.into_iter().filter_map(|item| item.counter).map(|c| (c.name.clone(), c)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_rule_a_direction_and_family() {
        let guard = Guard {
            connection: ConnectionId(uuid::Uuid::from_u128(1)),
            remote: vec!["10.1.0.0/16".parse().unwrap(), "fd00::/48".parse().unwrap()],
            mss_bytes: 1_400,
        };
        let rules = Rules { guards: vec![guard], peers: None };
        let script = script("eth0", &rules, &Rules::default());
        assert_eq!(script.matches("counter name out_").count(), 2);
        assert!(script.contains("ip daddr { 10.1.0.0/16 } tcp flags syn tcp option maxseg size > 1400"));
        assert!(script.contains("ip6 saddr { fd00::/48 } tcp flags syn tcp option maxseg size > 1380"));
        assert!(!script.contains("kernel") && !script.contains("tlk"), "nothing is in the kernel");
    }

    #[test]
    fn what_a_peer_may_send_is_accepted_and_the_rest_is_dropped() {
        let (one, other) = (GatewayId(uuid::Uuid::from_u128(1)), GatewayId(uuid::Uuid::from_u128(2)));
        let guard = |peer| PeerGuard {
            peer,
            // Two connections with prefixes within each other's.
            sources: vec!["10.1.0.0/16".parse().unwrap(), "10.1.2.0/24".parse().unwrap()],
            destinations: vec!["10.0.0.0/16".parse().unwrap(), "fd00::/48".parse().unwrap()],
        };
        let rules = Rules { guards: vec![], peers: Some(vec![guard(one)]) };
        let before = Rules { guards: vec![], peers: Some(vec![guard(one), guard(other)]) };
        let script = script("eth0", &rules, &before);
        assert!(script.contains("ip saddr { 10.1.0.0/16 } ip daddr { 10.0.0.0/16 } accept"), "{script}");
        assert!(!script.contains("ip6 saddr"), "no source of that family");
        assert!(script.contains(&format!("\"tlk00000001b\" : jump {}", from(one))));
        assert!(script.contains(&format!("delete chain inet tieline {}", from(other))));
        assert!(script.ends_with("iifname \"tlk*\" drop\n"), "what is not known");
    }

    #[test]
    fn reads_the_listing() {
        let answer = r#"{"nftables": [{"metainfo": {"version": "1.0.6"}},
            {"counter": {"family": "inet", "name": "out_1", "table": "tieline", "handle": 2, "packets": 3, "bytes": 252}}]}"#;
        let counter = &parse(answer).unwrap()["out_1"];
        assert_eq!((counter.packets, counter.bytes), (3, 252));
        assert!(parse("nonsense").is_err());
    }
}
