//! One account of the fake world, as an adapter.

use async_trait::async_trait;
use std::{ops::Bound, sync::Arc, time::Duration};
use tieline_openapi::{problem::ProviderDetail, v1::Verb};

use super::{
    state::{Parts, Refusal, State, Write},
    world::{FakeObject, FakeWorld, Fault, Gate, Picks, Request, WireRecord},
};
use crate::{
    api::{Accepted, CloudApi, ListPage, ListScope, Secrets, Target},
    error::{CallError, CallErrorKind},
    resource::{IdentityKind, Observed},
    rules::Rules,
};

/// One account of the fake world.
pub struct FakeApi {
    world: Arc<FakeWorld>,
    account: String,
    rules: Arc<dyn Rules>,
    gate: Option<Arc<dyn Gate>>,
}

impl FakeApi {
    /// An account by its cloud's own id.
    #[must_use]
    pub fn new(world: Arc<FakeWorld>, account: &str, rules: Arc<dyn Rules>) -> Self {
        Self { world, account: account.to_owned(), rules, gate: None }
    }

    /// The same with a gate before the socket.
    #[must_use]
    pub fn with_gate(mut self, gate: Arc<dyn Gate>) -> Self {
        self.gate = Some(gate);
        self
    }

    async fn gate(&self, what: &str) {
        if let Some(gate) = &self.gate {
            gate.pass(what).await;
        }
        self.world.deliver();
    }

    fn wrong(&self) -> bool {
        self.world.state().wrong.contains(&self.account)
    }

    async fn mutate(&self, target: &Target, verb: Verb) -> Result<Accepted, CallError> {
        let kind = target.spec.key.kind.clone();
        let instance = target.lookup.owner.instance;
        let request = Request { account: self.account.clone(), verb, kind: kind.clone(), instance };
        let basis = self.basis(target).await;
        if let Some(gate) = &self.gate {
            gate.at_socket(&request).await;
        }
        self.world.deliver();
        let fault = self.world.chaos.as_ref().map_or(Fault::None, |chaos| chaos.fault(&request));
        let now = self.world.now();
        let token = target.token.clone();
        self.world.state().wire.push(WireRecord {
            at: now,
            account: self.account.clone(),
            verb,
            kind,
            instance,
            token,
        });
        if self.wrong() {
            return Err(error(CallErrorKind::Unauthenticated, "this credential is another account's"));
        }
        let mut write = self.write(target, verb, basis);
        let standing = self.world.state().picks.get(&self.account).copied();
        write.picks = standing.or_else(|| Some(self.world.chaos.as_ref()?.picks(&request))).unwrap_or_default();
        let apply = || self.world.state().apply(&self.account, &write, now);
        let answer = |result: Result<String, Refusal>| {
            let accepted = |cloud_id| Accepted { request_id: Some(format!("req-{cloud_id}")), cloud_id };
            result.map(accepted).map_err(|refusal| error(refusal.kind, &refusal.message))
        };
        match fault {
            Fault::None => answer(apply()),
            Fault::Double => {
                let first = apply();
                // The second delivery answers nobody.
                let _ = apply();
                answer(first)
            }
            Fault::Refuse(kind) => Err(error(kind, "refused by the test")),
            Fault::Fail => Err(error(CallErrorKind::Unavailable, "the service failed")),
            Fault::LoseAnswer => {
                let _ = apply();
                std::future::pending().await
            }
            Fault::LoseRequest => std::future::pending().await,
            Fault::Late(millis) => {
                self.world.later(&self.account, write, millis);
                std::future::pending().await
            }
        }
    }

    /// A write of a part of a shared object replaces the whole object, so that is read first.
    async fn basis(&self, target: &Target) -> Parts {
        let Some(parent) = &target.spec.shared_parent else { return Parts::new() };
        self.gate("parent").await;
        self.world.state().parts(&self.account, &target.spec.key.kind, parent)
    }

    fn write(&self, target: &Target, verb: Verb, basis: Parts) -> Write {
        Write {
            verb,
            kind: target.spec.key.kind.clone(),
            owner: target.lookup.owner,
            cloud_id: target.lookup.cloud_id.clone(),
            token: target.token.clone(),
            slot: target.spec.slot.clone(),
            parent: target.spec.shared_parent.clone(),
            fields: target.spec.fields.clone(),
            identity: self.rules.identity(&target.spec.key.kind),
            basis,
            picks: Picks::default(),
        }
    }

    fn find(&self, target: &Target) -> Option<Observed> {
        let now = self.world.now();
        let mut state = self.world.state();
        let at = state.as_of(now);
        let of_kind = |o: &&FakeObject| o.account == self.account && o.kind == target.spec.key.kind;
        let shown = || state.objects.values().filter(of_kind).filter(|o| State::shows(o, at));
        let gone = || state.objects.values().filter(of_kind).filter(|o| state.shows_tombstone(o, at));
        let ours = |o: &&FakeObject| o.owner == Some(target.lookup.owner);
        let in_slot = |o: &&FakeObject| o.slot.is_some() && o.slot == target.spec.slot;
        let found = match &target.lookup.cloud_id {
            Some(id) => {
                let found = state.objects.get(id).filter(of_kind);
                found.filter(|o| State::shows(o, at) || state.shows_tombstone(o, at))
            }
            None => match self.rules.identity(&target.spec.key.kind) {
                IdentityKind::Blind => None,
                IdentityKind::Slot => shown().find(in_slot).or_else(|| gone().find(|o| in_slot(o) && ours(o))),
                IdentityKind::Named | IdentityKind::Token { .. } | IdentityKind::Tagged => {
                    shown().find(ours).or_else(|| gone().find(ours))
                }
            },
        };
        found.map(|object| state.observed(object, at))
    }
}

fn error(kind: CallErrorKind, message: &str) -> CallError {
    CallError {
        kind,
        detail: ProviderDetail {
            name: "fake".to_owned(),
            code: format!("{kind:?}"),
            message: message.to_owned(),
            request_id: Some("req-0".to_owned()),
        },
        retry_after: None,
        source: None,
    }
}

#[async_trait]
impl CloudApi for FakeApi {
    async fn identity(&self, _timeout: Duration) -> Result<String, CallError> {
        self.gate("identity").await;
        Ok(if self.wrong() { "another-account".to_owned() } else { self.account.clone() })
    }

    async fn list(&self, scope: &ListScope, page: Option<&str>) -> Result<ListPage, CallError> {
        self.gate("list").await;
        if self.wrong() {
            return Ok(ListPage::default());
        }
        let now = self.world.now();
        let mut state = self.world.state();
        let at = state.as_of(now);
        let after = page.map_or(Bound::Unbounded, Bound::Excluded);
        let mut rest = state.objects.range::<str, _>((after, Bound::Unbounded)).map(|(_, o)| o).filter(|o| {
            o.account == self.account
                && o.kind == scope.kind
                && (scope.parent.is_none() || o.parent == scope.parent)
                && (State::shows(o, at) || state.shows_tombstone(o, at))
        });
        let items: Vec<_> =
            rest.by_ref().take(self.rules.list_page() as usize).map(|o| state.observed(o, at)).collect();
        let next = rest.next().and(items.last()).map(|o| o.cloud_id.clone());
        Ok(ListPage { items, next })
    }

    async fn read(&self, target: &Target) -> Result<Option<Observed>, CallError> {
        self.gate("read").await;
        Ok(if self.wrong() { None } else { self.find(target) })
    }

    async fn create(&self, target: &Target, secrets: &Secrets) -> Result<Accepted, CallError> {
        if target.spec.secrets.iter().any(|name| !secrets.contains_key(name)) {
            return Err(error(CallErrorKind::Invalid, "a secret is missing"));
        }
        self.mutate(target, Verb::Create).await
    }

    async fn update(&self, target: &Target, _secrets: &Secrets) -> Result<Accepted, CallError> {
        self.mutate(target, Verb::Update).await
    }

    async fn delete(&self, target: &Target) -> Result<Accepted, CallError> {
        self.mutate(target, Verb::Delete).await
    }
}
