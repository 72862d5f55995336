//! The peer has answered, or has not.

use std::collections::BTreeSet;

use tieline_openapi::coordinator::{ResourceId, Timestamp};
use uuid::Uuid;

use super::{
    serve::{Refusal, Reply, SeenFeature},
    state::{Attempts, Book, Change, FeatureRow, Local, Place, Reason, Remote, Role, Row, Theirs, put},
    step::Ask,
};

/// The next of a row of request ids. The first is random, so no other row meets it.
pub(super) fn next(id: Uuid) -> Uuid {
    Uuid::from_u128(id.as_u128().wrapping_add(1 << 64))
}

/// Whether a refusal says anything of what was asked: who is not known, asks too often or finds a broken server learns
/// nothing.
pub(super) const fn is_definite(refusal: &Refusal) -> bool {
    matches!(refusal.status, 400..500) && !matches!(refusal.status, 401 | 403 | 408 | 429)
}

impl Book {
    /// What an answer changes; `None` is an answer that was lost. It may come at any time, twice, or long after something
    /// else was learned.
    #[must_use]
    pub fn absorb(&self, place: &Place, ask: &Ask, reply: Option<&Reply>, now: Timestamp) -> Vec<Change> {
        let (Some(row), Some(reply)) = (self.rows.get(place), reply) else { return Vec::new() };
        let refusal = if let Reply::Refused(refusal) = reply { Some(refusal) } else { None };
        if refusal.is_some_and(|refusal| !is_definite(refusal)) {
            return Vec::new();
        }
        let mut next = row.clone();
        match ask {
            Ask::Confirm { .. } => confirmed(&mut next, *reply == Reply::Key(true), now),
            Ask::Create { request_id, .. } if *request_id == row.requests.0 => self.created(&mut next, refusal, now),
            Ask::Look { as_of, .. } => match reply {
                Reply::Seen { bandwidth_mbps, features, .. } => {
                    self.seen(&mut next, *as_of, *bandwidth_mbps, features, now)
                }
                Reply::Refused(_) if refusal.is_some_and(|r| r.status == 404) => {
                    if self.missing(&mut next, *as_of, now) {
                        return self.elsewhere(next, now);
                    }
                }
                Reply::Done | Reply::Key(_) | Reply::Guidance(_) | Reply::Refused(_) => return Vec::new(),
            },
            Ask::Resize { request_id, to_mbps, .. } if row.resize.is_some_and(|r| r.request_id == *request_id) => {
                next.resize = None;
                if refusal.is_none() {
                    next.bandwidth_mbps = *to_mbps;
                    next.attempts = Attempts::default();
                }
            }
            Ask::Delete { .. } if row.leaving.is_some() => match refusal {
                Some(refusal) if !matches!(refusal.status, 404 | 410) => return Vec::new(),
                _ => {
                    next.remote = Remote::Absent { since: now };
                    next.attempts = Attempts::default();
                }
            },
            Ask::Guidance { .. } => match reply {
                Reply::Guidance(guidance) => {
                    next.guidance = Some(guidance.clone());
                    next.attempts = Attempts::default();
                }
                Reply::Done | Reply::Key(_) | Reply::Seen { .. } | Reply::Refused(_) => next.look_again(now),
            },
            Ask::CreateFeature { channel, feature, .. } => self.proposed(&mut next, channel, feature, refusal, now),
            Ask::DeleteFeature { feature, .. } => {
                next.stray.retain(|(id, _)| id != feature);
                next.attempts = Attempts::default();
            }
            Ask::Notify { shown, .. } => match refusal {
                None => {
                    next.shown.1 = next.shown.1.max(*shown);
                    next.attempts = Attempts::default();
                }
                Some(_) => next.look_again(now),
            },
            Ask::Create { .. } | Ask::Resize { .. } | Ask::Delete { .. } => return Vec::new(),
        }
        if next == *row { Vec::new() } else { vec![put(next)] }
    }

    fn created(&self, row: &mut Row, refusal: Option<&Refusal>, now: Timestamp) {
        if row.role != Role::Negotiator || row.remote != Remote::Unknown {
            return;
        }
        match refusal.map(|refusal| refusal.status) {
            None => {
                row.remote = Remote::Present;
                row.attempts = Attempts::default();
                row.look_again(now);
                // A wish of the peer that goes first may have taken our room in the meantime.
                if row.leaving.is_none() && row.held_mbps() > self.free_mbps(&row.place, true) {
                    row.leaving = Some(Reason::Displaced);
                }
            }
            // It is there already, or there is no room: a look tells which.
            Some(409) => {
                row.refused.insert(row.place.interconnect.clone());
                row.look_again(now);
            }
            // The peer does not provision in our place, so we do.
            Some(400) if !row.drives => {
                row.drives = true;
                row.requests.0 = next(row.requests.0);
            }
            Some(_) => {
                row.remote = Remote::Absent { since: now };
                row.leaving = row.leaving.or(Some(Reason::Refused));
            }
        }
    }

    /// The peer does not have it. True if it is to be tried elsewhere.
    fn missing(&self, row: &mut Row, as_of: u64, now: Timestamp) -> bool {
        // Something was learned since the look was asked: it may be older than that.
        if as_of != row.version {
            return false;
        }
        match row.remote {
            Remote::Unknown if row.leaving.is_none() => {
                let refused = row.refused.contains(&row.place.interconnect);
                // It is to be created here.
                row.looked = !refused;
                refused
            }
            Remote::Unknown | Remote::Absent { .. } => false,
            Remote::Present => {
                row.remote = Remote::Absent { since: now };
                false
            }
        }
    }

    /// The same connection on another interconnect: refused here, it was never there.
    fn elsewhere(&self, mut row: Row, now: Timestamp) -> Vec<Change> {
        let old = Change::Remove { place: row.place.clone(), version: row.version };
        let mut avoided: BTreeSet<ResourceId> = row.refused.clone();
        if let super::Source::Connection(from) = &row.source {
            avoided.insert(from.interconnect.clone());
        }
        let Some(interconnect) = self.roomiest(&row.place.environment, row.held_mbps(), &avoided) else {
            row.remote = Remote::Absent { since: now };
            row.leaving = Some(Reason::NoRoom);
            return vec![put(row)];
        };
        row.place.interconnect = interconnect;
        row.version = 0;
        row.requests.0 = next(row.requests.0);
        row.look_again(now);
        if self.rows.contains_key(&row.place) || self.tombstones.contains_key(&row.place) {
            // The name is used up there.
            return Vec::new();
        }
        vec![old, put(row)]
    }

    /// The open interconnect of an environment with most free bandwidth, if it is enough.
    pub(super) fn roomiest(
        &self,
        environment: &ResourceId,
        mbps: u32,
        avoided: &BTreeSet<ResourceId>,
    ) -> Option<ResourceId> {
        let interconnects = &self.terms.environments.get(environment)?.interconnects;
        let open = interconnects.iter().filter(|(id, terms)| terms.open && !avoided.contains(*id));
        let free = |id: &ResourceId| {
            // No connection has an id of an interconnect's name in front, so nothing is left out of the sum.
            self.free_mbps(
                &Place { environment: environment.clone(), interconnect: id.clone(), connection: id.clone() },
                false,
            )
        };
        let best = open.map(|(id, _)| (free(id), id)).max_by(|a, b| a.0.cmp(&b.0).then(b.1.cmp(a.1)));
        best.filter(|(free, _)| *free >= mbps).map(|(_, id)| id.clone())
    }

    fn seen(&self, row: &mut Row, as_of: u64, bandwidth_mbps: u32, features: &[SeenFeature], now: Timestamp) {
        if row.leaving.is_some() {
            if row.remote == Remote::Unknown {
                row.remote = Remote::Present;
            }
            return;
        }
        let exact = as_of == row.version;
        if row.remote == Remote::Unknown || (exact && row.remote != Remote::Present) {
            row.refused.remove(&row.place.interconnect);
            row.remote = Remote::Present;
            row.attempts = Attempts::default();
            if row.held_mbps() > self.free_mbps(&row.place, true) {
                row.leaving = Some(Reason::Displaced);
                row.look_again(now);
            }
        }
        // Who drives says what holds.
        if exact && row.drives && row.resize.is_none() && bandwidth_mbps != row.bandwidth_mbps {
            let request_id = next(Uuid::from_u128(row.requests.1.as_u128() ^ u128::from(row.version) << 80));
            row.resize = Some(super::Resize { to_mbps: row.bandwidth_mbps, request_id });
        }
        row.seen_at = Some(now);
        row.guidance = None;
        row.avoid.clear();
        row.theirs_ever_final |= features.iter().any(|feature| feature.is_final);
        for feature in features {
            self.merge(row, as_of, feature);
        }
        if row.drives {
            let shown: BTreeSet<&ResourceId> = features.iter().map(|feature| &feature.id).collect();
            for feature in row.features.values_mut() {
                let known = feature.theirs != Theirs::Proposed && feature.since_version <= as_of;
                if known && !shown.contains(&feature.id) {
                    // It went at the peer: made anew once it is gone here.
                    feature.closing = true;
                }
            }
            row.drop_closed();
        }
        row.looked = self.has_more_to_ask(row);
    }

    /// Whether something is to be asked of the peer beside looks.
    fn has_more_to_ask(&self, row: &Row) -> bool {
        let interconnect = self.terms.interconnect(&row.place);
        let missing =
            || interconnect.is_some_and(|i| i.usable().any(|(channel, _)| !row.features.contains_key(channel)));
        let proposed = || row.features.values().any(|f| f.theirs == Theirs::Proposed && !f.closing);
        let (shown, told) = row.shown;
        shown > told || row.resize.is_some() || !row.stray.is_empty() || (row.drives && (missing() || proposed()))
    }

    fn merge(&self, row: &mut Row, as_of: u64, seen: &SeenFeature) {
        let theirs = if seen.is_final { Theirs::Final } else { Theirs::Pending };
        let version = row.version;
        match row.features.get_mut(&seen.channel) {
            Some(ours) if ours.id == seen.id && ours.config == seen.config => {
                if ours.theirs == Theirs::Proposed {
                    ours.since_version = version + 1;
                }
                ours.theirs = theirs;
            }
            Some(ours) if row.drives && ours.since_version <= as_of => stray(row, &seen.id),
            Some(_) => {}
            None if row.drives && as_of == version && !row.stray.iter().any(|(id, _)| *id == seen.id) => {
                let terms = self.terms.interconnect(&row.place).and_then(|i| i.channels.get(&seen.channel));
                let fits = terms.is_some_and(|terms| self.breaks(terms, &seen.config).is_none())
                    && self.is_free(&row.place, &seen.channel, &seen.config, false);
                if !fits {
                    return stray(row, &seen.id);
                }
                // Only the peer has it: our side is completed by what was proposed.
                let feature = FeatureRow {
                    id: seen.id.clone(),
                    request_id: next(row.requests.0),
                    config: seen.config.clone(),
                    ours: Local::Reserved,
                    theirs,
                    closing: false,
                    since_version: version + 1,
                };
                row.features.insert(seen.channel.clone(), feature);
            }
            None => {}
        }
    }

    fn proposed(
        &self,
        row: &mut Row,
        channel: &ResourceId,
        id: &ResourceId,
        refusal: Option<&Refusal>,
        now: Timestamp,
    ) {
        let version = row.version;
        let (place, firm) = (row.place.clone(), true);
        let Some(feature) = row.features.get_mut(channel).filter(|f| f.id == *id && f.theirs == Theirs::Proposed)
        else {
            return;
        };
        if refusal.is_none() {
            feature.theirs = Theirs::Pending;
            feature.since_version = version + 1;
            row.attempts = Attempts::default();
            if !self.is_free(&place, channel, &feature.config, firm) {
                // A proposal of the peer that goes first took it in the meantime.
                feature.closing = true;
                stray(row, id);
                row.drop_closed();
            }
            return;
        }
        // Refused whole: this channel starts again, from fresh guidance and with other parameters.
        let tried = feature.config.ipv4.as_ref().map(|hosts| (feature.config.vlan.get(), hosts.subnet));
        row.features.remove(channel);
        row.avoid.entry(channel.clone()).or_default().extend(tried);
        row.guidance = None;
        if refusal.is_some_and(|refusal| refusal.status != 409) {
            row.look_again(now);
        }
    }
}

fn confirmed(row: &mut Row, valid: bool, now: Timestamp) {
    if row.remote != Remote::Unknown || row.confirmed {
        return;
    }
    if valid {
        row.confirmed = true;
        row.attempts = Attempts::default();
    } else if row.leaving.is_none() {
        // Not valid: we must not go on, and drop what we made (the specification's rule).
        row.remote = Remote::Absent { since: now };
        row.leaving = Some(Reason::KeyInvalid);
    }
}

/// A feature that is only at the peer is to be deleted there.
fn stray(row: &mut Row, id: &ResourceId) {
    if !row.stray.iter().any(|(known, _)| known == id) {
        let request_id = Uuid::from_u128(row.requests.0.as_u128() ^ (u128::from(row.version) << 64 | 1));
        row.stray.push((id.clone(), request_id));
    }
}
