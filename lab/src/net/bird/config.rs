//! The configuration of a router, written from the sessions that a cloud's API was told to run.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use tieline_providers::network::bird::{MAX_KEY, key_fits};

use crate::clouds::network::Session;

/// What a router's configuration is written from.
#[derive(Debug)]
pub struct RouterConfig<'a> {
    /// Router id.
    pub router_id: Ipv4Addr,
    /// The site's own network: never learned from a neighbour.
    pub own: Ipv4Net,
    /// The kernel table that learned routes are put into.
    pub table: u32,
    /// The sessions, by the name of their protocol in the daemon.
    pub sessions: BTreeMap<&'a str, &'a Session>,
    /// A folder below the daemon's own whose `tl-*.conf` are sessions of the operator's; the site's network is announced
    /// there.
    pub includes: Option<&'a str>,
}

/// Why a session cannot be configured.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Rejected(String);

/// Refuses what the daemon could not express, so that no value of a session can end its own field.
///
/// # Errors
/// Names the field.
pub fn check(session: &Session) -> Result<(), Rejected> {
    if session.md5.as_ref().is_some_and(|key| !key_fits(key)) {
        let rule = format!("the MD5 key must have 1 to {MAX_KEY} bytes, without quotes or control characters");
        return Err(Rejected(rule));
    }
    if !(1..=4094).contains(&session.vlan) {
        return Err(Rejected(format!("the VLAN {} is not within 1 to 4094", session.vlan)));
    }
    if session.local_asn == 0 || session.peer_asn == 0 {
        return Err(Rejected("an autonomous system number of 0 is not allowed (RFC 7607)".into()));
    }
    if session.prefix_len > 31 || session.prefix_len < 8 {
        return Err(Rejected(format!("the prefix length {} is not within 8 to 31", session.prefix_len)));
    }
    if session.mtu < 68 {
        return Err(Rejected(format!("the MTU {} is below 68 bytes (RFC 791)", session.mtu)));
    }
    if session.bfd.is_some_and(|b| b.multiplier == 0 || b.min_rx_ms == 0 || b.min_tx_ms == 0) {
        return Err(Rejected("BFD intervals and the multiplier must be above 0".into()));
    }
    Ok(())
}

/// Writes the whole configuration file. Every session must have passed [`check`].
#[must_use]
pub fn render(router: &RouterConfig<'_>) -> String {
    let mut text = format!(
        "log stderr all;\n\
         router id {};\n\
         timeformat protocol iso long ms;\n\
         timeformat route iso long ms;\n\
         debug protocols {{ states, events }};\n\
         protocol device {{ scan time 5; }}\n\
         protocol kernel fib {{\n\
         \x20 kernel table {};\n\
         \x20 merge paths on limit 64;\n\
         \x20 ipv4 {{ import none; export where source = RTS_BGP; }};\n\
         }}\n\
         protocol bfd {{ interface \"ch*\"; }}\n",
        router.router_id, router.table
    );
    let mut announced: BTreeSet<Ipv4Net> =
        router.sessions.values().flat_map(|s| &s.advertised).map(Ipv4Net::trunc).collect();
    announced.extend(router.includes.map(|_| router.own));
    text.push_str("protocol static announced {\n  ipv4;\n");
    for prefix in announced {
        line(&mut text, format_args!("  route {prefix} unreachable;"));
    }
    text.push_str("}\n");
    for (name, session) in &router.sessions {
        peer(&mut text, name, session, router.own);
    }
    if let Some(folder) = router.includes {
        line(&mut text, format_args!("include \"{folder}/tl-*.conf\";"));
    }
    text
}

fn peer(text: &mut String, name: &str, session: &Session, own: Ipv4Net) {
    line(text, format_args!("protocol bgp {name} {{"));
    if !session.enabled {
        line(text, format_args!("  disabled;"));
    }
    line(text, format_args!("  local {} as {};", session.local_ip, session.local_asn));
    line(text, format_args!("  neighbor {} as {};", session.peer_ip, session.peer_asn));
    if let Some(key) = &session.md5 {
        line(text, format_args!("  password \"{key}\";"));
    }
    if let Some(bfd) = &session.bfd {
        line(
            text,
            format_args!(
                "  bfd {{ min rx interval {} ms; min tx interval {} ms; idle tx interval {} ms; multiplier {}; }};",
                bfd.min_rx_ms,
                bfd.min_tx_ms,
                // Below 1 s also while the session is down: a lab waits for nothing that it need not.
                bfd.min_tx_ms.min(1_000),
                bfd.multiplier
            ),
        );
    }
    // Timers are the least that suits: how long clouds wait is the simulators' matter, not the router's.
    text.push_str(
        "  hold time 20; keepalive time 6; startup hold time 20;\n\
         \x20 connect delay time 0; connect retry time 1; error wait time 1, 2; error forget time 5;\n\
         \x20 check link on;\n\
         \x20 ipv4 {\n",
    );
    line(
        text,
        format_args!(
            "    import filter {{ if net ~ [ {own}+, 169.254.0.0/16+, 127.0.0.0/8+ ] then reject; accept; }};"
        ),
    );
    if let Some(limit) = session.import_limit {
        line(text, format_args!("    import limit {limit} action disable;"));
    }
    let prefixes: BTreeSet<_> = session.advertised.iter().map(|p| p.trunc().to_string()).collect();
    if prefixes.is_empty() {
        text.push_str("    export none;\n");
    } else {
        let list = prefixes.into_iter().collect::<Vec<_>>().join(", ");
        line(text, format_args!("    export where source = RTS_STATIC && net ~ [ {list} ];"));
    }
    text.push_str("  };\n}\n");
}

fn line(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    // Writing to a String does not fail.
    let _ = text.write_fmt(arguments);
    text.push('\n');
}

#[cfg(test)]
pub(crate) mod tests {
    use std::process::{Command, Stdio};

    use proptest::prelude::*;

    use super::*;
    use crate::clouds::network::Bfd;

    pub(crate) fn session() -> Session {
        Session {
            id: "s".into(),
            site: "aws".into(),
            port: "dxlag-lab00000".into(),
            vlan: 100,
            mtu: 1500,
            local_ip: Ipv4Addr::new(169, 254, 10, 1),
            prefix_len: 30,
            peer_ip: Ipv4Addr::new(169, 254, 10, 2),
            local_asn: 64_512,
            peer_asn: 16_550,
            md5: Some("key".into()),
            bfd: Some(Bfd { min_tx_ms: 300, min_rx_ms: 300, multiplier: 3 }),
            advertised: vec!["10.0.0.0/16".parse().unwrap()],
            import_limit: Some(100),
            enabled: true,
        }
    }

    fn rendered(session: &Session) -> String {
        render(&RouterConfig {
            router_id: Ipv4Addr::new(10, 0, 1, 1),
            own: "10.0.0.0/16".parse().unwrap(),
            table: 100,
            sessions: BTreeMap::from([("peer1", session)]),
            includes: None,
        })
    }

    #[test]
    fn what_a_session_says_is_what_is_written() {
        let text = rendered(&session());
        for part in [
            "local 169.254.10.1 as 64512;",
            "neighbor 169.254.10.2 as 16550;",
            "password \"key\";",
            "multiplier 3;",
            "import limit 100 action disable;",
            "net ~ [ 10.0.0.0/16 ];",
            "route 10.0.0.0/16 unreachable;",
        ] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
        let quiet = rendered(&Session { md5: None, bfd: None, advertised: vec![], enabled: false, ..session() });
        assert!(quiet.contains("disabled;") && quiet.contains("export none;"));
        assert!(!quiet.contains("password") && !quiet.contains("min rx interval"));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        /// The daemon itself parses whatever passes the check, and no key ends its own field.
        #[test]
        fn the_daemon_accepts_every_checked_session(
            key in prop::option::of("[ -~é#{};\\\\]{0,81}"),
            asn in 0u32..,
            prefix_len in 0u8..=32,
            limit in prop::option::of(1u32..),
            prefixes in prop::collection::vec((any::<u32>(), 8u8..=30), 0..5),
            bfd in prop::option::of((0u32..=60_000, 0u32..=60_000, 0u8..)),
        ) {
            if Command::new("bird").arg("--version").stderr(Stdio::null()).status().is_err() {
                println!("skipped: bird is not installed");
                return Ok(());
            }
            let session = Session {
                md5: key,
                peer_asn: asn,
                prefix_len,
                import_limit: limit,
                advertised: prefixes.iter().map(|(a, l)| Ipv4Net::new_assert(Ipv4Addr::from_bits(*a), *l)).collect(),
                bfd: bfd.map(|(min_tx_ms, min_rx_ms, multiplier)| Bfd { min_tx_ms, min_rx_ms, multiplier }),
                ..session()
            };
            if check(&session).is_ok() {
                let dir = tempfile::tempdir().unwrap();
                let file = dir.path().join("bird.conf");
                std::fs::write(&file, rendered(&session)).unwrap();
                let out = Command::new("bird").arg("-p").arg("-c").arg(&file).output().unwrap();
                prop_assert!(out.status.success(), "{}\n{}", String::from_utf8_lossy(&out.stderr), rendered(&session));
            }
        }
    }
}
