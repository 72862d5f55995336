//! MACsec of the kernel on a lab's trunks: what passes, what does not, and what is on the wire.
//!
//! Only where the kernel has MACsec and gives it to this process: as root, or in a machine of its own
//! (`scripts/in-kernel-machine.sh`). Else a test says why it is skipped. The stand-in's tests need no kernel.

mod parts;

use std::collections::BTreeSet;
use std::net::UdpSocket;
use std::path::Path;

use ipnet::Ipv4Net;
use tieline_lab::cell::{self, Inside};
use tieline_lab::net::links::Links;
use tieline_lab::net::macsec::device::{Device, DeviceError};
use tieline_lab::net::macsec::sak::Sak;
use tieline_lab::net::macsec::{MacSecHeld, MacSecStatus};
use tieline_lab::net::namespace::Namespace;
use tieline_lab::net::tap::{Offload, Tap};
use tieline_lab::net::wire::{Wire, WireChange};
use tieline_lab::net::{
    Configured, End, Impairment, LabNetwork, LinkName, LinkWanted, MacSecWay, NetError, NetSpec, VlanWay,
};

use crate::net::{Outcome, able, logs, options};
use crate::net_cell::machine;

use parts::{
    ADDRESSES, FAILS, Flow, MACSEC, PATIENCE, SECRET, TRUNK, Tapped, VLAN, WORKS, arrives, both_ways, encrypted,
    in_clear, key, linked, name, no_key_is_shown, put, put_both, secret, socket, status, until,
};

/// Whether MACsec can be had here; says why not.
fn has_macsec() -> bool {
    let release = nix::sys::utsname::uname().unwrap().release().to_string_lossy().into_owned();
    let modules = Path::new("/lib/modules").join(&release);
    let listed = |file: &str| std::fs::read_to_string(modules.join(file)).is_ok_and(|list| list.contains("/macsec.ko"));
    let known = Path::new("/sys/module/macsec").exists() || listed("modules.dep") || listed("modules.builtin");
    if !known {
        println!("skipped: the kernel {release} has no module macsec");
    } else if !nix::unistd::geteuid().is_root() {
        println!("skipped: needs root: the kernel takes no MACsec keys in a user namespace");
    }
    known && nix::unistd::geteuid().is_root()
}

/// Runs a scenario in a cell, after whose end nothing may be left.
async fn in_a_lab(scenario: &str, macsec: Option<MacSecWay>, vlan: Option<VlanWay>) {
    if !able() {
        return;
    }
    let network = NetSpec { routers: Configured::ByOperator, macsec, vlan, ..NetSpec::with_channels(1) };
    let dir = tempfile::tempdir().unwrap();
    let before = machine();
    let cell = cell::spawn(options(dir.path(), scenario, network)).await;
    let cell = cell.unwrap_or_else(|e| panic!("{e:?}\n{}", logs(dir.path())));
    let code = tokio::time::timeout(PATIENCE * 3, cell.wait()).await;
    assert!(matches!(code, Ok(Ok(0))), "the scenario ended with {code:?}\n{}", logs(dir.path()));
    assert_eq!(machine(), before, "something is left of the lab");
    let said = logs(dir.path());
    assert!((1..10).all(|n| !said.contains(key(n, n).cak.expose())), "a key is in a log");
}

#[tokio::test]
async fn what_passes_is_encrypted_with_its_tag_and_the_routers_say_what_they_use() {
    if has_macsec() {
        in_a_lab("macsec-passes", Some(MacSecWay::Kernel), None).await;
    }
}

#[tokio::test]
async fn so_it_is_with_tags_that_are_relayed() {
    if has_macsec() {
        in_a_lab("macsec-passes", Some(MacSecWay::Kernel), Some(VlanWay::Relay)).await;
    }
}

#[tokio::test]
async fn nothing_passes_without_a_key_with_another_or_in_clear() {
    if has_macsec() {
        in_a_lab("macsec-closed", Some(MacSecWay::Kernel), None).await;
    }
}

#[tokio::test]
async fn keys_change_under_a_flow_that_loses_nothing_and_an_old_one_opens_nothing() {
    if has_macsec() {
        in_a_lab("macsec-rotates", Some(MacSecWay::Kernel), None).await;
    }
}

#[tokio::test]
async fn the_kernel_itself_opens_nothing_under_another_key() {
    if has_macsec() {
        in_a_lab("macsec-devices", None, None).await;
    }
}

/// The lab takes the kernel's where it is, else the stand-in, which cuts the wire.
#[tokio::test]
async fn a_lab_takes_the_best_way_that_there_is() {
    in_a_lab(if has_macsec() { "macsec-found" } else { "macsec-stand-in" }, None, None).await;
}

/// What happens inside the cell.
pub(crate) async fn scenario(name: &str, inside: Inside) -> Outcome {
    match name {
        "macsec-passes" => passes(inside).await,
        "macsec-closed" => closed(inside).await,
        "macsec-rotates" => rotates(inside).await,
        "macsec-devices" => devices().await,
        "macsec-found" => found(inside, MacSecWay::Kernel).await,
        "macsec-stand-in" => found(inside, MacSecWay::StandIn).await,
        other => Err(format!("no scenario {other:?}").into()),
    }
}

async fn passes(inside: Inside) -> Outcome {
    let network = &inside.network;
    let ends = linked(network).await?;
    let wire = Tapped::on(&network.namespaces()["a-router"], TRUNK);
    assert_eq!(both_ways(&ends, WORKS), [true; 2], "a trunk on which no end runs MACsec passes in clear");
    assert!(wire.frames().iter().any(|frame| frame.windows(SECRET.len()).any(|words| words == SECRET)));

    let held = put(network, End::A, &[key(1, 1)], Some(1)).await?;
    assert_eq!(held, MacSecHeld { installed: vec![name(1)], active: None }, "the other end has no key yet");
    assert_eq!(both_ways(&ends, FAILS), [false; 2]);
    let held = put(network, End::B, &[key(1, 1)], Some(1)).await?;
    assert_eq!(held, MacSecHeld { installed: vec![name(1)], active: Some(name(1)) });
    // Forgotten are what was sent in clear to the end that took nothing, and neighbours.
    wire.frames();
    assert_eq!(both_ways(&ends, WORKS), [true; 2]);
    assert!(encrypted(&wire.frames()) >= 2);
    let told = MacSecStatus { installed: 1, active: true, changes: 1, way: MacSecWay::Kernel };
    assert_eq!([status(network, End::A).await, status(network, End::B).await], [told; 2]);
    assert_eq!(network.tagged().await["aws"], ["ch0.100"]);
    assert_eq!(network.wires()[TRUNK].keyed, [true; 2], "the wire itself carries all");

    // The status is what the kernel says: a key that another hand takes is not there.
    let router = &network.namespaces()["b-router"];
    let off = router.command("ip").args(["macsec", "set", "ch0-sec", "tx", "sa", "0", "off"]).status()?;
    assert!(off.success());
    assert!(!status(network, End::B).await.active);
    put(network, End::B, &[key(1, 1)], Some(1)).await?;
    assert!(status(network, End::B).await.active, "told again, it is so again");

    // The light of the trunk is that of what stands on it.
    let links = Links::open(router)?;
    for on in [false, true] {
        network.change_wire(TRUNK, &WireChange { carrier: Some(on), ..WireChange::default() })?;
        until(async || Ok(links.get("ch0.100").await?.carrier == on)).await?;
    }
    assert_eq!(both_ways(&ends, WORKS), [true; 2]);

    // A link that comes and one that goes stand on the same.
    let link = LinkName { parent: TRUNK.to_owned(), vlan: VLAN };
    network.delete_link("aws", &link).await?;
    assert_eq!(both_ways(&ends, FAILS), [false; 2]);
    linked_again(network, &link).await?;
    wire.frames();
    assert_eq!(both_ways(&ends, WORKS), [true; 2]);
    assert!(encrypted(&wire.frames()) >= 2);
    no_key_is_shown();
    Ok(())
}

async fn linked_again(network: &LabNetwork, link: &LinkName) -> Outcome {
    let wanted = LinkWanted { mtu_bytes: 9_000, address: Ipv4Net::new(ADDRESSES[0], 30)? };
    Ok(network.put_link("aws", link, &wanted).await?)
}

async fn closed(inside: Inside) -> Outcome {
    let network = &inside.network;
    let ends = linked(network).await?;
    let (a_wire, b_wire) =
        (Tapped::on(&network.namespaces()["a-router"], TRUNK), Tapped::on(&network.namespaces()["b-router"], TRUNK));
    assert_eq!(both_ways(&ends, WORKS), [true; 2]);
    a_wire.say(&in_clear(b"first"));
    let before = arrives(&ends[0], &ends[1], &secret(), WORKS).ok_or("nothing passes")?;
    assert!(
        before.contains(&b"first".to_vec()),
        "what is made by hand would arrive where MACsec is not run: {before:?}"
    );

    // No key in use: an end sends nothing, whatever it holds.
    put(network, End::A, &[key(1, 1)], Some(1)).await?;
    put(network, End::B, &[], None).await?;
    a_wire.frames();
    assert_eq!(both_ways(&ends, FAILS), [false; 2]);
    assert_eq!(a_wire.frames().len() + b_wire.frames().iter().filter(|f| f[12..14] == MACSEC).count(), 0, "it sends");
    let of = |status: MacSecStatus| (status.installed, status.active);
    assert_eq!(of(status(network, End::A).await), (1, false));
    assert_eq!(of(status(network, End::B).await), (0, false));

    // One name, two secrets.
    put(network, End::B, &[key(1, 9)], Some(1)).await?;
    assert_eq!(both_ways(&ends, FAILS), [false; 2]);
    assert_eq!(of(status(network, End::A).await), (1, false));
    assert_eq!(of(status(network, End::B).await), (1, false));

    // The right one, and nothing in clear beside it; a tag on the bare trunk leads nowhere.
    put(network, End::B, &[key(1, 1)], Some(1)).await?;
    a_wire.say(&in_clear(b"second"));
    let before = arrives(&ends[0], &ends[1], &secret(), WORKS).ok_or("nothing passes under the right key")?;
    assert!(!before.contains(&b"second".to_vec()), "a frame in clear is taken");

    // The end that is told to use none takes nothing either.
    put(network, End::B, &[key(1, 1)], None).await?;
    assert_eq!(of(status(network, End::B).await), (1, false));
    assert_eq!(both_ways(&ends, FAILS), [false; 2]);
    put(network, End::B, &[key(1, 1)], Some(1)).await?;
    assert_eq!(both_ways(&ends, WORKS), [true; 2]);

    // More keys than numbers are refused, and change nothing.
    let five: Vec<_> = (1..6).map(|n| key(n, n)).collect();
    let refused = put(network, End::A, &five, Some(1)).await;
    assert!(matches!(refused, Err(NetError::MacSec { .. })), "{refused:?}");
    assert_eq!(both_ways(&ends, WORKS), [true; 2]);
    Ok(())
}

/// Waits until all has arrived that was sent before: a wire keeps the order, and so do the routers of a flow.
async fn passed(flows: &[&Flow; 2], ends: &[UdpSocket; 2]) -> Outcome {
    for flow in flows {
        flow.goes_on().await?;
    }
    assert_eq!(both_ways(ends, WORKS), [true; 2]);
    Ok(())
}

async fn rotates(inside: Inside) -> Outcome {
    let network = &inside.network;
    let ends = linked(network).await?;
    let wire = Tapped::on(&network.namespaces()["a-router"], TRUNK);
    put_both(network, &[key(1, 1)], 1).await?;
    assert_eq!(both_ways(&ends, WORKS), [true; 2]);

    // A frame under the first key, which is opened for as long as that is there.
    let word = [SECRET, [b'!'; 900].as_slice()].concat();
    wire.frames();
    arrives(&ends[0], &ends[1], &word, WORKS).ok_or("nothing passes")?;
    let old = wire.frames().into_iter().find(|frame| frame.len() > word.len()).ok_or("no frame was heard")?;
    wire.say(&old);
    let before = arrives(&ends[0], &ends[1], &secret(), WORKS).ok_or("nothing passes")?;
    assert!(before.contains(&word), "a frame said again is within the window: {before:?}");

    let [forth, back] = [Flow::start(network, End::A)?, Flow::start(network, End::B)?];
    // As many changes as there are numbers, so that the first is used again, and each end first in turn.
    for old in 1..5 {
        let new = old + 1;
        let (first, second) = if new % 2 == 0 { (End::A, End::B) } else { (End::B, End::A) };
        let both = [key(old, old), key(new, new)];
        put(network, first, &both, Some(old)).await?;
        let held = put(network, second, &both, Some(old)).await?;
        assert_eq!((held.installed.len(), held.active), (2, Some(name(old))));
        passed(&[&forth, &back], &ends).await?;
        let held = put(network, first, &both, Some(new)).await?;
        assert_eq!(held.active, Some(name(new)), "the other end has it too");
        passed(&[&forth, &back], &ends).await?;
        let held = put(network, second, &both, Some(new)).await?;
        assert_eq!(held.active, Some(name(new)));
        passed(&[&forth, &back], &ends).await?;
        for end in [second, first] {
            let held = put(network, end, &both[1..], Some(new)).await?;
            assert_eq!(held, MacSecHeld { installed: vec![name(new)], active: Some(name(new)) });
            passed(&[&forth, &back], &ends).await?;
        }
    }
    for (sent, received) in [forth.end().await?, back.end().await?] {
        println!("{sent:?}\n{received:?}");
        assert_eq!((sent.refused, received.lost, received.received), (0, 0, sent.sent), "{received:?}");
    }
    assert_eq!(status(network, End::A).await.changes, 5);

    // The first key's number is that of another by now, and its frame leads nowhere.
    wire.say(&old);
    let before = arrives(&ends[0], &ends[1], &secret(), WORKS).ok_or("nothing passes")?;
    assert!(!before.contains(&word), "an old key opens a frame");
    // Nor does it when the key comes again, by its number of then: what is sent goes on behind what was sent before.
    for (old, new) in [(5, 6), (6, 7), (7, 8), (8, 1)] {
        put_both(network, &[key(old, old), key(new, new)], new).await?;
        put_both(network, &[key(new, new)], new).await?;
    }
    wire.frames();
    arrives(&ends[0], &ends[1], &secret(), WORKS).ok_or("nothing passes under a key that comes again")?;
    let number = |frame: &[u8]| frame[14] & 3;
    assert!(wire.frames().iter().all(|frame| number(frame) == number(&old)), "the key has its old number");
    wire.say(&old);
    let before = arrives(&ends[0], &ends[1], &secret(), WORKS).ok_or("nothing passes")?;
    assert!(!before.contains(&word), "what was sent under a key is taken again when that comes again");
    no_key_is_shown();
    Ok(())
}

/// Two devices on a wire, each with a namespace of its own.
async fn devices() -> Outcome {
    let namespaces = [Namespace::create("one")?, Namespace::create("two")?];
    let taps = namespaces.each_ref().map(|namespace| Tap::create(namespace, "eth0", Offload::Full));
    let [one, two] = taps;
    let _wire = Wire::join("pair", one?, two?, Impairment::delay_us(100), 1)?;
    let mut devices = Vec::new();
    let mut links = Vec::new();
    for (end, namespace) in [End::A, End::B].into_iter().zip(&namespaces) {
        let open = Links::open(namespace)?;
        open.set_up("eth0", true).await?;
        let device = Device::create(namespace, &open, "eth0", 0, end).await?;
        println!("{}: {:?}", device.name(), device.cipher());
        open.set_addresses(device.name(), &[Ipv4Net::new(ADDRESSES[end as usize], 30)?]).await?;
        devices.push(device);
        links.push(open);
    }
    let ends = [socket(&namespaces[0], ADDRESSES[0]), socket(&namespaces[1], ADDRESSES[1])];
    let sak = |n: u8| Sak::derive(&[1; 32], "eth0", &key(n, n));
    let (right, wrong) = (sak(1)?, sak(2)?);
    let [right_id, wrong_id] = [&right, &wrong].map(Sak::id);
    devices[0].install(0, &right)?;
    devices[0].send_under(&links[0], Some(right_id)).await?;
    devices[1].install(0, &wrong)?;
    devices[1].send_under(&links[1], Some(wrong_id)).await?;
    assert_eq!(both_ways(&ends, FAILS), [false; 2], "each sends under a key that the other has not");
    assert_eq!(devices[1].held()?.active, Some(wrong_id));
    // Another key of that number takes the place of the wrong one, and may be told again.
    for _ in 0..2 {
        devices[1].install(0, &right)?;
        devices[1].send_under(&links[1], Some(right_id)).await?;
    }
    assert_eq!(both_ways(&ends, WORKS), [true; 2]);
    assert_eq!(devices[1].held()?.installed, BTreeSet::from([right_id]));
    // Another number with the same key is another association.
    devices[1].keep_only(&BTreeSet::new())?;
    assert_eq!(devices[1].held()?.installed, BTreeSet::new());
    assert_eq!(both_ways(&ends, FAILS), [false; 2], "a key that is gone opens nothing");
    devices[1].install(2, &right)?;
    devices[1].send_under(&links[1], Some(right_id)).await?;
    assert_eq!(both_ways(&ends, FAILS), [false; 2]);
    // A second device on the same trunk is an error, and takes nothing away.
    let again = Device::create(&namespaces[0], &links[0], "eth0", 0, End::A).await;
    assert!(matches!(again, Err(NetError::Netlink { .. })), "{again:?}");
    assert_eq!(devices[0].held()?.active, Some(right_id));
    links[0].delete("eth0-sec").await?;
    assert!(matches!(devices[0].held(), Err(DeviceError::Read(_))));
    Ok(())
}

async fn found(inside: Inside, way: MacSecWay) -> Outcome {
    let network = &inside.network;
    let ends = linked(network).await?;
    put(network, End::A, &[key(1, 1)], Some(1)).await?;
    assert_eq!(status(network, End::A).await, MacSecStatus { installed: 1, active: false, changes: 0, way });
    assert_eq!(network.wires()[TRUNK].keyed, [way == MacSecWay::Kernel; 2]);
    assert_eq!(both_ways(&ends, FAILS), [false; 2]);
    put(network, End::B, &[key(1, 1)], Some(1)).await?;
    assert_eq!(status(network, End::B).await, MacSecStatus { installed: 1, active: true, changes: 1, way });
    assert_eq!(both_ways(&ends, WORKS), [true; 2]);
    Ok(())
}
