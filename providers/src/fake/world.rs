//! Both clouds in memory, with a clock that is passed in.

use async_trait::async_trait;
use ipnet::Ipv4Net;
use serde_json::Value;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tieline_openapi::{
    ids::InstanceId,
    v1::{Timestamp, Verb},
};

use super::state::{Pending, State, Write, plus};
use crate::{
    error::CallErrorKind,
    feature::Ipv4Pair,
    resource::{OwnerTag, ResourceKind},
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
    pub fields: Arc<Value>,
    /// The addresses that the cloud picked.
    pub picked: Option<Ipv4Pair>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was deleted.
    pub deleted_at: Option<Timestamp>,
    /// What it was configured as before it was last updated, and when that was: a lagging answer shows this.
    pub(super) before: Option<(Timestamp, Arc<Value>)>,
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

    /// From now on what is deleted is shown for so long, as gone: AWS shows virtual interfaces so.
    pub fn set_tombstones(&self, millis: u64) {
        self.state().tombstones_ms = millis;
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
            fields: Arc::new(fields),
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
        let fields = Arc::make_mut(&mut object.fields);
        (fields["host"], fields["peer"]) = (Value::Null, Value::Null);
        state.put(object);
    }

    /// Changes a field behind everybody's back.
    pub fn meddle(&self, cloud_id: &str, field: &str, to: Value) {
        let mut state = self.state();
        if let Some(mut object) = state.take(cloud_id) {
            Arc::make_mut(&mut object.fields)[field] = to;
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
