//! The text of the userspace API: requests as `wg` sends them, and any bytes.

use proptest::prelude::*;

use super::*;

/// Requests that have been sent by `wg` or were found by a test: accepted as they stand, or refused, by their name.
const CORPUS: &[(&str, &[u8])] = &[
    ("ok-get", include_bytes!("corpus/ok-get")),
    ("ok-wg-set-peer", include_bytes!("corpus/ok-wg-set-peer")),
    ("ok-wg-setconf", include_bytes!("corpus/ok-wg-setconf")),
    ("ok-ipv6", include_bytes!("corpus/ok-ipv6")),
    ("bad-empty", include_bytes!("corpus/bad-empty")),
    ("bad-get-more", include_bytes!("corpus/bad-get-more")),
    ("bad-key-short", include_bytes!("corpus/bad-key-short")),
    ("bad-key-not-hex", include_bytes!("corpus/bad-key-not-hex")),
    ("bad-peer-key-first", include_bytes!("corpus/bad-peer-key-first")),
    ("bad-port-sign", include_bytes!("corpus/bad-port-sign")),
    ("bad-prefix-length", include_bytes!("corpus/bad-prefix-length")),
    ("bad-no-equals", include_bytes!("corpus/bad-no-equals")),
    ("bad-not-utf8", include_bytes!("corpus/bad-not-utf8")),
    ("bad-version", include_bytes!("corpus/bad-version")),
];

#[test]
fn the_corpus_is_understood_or_refused() {
    for (name, text) in CORPUS {
        assert_eq!(parse(text).is_ok(), name.starts_with("ok-"), "{name}: {:?}", parse(text).err());
    }
}

#[test]
fn reads_what_wg_sends() {
    let Ok(Request::Set(device)) = parse(include_bytes!("corpus/ok-wg-set-peer")) else { panic!("not understood") };
    let peer = &device.peers[0];
    assert!(peer.update_only && peer.replace_allowed_ips && !peer.remove);
    assert_eq!(peer.endpoint, Some("198.51.100.10:51999".parse().unwrap()));
    assert_eq!(peer.keepalive_s, Some(7));
    assert_eq!(peer.allowed_ips, ["10.1.0.0/16".parse().unwrap(), "fd00::1/128".parse::<IpNet>().unwrap()]);
    assert_eq!(device.peers.len(), 1);
}

#[test]
fn a_refusal_shows_no_value() {
    let refused = parse(b"set=1\nprivate_key=5ec4e7\n").unwrap_err();
    assert_eq!(refused, UapiError::Value { line: 2, key: "private_key" });
    assert!(!refused.to_string().contains("5ec4e7"));
    let peers = "public_key=0000000000000000000000000000000000000000000000000000000000000000\n".repeat(MAX_PEERS + 1);
    assert_eq!(parse(format!("set=1\n{peers}").as_bytes()), Err(UapiError::TooLong));
    assert_eq!(parse(&vec![b'a'; MAX_REQUEST + 1]), Err(UapiError::TooLong));
}

fn secret() -> impl Strategy<Value = Secret> {
    any::<[u8; 32]>().prop_map(Zeroizing::new)
}

prop_compose! {
    fn some_peer()(
        public_key in any::<[u8; 32]>(),
        preshared_key in prop::option::of(secret()),
        (ip, port) in (any::<IpAddr>(), any::<u16>()),
        last_handshake in prop::option::of((0..1_u64 << 40, 0..1_000_000_000_u32)),
        (tx_bytes, rx_bytes, keepalive_s) in any::<(u64, u64, u16)>(),
        allowed in prop::collection::vec((any::<IpAddr>(), 0..=32_u8), 0..8),
    ) -> Peer {
        let allowed_ips = allowed.into_iter().map(|(ip, length)| IpNet::new(ip, length).unwrap()).collect();
        let last_handshake = last_handshake.map(|(s, ns)| Duration::new(s, ns));
        let endpoint = SocketAddr::new(ip, port);
        Peer { public_key, preshared_key, endpoint, last_handshake, tx_bytes, rx_bytes, keepalive_s, allowed_ips }
    }
}

/// What is told and cannot be set.
const TOLD: [&str; 5] = ["last_handshake_time", "tx_bytes", "rx_bytes", "errno", "\n"];

proptest! {
    #[test]
    fn what_is_told_can_be_set(
        private_key in secret(),
        listen_port in any::<u16>(),
        peers in prop::collection::vec(some_peer(), 0..6),
    ) {
        let device = Device { private_key, listen_port, peers };
        let text = render(&device);
        prop_assert!(text.ends_with("errno=0\n\n"));
        let lines = text.lines().filter(|line| !line.is_empty() && !TOLD.iter().any(|told| line.starts_with(told)));
        let mut request = "set=1\n".to_owned();
        lines.for_each(|line| { request.push_str(line); request.push('\n'); });
        let set = match parse(request.as_bytes()) {
            Ok(Request::Set(set)) => set,
            other => return Err(TestCaseError::fail(format!("{other:?}"))),
        };
        prop_assert!(set.private_key.as_ref() == Some(&device.private_key));
        prop_assert_eq!(set.listen_port, Some(listen_port));
        prop_assert_eq!(set.peers.len(), device.peers.len());
        for (set, told) in set.peers.iter().zip(&device.peers) {
            prop_assert_eq!(set.public_key, told.public_key);
            prop_assert!(set.preshared_key == told.preshared_key);
            prop_assert_eq!(set.endpoint, Some(told.endpoint));
            prop_assert_eq!(set.keepalive_s, Some(told.keepalive_s));
            prop_assert_eq!(&set.allowed_ips, &told.allowed_ips);
        }
    }

    #[test]
    fn takes_any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = parse(&bytes);
    }

    /// Requests of the corpus with bytes changed, lines doubled and ends cut.
    #[test]
    fn takes_any_damage(
        which in 0..CORPUS.len(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in any::<prop::sample::Index>(),
        again in any::<prop::sample::Index>(),
    ) {
        let mut bytes = CORPUS[which].1.to_vec();
        if bytes.is_empty() {
            return Ok(());
        }
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let doubled = bytes[again.index(bytes.len())..].to_vec();
        bytes.truncate(cut.index(bytes.len()));
        bytes.extend(doubled);
        if let Ok(Request::Set(device)) = parse(&bytes) {
            prop_assert!(device.peers.iter().all(|peer| peer.endpoint.is_none_or(|to| to.to_string().len() < 64)));
        }
    }
}
