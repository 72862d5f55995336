//! One pass over one claimed connection: load, look, and step after step until there is nothing to do now.

use std::{sync::atomic::Ordering, time::Duration};

use tieline_openapi::{
    ids::{ChannelId, InstanceId, ProviderCallId},
    v1::{End, Operation, OperationState, Timestamp, Verb},
};
use tieline_providers::Learned;

use super::{
    Engine,
    draft::Draft,
    execute::Did,
    failpoints,
    limits::Lane,
    status::{Ending, Report},
};
use crate::{
    plan::{
        negotiate::channel_allocations,
        step::{CreateAnswer, Instance, Seen, Step, Trouble, Verdict, millis_between, next, rehearse::learned},
    },
    store::{Allocation, Claim, EngineStatus, EngineWrite, NewEvent, StoreError, Watch},
};

/// A connection that lists observe has a pass of its own every so many times [`EngineConfig::settled_poll_ms`].
///
/// [`EngineConfig::settled_poll_ms`]: tieline_openapi::config::EngineConfig::settled_poll_ms
const SETTLED_POLLS: u64 = 10;

/// Steps of one pass: far more than a connection of four channels needs. What is left goes on in the next pass.
const STEPS: usize = 256;

impl Engine {
    /// Runs a pass. True if the connection is due again before the claim loop would look by itself.
    pub(super) async fn run_pass(&self, claim: Claim, claimed_at: Duration) -> bool {
        self.progress.passes.fetch_add(1, Ordering::Relaxed);
        match self.pass(claim.clone(), claimed_at).await {
            Ok(due_soon) => due_soon,
            Err(StoreError::Fenced) => {
                self.progress.fenced.fetch_add(1, Ordering::Relaxed);
                tracing::info!(connection = %claim.id, "another replica holds the connection now");
                false
            }
            Err(error) => {
                self.progress.failed.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(connection = %claim.id, %error, "a pass was given up");
                let due_in_ms = self.config.poll_ms.max(1);
                let release = EngineWrite::Release { due_in_ms, failures: 1, progress: false };
                // If this fails too, the lease ends by itself.
                if let Err(error) = self.store.write_fenced(&claim, vec![release]).await {
                    tracing::info!(connection = %claim.id, %error, "the claim runs out by itself");
                }
                false
            }
        }
    }

    /// What time it is for a pass.
    pub(super) fn now(&self, draft: &Draft) -> Timestamp {
        draft.time.now(self.clock.as_ref())
    }

    async fn pass(&self, claim: Claim, claimed_at: Duration) -> Result<bool, StoreError> {
        let work = self.store.load(&claim).await?;
        let loaded_at = self.clock.monotonic();
        self.failpoints.hit(failpoints::LOADED).await;
        let mut draft = Draft::new(claim, claimed_at, work, loaded_at, self.topology.as_ref());
        self.first_look(&mut draft).await;
        self.failpoints.hit(failpoints::OBSERVED).await;
        let mut steps = 0;
        let ending = loop {
            steps += 1;
            if steps > STEPS || !self.lease_fits(&draft) {
                break Ending::Again;
            }
            let now = self.now(&draft);
            let step = next(&draft.situation(self.topology.as_ref(), now), &self.config);
            match self.take(&mut draft, step).await? {
                Taken::Further => {}
                Taken::End(ending) => break ending,
                Taken::Removed => return Ok(false),
            }
        };
        self.finish(draft, ending).await
    }

    /// What lists showed last of a settled connection is good enough to see that there is nothing to do. Otherwise each
    /// resource is read by itself.
    async fn first_look(&self, draft: &mut Draft) {
        let settled = draft.operation.is_none() && draft.record.status.verified_at.is_some() && !draft.has_twins();
        if settled && draft.watch == Watch::List {
            draft.fresh = draft.instances.iter().filter(|i| i.present().is_some()).map(|i| i.id).collect();
            let step = next(&draft.situation(self.topology.as_ref(), self.now(draft)), &self.config);
            if step == Step::Settled {
                return;
            }
            draft.fresh.clear();
        }
        let is_asked = |i: &&Instance| i.twin.is_some() || draft.calls.iter().any(|call| call.instance_id == i.id);
        let asked: Vec<_> = draft.instances.iter().filter(is_asked).map(|i| i.id).collect();
        self.look(draft, &asked, if settled { Lane::Housekeeping } else { Lane::User }).await;
    }

    async fn take(&self, draft: &mut Draft, step: Step) -> Result<Taken, StoreError> {
        tracing::debug!(connection = %draft.record.id, ?step, "step");
        match step {
            Step::Observe { instances } => self.look(draft, &instances, Lane::User).await,
            Step::NewInstance { channel_id, generation, key, account_id } => {
                let id = InstanceId(self.random.uuid_v7(self.now(draft)));
                let instance = Instance {
                    id,
                    channel_id,
                    channel_generation: generation,
                    key,
                    account_id,
                    cloud_id: None,
                    seen: Seen::Never,
                    twin: None,
                };
                let mut writes = draft.sightings(self.config.visibility_lag_ms);
                writes.push(EngineWrite::PutInstance(Box::new(instance.clone())));
                draft.instances.push(instance);
                self.write(draft, writes).await?;
                self.failpoints.hit(failpoints::INSTANCE_WRITTEN).await;
            }
            Step::Create { instance } => return self.send(draft, instance, Verb::Create).await,
            Step::Update { instance, .. } => return self.send(draft, instance, Verb::Update).await,
            Step::Delete { instance } => return self.send(draft, instance, Verb::Delete).await,
            Step::Resolve { call, verdict } => {
                if verdict == Verdict::FoundDone {
                    draft.progressed = true;
                }
                self.decide(draft, call, verdict, None).await?;
                self.failpoints.hit(failpoints::RESOLVED).await;
            }
            Step::Adopt { instance, cloud_id } => draft.name(instance, Some(cloud_id)),
            Step::RefuseAnswer { call, cloud_id, why } => self.refuse_answer(draft, call, cloud_id, why).await?,
            Step::Learn { channel_id, generation, end, picked } => {
                self.learn(draft, &channel_id, generation, end, picked).await?;
            }
            Step::WalkBack { channel_id, generation, refused, detail } => {
                self.walk_back(draft, &channel_id, generation, refused, detail).await?;
            }
            Step::RetireInstance { instance } => self.retire_instance(draft, instance).await?,
            Step::RetireChannel { channel_id, generation } => {
                let quarantine_ms = self.config.quarantine_ms;
                draft.channels.retain(|c| c.channel_id != channel_id || c.generation != generation);
                draft.settle_channels(self.topology.as_ref());
                let write = EngineWrite::RetireChannel { channel_id, generation, quarantine_ms };
                self.write(draft, vec![write]).await?;
                self.failpoints.hit(failpoints::CHANNEL_RETIRED).await;
            }
            Step::Escalate { troubles, until } => return Ok(Taken::End(Ending::Trouble { troubles, until })),
            Step::Wait { until, .. } => return Ok(Taken::End(Ending::Wait { until })),
            Step::Settled => return Ok(Taken::End(Ending::Settled)),
            Step::Gone => {
                self.remove(draft).await?;
                return Ok(Taken::Removed);
            }
        }
        Ok(Taken::Further)
    }

    async fn send(&self, draft: &mut Draft, instance: InstanceId, verb: Verb) -> Result<Taken, StoreError> {
        Ok(match self.execute(draft, instance, verb).await? {
            Did::Sent => {
                // A call without an answer has no verdict to be written with.
                if let Some(progress) = self.progress_write(draft) {
                    self.write(draft, vec![progress]).await?;
                }
                Taken::Further
            }
            Did::LeaseShort => Taken::End(Ending::Again),
            Did::NotNow => {
                let until = crate::plan::step::plus(self.now(draft), self.config.poll_ms);
                Taken::End(Ending::Wait { until })
            }
        })
    }

    /// What a cloud picked becomes part of the channel, and what was asked for is given back. What it picked has to be free:
    /// else the channel is walked back.
    async fn learn(
        &self,
        draft: &mut Draft,
        channel_id: &ChannelId,
        generation: u32,
        end: End,
        picked: Learned,
    ) -> Result<(), StoreError> {
        let place = draft.channels.iter().position(|c| c.channel_id == *channel_id && c.generation == generation);
        let Some(place) = place else { return Ok(()) };
        let channel = learned(&draft.channels[place], end, &picked, draft.record.negotiated.middle);
        let (before, after) = (channel_allocations(&draft.channels[place]), channel_allocations(&channel));
        let beyond = |these: &[Allocation], those: &[Allocation]| {
            these.iter().filter(|one| !those.contains(one)).cloned().collect::<Vec<_>>()
        };
        let (taken, given_back) = (beyond(&after, &before), beyond(&before, &after));
        let mut writes = draft.sightings(self.config.visibility_lag_ms);
        writes.push(EngineWrite::PutChannel {
            channel: Box::new(channel.clone()),
            allocations: taken,
            secrets: Vec::new(),
        });
        if !given_back.is_empty() {
            let quarantine_ms = self.config.quarantine_ms;
            writes.push(EngineWrite::GiveBack { allocations: given_back, quarantine_ms });
        }
        match self.write(draft, writes).await {
            Ok(()) => {}
            Err(StoreError::AllocationTaken { what }) => {
                tracing::info!(connection = %draft.record.id, channel = %channel_id, what, "a cloud picked what another holds");
                draft.unlearnable.insert((channel_id.clone(), generation));
                return Ok(());
            }
            Err(error) => return Err(error),
        }
        draft.channels[place] = channel;
        draft.settle_channels(self.topology.as_ref());
        draft.progressed = true;
        self.failpoints.hit(failpoints::LEARNED).await;
        Ok(())
    }

    /// What a person named was looked at, and cannot be it.
    async fn refuse_answer(
        &self,
        draft: &mut Draft,
        id: ProviderCallId,
        cloud_id: String,
        why: String,
    ) -> Result<(), StoreError> {
        let answer = CreateAnswer::Misfit { cloud_id, why };
        let Some(call) = draft.calls.iter_mut().find(|call| call.id == id) else { return Ok(()) };
        call.answer = Some(answer.clone());
        let instance = call.instance_id;
        draft.name(instance, None);
        let mut writes = draft.sightings(self.config.visibility_lag_ms);
        writes.push(EngineWrite::RefuseAnswer { id, answer });
        self.write(draft, writes).await
    }

    async fn retire_instance(&self, draft: &mut Draft, id: InstanceId) -> Result<(), StoreError> {
        draft.instances.retain(|i| i.id != id);
        draft.calls.retain(|c| c.instance_id != id);
        draft.fresh.remove(&id);
        draft.errors.remove(&id);
        draft.progressed = true;
        let progress = self.progress_write(draft);
        self.write(draft, [EngineWrite::RetireInstance(id)].into_iter().chain(progress).collect()).await?;
        self.failpoints.hit(failpoints::INSTANCE_RETIRED).await;
        Ok(())
    }

    /// Lets users see how far it is, while the pass goes on.
    pub(super) fn progress_write(&self, draft: &mut Draft) -> Option<EngineWrite> {
        let now = self.now(draft);
        let operation = Report::new(draft, self.topology.as_ref(), &Ending::Again, now).operation();
        let operation = operation.filter(|new| draft.operation.as_ref() != Some(new))?;
        let write = put_operation(&operation);
        draft.operation = Some(operation);
        Some(write)
    }

    /// Nothing is left in any cloud: the record goes, and with it the tunnel.
    async fn remove(&self, draft: &mut Draft) -> Result<(), StoreError> {
        let now = self.now(draft);
        let mut writes = Vec::new();
        for code in draft.record.status.issues.keys() {
            writes.push(EngineWrite::ResolveIssue { code: code.clone(), subject: draft.path(), at: now });
        }
        if let Some(operation) = Report::new(draft, self.topology.as_ref(), &Ending::Gone, now).operation() {
            writes.push(put_operation(&operation));
        }
        if !draft.claim.gone {
            let data = serde_json::json!({ "name": draft.record.intent.name });
            writes.push(self.event(draft, "connection.deleted", now, data));
        }
        writes.push(EngineWrite::Remove { quarantine_ms: self.config.quarantine_ms });
        self.failpoints.hit(failpoints::BEFORE_REMOVE).await;
        self.write(draft, writes).await?;
        self.note_progress();
        tracing::info!(connection = %draft.record.id, "the connection is gone from both clouds");
        Ok(())
    }

    pub(super) fn event(&self, draft: &Draft, kind: &str, at: Timestamp, data: serde_json::Value) -> EngineWrite {
        EngineWrite::Event(NewEvent {
            project: draft.record.project.clone(),
            time: at,
            kind: kind.to_owned(),
            subject: draft.path(),
            generation: Some(draft.record.generation),
            cause: "engine".to_owned(),
            data,
        })
    }

    /// Writes what the pass found, if anything is new, and gives the claim back.
    async fn finish(&self, mut draft: Draft, mut ending: Ending) -> Result<bool, StoreError> {
        let now = self.now(&draft);
        ending.add_stuck(draft.stuck.values(), crate::plan::step::plus(now, self.config.settled_poll_ms));
        let report = Report::new(&draft, self.topology.as_ref(), &ending, now);
        let (status, verified, operation) = (report.status(), report.verified(), report.operation());
        let mut writes = draft.sightings(self.config.visibility_lag_ms);
        let settled = matches!(ending, Ending::Settled);
        let observed = settled && draft.record.observed_generation != draft.record.generation;
        let troubles: &[Trouble] = ending.troubles();
        let (status, raised) = self.issues(&draft, status, troubles, now);
        writes.extend(raised);
        writes.extend(self.events(&draft, &status, now));
        let watch = watch(&draft, &status, &ending, operation.as_ref());
        if status != draft.record.status || observed {
            let observed_generation = observed.then_some(draft.record.generation);
            writes.push(EngineWrite::PutStatus { status: Box::new(status), observed_generation });
        }
        if let Some(operation) = operation.filter(|new| draft.operation.as_ref() != Some(new)) {
            writes.push(put_operation(&operation));
        }
        if watch != draft.watch {
            writes.push(EngineWrite::PutWatch(watch));
        }
        let failures = if draft.errors.is_empty() { 0 } else { draft.failures.saturating_add(1) };
        let due_in_ms = self.due_in(&draft, &ending, verified, watch, failures, now);
        let progress = draft.progressed;
        if progress {
            self.note_progress();
        }
        if writes.is_empty() && failures == 0 && draft.failures == 0 && !progress {
            self.failpoints.hit(failpoints::BEFORE_RELEASE).await;
            self.release_soon(draft.claim, due_in_ms);
            return Ok(false);
        }
        writes.push(EngineWrite::Release { due_in_ms, failures, progress });
        self.failpoints.hit(failpoints::BEFORE_RELEASE).await;
        self.write(&mut draft, writes).await?;
        self.failpoints.hit(failpoints::AFTER_RELEASE).await;
        Ok(due_in_ms < self.config.poll_ms)
    }

    /// When to look again, in milliseconds.
    fn due_in(
        &self,
        draft: &Draft,
        ending: &Ending,
        verified: bool,
        watch: Watch,
        failures: u32,
        now: Timestamp,
    ) -> u64 {
        let (poll, settled) = (self.config.poll_ms.max(1), self.config.settled_poll_ms.max(1));
        let due = match ending {
            Ending::Again | Ending::Gone => 1,
            // Only an absence is waited for longer than a poll.
            Ending::Wait { until } => millis_between(now, *until).clamp(1, poll.max(settled)),
            Ending::Trouble { until, .. } => millis_between(now, *until).clamp(1, settled),
            // Lists make it due when anything changes; this is for what no list shows, as another configuration.
            Ending::Settled if watch == Watch::List => settled.saturating_mul(SETTLED_POLLS),
            Ending::Settled if verified => settled,
            Ending::Settled => {
                // Sessions come up within minutes or not soon.
                let since = draft.record.status.provisioned_at.unwrap_or(now);
                if millis_between(since, now) < poll.saturating_mul(120) { poll } else { poll.max(settled / 4) }
            }
        };
        // A cloud that does not answer is asked less and less often.
        let slower = 1u64.checked_shl(failures.min(6)).unwrap_or(64).saturating_mul(poll);
        if failures > 0 { due.max(slower.min(settled.max(poll))) } else { due }
    }
}

fn put_operation(operation: &Operation) -> EngineWrite {
    let finished_at = operation.finished_at.filter(|_| operation.state == OperationState::Succeeded);
    EngineWrite::PutOperation(Box::new(Operation { finished_at, ..operation.clone() }))
}

/// How a connection is observed from the end of its pass on.
fn watch(draft: &Draft, status: &EngineStatus, ending: &Ending, operation: Option<&Operation>) -> Watch {
    let at_rest = status.verified_at.is_some() && operation.is_none_or(|operation| operation.state.is_final());
    if at_rest && matches!(ending, Ending::Settled) {
        Watch::List
    } else if at_rest && draft.watch != Watch::Each && !draft.progressed {
        // What is missing is expected until something was done about it.
        Watch::Doubt
    } else {
        Watch::Each
    }
}

/// What became of a step.
enum Taken {
    /// It is done; the next one.
    Further,
    /// The pass ends.
    End(Ending),
    /// The connection is gone.
    Removed,
}
