//! Which point-to-point subnets the channels get: disjoint from everything in use on both attach points, and from each
//! other.

use ipnet::{IpNet, Ipv4Net};
use std::{collections::BTreeMap, ops::RangeInclusive};
use tieline_openapi::v1::End;

use super::{Allocated, Request, channel::Draft, frame::Frame};

/// Subnets that are looked at per channel and length. A connection has at most four channels, and one subnet of another
/// channel can spoil at most one of the same length, so where all channels take the same lengths more would never help.
const CANDIDATES: usize = 16;

/// The store's grid holds /24 to /31.
pub(super) const LENGTHS: RangeInclusive<u8> = 24..=31;

/// Addresses that are taken, as inclusive ranges, sorted and disjoint.
#[derive(Debug, Clone, Default)]
pub(super) struct Taken(Vec<(u32, u32)>);

impl Taken {
    /// What no channel of this connection may have: subnets of others on either attach point, and what the ends announce.
    pub(super) fn of(frame: &Frame<'_>, allocated: &Allocated) -> Self {
        let points = || End::BOTH.into_iter().map(|end| &frame.ends.get(end).point.id);
        let ours = points().filter_map(|point| allocated.subnets.get(point)).flatten();
        let others = points().filter_map(|point| allocated.foreign_subnets.get(point)).flat_map(BTreeMap::keys);
        let held = ours.chain(others).copied();
        let announced = End::BOTH.into_iter().flat_map(|end| &frame.intent.end(end).advertised_prefixes).filter_map(
            |net| match net {
                // A default route covers everything and takes nothing.
                IpNet::V4(net) if net.prefix_len() > 0 => Some(*net),
                IpNet::V4(_) | IpNet::V6(_) => None,
            },
        );
        Self::merged(held.chain(announced).map(range).collect())
    }

    fn with<'n>(&self, nets: impl IntoIterator<Item = &'n Ipv4Net>) -> Self {
        let mut ranges = self.0.clone();
        ranges.extend(nets.into_iter().copied().map(range));
        Self::merged(ranges)
    }

    fn merged(mut ranges: Vec<(u32, u32)>) -> Self {
        ranges.sort_unstable();
        ranges.dedup_by(|next, last| {
            let touching = next.0 <= last.1;
            if touching {
                last.1 = last.1.max(next.1);
            }
            touching
        });
        Self(ranges)
    }
}

fn range(net: Ipv4Net) -> (u32, u32) {
    (net.network().to_bits(), net.broadcast().to_bits())
}

/// The lowest free subnets of one length inside a pool, at most `limit`.
fn free(pool: &[Ipv4Net], length: u8, taken: &Taken, limit: usize) -> Vec<Ipv4Net> {
    let size = 1u64 << (32 - u32::from(length.min(32)));
    let mut found = Vec::new();
    for net in pool.iter().filter(|net| net.prefix_len() <= length) {
        let (start, end) = range(*net);
        let (mut at, end) = (u64::from(start), u64::from(end));
        let mut next = taken.0.partition_point(|(_, last)| u64::from(*last) < at);
        while at + size - 1 <= end && found.len() < limit {
            while taken.0.get(next).is_some_and(|(_, last)| u64::from(*last) < at) {
                next += 1;
            }
            match taken.0.get(next) {
                Some((first, last)) if u64::from(*first) < at + size => {
                    at = (u64::from(*last) + 1).next_multiple_of(size);
                }
                _ => {
                    let network = u32::try_from(at).ok().and_then(|bits| Ipv4Net::new(bits.into(), length).ok());
                    found.extend(network.filter(|network| !found.contains(network)));
                    at += size;
                }
            }
        }
    }
    found
}

/// The subnets that are inside one of each list, in order of the first.
pub(super) fn intersect(ours: &[Ipv4Net], theirs: &[Ipv4Net]) -> Vec<Ipv4Net> {
    let mut both = Vec::new();
    for x in ours {
        for y in theirs {
            let inner = if x.contains(y) {
                *y
            } else if y.contains(x) {
                *x
            } else {
                continue;
            };
            if !both.contains(&inner.trunc()) {
                both.push(inner.trunc());
            }
        }
    }
    both
}

/// One subnet a channel, in the channels' order; none if there are not enough. A kept channel keeps its own.
pub(super) fn assign(drafts: &[&Draft<'_>], taken: &Taken, request: &Request<'_>) -> Option<Vec<Ipv4Net>> {
    let kept: Vec<Ipv4Net> =
        drafts.iter().filter_map(|d| d.kept).flat_map(|kept| kept.reserved_subnets.iter().copied()).collect();
    let mut open: Vec<(usize, Vec<Ipv4Net>)> = drafts
        .iter()
        .enumerate()
        .filter(|(_, draft)| draft.kept.is_none())
        .map(|(at, draft)| (at, candidates(draft, &taken.with(&kept), request)))
        .collect();
    // The channel with the fewest ways goes first, so that a dead end shows at once.
    open.sort_by_key(|(at, candidates)| (candidates.len(), *at));
    let mut chosen = Vec::new();
    if !place(&open, &mut chosen) {
        return None;
    }
    let by_channel = |at: usize| {
        let fresh = open.iter().zip(&chosen).find(|((channel, _), _)| *channel == at).map(|(_, subnet)| *subnet);
        fresh.or_else(|| drafts.get(at)?.kept?.reserved_subnets.first().copied())
    };
    (0..drafts.len()).map(by_channel).collect()
}

/// The free subnets of a channel by itself, the preferred length first.
fn candidates(draft: &Draft<'_>, taken: &Taken, request: &Request<'_>) -> Vec<Ipv4Net> {
    let refused = request.refused.get(&draft.channel.id).map(|refused| &refused.subnets);
    let own = End::BOTH.into_iter().flat_map(|end| {
        let constraints = draft.constraints.get(end);
        constraints.ipv4_exclude.value.iter().chain(&constraints.ipv4_in_use)
    });
    let taken = taken.with(own.chain(refused.into_iter().flatten()));
    draft.lengths.iter().flat_map(|length| free(&draft.pool, *length, &taken, CANDIDATES)).collect()
}

fn place(open: &[(usize, Vec<Ipv4Net>)], chosen: &mut Vec<Ipv4Net>) -> bool {
    let Some((_, candidates)) = open.get(chosen.len()) else { return true };
    for candidate in candidates {
        if chosen.iter().any(|other| other.contains(candidate) || candidate.contains(other)) {
            continue;
        }
        chosen.push(*candidate);
        if place(open, chosen) {
            return true;
        }
        chosen.pop();
    }
    false
}
