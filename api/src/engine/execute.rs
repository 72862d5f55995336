//! One mutating call: ledger row, lease check, call, verdict.

use std::{
    sync::{PoisonError, atomic::Ordering},
    time::Duration,
};

use tieline_openapi::{
    ids::{InstanceId, IssueId, ProviderCallId},
    v1::{Issue, IssueState, Severity, Verb},
};
use tieline_providers::{
    Accepted, CallError, CallErrorKind, CloudApi, IdentityKind, Observed, Outcome, Secrets, Target,
};

use super::{
    Engine, detail,
    draft::Draft,
    failpoints, ledger,
    limits::Lane,
    shared::{Guarded, Taken, lease_name},
};
use crate::{
    plan::step::{ProviderCall, RuleBook, Seen, Trouble, TroubleCode, Verdict, kind_name, plus},
    store::{EngineWrite, StoreError},
};

/// How a call ended for the pass.
pub(super) enum Did {
    /// It was sent, whatever came of it.
    Sent,
    /// It was not: come back later.
    NotNow,
    /// The lease is too short for another call.
    LeaseShort,
}

impl Engine {
    /// What remains of a claim.
    pub(super) fn remaining(&self, draft: &Draft) -> Duration {
        let end = draft.claimed_at + Duration::from_millis(draft.claim.lease_ms);
        end.saturating_sub(self.clock.monotonic())
    }

    /// Whether a call that begins now ends before the lease does, its verdict included.
    fn fits(&self, remaining: Duration) -> bool {
        remaining > self.call_timeout() + Duration::from_millis(self.config.lease_ms / 20)
    }

    pub(super) fn lease_fits(&self, draft: &Draft) -> bool {
        self.fits(self.remaining(draft))
    }

    /// Does one mutating call about an instance.
    pub(super) async fn execute(&self, draft: &mut Draft, id: InstanceId, verb: Verb) -> Result<Did, StoreError> {
        let Some(instance) = draft.instance(id).cloned() else { return Ok(Did::NotNow) };
        let Some(cloud) = self.clouds.get(&instance.account_id) else {
            let why = detail("tieline", "noClient", format!("there is no client for account {}", instance.account_id));
            draft.errors.insert(id, why);
            return Ok(Did::NotNow);
        };
        if !draft.confirmed.contains(&instance.account_id) {
            if let Err(blind) = self.confirm_identity(&instance.account_id, Lane::User).await {
                tracing::warn!(account = %instance.account_id, why = %blind, "nothing is changed in this account");
                draft.errors.insert(id, blind.detail());
                return Ok(Did::NotNow);
            }
            draft.confirmed.insert(instance.account_id.clone());
        }
        let spec = draft.spec(&instance);
        let Some(secrets) = self.secrets(draft, id, verb) else { return Ok(Did::NotNow) };
        let target = self.target(&instance, spec);
        let guarded = match &target.spec.shared_parent {
            None => None,
            Some(parent) => match self.take_shared(&lease_name(&instance.account_id, parent)).await? {
                Taken::Later => return Ok(Did::NotNow),
                Taken::Held(guarded) => {
                    self.failpoints.hit(failpoints::SHARED_TAKEN).await;
                    Some(guarded)
                }
            },
        };
        let before = match &guarded {
            None => Vec::new(),
            Some(_) => self.others_in_parent(&instance.account_id, &target).await,
        };
        self.limits.take(&instance.account_id, Lane::User).await;
        let sending = Sending { id, verb, target: &target, guarded: guarded.as_ref() };
        let answered = self.call(draft, cloud.as_ref(), &sending, &secrets).await?;
        if let Some(guarded) = guarded {
            let sent = matches!(answered, Answered::Yes | Answered::Perhaps);
            if sent {
                let after = self.others_in_parent(&instance.account_id, &target).await;
                self.compare(draft, &target, &before, &after).await?;
                self.failpoints.hit(failpoints::SHARED_COMPARED).await;
            }
            self.give_back(guarded, !matches!(answered, Answered::Perhaps)).await?;
            self.failpoints.hit(failpoints::SHARED_RELEASED).await;
        }
        Ok(match answered {
            Answered::Yes | Answered::Perhaps => Did::Sent,
            Answered::NotSent => Did::LeaseShort,
        })
    }

    async fn call(
        &self,
        draft: &mut Draft,
        cloud: &dyn CloudApi,
        sending: &Sending<'_>,
        secrets: &Secrets,
    ) -> Result<Answered, StoreError> {
        let Sending { id, verb, target, guarded } = *sending;
        let short = |draft: &Draft| {
            let shared = guarded.is_none_or(|g| self.fits(g.remaining(self.clock.monotonic())));
            !self.lease_fits(draft) || !shared
        };
        if short(draft) {
            return Ok(Answered::NotSent);
        }
        self.failpoints.hit(failpoints::BEFORE_ROW).await;
        let call = self.open(draft, sending).await?;
        self.failpoints.hit(failpoints::AFTER_ROW).await;
        if short(draft) {
            let why = detail("tieline", "leaseShort", "the lease was too short for the call".to_owned());
            let kind = kind_name(CallErrorKind::NotSent).to_owned();
            self.decide(draft, call, Verdict::Refused { kind, detail: why }, None).await?;
            return Ok(Answered::NotSent);
        }
        self.failpoints.hit(failpoints::BEFORE_SEND).await;
        self.progress.calls.fetch_add(1, Ordering::Relaxed);
        let answer = match verb {
            Verb::Create => self.bounded(cloud.create(target, secrets)).await,
            Verb::Update => self.bounded(cloud.update(target, secrets)).await,
            Verb::Delete => self.bounded(cloud.delete(target)).await,
        };
        self.failpoints.hit(failpoints::AFTER_SEND).await;
        let answered = self.judge(draft, id, call, verb, answer).await?;
        self.failpoints.hit(failpoints::AFTER_VERDICT).await;
        Ok(answered)
    }

    /// The ledger row, under the fence, before the wire.
    async fn open(&self, draft: &mut Draft, sending: &Sending<'_>) -> Result<ProviderCallId, StoreError> {
        let Sending { id: instance_id, verb, target, .. } = *sending;
        let owner = target.lookup.owner;
        let now = self.now(draft);
        let account_id = draft.instance(instance_id).map(|i| i.account_id.clone());
        let Some(account_id) = account_id else { return Err(StoreError::NotFound) };
        let identity =
            self.topology.rules(&account_id).map_or(IdentityKind::Blind, |rules| rules.identity(&target.spec.key.kind));
        let call = ProviderCall {
            id: ProviderCallId(self.random.uuid_v7(now)),
            instance_id,
            verb,
            identity,
            written_at: now,
            deadline: plus(now, self.config.call_timeout_ms),
            verdict: Verdict::Open,
            decided_at: None,
            answer: None,
        };
        // Looks from before the call say nothing about what it does.
        draft.fresh.remove(&instance_id);
        if let Some(instance) = draft.instance_mut(instance_id) {
            instance.seen = Seen::Never;
        }
        let mut writes = draft.sightings(self.config.visibility_lag_ms);
        writes.push(EngineWrite::OpenCall {
            call: Box::new(call.clone()),
            key: target.spec.key.clone(),
            account_id,
            name: ledger::name(owner, &target.spec),
            token: target.token.clone(),
            digest: ledger::digest(verb, owner, &target.spec),
        });
        let id = call.id;
        draft.calls.push(call);
        self.write(draft, writes).await?;
        Ok(id)
    }

    async fn judge(
        &self,
        draft: &mut Draft,
        id: InstanceId,
        call: ProviderCallId,
        verb: Verb,
        answer: Result<Accepted, CallError>,
    ) -> Result<Answered, StoreError> {
        match answer {
            Ok(accepted) => {
                draft.errors.remove(&id);
                draft.progressed = true;
                tracing::info!(connection = %draft.record.id, instance = %id, ?verb, cloud_id = %accepted.cloud_id, "the cloud took a call");
                self.decide(draft, call, Verdict::Accepted, Some(accepted)).await?;
                Ok(Answered::Yes)
            }
            Err(error) => {
                tracing::warn!(
                    connection = %draft.record.id, instance = %id, ?verb, kind = ?error.kind, code = %error.detail.code,
                    request_id = error.detail.request_id.as_deref().unwrap_or(""), message = %error.detail.message,
                    "a call did not succeed"
                );
                draft.errors.insert(id, error.detail.clone());
                match error.kind.outcome() {
                    Outcome::Refused => {
                        let kind = kind_name(error.kind).to_owned();
                        self.decide(draft, call, Verdict::Refused { kind, detail: error.detail }, None).await?;
                        Ok(Answered::Yes)
                    }
                    // No verdict: what the call did will show.
                    Outcome::Unknown => Ok(Answered::Perhaps),
                }
            }
        }
    }

    /// Writes a verdict under the fence.
    pub(super) async fn decide(
        &self,
        draft: &mut Draft,
        call: ProviderCallId,
        verdict: Verdict,
        accepted: Option<Accepted>,
    ) -> Result<(), StoreError> {
        let at = self.now(draft);
        let mut instance = None;
        if let Some(row) = draft.calls.iter_mut().find(|row| row.id == call) {
            row.verdict = verdict.clone();
            row.decided_at = Some(at);
            instance = Some((row.instance_id, row.verb));
        }
        let (cloud_id, request_id) = accepted.map_or((None, None), |a| (Some(a.cloud_id), a.request_id));
        if let (Some((id, Verb::Create)), Some(cloud_id)) = (instance, &cloud_id)
            && let Some(instance) = draft.instance_mut(id)
        {
            instance.cloud_id = Some(cloud_id.clone());
        }
        let mut writes = draft.sightings(self.config.visibility_lag_ms);
        if verdict == Verdict::Accepted
            && let Some(swept) = instance.and_then(|(id, _)| self.swept(draft, id, request_id.as_deref()))
        {
            writes.push(swept);
        }
        writes.push(EngineWrite::DecideCall { id: call, verdict, at, cloud_id, request_id });
        writes.extend(self.progress_write(draft));
        self.write(draft, writes).await
    }

    /// What is told of the deletion of a twin: nothing else is ever asked of one.
    fn swept(&self, draft: &Draft, id: InstanceId, request_id: Option<&str>) -> Option<EngineWrite> {
        let instance = draft.instance(id).filter(|i| i.twin.is_some())?;
        self.progress.swept.fetch_add(1, Ordering::Relaxed);
        tracing::warn!(connection = %draft.record.id, cloud_id = instance.cloud_id.as_deref(), "a stray resource of ours was deleted");
        let data = serde_json::json!({
            "type": instance.key.kind.as_str(), "cloudId": instance.cloud_id, "requestId": request_id,
        });
        Some(self.event(draft, "resource.swept", self.now(draft), data))
    }

    /// Opens the secrets of a call. Where one cannot be opened a person must look.
    fn secrets(&self, draft: &mut Draft, id: InstanceId, verb: Verb) -> Option<Secrets> {
        let mut secrets = Secrets::new();
        let instance = draft.instance(id)?.clone();
        if verb == Verb::Delete {
            return Some(secrets);
        }
        for name in draft.spec(&instance).secrets {
            let sealed = draft.secrets.iter().find(|s| {
                s.name == name && s.channel_id == instance.channel_id && s.generation == instance.channel_generation
            });
            let opened = sealed.map(|sealed| self.vault.open(draft.record.id, sealed));
            match opened {
                Some(Ok(secret)) => {
                    secrets.insert(name, secret);
                }
                Some(Err(_)) | None => {
                    let trouble = Trouble {
                        code: TroubleCode::SecretUnreadable,
                        channel_id: instance.channel_id.clone(),
                        key: Some(instance.key.clone()),
                        instance_id: Some(id),
                        message: format!("the secret {name} of channel {} cannot be opened", instance.channel_id),
                        remediation:
                            "start Tieline with the key that sealed it, or delete the connection and create it again"
                                .to_owned(),
                        detail: None,
                    };
                    draft.stuck.insert(instance.channel_id.clone(), trouble);
                    return None;
                }
            }
        }
        Some(secrets)
    }

    /// Everyone else's parts of a shared object; empty where they cannot be read.
    async fn others_in_parent(&self, account: &tieline_openapi::ids::AccountId, target: &Target) -> Vec<Observed> {
        let kind = target.spec.key.kind.clone();
        let parent = target.spec.shared_parent.clone();
        match self.list(account, kind, parent, Lane::User).await {
            Ok(mut items) => {
                items.retain(|o| o.owner != Some(target.lookup.owner));
                items
            }
            Err(blind) => {
                tracing::info!(why = %blind, "others' parts of a shared object could not be read");
                Vec::new()
            }
        }
    }

    /// Raises an issue if anything of others changed while we wrote.
    async fn compare(
        &self,
        draft: &Draft,
        target: &Target,
        before: &[Observed],
        after: &[Observed],
    ) -> Result<(), StoreError> {
        // An empty list after a full one is one that could not be read.
        let gone = |o: &&Observed| !after.iter().any(|n| n.cloud_id == o.cloud_id && n.fields == o.fields);
        let harmed: Vec<_> = before.iter().filter(gone).map(|o| o.cloud_id.clone()).collect();
        if harmed.is_empty() || after.is_empty() {
            return Ok(());
        }
        let parent = target.spec.shared_parent.clone().unwrap_or_default();
        tracing::warn!(parent, ?harmed, "others' parts of a shared object changed while it was written");
        let now = self.now(draft);
        let issue = Issue {
            id: IssueId(self.random.uuid_v7(now)),
            severity: Severity::Warning,
            code: "shared-object-changed".to_owned(),
            about: vec![draft.path()],
            title: format!("others' parts of {parent} changed while Tieline wrote its own: {}", harmed.join(", ")),
            cost: None,
            remediation:
                "compare these parts with what their owners want; Tieline sends others' parts as it reads them"
                    .to_owned(),
            state: IssueState::Open,
            created_at: now,
            resolved_at: None,
        };
        let raise = EngineWrite::RaiseIssue { project: draft.record.project.clone(), issue: Box::new(issue) };
        self.store.write_fenced(&draft.claim, vec![raise]).await
    }

    /// Writes under the fence; afterwards the store holds what the draft holds.
    pub(super) async fn write(&self, draft: &mut Draft, writes: Vec<EngineWrite>) -> Result<(), StoreError> {
        if writes.is_empty() {
            return Ok(());
        }
        self.store.write_fenced(&draft.claim, writes).await?;
        draft.mark_stored();
        Ok(())
    }

    /// Notes that something went forward.
    pub(super) fn note_progress(&self) {
        *self.progress.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(self.clock.now());
    }
}

/// One call on its way out.
struct Sending<'a> {
    /// About which instance, by its row in the ledger.
    id: InstanceId,
    verb: Verb,
    target: &'a Target,
    /// The lease of the object that it lives in.
    guarded: Option<&'a Guarded>,
}

/// Whether a call has an answer.
enum Answered {
    /// It has: taken or refused.
    Yes,
    /// Nobody knows what it did.
    Perhaps,
    /// It was not sent.
    NotSent,
}
