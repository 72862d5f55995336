//! Both clouds in memory, with a clock that is passed in.

use async_trait::async_trait;
use ipnet::Ipv4Net;
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tieline_openapi::{
    ids::InstanceId,
    units::{Mtu, Vlan},
    v1::{BgpState, Timestamp, Verb},
};

use super::rules::{ATTACHMENT, PEER};
use crate::{
    error::CallErrorKind,
    feature::Ipv4Pair,
    resource::{IdentityKind, Learned, Observed, OwnerTag, Presence, ResourceKind},
};

/// What goes wrong with one mutating call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// The cloud refuses, without an effect.
    Refuse(CallErrorKind),
    /// The cloud answers that it failed, without an effect.
    Fail,
    /// The call has its effect, and its answer is lost.
    LoseAnswer,
    /// The call is lost on the way: no effect, no answer.
    LoseRequest,
    /// The caller gets no answer, and the call has its effect so many milliseconds later.
    Late(u64),
    /// The network delivers the request twice.
    Double,
}

/// One mutating call on its way.
#[derive(Debug, Clone)]
pub struct Request {
    /// Through which account.
    pub account: String,
    /// What it does.
    pub verb: Verb,
    /// To which kind of resource.
    pub kind: ResourceKind,
    /// To which instance.
    pub instance: InstanceId,
}

/// What a cloud gives instead of what it is asked for, where it picks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Picks {
    /// The VLAN.
    pub vlan: Option<u16>,
    /// The MTU.
    pub mtu: Option<u16>,
    /// The subnet that the addresses are taken from, whatever the candidates are.
    pub subnet: Option<Ipv4Net>,
}

/// Decides what goes wrong.
pub trait Chaos: Send + Sync {
    /// What goes wrong with this call.
    fn fault(&self, request: &Request) -> Fault;

    /// What an attachment is given that is made for this call.
    fn picks(&self, request: &Request) -> Picks {
        let _ = request;
        Picks::default()
    }
}

/// A place before the socket at which a test can hold a call: between the engine's lease check and the wire.
#[async_trait]
pub trait Gate: Send + Sync {
    /// Returns when the call may go on.
    async fn pass(&self, what: &str);

    /// Returns when a mutating request may leave: whoever decides its fate is asked next.
    async fn at_socket(&self, request: &Request) {
        let _ = request;
        self.pass("socket").await;
    }
}

/// How slow the clouds are, in milliseconds.
#[derive(Debug, Clone, Copy, Default)]
pub struct Timing {
    /// How late reads and lists may lag behind writes: each answer is as old as the dice say, within this, so that what one
    /// has shown the next may not.
    pub lag_ms: u64,
    /// How long a new resource takes to become usable.
    pub settle_ms: u64,
}

/// One resource in a cloud.
#[derive(Debug, Clone, PartialEq)]
pub struct FakeObject {
    /// The cloud's id.
    pub cloud_id: String,
    /// In which account.
    pub account: String,
    /// What.
    pub kind: ResourceKind,
    /// Whose; none: a stranger's, or a kind that can carry nothing.
    pub owner: Option<OwnerTag>,
    /// Who asked for it, also where the cloud does not show it. None: a stranger.
    pub made_for: Option<InstanceId>,
    /// The slot that it holds.
    pub slot: Option<String>,
    /// The object that it lives in.
    pub parent: Option<String>,
    /// What it is configured as.
    pub fields: Value,
    /// The addresses that the cloud picked.
    pub picked: Option<Ipv4Pair>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was deleted.
    pub deleted_at: Option<Timestamp>,
    /// What it was configured as before it was last updated, and when that was: a lagging answer shows this.
    before: Option<(Timestamp, Value)>,
}

/// A part of a shared object that a write of another part took away, brought back or changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Harm {
    /// When.
    pub at: Timestamp,
    /// Which part.
    pub cloud_id: String,
    /// Through the write about which instance.
    pub by: InstanceId,
}

/// One mutating request as it stood on the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WireRecord {
    /// When.
    pub at: Timestamp,
    /// Through which account.
    pub account: String,
    /// What.
    pub verb: Verb,
    /// To which kind of resource.
    pub kind: ResourceKind,
    /// To which instance.
    pub instance: InstanceId,
    /// The idempotency token.
    pub token: String,
}

/// A call that will have its effect later.
#[derive(Debug, Clone)]
struct Pending {
    due: Timestamp,
    account: String,
    write: Write,
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
    pub basis: Vec<FakeObject>,
    pub picks: Picks,
}

/// Why the cloud did not take a write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub kind: CallErrorKind,
    pub message: String,
}

#[derive(Default)]
pub(super) struct State {
    pub objects: BTreeMap<String, FakeObject>,
    tokens: BTreeMap<(String, String), (String, Timestamp)>,
    pending: Vec<Pending>,
    harms: Vec<Harm>,
    pub wire: Vec<WireRecord>,
    /// Accounts whose credential is another's just now.
    pub wrong: BTreeSet<String>,
    /// What attachments are given, by account.
    pub picks: BTreeMap<String, Picks>,
    /// VLANs over which no session comes up just now.
    cut: BTreeSet<u64>,
    /// Ids by the end of a session that they are.
    ends: BTreeMap<SessionEnd, BTreeSet<String>>,
    counter: u64,
    noise: u64,
    pub timing: Timing,
}

/// One end of a BGP session: VLAN, own address, the other end's.
type SessionEnd = (u64, Ipv4Addr, Ipv4Addr);

fn session_end(object: &FakeObject) -> Option<SessionEnd> {
    let address = |field: &str| object.fields[field].as_str().and_then(|address| address.parse().ok());
    let vlan = object.fields["vlan"].as_u64().filter(|_| object.kind != ATTACHMENT)?;
    Some((vlan, address("host")?, address("peer")?))
}

/// What tells the time.
type Now = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// Both clouds.
pub struct FakeWorld {
    now: Now,
    state: Mutex<State>,
    pub(super) chaos: Option<Arc<dyn Chaos>>,
}

impl FakeWorld {
    /// An empty world. `seed` decides how late each answer is, within the lag.
    pub fn new(seed: u64, timing: Timing, now: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        let state = Mutex::new(State { noise: seed, timing, ..State::default() });
        Self { now: Arc::new(now), state, chaos: None }
    }

    /// With something that goes wrong.
    #[must_use]
    pub fn with_chaos(mut self, chaos: Arc<dyn Chaos>) -> Self {
        self.chaos = Some(chaos);
        self
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn now(&self) -> Timestamp {
        (self.now)()
    }

    /// From now on the account's credential is another's, or again the right one.
    pub fn set_wrong_credential(&self, account: &str, wrong: bool) {
        let mut state = self.state();
        if wrong {
            state.wrong.insert(account.to_owned())
        } else {
            state.wrong.remove(account)
        };
    }

    /// From now on attachments that are made in this account are given this.
    pub fn set_picks(&self, account: &str, picks: Picks) {
        self.state().picks.insert(account.to_owned(), picks);
    }

    /// From now on the clouds are this slow.
    pub fn set_timing(&self, timing: Timing) {
        self.state().timing = timing;
    }

    /// Puts a stranger's resource into a cloud.
    pub fn add_stranger(
        &self,
        account: &str,
        kind: ResourceKind,
        parent: Option<&str>,
        slot: Option<&str>,
        fields: Value,
    ) -> String {
        let now = self.now();
        let mut state = self.state();
        state.counter += 1;
        let cloud_id = format!("theirs-{}", state.counter);
        let object = FakeObject {
            cloud_id: cloud_id.clone(),
            account: account.to_owned(),
            kind,
            owner: None,
            made_for: None,
            slot: slot.map(str::to_owned),
            parent: parent.map(str::to_owned),
            fields,
            picked: None,
            created_at: now,
            deleted_at: None,
            before: None,
        };
        state.put(object);
        cloud_id
    }

    /// Somebody copies the tags of a resource onto one of their own that was made at this time.
    pub fn add_copy(&self, of: &str, made: Timestamp) {
        let mut state = self.state();
        let Some(mut object) = state.objects.get(of).cloned() else { return };
        state.counter += 1;
        object.cloud_id = format!("theirs-{}", state.counter);
        (object.made_for, object.slot, object.created_at, object.before) = (None, None, made, None);
        // It is another session, if any.
        (object.fields["host"], object.fields["peer"]) = (Value::Null, Value::Null);
        state.put(object);
    }

    /// Changes a field behind everybody's back.
    pub fn meddle(&self, cloud_id: &str, field: &str, to: Value) {
        let mut state = self.state();
        if let Some(mut object) = state.take(cloud_id) {
            object.fields[field] = to;
            state.put(object);
        }
    }

    /// Puts a resource back that was taken away.
    pub fn reappear(&self, cloud_id: &str) {
        if let Some(object) = self.state().objects.get_mut(cloud_id) {
            object.deleted_at = None;
        }
    }

    /// Cuts the wire for one VLAN, or mends it: sessions over it go down, or come up.
    pub fn cut(&self, vlan: u64, cut: bool) {
        let mut state = self.state();
        if cut {
            state.cut.insert(vlan)
        } else {
            state.cut.remove(&vlan)
        };
    }

    /// Takes a resource away behind everybody's back.
    pub fn vanish(&self, cloud_id: &str) {
        let now = self.now();
        if let Some(object) = self.state().objects.get_mut(cloud_id) {
            object.deleted_at = Some(now);
        }
    }

    /// Everything that exists now.
    #[must_use]
    pub fn live(&self) -> Vec<FakeObject> {
        self.deliver();
        self.state().objects.values().filter(|o| o.deleted_at.is_none()).cloned().collect()
    }

    /// The instance of each resource that exists now and was made for one.
    #[must_use]
    pub fn live_instances(&self) -> Vec<InstanceId> {
        self.deliver();
        let state = self.state();
        state.objects.values().filter(|o| o.deleted_at.is_none()).filter_map(|o| o.made_for).collect()
    }

    /// What strangers have now.
    #[must_use]
    pub fn strangers(&self) -> Vec<FakeObject> {
        self.live().into_iter().filter(|o| o.made_for.is_none()).collect()
    }

    /// Every mutating request so far.
    #[must_use]
    pub fn wire(&self) -> Vec<WireRecord> {
        self.state().wire.clone()
    }

    /// Whatever writes of parts of shared objects did to other parts.
    #[must_use]
    pub fn harms(&self) -> Vec<Harm> {
        self.state().harms.clone()
    }

    /// Instances of which a late create has not had its effect yet.
    #[must_use]
    pub fn late_creates(&self) -> Vec<InstanceId> {
        let state = self.state();
        let creates = state.pending.iter().filter(|p| p.write.verb == Verb::Create);
        creates.map(|p| p.write.owner.instance).collect()
    }

    /// When the next late call has its effect.
    #[must_use]
    pub fn next_late(&self) -> Option<Timestamp> {
        self.state().pending.iter().map(|p| p.due).min()
    }

    /// Lets late calls that are due have their effect.
    pub fn deliver(&self) {
        let now = self.now();
        let mut state = self.state();
        let (due, later): (Vec<_>, Vec<_>) = std::mem::take(&mut state.pending).into_iter().partition(|p| p.due <= now);
        state.pending = later;
        for pending in due {
            // Nobody waits for the answer any more.
            let _ = state.apply(&pending.account, &pending.write, pending.due);
        }
    }

    pub(super) fn later(&self, account: &str, write: Write, millis: u64) {
        let due = plus(self.now(), millis);
        self.state().pending.push(Pending { due, account: account.to_owned(), write });
    }
}

fn plus(at: Timestamp, millis: u64) -> Timestamp {
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

    fn put(&mut self, object: FakeObject) {
        if let Some(end) = session_end(&object) {
            self.ends.entry(end).or_default().insert(object.cloud_id.clone());
        }
        self.objects.insert(object.cloud_id.clone(), object);
    }

    fn take(&mut self, cloud_id: &str) -> Option<FakeObject> {
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
    pub(super) fn parts(&self, account: &str, kind: &ResourceKind, parent: &str) -> Vec<FakeObject> {
        let of = |o: &&FakeObject| {
            o.account == account && o.kind == *kind && o.parent.as_deref() == Some(parent) && o.deleted_at.is_none()
        };
        self.objects.values().filter(of).cloned().collect()
    }

    /// Every other part becomes again what it was when this write's basis was read.
    fn replace_others(&mut self, account: &str, write: &Write, own: &str, now: Timestamp) {
        let Some(parent) = &write.parent else { return };
        let by = write.owner.instance;
        let mut harmed = Vec::new();
        for part in self.parts(account, &write.kind, parent).into_iter().filter(|part| part.cloud_id != own) {
            let old = write.basis.iter().find(|old| old.cloud_id == part.cloud_id);
            if old.is_some_and(|old| old.fields == part.fields) {
                continue;
            }
            let Some(mut object) = self.take(&part.cloud_id) else { continue };
            match old {
                None => object.deleted_at = Some(now),
                Some(old) => object.fields = old.fields.clone(),
            }
            self.put(object);
            harmed.push(part.cloud_id);
        }
        for old in write.basis.iter().filter(|old| old.cloud_id != own) {
            if let Some(object) = self.objects.get_mut(&old.cloud_id).filter(|o| o.deleted_at.is_some()) {
                object.deleted_at = None;
                harmed.push(old.cloud_id.clone());
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
                    object.before = Some((now, object.fields.clone()));
                    for (name, value) in write.fields.as_object().into_iter().flatten() {
                        object.fields[name] = value.clone();
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
            fields,
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

    /// A resource as the cloud showed it at a time.
    pub(super) fn observed(&self, object: &FakeObject, at: Timestamp) -> Observed {
        let usable = at >= plus(object.created_at, self.timing.settle_ms);
        let before = object.before.as_ref().filter(|(updated, _)| at < *updated);
        let mut fields = before.map_or(&object.fields, |(_, fields)| fields).clone();
        if let Value::Object(map) = &mut fields {
            map.remove("candidates");
            // What the cloud adds by itself is no drift.
            map.insert("selfLink".to_owned(), json!(object.cloud_id));
        }
        Observed {
            kind: object.kind.clone(),
            cloud_id: object.cloud_id.clone(),
            owner: object.owner,
            provider_state: if usable { "ACTIVE" } else { "CREATING" }.to_owned(),
            presence: if usable { Presence::Usable } else { Presence::Settling },
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
