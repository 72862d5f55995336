//! Ways narrower than the configuration says, with and without routers that say so, over both families.

use std::{
    net::{SocketAddr, UdpSocket},
    time::{Duration, Instant},
};

use tieline_dataplane::{Dataplane, proto::pmtu::Phase, shell::status::Status};
use tieline_openapi::v1::PathKind;

use super::{
    packets::{bulk, datagrams},
    world::*,
};

fn mtu(status: &Status) -> Option<(u16, Phase)> {
    let found = status.connections.first()?.peers.first()?.path_mtu?;
    Some((found.bytes, found.phase))
}

async fn until_mtu(gateway: &Dataplane, what: &str, from: u16, to: u16) -> u16 {
    let status = until_within(Duration::from_secs(60), gateway, what, |status| {
        mtu(status).is_some_and(|(mtu, phase)| (from..=to).contains(&mtu) && phase == Phase::Complete)
    })
    .await;
    mtu(&status).unwrap().0
}

/// Sends datagrams of `length` that must not be cut until the kernel says what the way takes; `None`: they go.
fn told_mtu(world: &World, from: SocketAddr, to: SocketAddr, length: usize) -> Option<i32> {
    let probe = move || {
        let socket = UdpSocket::bind(from).unwrap();
        socket.connect(to).unwrap();
        let (level, discover, mtu) = if to.is_ipv4() {
            (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_MTU)
        } else {
            (libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_MTU)
        };
        let descriptor = std::os::fd::AsRawFd::as_raw_fd(&socket);
        let (how, size) = (libc::IP_PMTUDISC_DO, size_of::<libc::c_int>() as libc::socklen_t);
        // SAFETY: the descriptor is open and the value is an int.
        assert_eq!(unsafe { libc::setsockopt(descriptor, level, discover, (&raw const how).cast(), size) }, 0);
        let started = Instant::now();
        let bytes = vec![0; length];
        while started.elapsed() < Duration::from_secs(3) {
            if socket.send(&bytes).is_err_and(|error| error.raw_os_error() == Some(libc::EMSGSIZE)) {
                let (mut value, mut size) = (0, size);
                // SAFETY: the descriptor is open and there is room for an int.
                let got = unsafe { libc::getsockopt(descriptor, level, mtu, (&raw mut value).cast(), &raw mut size) };
                assert_eq!(got, 0);
                return Some(value);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        None
    };
    world.host[0].run(probe).join().unwrap().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_way_that_narrows_is_followed_both_where_a_router_says_so_and_where_none_does() {
    if cannot_run() {
        return;
    }
    let world = World::new();
    let gateways = [0, 1].map(|n| start(&world, n).0);
    for (n, gateway) in gateways.iter().enumerate() {
        gateway.apply(configuration(n, 1, false, &public(&key(1 - n))));
    }
    for gateway in &gateways {
        until(gateway, "the tunnel carries", |status| chosen(status) == Some(PathKind::Tunnel)).await;
        until_mtu(gateway, "the way is as wide as configured", 1_440, 1_440).await;
    }
    let (from, to): (SocketAddr, SocketAddr) = ("10.0.1.2:9500".parse().unwrap(), "10.1.1.2:9500".parse().unwrap());
    assert_eq!(told_mtu(&world, from, to, 1_412), None, "1440 bytes go in one piece");
    let stream = Stream::start(&world);
    stream.goes_on().await;

    // From a to b a router answers; from b to a the link swallows what is too long.
    world.internet.sh("ip link set i1 mtu 1400");
    let narrowed = Instant::now();
    let mut found = Vec::new();
    for gateway in &gateways {
        // The link lets a VLAN tag more pass than its MTU says.
        found.push(until_mtu(gateway, "the narrow way is found", 1_336, 1_344).await);
    }
    println!("both directions of a narrowed way found after {:?}", narrowed.elapsed());
    stream.goes_on().await;
    stream.stop();
    let status = until(&gateways[0], "it answers", |_| true).await;
    assert_eq!(status.connections[0].peers[0].path_mtu.unwrap().black_holes, 1);

    // While the search was at its base, that is what the host was told.
    world.host[0].sh("ip route flush cache");
    let told = told_mtu(&world, from, to, 1_412);
    assert_eq!(told, Some(i32::from(found[0])), "the host is told by ICMP");
    let fresh = Stream::start(&world);
    assert!(fresh.segment.iter().all(|mss| *mss <= u32::from(found[0]) - 40), "clamped: {:?}", fresh.segment);
    fresh.goes_on().await;
    fresh.stop();
    // What may be cut is cut, and comes together again.
    let got = datagrams(&world.host[0], &world.host[1], "10.1.1.2:9501".parse().unwrap(), 300, 1_412);
    assert!(got > 270, "{got} of 300 datagrams in fragments");
    bulk(&world.host[1], &world.host[0], "10.0.1.2:9502".parse().unwrap(), 1 << 20);
    gateways.into_iter().for_each(Dataplane::stop);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hosts_on_ipv6_are_carried_over_ipv6_and_told_what_is_too_big() {
    if cannot_run() {
        return;
    }
    let world = World::new();
    world.add_ipv6();
    let gateways = [0, 1].map(|n| start_at(&world, n, endpoint6(n)));
    for (n, gateway) in gateways.iter().enumerate() {
        let mut configuration = configuration(n, 1, false, &public(&key(1 - n)));
        let connection = &mut configuration.connections[0];
        connection.mtu_bytes = 1_420_u64.try_into().unwrap();
        over_ipv6(n, connection);
        gateway.apply(configuration);
    }
    for gateway in &gateways {
        until(gateway, "the tunnel carries", |status| chosen(status) == Some(PathKind::Tunnel)).await;
        until_mtu(gateway, "the way is as wide as configured", 1_420, 1_420).await;
    }
    let at = |n: usize, port| SocketAddr::new(host6(n), port);
    bulk(&world.host[0], &world.host[1], at(1, 9_300), 2 << 20);
    bulk(&world.host[1], &world.host[0], at(0, 9_300), 1 << 20);
    bulk(&world.host[0], &world.host[1], "10.1.1.2:9300".parse().unwrap(), 1 << 20);

    world.internet.sh("ip link set i1 mtu 1400");
    let mut found = Vec::new();
    for gateway in &gateways {
        // 40 of IPv6, 8 of UDP, 32 of WireGuard.
        found.push(until_mtu(gateway, "the narrow way is found", 1_316, 1_324).await);
    }
    assert_eq!(told_mtu(&world, at(0, 9_500), at(1, 9_500), 1_372), Some(i32::from(found[0])), "packet too big");
    let got = datagrams(&world.host[0], &world.host[1], at(1, 9_501), 300, 1_372);
    assert!(got > 270, "{got} of 300 datagrams, in fragments of the host");
    bulk(&world.host[0], &world.host[1], at(1, 9_302), 1 << 20);
    gateways.into_iter().for_each(Dataplane::stop);
    assert_eq!(world.gateway[0].sh("sysctl -n net.ipv6.conf.all.forwarding").trim(), "0");
}
