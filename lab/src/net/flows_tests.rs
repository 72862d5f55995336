use proptest::prelude::*;

use super::*;

proptest! {
    /// Whatever is lost, doubled or swapped on the way, the tally says what happened.
    #[test]
    fn the_tally_agrees_with_what_was_done(
        count in 1u64..200,
        lost in prop::collection::btree_set(0u64..200, 0..40),
        doubled in prop::collection::btree_set(0u64..200, 0..10),
        late in prop::collection::btree_set(0u64..199, 0..10),
    ) {
        let mut arrivals: Vec<u64> = (0..count).filter(|n| !lost.contains(n)).collect();
        let mut swapped = 0;
        let mut i = 0;
        while i + 1 < arrivals.len() {
            if late.contains(&arrivals[i]) {
                arrivals.swap(i, i + 1);
                swapped += 1;
                i += 1;
            }
            i += 1;
        }
        let mut tally = Tally::default();
        let mut again = 0;
        for (at, number) in arrivals.iter().enumerate() {
            let at = at as u64 * 1_000_000;
            tally.arrived(*number, at, at + 5_000);
            if doubled.contains(number) {
                tally.arrived(*number, at, at + 5_000);
                again += 1;
            }
        }
        let report = tally.report();
        let highest = arrivals.iter().max().map_or(0, |n| n + 1);
        prop_assert_eq!(report.received, arrivals.len() as u64);
        prop_assert_eq!(report.lost, highest - arrivals.len() as u64);
        prop_assert_eq!(report.reordered, swapped);
        prop_assert_eq!(report.duplicated, again);
        if !arrivals.is_empty() {
            prop_assert_eq!((report.least_delay_us, report.greatest_delay_us), (5, 5));
        }
    }

    #[test]
    fn strangers_datagrams_are_not_counted(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
        prop_assume!(!bytes.starts_with(&MAGIC));
        prop_assert_eq!(fields(&bytes), None);
    }
}

#[test]
fn an_outage_shows_as_gap_and_loss() {
    let mut tally = Tally::default();
    for n in (0..100).chain(350..400) {
        tally.arrived(n, n * 1_000_000, n * 1_000_000 + 2_000_000);
    }
    let report = tally.report();
    assert_eq!((report.lost, report.longest_loss, report.longest_gap_us), (250, 250, 251_000));
}

#[test]
fn a_shifted_flow_is_not_the_flow() {
    let flow: Vec<u8> = (0..4_096).map(pattern).collect();
    for shift in 1..64 {
        assert_ne!(flow[shift..shift + 64], flow[..64]);
    }
}

#[tokio::test]
async fn a_udp_flow_is_counted_end_to_end() {
    let (from, to) = (UdpSocket::bind("127.0.0.1:0").await.unwrap(), UdpSocket::bind("127.0.0.1:0").await.unwrap());
    let (stop_sending, stop_receiving) = (CancellationToken::new(), CancellationToken::new());
    let address = to.local_addr().unwrap();
    let total = std::cell::Cell::new(None);
    let (enough, ended) = (stop_sending.clone(), stop_receiving.clone());
    let receive = udp_receive(&to, Duration::from_millis(5), stop_receiving.clone(), |report| {
        if report.received > 50 {
            enough.cancel();
        }
        if total.get() == Some(report.received) {
            ended.cancel();
        }
    });
    let send = async {
        let sent = udp_send(&from, address, UdpFlow::default(), stop_sending.clone()).await?;
        total.set(Some(sent.sent));
        Ok(sent)
    };
    let both = tokio::time::timeout(Duration::from_secs(20), futures::future::try_join(send, receive));
    let (sent, received) = both.await.unwrap().unwrap();
    assert_eq!((sent.sent, sent.refused), (received.received, 0));
    assert_eq!((received.lost, received.reordered, received.duplicated), (0, 0, 0));
}

#[tokio::test]
async fn a_tcp_flow_is_checked_byte_by_byte() {
    for corrupt in [false, true] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let echo = if corrupt {
            tokio::spawn(async move {
                let (mut stream, _) = listener.accept().await?;
                let mut buffer = [0; 1_000];
                for _ in 0..4 {
                    stream.read_exact(&mut buffer).await?;
                    buffer[500] ^= 1;
                    stream.write_all(&buffer).await?;
                }
                Ok(())
            })
        } else {
            tokio::spawn(tcp_echo(listener, stop.clone()))
        };
        let stream = TcpStream::connect(address).await.unwrap();
        let enough = stop.clone();
        let checked = tcp_check(stream, 20_000_000, Duration::from_millis(5), stop.clone(), |report| {
            if report.echoed_bytes > 100_000 {
                enough.cancel();
            }
        });
        let checked = tokio::time::timeout(Duration::from_secs(20), checked).await.unwrap();
        match checked {
            Ok(report) => assert!(!corrupt && report.echoed_bytes > 100_000, "{report:?}"),
            Err(error) => assert!(corrupt && matches!(error, TcpError::Corrupted { at: 500, .. }), "{error:?}"),
        }
        stop.cancel();
        echo.await.unwrap().unwrap();
    }
}
