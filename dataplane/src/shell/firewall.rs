//! What only the kernel's packet filter can do for traffic that it forwards itself, over the private bundle: clamp the MSS
//! of TCP connections from their first SYN, and count bytes. Done through the `nft` command.
//!
//! Without `nft` the gateway runs, but: full segments of a new TCP connection are corrected by an ICMP "fragmentation
//! needed" (the routes carry the connection's MTU) instead of the clamp; the private path's bytes are reported as 0; and a
//! degraded private path is never left for load reasons, since the load is unknown.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    io::{self, Write as _},
    process::{Command, Stdio},
};

use ipnet::IpNet;
use serde::Deserialize;
use tieline_openapi::ids::ConnectionId;

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

/// Bytes that the kernel forwarded over the private bundle: out, in.
pub type Forwarded = BTreeMap<ConnectionId, (u64, u64)>;

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

/// Replaces the whole ruleset of the gateway in one transaction, in this thread's namespace; counters go on.
///
/// # Errors
/// When `nft` is missing or refuses.
pub fn apply(private: &str, guards: &[Guard]) -> Result<(), FirewallError> {
    nft(&["-f", "-"], &script(private, guards)).map(drop)
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
pub fn forwarded(guards: &[Guard]) -> Result<Forwarded, FirewallError> {
    let answer = nft(&["-j", "list", "counters", "table", "inet", "tieline"], "")?;
    let counters = parse(&answer).map_err(FirewallError::Answer)?;
    let bytes = |way: &str, id: ConnectionId| counters.get(&counter(way, id)).copied().unwrap_or(0);
    Ok(guards
        .iter()
        .map(|guard| (guard.connection, (bytes("out", guard.connection), bytes("in", guard.connection))))
        .collect())
}

fn counter(way: &str, connection: ConnectionId) -> String {
    format!("{way}_{}", connection.uuid().simple())
}

fn script(private: &str, guards: &[Guard]) -> String {
    // Writing to a String cannot fail.
    let mut script = String::from(
        "add table inet tieline\n\
         add chain inet tieline forward { type filter hook forward priority -150; policy accept; }\n\
         flush chain inet tieline forward\n",
    );
    for guard in guards {
        let (out, back) = (counter("out", guard.connection), counter("in", guard.connection));
        let _ = writeln!(script, "add counter inet tieline {out}\nadd counter inet tieline {back}");
        for (family, v4) in [("ip", true), ("ip6", false)] {
            let prefixes: Vec<String> =
                guard.remote.iter().filter(|net| net.addr().is_ipv4() == v4).map(ToString::to_string).collect();
            if prefixes.is_empty() {
                continue;
            }
            let set = prefixes.join(", ");
            let mss = if v4 { guard.mss_bytes } else { guard.mss_bytes.saturating_sub(20) };
            for (direction, interface, name) in [("daddr", "oifname", &out), ("saddr", "iifname", &back)] {
                let _ = writeln!(
                    script,
                    "add rule inet tieline forward {interface} \"{private}\" {family} {direction} {{ {set} }} counter name {name}\n\
                     add rule inet tieline forward {family} {direction} {{ {set} }} tcp flags syn \
                     tcp option maxseg size > {mss} tcp option maxseg size set {mss}"
                );
            }
        }
    }
    script
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
    bytes: u64,
}

fn parse(answer: &str) -> Result<BTreeMap<String, u64>, serde_json::Error> {
    let listing: Listing = serde_json::from_str(answer)?;
    Ok(listing.nftables.into_iter().filter_map(|item| item.counter).map(|c| (c.name, c.bytes)).collect())
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
        let script = script("eth0", &[guard]);
        assert_eq!(script.matches("counter name out_").count(), 2);
        assert!(script.contains("ip daddr { 10.1.0.0/16 } tcp flags syn tcp option maxseg size > 1400"));
        assert!(script.contains("ip6 saddr { fd00::/48 } tcp flags syn tcp option maxseg size > 1380"));
    }

    #[test]
    fn reads_the_listing() {
        let answer = r#"{"nftables": [{"metainfo": {"version": "1.0.6"}},
            {"counter": {"family": "inet", "name": "out_1", "table": "tieline", "handle": 2, "packets": 3, "bytes": 252}}]}"#;
        assert_eq!(parse(answer).unwrap()["out_1"], 252);
        assert!(parse("nonsense").is_err());
    }
}
