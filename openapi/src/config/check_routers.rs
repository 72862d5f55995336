//! What must hold for `[[routers]]`, and for the channels that they carry.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    CommandConfig, Config, RouterDriver,
    check::{Checker, root},
    document::Way,
};
use crate::ids::RouterId;

/// `IFNAMSIZ` of Linux less the end of the text and `.4094`.
const LONGEST_PARENT: usize = 10;
/// What any router calls an interface is shorter.
const LONGEST_INTERFACE: usize = 64;

/// Checks the section, and what channels say of it.
pub(super) fn all(config: &Config, checker: &mut Checker<'_, '_>) {
    let (mut ids, mut folders) = (BTreeMap::new(), BTreeMap::new());
    for (index, router) in config.routers.iter().enumerate() {
        let way = root("routers", index);
        checker.once(&mut ids, &router.id, way.to("id"), "router");
        for (index, net) in router.announces.iter().enumerate().filter(|(_, net)| net.trunc() != **net) {
            let network = net.trunc();
            checker.say(&way.to("announces").to(index), format!("{net} has host bits set; the network is {network}"));
        }
        for (key, value, least) in [("pollMs", router.poll_ms, 100), ("drainMs", router.drain_ms, 0)] {
            if !(least..=900_000).contains(&value) {
                checker.say(&way.to(key), format!("must be from {least} to 900000"));
            }
        }
        let way = way.to("driver");
        match &router.driver {
            RouterDriver::Bird(bird) => {
                let way = way.to("bird");
                checker.absolute(&way.to("includes"), &bird.includes);
                checker.absolute(&way.to("control"), &bird.control);
                checker.once(&mut folders, &bird.includes, way.to("includes"), "folder");
                command(&bird.hook, &way.to("hook"), checker);
            }
            RouterDriver::Command(program) => command(program, &way.to("command"), checker),
        }
    }
    channels(config, checker);
}

fn command(command: &CommandConfig, way: &Way, checker: &mut Checker<'_, '_>) {
    match command.run.first() {
        None => checker.say(&way.to("run"), "names a program by its absolute path"),
        Some(program) => checker.absolute(&way.to("run").to(0), program),
    }
    if !(100..=300_000).contains(&command.timeout_ms) {
        checker.say(&way.to("timeoutMs"), "must be from 100 to 300000");
    }
}

/// A channel's router is there, and an interface carries one channel: two would give the same VLAN to two connections.
fn channels(config: &Config, checker: &mut Checker<'_, '_>) {
    let Some(coordinator) = &config.coordinator else { return };
    let on_linux: BTreeSet<&RouterId> = config
        .routers
        .iter()
        .filter(|router| matches!(router.driver, RouterDriver::Bird(_)))
        .map(|router| &router.id)
        .collect();
    let known: BTreeSet<&RouterId> = config.routers.iter().map(|router| &router.id).collect();
    let mut carried = BTreeMap::new();
    let way = Way::default().to("coordinator").to("peers");
    for (p, peer) in coordinator.peers.iter().enumerate() {
        for (e, environment) in peer.environments.iter().enumerate() {
            for (i, interconnect) in environment.interconnects.iter().enumerate() {
                for (c, channel) in interconnect.channels.iter().enumerate() {
                    let Some(router) = &channel.router else { continue };
                    let way = way.to(p).to("environments").to(e).to("interconnects").to(i).to("channels").to(c);
                    let way = way.to("router");
                    if !known.contains(&router.id) {
                        checker.say(
                            &way.to("id"),
                            format!("there is no router `{}`: declare it in [[routers]]", router.id),
                        );
                    }
                    let name = router.interface.as_str();
                    let longest = if on_linux.contains(&router.id) { LONGEST_PARENT } else { LONGEST_INTERFACE };
                    let plain = name.bytes().all(|b| b.is_ascii_graphic() && b != b'"');
                    let linux = !on_linux.contains(&router.id) || !name.contains(['/', ':']);
                    if name.is_empty() || name.len() > longest || !plain || !linux {
                        let rule = format!("is the name of an interface, with at most {longest} characters");
                        checker.say(&way.to("interface"), rule);
                    }
                    let key = format!("{}/{name}", router.id);
                    checker.once(&mut carried, &key, way.to("interface"), "interface");
                }
            }
        }
    }
}
