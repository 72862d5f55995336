//! What the clouds hold, and what a write does to it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    sync::Arc,
};

use ipnet::Ipv4Net;
use serde_json::{Value, json};
use tieline_openapi::{
    units::{Mtu, Vlan},
    v1::{BgpState, Timestamp, Verb},
};

use super::{
    rules::{ATTACHMENT, PEER},
    world::{FakeObject, Harm, Picks, Timing, WireRecord},
};
use crate::{
    error::CallErrorKind,
    feature::Ipv4Pair,
    resource::{IdentityKind, Learned, Observed, OwnerTag, Presence, ResourceKind},
};

/// A call that will have its effect later.
#[derive(Debug, Clone)]
pub(super) struct Pending {
    pub due: Timestamp,
    pub account: String,
    pub write: Write,
}

/// A mutating call, decoded.
#[derive(Debug, Clone)]
pub(super) struct Write {
    pub verb: Verb,
    pub kind: ResourceKind,
    pub owner: OwnerTag,
    pub cloud_id: Option<String>,
    pub token: String,
    pub slot: Option<String>,
    pub parent: Option<String>,
    pub fields: Value,
    pub identity: IdentityKind,
    /// The parts of the parent as they were read for this write: it replaces them all.
    pub basis: Parts,
    pub picks: Picks,
}

/// The parts of a shared object, by id: what each is configured as.
pub(super) type Parts = BTreeMap<Arc<str>, Arc<Value>>;

/// In which account things of which kind are in which object.
pub(super) type Shelf = (String, ResourceKind, String);

/// Why the cloud did not take a write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub kind: CallErrorKind,
    pub message: String,
}

#[derive(Default)]
pub(super) struct State {
    pub objects: BTreeMap<String, FakeObject>,
    pub tokens: BTreeMap<(String, String), (String, Timestamp)>,
    pub pending: Vec<Pending>,
    pub harms: Vec<Harm>,
    pub wire: Vec<WireRecord>,
    /// Accounts whose credential is another's just now.
    pub wrong: BTreeSet<String>,
    /// What attachments are given, by account.
    pub picks: BTreeMap<String, Picks>,
    /// VLANs over which no session comes up just now.
    pub cut: BTreeSet<u64>,
    /// Ids of what was ever made in a shared object.
    pub shelves: BTreeMap<Shelf, BTreeSet<Arc<str>>>,
    /// Ids by the end of a session that they are.
    pub ends: BTreeMap<SessionEnd, BTreeSet<String>>,
    pub counter: u64,
    pub noise: u64,
    pub timing: Timing,
    /// How long what was deleted is still shown, as gone.
    pub tombstones_ms: u64,
}

/// One end of a BGP session: VLAN, own address, the other end's.
pub(super) type SessionEnd = (u64, Ipv4Addr, Ipv4Addr);

fn session_end(object: &FakeObject) -> Option<SessionEnd> {
    let address = |field: &str| object.fields[field].as_str().and_then(|address| address.parse().ok());
    let vlan = object.fields["vlan"].as_u64().filter(|_| object.kind != ATTACHMENT)?;
    Some((vlan, address("host")?, address("peer")?))
}

pub(super) fn plus(at: Timestamp, millis: u64) -> Timestamp {
    let millis = i64::try_from(millis).unwrap_or(i64::MAX);
    Timestamp::from_millisecond(at.as_millisecond().saturating_add(millis)).unwrap_or(Timestamp::MAX)
}

fn first_hosts(subnet: Ipv4Net) -> Option<Ipv4Pair> {
    let mut hosts = subnet.hosts();
    Some(Ipv4Pair { subnet, host: hosts.next()?, peer: hosts.next()? })
}

impl State {
    /// SplitMix64 (Steele, Lea, Flood 2014): a seed replays a run.
    fn draw(&mut self, bound: u64) -> u64 {
        self.noise = self.noise.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.noise;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        if bound == 0 { 0 } else { (z ^ (z >> 31)) % bound }
    }

    pub(super) fn put(&mut self, object: FakeObject) {
        if let Some(parent) = &object.parent {
            let shelf = (object.account.clone(), object.kind.clone(), parent.clone());
            self.shelves.entry(shelf).or_default().insert(object.cloud_id.as_str().into());
        }
        if let Some(end) = session_end(&object) {
            self.ends.entry(end).or_default().insert(object.cloud_id.clone());
        }
        self.objects.insert(object.cloud_id.clone(), object);
    }

    pub(super) fn take(&mut self, cloud_id: &str) -> Option<FakeObject> {
        let object = self.objects.remove(cloud_id)?;
        if let Some(ids) = session_end(&object).and_then(|end| self.ends.get_mut(&end)) {
            ids.remove(cloud_id);
        }
        Some(object)
    }

    /// Has a write's effect.
    pub(super) fn apply(&mut self, account: &str, write: &Write, now: Timestamp) -> Result<String, Refusal> {
        let done = self.apply_one(account, write, now)?;
        self.replace_others(account, write, &done, now);
        Ok(done)
    }

    /// The parts of an object that such writes replace as a whole.
    pub(super) fn parts(&self, account: &str, kind: &ResourceKind, parent: &str) -> Parts {
        let shelf = self.shelves.get(&(account.to_owned(), kind.clone(), parent.to_owned()));
        let lives = |id: &Arc<str>| {
            let object = self.objects.get(id.as_ref()).filter(|o| o.deleted_at.is_none())?;
            Some((Arc::clone(id), Arc::clone(&object.fields)))
        };
        shelf.into_iter().flatten().filter_map(lives).collect()
    }

    /// Every other part becomes again what it was when this write's basis was read.
    fn replace_others(&mut self, account: &str, write: &Write, own: &str, now: Timestamp) {
        let Some(parent) = &write.parent else { return };
        let by = write.owner.instance;
        let mut harmed = Vec::new();
        for (id, fields) in self.parts(account, &write.kind, parent).into_iter().filter(|(id, _)| id.as_ref() != own) {
            let old = write.basis.get(&id);
            if old.is_some_and(|old| Arc::ptr_eq(old, &fields) || *old == fields) {
                continue;
            }
            let Some(mut object) = self.take(&id) else { continue };
            match old {
                None => object.deleted_at = Some(now),
                Some(old) => object.fields = Arc::clone(old),
            }
            self.put(object);
            harmed.push(id.to_string());
        }
        for id in write.basis.keys().filter(|id| id.as_ref() != own) {
            if let Some(object) = self.objects.get_mut(id.as_ref()).filter(|o| o.deleted_at.is_some()) {
                object.deleted_at = None;
                harmed.push(id.to_string());
            }
        }
        self.harms.extend(harmed.into_iter().map(|cloud_id| Harm { at: now, cloud_id, by }));
    }

    fn apply_one(&mut self, account: &str, write: &Write, now: Timestamp) -> Result<String, Refusal> {
        match write.verb {
            Verb::Create => self.create(account, write, now),
            Verb::Update => {
                let id = self.find_live(account, write)?;
                if let Some(mut object) = self.take(&id) {
                    object.before = Some((now, Arc::clone(&object.fields)));
                    let fields = Arc::make_mut(&mut object.fields);
                    for (name, value) in write.fields.as_object().into_iter().flatten() {
                        fields[name] = value.clone();
                    }
                    self.put(object);
                }
                Ok(id)
            }
            Verb::Delete => {
                let id = self.find_live(account, write)?;
                if let Some(blocker) = self.blocker(&id) {
                    let message = format!("{blocker} still uses it");
                    return Err(Refusal { kind: CallErrorKind::Invalid, message });
                }
                if let Some(object) = self.objects.get_mut(&id) {
                    object.deleted_at = Some(now);
                }
                Ok(id)
            }
        }
    }

    /// An attachment cannot go while a peer of its VLAN is there, as in a Cloud Router.
    fn blocker(&self, id: &str) -> Option<String> {
        let object = self.objects.get(id).filter(|o| o.kind == ATTACHMENT)?;
        let uses = |o: &&FakeObject| {
            o.deleted_at.is_none()
                && o.account == object.account
                && o.kind == PEER
                && o.made_for.is_some()
                && o.fields["vlan"] == object.fields["vlan"]
                && o.fields["port"] == object.fields["port"]
        };
        // A twin keeps the VLAN in use after the other is gone.
        let twin = self.objects.values().any(|o| {
            o.cloud_id != object.cloud_id
                && o.deleted_at.is_none()
                && o.kind == ATTACHMENT
                && o.fields["vlan"] == object.fields["vlan"]
                && o.fields["port"] == object.fields["port"]
        });
        self.objects.values().find(uses).filter(|_| !twin).map(|o| o.cloud_id.clone())
    }

    fn find_live(&self, account: &str, write: &Write) -> Result<String, Refusal> {
        let lives = |o: &&FakeObject| o.account == account && o.deleted_at.is_none() && o.kind == write.kind;
        let found = match &write.cloud_id {
            Some(id) => self.objects.get(id).filter(lives),
            None => self.objects.values().find(|o| lives(o) && o.owner == Some(write.owner)),
        };
        found
            .map(|o| o.cloud_id.clone())
            .ok_or_else(|| Refusal { kind: CallErrorKind::NotFound, message: "there is no such resource".to_owned() })
    }

    fn create(&mut self, account: &str, write: &Write, now: Timestamp) -> Result<String, Refusal> {
        let taken = |message: String| Err(Refusal { kind: CallErrorKind::SlotTaken, message });
        let mut cloud_id = format!("{}/{}", write.kind, write.owner.name());
        match write.identity {
            IdentityKind::Named => {
                if self.objects.get(&cloud_id).is_some_and(|o| o.deleted_at.is_none()) {
                    return taken(format!("{cloud_id} exists already"));
                }
            }
            IdentityKind::Slot => {
                let holds = |o: &FakeObject| {
                    o.account == account && o.deleted_at.is_none() && o.kind == write.kind && o.slot == write.slot
                };
                if self.objects.values().any(holds) {
                    return taken(format!("slot {} is taken", write.slot.as_deref().unwrap_or("")));
                }
            }
            IdentityKind::Token { lifetime_ms } => {
                let key = (account.to_owned(), write.token.clone());
                if let Some((id, since)) = self.tokens.get(&key)
                    && now < plus(*since, lifetime_ms)
                {
                    return Ok(id.clone());
                }
            }
            IdentityKind::Tagged | IdentityKind::Blind => {}
        }
        if write.identity != IdentityKind::Named {
            self.counter += 1;
            cloud_id = format!("{}/{}", write.kind, self.counter);
        }
        if let IdentityKind::Token { .. } = write.identity {
            self.tokens.insert((account.to_owned(), write.token.clone()), (cloud_id.clone(), now));
        }
        let mut fields = write.fields.clone();
        let mut picked = None;
        if write.kind == ATTACHMENT {
            let picks = write.picks;
            for (field, value) in [("vlan", picks.vlan), ("mtu", picks.mtu)] {
                if let Some(value) = value {
                    fields[field] = json!(value);
                }
            }
            picked = picks.subnet.map_or_else(|| self.pick(&fields), first_hosts);
        }
        let object = FakeObject {
            cloud_id: cloud_id.clone(),
            account: account.to_owned(),
            kind: write.kind.clone(),
            owner: (write.identity != IdentityKind::Blind).then_some(write.owner),
            made_for: Some(write.owner.instance),
            slot: write.slot.clone(),
            parent: write.parent.clone(),
            fields: Arc::new(fields),
            picked,
            created_at: now,
            deleted_at: None,
            before: None,
        };
        self.put(object);
        Ok(cloud_id)
    }

    /// The first two hosts of one of the candidates.
    fn pick(&mut self, fields: &Value) -> Option<Ipv4Pair> {
        let candidates: Vec<Ipv4Net> = serde_json::from_value(fields["candidates"].clone()).ok()?;
        let n = self.draw(candidates.len() as u64);
        first_hosts(*candidates.get(usize::try_from(n).ok()?)?)
    }

    /// As of when an answer is that is given now: as a replica of the cloud's that lags behind would give it.
    pub(super) fn as_of(&mut self, now: Timestamp) -> Timestamp {
        let lag = i64::try_from(self.draw(self.timing.lag_ms.saturating_add(1))).unwrap_or(0);
        Timestamp::from_millisecond(now.as_millisecond().saturating_sub(lag)).unwrap_or(now)
    }

    /// Whether it was there at a time.
    pub(super) fn shows(object: &FakeObject, at: Timestamp) -> bool {
        at >= object.created_at && object.deleted_at.is_none_or(|gone| at < gone)
    }

    /// Whether it had gone by that time and was still shown, as gone. Parts of others leave nothing.
    pub(super) fn shows_tombstone(&self, object: &FakeObject, at: Timestamp) -> bool {
        let until = |gone| plus(gone, self.tombstones_ms);
        object.parent.is_none() && object.deleted_at.is_some_and(|gone| gone <= at && at < until(gone))
    }

    /// A resource as the cloud showed it at a time.
    pub(super) fn observed(&self, object: &FakeObject, at: Timestamp) -> Observed {
        let (provider_state, presence) = if object.deleted_at.is_some_and(|gone| gone <= at) {
            ("DELETED", Presence::Gone)
        } else if at >= plus(object.created_at, self.timing.settle_ms) {
            ("ACTIVE", Presence::Usable)
        } else {
            ("CREATING", Presence::Settling)
        };
        let before = object.before.as_ref().filter(|(updated, _)| at < *updated);
        let mut fields = Value::clone(before.map_or(&object.fields, |(_, fields)| fields));
        if let Value::Object(map) = &mut fields {
            map.remove("candidates");
            // What the cloud adds by itself is no drift.
            map.insert("selfLink".to_owned(), json!(object.cloud_id));
        }
        Observed {
            kind: object.kind.clone(),
            cloud_id: object.cloud_id.clone(),
            owner: object.owner,
            provider_state: provider_state.to_owned(),
            presence,
            bgp: (object.kind != ATTACHMENT).then(|| self.session(object)),
            bfd: None,
            learned: Learned {
                ipv4: object.picked,
                vlan: fields["vlan"].as_u64().and_then(|vlan| Vlan::try_from(vlan).ok()),
                mtu: fields["mtu"].as_u64().and_then(|mtu| Mtu::try_from(mtu).ok()),
            },
            fields,
            created_at: Some(object.created_at),
        }
    }

    /// A session is up where the other cloud has its mirror image on the same VLAN.
    fn session(&self, object: &FakeObject) -> BgpState {
        let mirrored = session_end(object).is_some_and(|(vlan, host, peer)| {
            let others = self.ends.get(&(vlan, peer, host)).into_iter().flatten().filter_map(|id| self.objects.get(id));
            let mut others = others.filter(|o| o.deleted_at.is_none() && o.account != object.account);
            others.next().is_some()
        });
        let cut = object.fields["vlan"].as_u64().is_some_and(|vlan| self.cut.contains(&vlan));
        if mirrored && !cut { BgpState::Established } else { BgpState::Active }
    }
}
