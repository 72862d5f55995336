//! Reads what BIRD 2 prints about protocols, BFD sessions and routes.
//!
//! The tables are made for people: unknown lines are passed over, and a line that is cut short yields nothing rather
//! than something wrong. Times are ISO 8601 in UTC, as the configuration and the daemon's environment say.

use std::net::IpAddr;

use ipnet::Ipv4Net;
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use crate::clouds::network::{BfdState, BgpState};

use super::control::Reply;

/// One protocol of `show protocols all`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Protocol {
    /// Its name in the configuration.
    pub name: String,
    /// `BGP`, `Kernel`, ….
    pub kind: String,
    /// `up`, `start`, `down`, ….
    pub state: String,
    /// Since when it is in that state.
    pub since: Option<Timestamp>,
    /// State of the BGP session; `None` for other kinds.
    pub bgp: Option<BgpState>,
    /// Address of the BGP neighbour.
    pub neighbour: Option<IpAddr>,
    /// Routes imported and exported.
    pub routes: Option<(u32, u32)>,
    /// The last error, as `Received: Bad peer AS`.
    pub last_error: Option<String>,
}

/// One session of `show bfd sessions`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BfdLine {
    /// Address of the neighbour.
    pub neighbour: IpAddr,
    /// Interface of the session.
    pub interface: String,
    /// Its state.
    pub state: BfdState,
}

/// Reads `show protocols all`.
#[must_use]
pub fn parse_protocols(reply: &Reply) -> Vec<Protocol> {
    let mut protocols: Vec<Protocol> = Vec::new();
    let mut headed = false;
    for (code, text) in &reply.lines {
        match (code, protocols.last_mut()) {
            (1002, _) => {
                let head = head(text);
                headed = head.is_some();
                protocols.extend(head);
            }
            // Details behind a head that could not be read belong to nobody.
            (1006, Some(protocol)) if headed => detail(protocol, text),
            _ => {}
        }
    }
    protocols
}

/// `peer1      BGP        ---        up     2026-11-21 23:30:27.481  Established`
fn head(line: &str) -> Option<Protocol> {
    let mut words = line.split_whitespace();
    let mut word = || words.next().map(ToOwned::to_owned);
    let (name, kind, _table, state) = (word()?, word()?, word()?, word()?);
    let since = word().zip(word()).and_then(|(date, time)| timestamp(&date, &time));
    Some(Protocol { name, kind, state, since, bgp: None, neighbour: None, routes: None, last_error: None })
}

fn detail(protocol: &mut Protocol, line: &str) {
    let Some((key, value)) = line.split_once(':') else { return };
    let value = value.trim();
    match key.trim() {
        "BGP state" => protocol.bgp = bgp_state(value),
        "Neighbor address" => {
            // A link-local neighbour is printed with its interface behind a percent sign.
            protocol.neighbour = value.split('%').next().and_then(|address| address.parse().ok());
        }
        "Routes" => protocol.routes = routes(value),
        "Last error" => protocol.last_error = Some(value.split_whitespace().collect::<Vec<_>>().join(" ")),
        _ => {}
    }
}

fn bgp_state(word: &str) -> Option<BgpState> {
    Some(match word {
        "Down" => BgpState::Down,
        "Idle" => BgpState::Idle,
        "Connect" => BgpState::Connect,
        "Active" => BgpState::Active,
        "OpenSent" => BgpState::OpenSent,
        "OpenConfirm" => BgpState::OpenConfirm,
        "Established" => BgpState::Established,
        // The session is being closed, or closed after its end: no state of RFC 4271 says that, the nearest is Idle.
        "Close" | "Passive" => BgpState::Idle,
        _ => return None,
    })
}

/// `1 imported, 2 filtered, 1 exported, 1 preferred`: filtered ones are printed only where they are kept.
fn routes(value: &str) -> Option<(u32, u32)> {
    let count = |what: &str| {
        let part = value.split(',').find_map(|part| part.trim().strip_suffix(what))?;
        part.trim().parse().ok()
    };
    Some((count("imported")?, count("exported")?))
}

/// Reads `show bfd sessions`.
#[must_use]
pub fn parse_bfd(reply: &Reply) -> Vec<BfdLine> {
    reply.lines.iter().filter(|(code, _)| *code == 1020).filter_map(|(_, line)| bfd_line(line)).collect()
}

/// `169.254.10.2              eA         Up         2026-11-21 23:30:26.873    0.300    0.900`
fn bfd_line(line: &str) -> Option<BfdLine> {
    let mut words = line.split_whitespace();
    let neighbour = words.next()?.parse().ok()?;
    let interface = words.next()?.to_owned();
    let state = match words.next()? {
        "AdminDown" => BfdState::AdminDown,
        "Down" => BfdState::Down,
        "Init" => BfdState::Init,
        "Up" => BfdState::Up,
        _ => return None,
    };
    Some(BfdLine { neighbour, interface, state })
}

/// Reads the prefixes of `show route …`, sorted and each once.
#[must_use]
pub fn parse_routes(reply: &Reply) -> Vec<Ipv4Net> {
    let lines = reply.lines.iter().filter(|(code, _)| *code == 1007);
    let mut prefixes: Vec<Ipv4Net> = lines
        .filter_map(|(_, line)| {
            let mut words = line.split_whitespace();
            let prefix = words.next()?.parse().ok()?;
            // A route's line goes on with its type and `[protocol time]`; other lines that begin with a word do not.
            words.next()?;
            words.next()?.starts_with('[').then_some(prefix)
        })
        .collect();
    prefixes.sort_unstable();
    prefixes.dedup();
    prefixes
}

fn timestamp(date: &str, time: &str) -> Option<Timestamp> {
    let civil: DateTime = format!("{date}T{time}").parse().ok()?;
    Some(civil.to_zoned(TimeZone::UTC).ok()?.timestamp())
}

#[cfg(test)]
#[path = "parse_tests.rs"]
mod tests;
