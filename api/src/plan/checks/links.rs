//! Which prefixes the links of one attach point may share.
//!
//! Seen from an attach point, an address must lead to one place. So, for two links of one attach point:
//!
//! - **Both learn a prefix from the same far attach point.** Parallel links: more capacity, another facility, a migration.
//!   Allowed, with a warning: which link a flow takes is the routers' own choice (RFC 4271 section 9.1.2.2; equal paths are
//!   used side by side where the cloud does that, and a longer prefix wins over a shorter one, RFC 4632 section 5.1), and
//!   Tieline drains and fails over each link by itself.
//! - **They learn overlapping prefixes from different far attach points.** Usually a mistake: two sites use the same range,
//!   and half of the flows end up in the wrong one. Refused, unless `tieline.toml` lists the network behind both far attach
//!   points: then they are two ways into one network (two routers of one VPC, two hubs), which is allowed with a warning.
//! - **One learns what the attach point announces over the other.** The network would be on both sides of the router, or the
//!   attach point hands on what it has learned, which neither cloud does between two private links by itself. Refused.
//!
//! A default route overlaps other default routes only: it covers everything on purpose.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use tieline_openapi::{
    ids::AttachPointId,
    v1::{AttachPoint, ConnectionIntent, End},
};

use super::{
    super::{
        carried::{Carried, Way, announced, meets},
        negotiate::Allocated,
    },
    Findings, Note,
};

/// The known attach points.
pub type AttachPoints = BTreeMap<AttachPointId, AttachPoint>;

/// Checks what a new or changed link carries against the other links of both its attach points.
pub fn other_links(intent: &ConnectionIntent, points: &AttachPoints, allocated: &Allocated, findings: &mut Findings) {
    let mut parallel = BTreeSet::new();
    for end in End::BOTH {
        let Some(here) = &intent.end(end).attach_point_id else { continue };
        let Some(others) = allocated.prefixes.get(here) else { continue };
        let view = View { end, here, far: intent.place(end.other()), others, points };
        for (index, net) in listed(intent, end.other()) {
            view.learned(
                &format!("/{}/advertisedPrefixes/{index}", end.other().as_str()),
                &net,
                findings,
                &mut parallel,
            );
        }
        for (index, net) in listed(intent, end) {
            view.announced(&format!("/{}/advertisedPrefixes/{index}", end.as_str()), &net, findings);
        }
    }
    if !parallel.is_empty() {
        warn_of_parallel(&parallel, findings);
    }
}

/// What an end announces and the other accepts, each with its place in the end's own list.
fn listed(intent: &ConnectionIntent, end: End) -> Vec<(usize, IpNet)> {
    let own = &intent.end(end).advertised_prefixes;
    let place = |net: &IpNet| own.iter().position(|listed| listed.contains(net)).unwrap_or(0);
    announced(intent, end).into_iter().map(|net| (place(&net), net)).collect()
}

/// One attach point of the link, with what its other links carry.
struct View<'a> {
    end: End,
    here: &'a AttachPointId,
    far: &'a str,
    others: &'a [Carried],
    points: &'a AttachPoints,
}

impl<'a> View<'a> {
    fn overlapping<'n>(&self, net: &'n IpNet) -> impl Iterator<Item = &'a Carried> + use<'a, 'n> {
        let others = self.others;
        others.iter().filter(move |other| meets(net, &other.prefix))
    }

    /// A prefix that the link brings to this attach point.
    fn learned(&self, pointer: &str, net: &IpNet, findings: &mut Findings, parallel: &mut BTreeSet<&'a str>) {
        let (mut clash, mut second_way) = (None, None);
        for other in self.overlapping(net) {
            match other.way {
                Way::Announced => clash = clash.or(Some(other)),
                Way::Learned if other.far == self.far => {
                    parallel.insert(other.link.as_str());
                }
                Way::Learned if self.behind_both(other, net) => second_way = second_way.or(Some(other)),
                Way::Learned => clash = clash.or(Some(other)),
            }
        }
        match (clash, second_way) {
            (Some(other), _) => findings.error(self.clash(pointer, net, other)),
            (None, Some(other)) => findings.warning(self.second_way(pointer, net, other)),
            (None, None) => {}
        }
    }

    /// A prefix that this attach point announces over the link.
    fn announced(&self, pointer: &str, net: &IpNet, findings: &mut Findings) {
        let Some(other) = self.overlapping(net).find(|other| other.way == Way::Learned) else { return };
        findings.error(Note {
            code: "prefix-overlap-other-link",
            pointer,
            message: format!(
                "end {} announces {net}, while attach point {} learns {} from {} over link {}",
                self.end.as_str(),
                self.here,
                other.prefix,
                other.far,
                other.link
            ),
            rule: "a network is behind one side of a router: what an attach point announces it does not learn"
                .to_owned(),
            source: "RFC 4632 section 5.1".to_owned(),
            resolve: format!("announce {net} where it is, or take {} off link {}", other.prefix, other.link),
        });
    }

    /// Whether `tieline.toml` says of both far attach points that the network is behind them.
    fn behind_both(&self, other: &Carried, net: &IpNet) -> bool {
        let longer = if net.prefix_len() >= other.prefix.prefix_len() { net } else { &other.prefix };
        let behind = |id: &str| {
            let point = id.parse::<AttachPointId>().ok().and_then(|id| self.points.get(&id));
            point.is_some_and(|point| point.prefixes.iter().any(|listed| listed.contains(longer)))
        };
        behind(self.far) && behind(&other.far)
    }

    fn clash<'n>(&self, pointer: &'n str, net: &IpNet, other: &Carried) -> Note<'n> {
        let accepted = format!("/{}/acceptedPrefixes", self.end.as_str());
        let (message, resolve) = match other.way {
            Way::Learned => (
                format!(
                    "{net} from {} overlaps {}, which attach point {} learns from {} over link {}",
                    self.far, other.prefix, self.here, other.far, other.link
                ),
                format!(
                    "let {accepted} name only what is behind {}, or announce another prefix; if both lead into one network, \
                     list it under the prefixes of {} and {} in tieline.toml",
                    self.far, self.far, other.far
                ),
            ),
            Way::Announced => (
                format!(
                    "{net} from {} overlaps {}, which attach point {} itself announces over link {}",
                    self.far, other.prefix, self.here, other.link
                ),
                format!("let {accepted} leave {} out, or announce another prefix", other.prefix),
            ),
        };
        Note {
            code: "prefix-overlap-other-link",
            pointer,
            message,
            rule: "seen from an attach point, an address leads to one place".to_owned(),
            source: "RFC 4632 section 5.1".to_owned(),
            resolve,
        }
    }

    fn second_way<'n>(&self, pointer: &'n str, net: &IpNet, other: &Carried) -> Note<'n> {
        Note {
            code: "prefix-from-two-attach-points",
            pointer,
            message: format!(
                "attach point {} learns {net} from {} and {} from {} over link {}: routers choose which way a flow takes",
                self.here, self.far, other.prefix, other.far, other.link
            ),
            rule: "two ways into one network, as tieline.toml says, are used as the routers choose".to_owned(),
            source: "RFC 4271 section 9.1.2.2; attachPoints in tieline.toml".to_owned(),
            resolve: format!(
                "nothing, if both attach points lead to all of {net}; else correct their prefixes in tieline.toml"
            ),
        }
    }
}

fn warn_of_parallel(links: &BTreeSet<&str>, findings: &mut Findings) {
    let named: Vec<&str> = links.iter().take(3).copied().collect();
    let more = links.len() - named.len();
    let and_more = if more == 0 { String::new() } else { format!(" and {more} more") };
    findings.warning(Note {
        code: "parallel-links",
        pointer: "",
        message: format!(
            "{}{and_more} carries the same prefixes between the same attach points: routers choose which link a flow takes, \
             and the redundancy of each link is counted by itself",
            named.join(", ")
        ),
        rule: "equal paths are used as the routers choose; a longer prefix wins over a shorter one".to_owned(),
        source: "RFC 4271 section 9.1.2.2; RFC 4632 section 5.1".to_owned(),
        resolve: "nothing, if the links are meant to share the traffic; else announce prefixes of its own over each"
            .to_owned(),
    });
}
