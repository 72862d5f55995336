//! Reads what BIRD 2 prints about protocols, BFD sessions and routes.
//!
//! The tables are made for people: unknown lines are passed over, and a line that is cut short yields nothing rather
//! than something wrong. Times are ISO 8601 in UTC, as the configuration and the daemon's environment say.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::Ipv4Net;
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use tieline_openapi::v1::{BfdState, BgpState};

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

/// One route of `show route … all`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Where to.
    pub prefix: Ipv4Net,
    /// The autonomous systems of its path, the neighbour first; those of a set stand in their order.
    pub as_path: Vec<u32>,
    /// `BGP.next_hop`.
    pub next_hop: Option<Ipv4Addr>,
}

/// Reads `show route …` with or without `all`: sorted by prefix, each prefix once, the best route of it.
#[must_use]
pub fn parse_routes(reply: &Reply) -> Vec<Route> {
    let mut routes: Vec<Route> = Vec::new();
    let mut headed = false;
    for (code, text) in &reply.lines {
        match (code, routes.last_mut()) {
            (1007, _) if !text.starts_with(['\t', ' ']) => {
                let prefix = route_head(text);
                headed = prefix.is_some();
                routes.extend(prefix.map(|prefix| Route { prefix, as_path: Vec::new(), next_hop: None }));
            }
            // A second route of the same network: its line begins with spaces in the network's place.
            (1007, _) if text.contains('[') => headed = false,
            (1012, Some(route)) if headed => attribute(route, text),
            _ => {}
        }
    }
    routes.sort_by_key(|route| route.prefix);
    routes.dedup_by_key(|route| route.prefix);
    routes
}

/// `10.1.0.0/16          unicast [peer1 2026-11-21 23:30:27.598] * (100) [AS16550i]`
fn route_head(line: &str) -> Option<Ipv4Net> {
    let mut words = line.split_whitespace();
    let prefix = words.next()?.parse().ok()?;
    let _kind = words.next()?;
    words.next()?.starts_with('[').then_some(prefix)
}

fn attribute(route: &mut Route, line: &str) {
    let Some((key, value)) = line.split_once(':') else { return };
    match key.trim() {
        "BGP.as_path" => {
            let numbers = value.split(|c: char| !c.is_ascii_digit());
            route.as_path = numbers.filter_map(|number| number.parse().ok()).collect();
        }
        "BGP.next_hop" => route.next_hop = value.split_whitespace().next().and_then(|address| address.parse().ok()),
        _ => {}
    }
}

fn timestamp(date: &str, time: &str) -> Option<Timestamp> {
    let civil: DateTime = format!("{date}T{time}").parse().ok()?;
    Some(civil.to_zoned(TimeZone::UTC).ok()?.timestamp())
}

#[cfg(test)]
#[path = "parse_tests.rs"]
mod tests;
