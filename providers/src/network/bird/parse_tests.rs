use proptest::prelude::*;

use super::*;

/// Text as BIRD 2.0.12 printed it, with its codes.
fn reply(text: &str) -> Reply {
    let mut lines: Vec<(u16, String)> = Vec::new();
    for line in text.lines() {
        match line.strip_prefix(' ') {
            Some(rest) => {
                let code = lines.last().unwrap().0;
                lines.push((code, rest.to_owned()));
            }
            None => lines.push((line[..4].parse().unwrap(), line[5..].to_owned())),
        }
    }
    Reply { lines }
}

const PROTOCOLS: &str = "\
2002-Name       Proto      Table      State  Since         Info
1002-device1    Device     ---        up     2026-11-21 23:30:26.644  
1006-
1002-fib        Kernel     master4    up     2026-11-21 23:30:26.644  
1006-  Channel ipv4
     State:          UP
     Routes:         0 imported, 1 exported, 0 preferred
     Route change stats:     received   rejected   filtered    ignored   accepted
       Import updates:              0          0          0          0          0
 
1002-peer1      BGP        ---        up     2026-11-21 23:30:27.481  Established   
1006-  BGP state:          Established
     Neighbor address: 169.254.10.2
     Neighbor AS:      16550
     Hold timer:       17.255/20
   Channel ipv4
     State:          UP
     Import limit:   100
       Action:       disable
     Routes:         3 imported, 1 exported, 1 preferred
     BGP Next hop:   169.254.10.1
 
1002-peer2      BGP        ---        down   2026-11-21 23:30:26.644  
1006-  BGP state:          Down
     Neighbor address: 169.254.10.3
   Channel ipv4
     State:          DOWN
 
1002-peer3      BGP        ---        start  2026-11-21 23:30:26.644  Idle          BGP Error: Bad peer AS
1006-  BGP state:          Idle
     Neighbor address: 169.254.11.3
     Error wait:       1.221/2
     Last error:       BGP Error: Bad  peer AS
0000 ";

const BFD: &str = "\
1020-bfd1:
 IP address                Interface  State      Since         Interval  Timeout
 169.254.10.2              ch0.100    Up         2026-11-21 23:30:26.873    0.300    0.900
 169.254.11.2              ---        Down       2026-11-21 23:30:26.873    1.000    0.000
0000 ";

const ROUTES: &str = "\
1007-Table master4:
 10.1.0.0/16          unicast [peer1 2026-11-21 23:30:27.598] * (100) [AS16550i]
 	via 169.254.10.2 on eA
1008-	Type: BGP univ
1012-	BGP.origin: IGP
 	BGP.as_path: 16550 {64512 64513}
 	BGP.next_hop: 169.254.10.2
1007-9.9.9.0/24           unreachable [announced 2026-11-21 23:30:26.644] * (200)
1008-	Type: static univ
1007-10.1.0.0/16          unicast [peer2 2026-11-21 23:30:27.598] (100) [AS16550i]
0000 ";

#[test]
fn protocols_are_read_as_printed() {
    let protocols = parse_protocols(&reply(PROTOCOLS));
    let names: Vec<_> = protocols.iter().map(|p| p.name.as_str()).collect();
    assert_eq!(names, ["device1", "fib", "peer1", "peer2", "peer3"]);
    assert_eq!(protocols[1].bgp, None);
    let [.., up, down, wrong] = protocols.as_slice() else { panic!("five protocols") };
    assert_eq!(up.bgp, Some(BgpState::Established));
    assert_eq!(up.neighbour, Some("169.254.10.2".parse().unwrap()));
    assert_eq!(up.routes, Some((3, 1)));
    assert_eq!(up.since.unwrap().to_string(), "2026-11-21T23:30:27.481Z");
    assert_eq!((down.bgp, down.state.as_str(), down.routes), (Some(BgpState::Down), "down", None));
    assert_eq!(wrong.bgp, Some(BgpState::Idle));
    assert_eq!(wrong.last_error.as_deref(), Some("BGP Error: Bad peer AS"));
}

#[test]
fn bfd_sessions_are_read_as_printed() {
    let states: Vec<_> =
        parse_bfd(&reply(BFD)).into_iter().map(|b| (b.neighbour.to_string(), b.interface, b.state)).collect();
    assert_eq!(
        states,
        [
            ("169.254.10.2".to_owned(), "ch0.100".to_owned(), BfdState::Up),
            ("169.254.11.2".to_owned(), "---".to_owned(), BfdState::Down)
        ]
    );
}

#[test]
fn routes_are_read_once_and_sorted() {
    let [other, learned] = parse_routes(&reply(ROUTES)).try_into().unwrap();
    assert_eq!((other.prefix.to_string().as_str(), other.as_path.len(), other.next_hop), ("9.9.9.0/24", 0, None));
    assert_eq!(learned.prefix.to_string(), "10.1.0.0/16");
    assert_eq!(learned.as_path, [16_550, 64_512, 64_513]);
    assert_eq!(learned.next_hop, Some("169.254.10.2".parse().unwrap()));
}

proptest! {
    /// Whatever is cut off or scrambled, nothing panics, and no protocol or prefix is made up.
    #[test]
    fn damaged_text_yields_nothing_new(
        text in prop::sample::select(vec![PROTOCOLS, BFD, ROUTES]),
        cuts in prop::collection::vec((0usize..40, 0usize..80), 0..8),
    ) {
        let whole = reply(text);
        let mut damaged = whole.clone();
        for (line, at) in cuts {
            let lines = damaged.lines.len();
            let text = &mut damaged.lines[line % lines].1;
            text.truncate(at.min(text.len()));
        }
        let known: Vec<_> = parse_protocols(&whole).into_iter().map(|p| p.name).collect();
        for protocol in parse_protocols(&damaged) {
            prop_assert!(known.contains(&protocol.name));
        }
        let known = parse_bfd(&whole);
        for session in parse_bfd(&damaged) {
            prop_assert!(known.iter().any(|k| k.neighbour == session.neighbour));
        }
        let known = parse_routes(&whole);
        for route in parse_routes(&damaged) {
            prop_assert!(known.iter().any(|k| k.prefix == route.prefix));
        }
    }

    /// What is printed for any values is read back.
    #[test]
    fn printed_values_are_read_back(
        name in "[a-z][a-z0-9_]{0,20}",
        imported: u32,
        exported: u32,
        filtered in prop::option::of(any::<u32>()),
        error in prop::option::of("[A-Z][a-z]{1,9}: [A-Za-z ]{0,20}[a-z]"),
        seconds in 0i64..4_000_000_000,
        ip: u32,
    ) {
        let since = Timestamp::from_second(seconds).unwrap();
        let filtered = filtered.map(|n| format!("{n} filtered, ")).unwrap_or_default();
        let mut text = format!(
            "1002-{name:<10} BGP        ---        up     {}  Established   \n\
             1006-  BGP state:          Established\n\x20    Neighbor address: {}\n\x20    Routes:         {imported} imported, {filtered}{exported} exported, 0 preferred\n",
            since.strftime("%Y-%m-%d %H:%M:%S.000"),
            std::net::Ipv4Addr::from_bits(ip),
        );
        if let Some(error) = &error {
            text.push_str(&format!("     Last error:       {error}\n"));
        }
        let [protocol] = parse_protocols(&reply(&text)).try_into().unwrap();
        prop_assert_eq!(protocol.name, name);
        prop_assert_eq!(protocol.routes, Some((imported, exported)));
        prop_assert_eq!(protocol.since, Some(since));
        let error = error.map(|e| e.split_whitespace().collect::<Vec<_>>().join(" "));
        prop_assert_eq!(protocol.last_error, error);
    }

    #[test]
    fn any_text_is_read_without_a_panic(lines in prop::collection::vec((any::<u16>(), ".{0,80}"), 0..20)) {
        for code in [None, Some(1002), Some(1006), Some(1007), Some(1020)] {
            let lines = lines.iter().map(|(c, text)| (code.unwrap_or(*c), text.clone())).collect();
            let reply = Reply { lines };
            let _ = (parse_protocols(&reply), parse_bfd(&reply), parse_routes(&reply));
        }
    }
}
