//! Who the two ends are: attach points, their accounts and rules, the environment, and which of its sites each end is.

use tieline_openapi::v1::{
    AddressFamily, AttachPoint, Channel, ChannelPort, ConnectionEnd, ConnectionIntent, ConnectionKind, End, Ends,
    Environment, Middle,
};
use tieline_providers::Rules;

use super::super::checks::{Findings, Note};
use crate::topology::Topology;

const TOPOLOGY: &str = "tieline.toml and the built-in catalogue";

/// One end of the connection.
pub(super) struct EndView<'a> {
    /// What is intended.
    pub(super) intent: &'a ConnectionEnd,
    /// Where it attaches.
    pub(super) point: &'a AttachPoint,
    /// The cloud's region.
    pub(super) region: &'a str,
    /// What the cloud allows.
    pub(super) rules: &'a dyn Rules,
}

/// Both ends in their environment.
pub(super) struct Frame<'a> {
    /// The ends, by the letters of the intent.
    pub(super) ends: Ends<EndView<'a>>,
    /// The pair of sites.
    pub(super) environment: &'a Environment,
    /// Whether the intent's a is the environment's second site.
    swapped: bool,
    /// The intent.
    pub(super) intent: &'a ConnectionIntent,
}

impl Frame<'_> {
    /// The port of a channel at one end of the intent: a channel's own letters are those of the environment's sites.
    pub(super) const fn port<'c>(&self, channel: &'c Channel, end: End) -> &'c ChannelPort {
        match (end, self.swapped) {
            (End::A, false) | (End::B, true) => &channel.a,
            (End::A, true) | (End::B, false) => &channel.b,
        }
    }

    /// How findings name an end.
    pub(super) fn label(&self, end: End) -> String {
        format!("end {} ({})", end.as_str(), self.ends.get(end).point.id)
    }
}

/// Resolves what the intent names. Every name that cannot be resolved is a finding.
pub(super) fn resolve<'a>(
    topology: &'a Topology,
    intent: &'a ConnectionIntent,
    findings: &mut Findings,
) -> Option<Frame<'a>> {
    let a = end_view(topology, &intent.a, End::A, findings);
    let b = end_view(topology, &intent.b, End::B, findings);
    if intent.a.attach_point_id == intent.b.attach_point_id {
        findings.error(Note {
            code: "attach-points-equal",
            pointer: "/b/attachPointId",
            message: format!("both ends name attach point {}", intent.place(End::A)),
            rule: "a connection has two ends".to_owned(),
            source: "the contract of /v1".to_owned(),
            resolve: "name the attach point of the other site".to_owned(),
        });
    }
    let environment = topology.environments.get(&intent.environment_id);
    if environment.is_none() {
        findings.error(Note {
            code: "unknown-environment",
            pointer: "/environmentId",
            message: format!("there is no environment {}", intent.environment_id),
            rule: "a connection is made over a known pair of sites".to_owned(),
            source: TOPOLOGY.to_owned(),
            resolve: "choose one of GET /v1/environments, or add it to tieline.toml".to_owned(),
        });
    }
    let environment = environment?;
    offered(environment, intent, findings);
    let swapped = orientation(topology, environment, intent, findings)?;
    Some(Frame { ends: Ends { a: a?, b: b? }, environment, swapped, intent })
}

fn end_view<'a>(
    topology: &'a Topology,
    intent: &'a ConnectionEnd,
    end: End,
    findings: &mut Findings,
) -> Option<EndView<'a>> {
    let pointer = format!("/{}/attachPointId", end.as_str());
    let Some(point) = topology.attach_point(intent) else {
        findings.error(Note {
            code: "unknown-attach-point",
            pointer: &pointer,
            message: match &intent.attach_point_id {
                Some(id) => format!("there is no attach point {id}"),
                None => "no attach point is named".to_owned(),
            },
            rule: "a connection ends at known attach points".to_owned(),
            source: TOPOLOGY.to_owned(),
            resolve: "choose one of GET /v1/attachPoints, or add it to tieline.toml".to_owned(),
        });
        return None;
    };
    let account = topology.accounts.get(&point.account_id);
    let rules = account.and_then(|account| topology.rules.get(&account.provider));
    let (Some(_), Some(rules)) = (account, rules) else {
        let provider = account.map_or("unknown", |account| account.provider.as_str());
        findings.error(Note {
            code: "provider-not-built-in",
            pointer: &pointer,
            message: format!("attach point {} is in cloud `{provider}`, which this binary cannot drive", point.id),
            rule: "both ends are in clouds that this binary has an adapter for".to_owned(),
            source: "the features that this binary was built with".to_owned(),
            resolve: format!("use a build with `{provider}`, or another attach point"),
        });
        return None;
    };
    let region = topology.regions.get(&point.account_id).map_or(point.site.as_str(), String::as_str);
    Some(EndView { intent, point, region, rules: rules.as_ref() })
}

/// What the environment can be used for, apart from its channels.
fn offered(environment: &Environment, intent: &ConnectionIntent, findings: &mut Findings) {
    let id = &environment.id;
    if environment.kind != ConnectionKind::Direct {
        findings.error(Note {
            code: "kind-not-offered",
            pointer: "/environmentId",
            message: format!("environment {id} is of kind {}, which is not built yet", kind_name(environment.kind)),
            rule: "connections are built over environments of kind DIRECT".to_owned(),
            source: "this version of Tieline".to_owned(),
            resolve: "choose an environment of kind DIRECT".to_owned(),
        });
    }
    if matches!(environment.middle, Middle::L3 | Middle::Handoff) {
        let middle = if environment.middle == Middle::L3 { "L3" } else { "HANDOFF" };
        findings.error(Note {
            code: "middle-not-offered",
            pointer: "/environmentId",
            message: format!("environment {id} has middle {middle}, which is not built yet"),
            rule: "a link's middle is NONE or L2".to_owned(),
            source: "this version of Tieline".to_owned(),
            resolve: "choose an environment with middle NONE or L2".to_owned(),
        });
    }
    if intent.families.contains(&AddressFamily::Ipv6) {
        findings.error(Note {
            code: "family-not-offered",
            pointer: "/families",
            message: "IPv6 does not run over connections yet".to_owned(),
            rule: "the clouds assign the IPv6 point-to-point addresses themselves, and they are not read back yet"
                .to_owned(),
            source: "this version of Tieline".to_owned(),
            resolve: "ask for families [\"IPV4\"]".to_owned(),
        });
    }
    tier(environment, intent, findings);
}

const fn kind_name(kind: ConnectionKind) -> &'static str {
    match kind {
        ConnectionKind::Direct => "DIRECT",
        ConnectionKind::Managed => "MANAGED",
        ConnectionKind::Coordinated => "COORDINATED",
        ConnectionKind::Assisted => "ASSISTED",
    }
}

/// An environment without a list of bandwidths leaves it to what both clouds sell.
fn tier(environment: &Environment, intent: &ConnectionIntent, findings: &mut Findings) {
    let tiers = &environment.bandwidths_mbps;
    let wanted = intent.bandwidth_mbps;
    if tiers.is_empty() || tiers.contains(&wanted) {
        return;
    }
    let below = tiers.iter().copied().filter(|tier| *tier < wanted).max();
    let above = tiers.iter().copied().filter(|tier| *tier > wanted).min();
    let near: Vec<String> = [below, above].into_iter().flatten().map(|tier| tier.to_string()).collect();
    let all: Vec<String> = tiers.iter().map(ToString::to_string).collect();
    findings.error(Note {
        code: "bandwidth-not-a-tier",
        pointer: "/bandwidthMbps",
        message: format!("{wanted} Mbit/s cannot be ordered over {}", environment.id),
        rule: format!("one of {} Mbit/s", all.join(", ")),
        source: format!("environment {}", environment.id),
        resolve: format!("order {} Mbit/s", near.join(" or ")),
    });
}

/// Whether the intent's a is the environment's second site. The attach points decide; where both ways fit, the letters do.
fn orientation(
    topology: &Topology,
    environment: &Environment,
    intent: &ConnectionIntent,
    findings: &mut Findings,
) -> Option<bool> {
    let [first, second] = environment.sites.as_slice() else {
        findings.error(Note {
            code: "environment-sites",
            pointer: "/environmentId",
            message: format!("environment {} has {} sites", environment.id, environment.sites.len()),
            rule: "an environment is a pair of sites".to_owned(),
            source: TOPOLOGY.to_owned(),
            resolve: "give it two sites in tieline.toml".to_owned(),
        });
        return None;
    };
    let at = |end: End| {
        let point = topology.attach_point(intent.end(end))?;
        let account = topology.accounts.get(&point.account_id)?;
        Some((&account.provider, &point.site))
    };
    let (a, b) = (at(End::A)?, at(End::B)?);
    let (first, second) = ((&first.provider, &first.site), (&second.provider, &second.site));
    if a == first && b == second {
        return Some(false);
    }
    if a == second && b == first {
        return Some(true);
    }
    // The end that fits neither site is the one to name; if both fit the same site, b is.
    let end = if a == first || a == second { End::B } else { End::A };
    let (provider, site) = if end == End::A { a } else { b };
    let point = intent.place(end);
    findings.error(Note {
        code: "attach-point-not-in-environment",
        pointer: &format!("/{}/attachPointId", end.as_str()),
        message: format!("attach point {point} is at {provider}/{site}, which is not the site that is left"),
        rule: format!("environment {} joins {}/{} and {}/{}", environment.id, first.0, first.1, second.0, second.1),
        source: TOPOLOGY.to_owned(),
        resolve: "name one attach point at each of the two sites, or choose the environment of these two".to_owned(),
    });
    None
}
