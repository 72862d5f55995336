//! Which channels of which interconnect carry the connection.

use std::collections::BTreeSet;

use ipnet::Ipv4Net;
use tieline_openapi::{
    ids::ChannelId,
    v1::{AdminState, Channel, End, Ends, Interconnect, InterconnectState},
};

use super::{
    super::checks::{self, Findings, Note},
    Allocated, Request,
    channel::{self, Draft},
    frame::Frame,
    subnets::{self, Taken},
};
use crate::topology::Topology;

/// Combinations of channels for which subnets are looked for, per interconnect. Subnets hardly ever depend on the
/// combination, so this only bounds the work where none are left.
const COMBINATIONS: usize = 2_000;

/// What was chosen.
pub(super) struct Choice<'a> {
    /// The redundancy group.
    pub(super) interconnect: &'a Interconnect,
    /// Its channels, each agreed by itself.
    pub(super) drafts: Vec<Draft<'a>>,
    /// One subnet for each.
    pub(super) subnets: Vec<Ipv4Net>,
    /// The most prefixes that the other side of each end may announce.
    pub(super) max_prefixes: Ends<Option<u32>>,
}

/// Chooses. The interconnect with the most free bandwidth comes first, then the lower id; a connection that has channels
/// already stays where they are.
pub(super) fn choose<'a>(
    topology: &'a Topology,
    frame: &Frame<'a>,
    allocated: &Allocated,
    request: &'a Request<'_>,
    findings: &mut Findings,
) -> Option<Choice<'a>> {
    let environment = &frame.environment.id;
    let mut candidates: Vec<(&Interconnect, u64)> = topology
        .interconnects
        .values()
        .filter(|i| i.environment_id == *environment)
        .filter(|i| request.keep.keys().all(|kept| i.channels.iter().any(|c| c.id == *kept)))
        .map(|i| (i, i.channels.iter().filter(|c| enabled(c)).map(|c| left(i, c, allocated)).sum()))
        .collect();
    candidates.sort_by(|(x, x_free), (y, y_free)| y_free.cmp(x_free).then_with(|| x.id.cmp(&y.id)));
    if candidates.is_empty() {
        findings.error(Note {
            code: "no-interconnect",
            pointer: "/environmentId",
            message: if request.keep.is_empty() {
                format!("environment {environment} has no interconnect here")
            } else {
                format!("no interconnect of environment {environment} has all channels of this connection")
            },
            rule: "a connection runs over the channels of one interconnect".to_owned(),
            source: "interconnects in tieline.toml".to_owned(),
            resolve: "add the interconnect with its channels and ports to tieline.toml".to_owned(),
        });
        return None;
    }
    let taken = Taken::of(frame, allocated);
    let mut refusals = Vec::new();
    for (interconnect, _) in candidates {
        let mut refusal = Findings::default();
        if let Some(choice) = within(frame, allocated, request, interconnect, &taken, &mut refusal) {
            // What speaks against other interconnects does not matter any more; notes on this one do.
            findings.extend(refusal);
            return Some(choice);
        }
        refusals.push(refusal);
    }
    findings.alternatives(refusals);
    None
}

const fn enabled(channel: &Channel) -> bool {
    matches!(channel.admin_state, AdminState::Enabled)
}

/// Mbit/s that a channel can still take.
pub(super) fn left(interconnect: &Interconnect, channel: &Channel, allocated: &Allocated) -> u64 {
    let taken = allocated.bandwidth.get(&channel.id).copied().unwrap_or(0);
    u64::from(interconnect.max_bandwidth_mbps.get()).saturating_sub(taken)
}

fn within<'a>(
    frame: &Frame<'a>,
    allocated: &Allocated,
    request: &'a Request<'_>,
    interconnect: &'a Interconnect,
    taken: &Taken,
    findings: &mut Findings,
) -> Option<Choice<'a>> {
    let needed = request.intent.redundancy.channels();
    let keep: BTreeSet<&ChannelId> = request.keep.keys().take(needed).collect();
    let is_kept = |channel: &Channel| keep.contains(&channel.id);
    if interconnect.state != InterconnectState::Active && keep.len() < needed {
        findings.error(Note {
            code: "interconnect-closed",
            pointer: "/environmentId",
            message: format!("interconnect {} takes no new channels of connections", interconnect.id),
            rule: "new channels are taken from ACTIVE interconnects".to_owned(),
            source: "interconnects in tieline.toml".to_owned(),
            resolve: "set its state to ACTIVE in tieline.toml".to_owned(),
        });
        return None;
    }
    // Of a connection that gives channels up, those with the lowest ids stay.
    let given_up = |channel: &Channel| request.keep.contains_key(&channel.id) && !is_kept(channel);
    let mut channels: Vec<&Channel> =
        interconnect.channels.iter().filter(|c| is_kept(c) || (enabled(c) && !given_up(c))).collect();
    // What is there stays; what is made anew stays on its channel if it can; then the emptiest.
    channels.sort_by_key(|c| {
        let again = request.refused.contains_key(&c.id);
        (!is_kept(c), !again, u64::MAX - left(interconnect, c, allocated), c.id.clone())
    });
    let mut drafts: Vec<Draft<'a>> = Vec::new();
    let mut refusals = Findings::default();
    for channel in channels {
        let mut refusal = Findings::default();
        match channel::draft(frame, allocated, request, interconnect, channel, &mut refusal) {
            Some(draft) => drafts.push(draft),
            None if is_kept(channel) => {
                findings.extend(refusal);
                return None;
            }
            None => refusals.extend(refusal),
        }
    }
    let kept = drafts.iter().filter(|d| d.kept.is_some()).count();
    let mut search = Search { frame, drafts: &drafts, needed, taken, request, left: COMBINATIONS, diverse: false };
    let mut chosen: Vec<usize> = (0..kept).collect();
    let Some(subnets) = search.extend(&mut chosen, kept) else {
        let diverse = search.diverse;
        if diverse {
            subnets_used_up(frame, allocated, needed, findings);
        } else {
            too_few(request, interconnect, drafts.len(), refusals, findings);
        }
        return None;
    };
    let drafts: Vec<Draft<'a>> = pick(drafts, &chosen);
    // Limits and AS numbers are of attach points, so any channel tells them.
    let constraints = &drafts.first()?.constraints;
    let points = Ends { a: frame.ends.a.point, b: frame.ends.b.point };
    checks::asns(&points, constraints, findings);
    let max_prefixes = checks::prefix_limits(request.intent, constraints, findings);
    checks::enforcement(request.intent, &frame.ends.map(|_, view| view.rules.prefix_control(view.point)), findings);
    if findings.any_error() {
        return None;
    }
    for draft in &drafts {
        draft.note(frame, findings);
    }
    Some(Choice { interconnect, drafts, subnets, max_prefixes })
}

fn pick<'a>(drafts: Vec<Draft<'a>>, chosen: &[usize]) -> Vec<Draft<'a>> {
    let mut slots: Vec<Option<Draft<'a>>> = drafts.into_iter().map(Some).collect();
    chosen.iter().filter_map(|at| slots.get_mut(*at)?.take()).collect()
}

struct Search<'s, 'a> {
    frame: &'s Frame<'a>,
    drafts: &'s [Draft<'a>],
    needed: usize,
    taken: &'s Taken,
    request: &'s Request<'a>,
    left: usize,
    /// Whether enough channels on distinct devices were found, so that only subnets were missing.
    diverse: bool,
}

impl Search<'_, '_> {
    /// Extends the chosen channels by those from `from` on, until there are enough on distinct devices and each has a
    /// subnet.
    fn extend(&mut self, chosen: &mut Vec<usize>, from: usize) -> Option<Vec<Ipv4Net>> {
        if chosen.len() >= self.needed {
            self.diverse = true;
            self.left = self.left.saturating_sub(1);
            let picked: Vec<&Draft<'_>> = chosen.iter().filter_map(|at| self.drafts.get(*at)).collect();
            return subnets::assign(&picked, self.taken, self.request);
        }
        for at in from..self.drafts.len() {
            if self.left == 0 {
                return None;
            }
            if !self.distinct(chosen, at) {
                continue;
            }
            chosen.push(at);
            if let Some(subnets) = self.extend(chosen, at + 1) {
                return Some(subnets);
            }
            chosen.pop();
        }
        None
    }

    fn distinct(&self, chosen: &[usize], at: usize) -> bool {
        let Some(next) = self.drafts.get(at) else { return false };
        chosen.iter().filter_map(|at| self.drafts.get(*at)).all(|draft| {
            End::BOTH
                .into_iter()
                .all(|end| self.frame.port(draft.channel, end).device != self.frame.port(next.channel, end).device)
        })
    }
}

fn subnets_used_up(frame: &Frame<'_>, allocated: &Allocated, needed: usize, findings: &mut Findings) {
    let wish = frame.intent.wanted.ipv4_subnet;
    let mut message = format!("{needed} point-to-point subnets are not free on both attach points at once");
    for end in End::BOTH {
        let point = &frame.ends.get(end).point.id;
        let foreign = allocated.foreign_subnets.get(point).into_iter().flatten();
        let meets = |net: &Ipv4Net| wish.is_some_and(|wish| wish.contains(net) || net.contains(&wish));
        if let Some((net, by)) = foreign.into_iter().find(|(net, _)| meets(net)) {
            message = format!("{message}: {net} on {point} is in use by {by}, which is not of this Tieline");
            break;
        }
    }
    findings.used_up(Note {
        code: "subnets-used-up",
        pointer: if wish.is_some() { "/wanted/ipv4Subnet" } else { "" },
        message,
        rule: format!(
            "every channel has a subnet of its own that is free at {} and {}",
            frame.ends.a.point.id, frame.ends.b.point.id
        ),
        source: "RFC 4271 section 8; providers' address rules".to_owned(),
        resolve: "delete a connection of these attach points, or let wanted.ipv4Subnet be larger".to_owned(),
    });
}

fn too_few(
    request: &Request<'_>,
    interconnect: &Interconnect,
    usable: usize,
    refusals: Findings,
    findings: &mut Findings,
) {
    let needed = request.intent.redundancy.channels();
    let enabled = interconnect.channels.iter().filter(|c| enabled(c)).count();
    // Where channels were refused for a reason of their own, those reasons say what to do.
    let by_refusal = usable < needed && enabled >= needed && refusals.any_error();
    findings.extend(refusals);
    if by_refusal {
        return;
    }
    findings.error(Note {
        code: "too-few-channels",
        pointer: "/redundancy",
        message: format!(
            "interconnect {} has {usable} usable channels and cannot give {needed} on distinct devices at both ends",
            interconnect.id
        ),
        rule: "the channels of a connection are on distinct devices at both ends, so that one device can fail"
            .to_owned(),
        source: "interconnects in tieline.toml".to_owned(),
        resolve: "ask for less redundancy, or add or enable channels on other devices".to_owned(),
    });
}
