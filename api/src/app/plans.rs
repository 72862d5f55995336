//! Plans: what would be done, without doing it; and applying exactly that.

mod apply;
mod costs;
mod steps;

use std::{collections::BTreeMap, time::Duration};

use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tieline_openapi::{
    ids::{ConnectionId, OperationId, PlanId, ProjectId},
    v1::{
        ActivationKeyAcceptance, Basis, ConnectionIntent, Disruption, Finding, Migration, Plan, PlanAction,
        PlanRequest, PlanStep, Severity, Timestamp,
    },
};

use self::steps::Goal;
use super::{
    App, AppError, Caller, Paged,
    connections::{Change, IfMatch, Patched},
    digest,
    error::field,
    intent, one_more,
    shared::bandwidth_asked,
    view,
};
use crate::{
    coordinator::{Asked as PeerAsked, Foreseen},
    plan::negotiate::{Negotiated, Unsatisfiable},
    store::{ConnectionFilter, ConnectionRecord, IdempotencyKey, NewPlan, SavedAnswer, Standing, StoreError},
};

/// How long a plan may be applied.
const VALID: Duration = Duration::from_secs(3600);

/// A plan that was saved, now or under the same key before.
#[derive(Debug, Clone)]
pub struct Kept {
    /// The plan.
    pub plan: Plan,
    /// What is answered.
    pub answer: SavedAnswer,
    /// Whether this answer was given before.
    pub replayed: bool,
}

impl Kept {
    fn again(answer: SavedAnswer) -> Result<Self, AppError> {
        Ok(Self { plan: serde_json::from_value(answer.body.clone())?, answer, replayed: true })
    }
}

/// What a saved plan keeps to be applied exactly.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Saved {
    connection_id: ConnectionId,
    /// `None` for a deletion and a move.
    intent: Option<ConnectionIntent>,
    negotiated: Option<Negotiated>,
    /// Where a connection moves to.
    #[serde(default)]
    migration: Option<Migration>,
}

impl Saved {
    /// Nothing but whose it is.
    fn of(connection_id: ConnectionId) -> Self {
        Self { connection_id, intent: None, negotiated: None, migration: None }
    }
}

/// A plan before it is numbered, dated and hashed.
struct Draft {
    action: PlanAction,
    record: Option<ConnectionRecord>,
    after: Option<ConnectionRecord>,
    steps: Vec<PlanStep>,
    findings: Vec<Finding>,
    saved: Saved,
}

impl Draft {
    fn rehearse(&mut self, run: steps::Run) {
        self.steps = run.steps;
        self.findings.extend(run.findings);
    }

    /// What a connection with a peer leads to.
    fn foresee(&mut self, foreseen: Foreseen) {
        self.steps = foreseen.steps;
        self.findings.retain(|finding| finding.code != steps::INCOMPLETE);
        self.findings.extend((!foreseen.reached).then(steps::unforeseen));
    }
}

/// What a plan request asks for.
enum Asked<'a> {
    Create(&'a ConnectionIntent),
    Patch(ConnectionId, &'a Value),
    Migrate(ConnectionId, &'a Migration),
    Delete(ConnectionId),
}

fn asked(request: &PlanRequest) -> Result<Asked<'_>, AppError> {
    let invalid = |pointer: &str, message: &str| AppError::Invalid(vec![field(pointer, message)]);
    match (&request.intent, request.connection_id, &request.patch, &request.migrate, request.delete) {
        (Some(intent), None, None, None, false) => Ok(Asked::Create(intent)),
        (None, Some(id), Some(patch), None, false) => Ok(Asked::Patch(id, patch)),
        (None, Some(id), None, Some(to), false) => Ok(Asked::Migrate(id, to)),
        (None, Some(id), None, None, true) => Ok(Asked::Delete(id)),
        (None, Some(_), None, None, false) => {
            Err(invalid("/patch", "with `connectionId` goes `patch`, `migrate` or `delete: true`"))
        }
        (None, Some(_), patch, ..) => Err(invalid(
            if patch.is_some() && request.migrate.is_some() { "/migrate" } else { "/delete" },
            "one of `patch`, `migrate` and `delete: true`, not more",
        )),
        (None, None, ..) => {
            Err(invalid("/intent", "give `intent`, or `connectionId` with `patch`, `migrate` or `delete: true`"))
        }
        (Some(_), ..) => Err(invalid("/intent", "`intent` plans a create and stands alone")),
    }
}

/// A field error of a body, seen from a plan request that holds the body below a pointer.
fn below(prefix: &str, error: AppError) -> AppError {
    let AppError::Invalid(mut errors) = error else { return error };
    for error in &mut errors {
        error.pointer.insert_str(0, prefix);
    }
    AppError::Invalid(errors)
}

impl App {
    /// Plans and saves.
    ///
    /// # Errors
    /// [`AppError::Invalid`], [`AppError::KeyReused`], or the store's. What cannot be met is a plan with findings, not an
    /// error.
    pub async fn save_plan(
        &self,
        caller: &Caller,
        request: &PlanRequest,
        key: Option<IdempotencyKey>,
    ) -> Result<Kept, AppError> {
        if let Some(answer) = self.answered(key.as_ref()).await? {
            return Kept::again(answer);
        }
        let (mut plan, saved) = self.drafted(caller, request).await?;
        let id = PlanId(self.random.uuid_v7(self.now()));
        plan.id = Some(id);
        let answer = SavedAnswer {
            digest: key.as_ref().map_or([0; 32], |key| key.digest),
            status: 201,
            headers: BTreeMap::from([("location".to_owned(), format!("/v1/plans/{id}"))]),
            body: serde_json::to_value(&plan)?,
        };
        let new = NewPlan {
            project: caller.project.clone(),
            connection_id: saved.connection_id,
            plan: plan.clone(),
            request: serde_json::to_value(&saved)?,
            idempotency: key.map(|key| (key, answer.clone())),
        };
        match self.store.insert_plan(new).await {
            Err(StoreError::IdempotencyReplay(answer)) => Kept::again(*answer),
            other => {
                other?;
                Ok(Kept { plan, answer, replayed: false })
            }
        }
    }

    /// Plans without saving.
    ///
    /// # Errors
    /// As [`App::save_plan`].
    pub async fn dry_plan(&self, caller: &Caller, request: &PlanRequest) -> Result<Plan, AppError> {
        Ok(self.drafted(caller, request).await?.0)
    }

    async fn drafted(&self, caller: &Caller, request: &PlanRequest) -> Result<(Plan, Saved), AppError> {
        let draft = match asked(request)? {
            Asked::Create(intent) => {
                self.checked_new(intent).map_err(|e| below("/intent", e))?;
                self.draft_create(caller, intent).await.map_err(|e| below("/intent", e))?
            }
            Asked::Patch(id, patch) => {
                let standing = self.of_body(caller, id).await?;
                self.draft_patch(caller, standing, patch).await.map_err(|e| below("/patch", e))?
            }
            Asked::Migrate(id, to) => {
                let standing = self.of_body(caller, id).await?;
                self.draft_migrate(standing, to).await.map_err(|e| below("/migrate", e))?
            }
            Asked::Delete(id) => self.draft_delete(self.of_body(caller, id).await?).await?,
        };
        self.finish(draft)
    }

    /// A connection that a body names: not visible is a wrong field, not a wrong path.
    async fn of_body(&self, caller: &Caller, id: ConnectionId) -> Result<Standing, AppError> {
        let found = self.standing(&caller.project, id).await;
        if matches!(found, Err(AppError::NotFound)) {
            return Err(AppError::Invalid(vec![field("/connectionId", "there is no such connection")]));
        }
        found
    }

    /// What a plan of a connection starts from, with how it stands with a peer.
    async fn standing(&self, project: &ProjectId, id: ConnectionId) -> Result<Standing, AppError> {
        let mut standing = self.store.standing(project, id).await?;
        self.stand(std::slice::from_mut(&mut standing.record)).await?;
        Ok(standing)
    }

    /// The unsaved plan of a connection that an activation key would make.
    ///
    /// # Errors
    /// As [`App::accept`].
    pub async fn dry_accept(&self, caller: &Caller, acceptance: &ActivationKeyAcceptance) -> Result<Plan, AppError> {
        let (intent, link, foreseen) = self.foreseen(caller, acceptance).await?;
        let mut draft = self.draft_create(caller, &intent).await?;
        if draft.after.is_some() {
            draft.foresee(foreseen);
        }
        if let Some(after) = &mut draft.after {
            after.shared = Some(link);
        }
        Ok(self.finish(draft)?.0)
    }

    /// The unsaved plan of a create.
    ///
    /// # Errors
    /// As [`App::save_plan`].
    pub async fn dry_create(&self, caller: &Caller, intent: &ConnectionIntent) -> Result<Plan, AppError> {
        self.checked_new(intent)?;
        Ok(self.finish(self.draft_create(caller, intent).await?)?.0)
    }

    fn checked_new(&self, intent: &ConnectionIntent) -> Result<(), AppError> {
        let errors = intent::check_new(intent, &self.topology);
        if errors.is_empty() { Ok(()) } else { Err(AppError::Invalid(errors)) }
    }

    /// The unsaved plan of a patch.
    ///
    /// # Errors
    /// As [`App::save_plan`], [`AppError::Stale`] and [`AppError::Deleting`].
    pub async fn dry_patch(
        &self,
        caller: &Caller,
        id: ConnectionId,
        if_match: &IfMatch,
        patch: &Value,
    ) -> Result<Plan, AppError> {
        let standing = self.standing(&caller.project, id).await?;
        if_match.check(standing.record.generation)?;
        Ok(self.finish(self.draft_patch(caller, standing, patch).await?)?.0)
    }

    /// The unsaved plan of a deletion.
    ///
    /// # Errors
    /// As [`App::save_plan`], [`AppError::Stale`] and [`AppError::Protected`].
    pub async fn dry_delete(&self, caller: &Caller, id: ConnectionId, if_match: &IfMatch) -> Result<Plan, AppError> {
        let standing = self.standing(&caller.project, id).await?;
        if_match.check(standing.record.generation)?;
        Ok(self.finish(self.draft_delete(standing).await?)?.0)
    }

    /// The unsaved plan of a move to another interconnect.
    ///
    /// # Errors
    /// As [`App::migrate`].
    pub async fn dry_migrate(
        &self,
        caller: &Caller,
        id: ConnectionId,
        if_match: &IfMatch,
        to: &Migration,
    ) -> Result<Plan, AppError> {
        let standing = self.standing(&caller.project, id).await?;
        if_match.check(standing.record.generation)?;
        Ok(self.finish(self.draft_migrate(standing, to).await?)?.0)
    }

    /// A page of saved plans, newest first.
    ///
    /// # Errors
    /// The store's.
    pub async fn plans(
        &self,
        project: &ProjectId,
        connection: Option<ConnectionId>,
        size: u32,
        after: Option<uuid::Uuid>,
    ) -> Result<Paged<Plan>, AppError> {
        let rows = self.store.plans(project, connection, one_more(size, after)).await?;
        Ok(Paged::of(rows, size, |plan| plan.id.map_or_else(String::new, |id| id.to_string())))
    }

    /// A saved plan.
    ///
    /// # Errors
    /// [`AppError::NotFound`], or the store's.
    pub async fn saved_plan(&self, project: &ProjectId, id: PlanId) -> Result<Plan, AppError> {
        Ok(self.store.plan(project, id).await?.0)
    }

    async fn draft_create(&self, caller: &Caller, intent: &ConnectionIntent) -> Result<Draft, AppError> {
        let now = self.now();
        let id = ConnectionId(self.random.uuid_v7(now));
        let mut draft = Draft {
            action: PlanAction::Create,
            record: None,
            after: None,
            steps: Vec::new(),
            findings: self.name_findings(caller, &intent.name, None).await?,
            saved: Saved { intent: Some(intent.clone()), ..Saved::of(id) },
        };
        match self.negotiate_new(id, intent).await? {
            Err(Unsatisfiable { findings, .. }) => draft.findings.extend(findings),
            Ok(negotiated) => {
                draft.findings.extend(negotiated.findings.iter().cloned());
                match self.topology.pairings.get(&intent.environment_id) {
                    Some(pairing) => draft.foresee(self.order_foreseen(pairing, intent).await?),
                    None => draft.rehearse(steps::run(&self.topology, None, &Goal::of(intent, &negotiated), now)),
                }
                let operation = OperationId(uuid::Uuid::nil());
                draft.after = Some(self.new_record(&caller.project, id, intent, negotiated.clone(), operation, now));
                draft.saved.negotiated = Some(negotiated);
            }
        }
        Ok(draft)
    }

    async fn draft_patch(&self, caller: &Caller, standing: Standing, patch: &Value) -> Result<Draft, AppError> {
        let record = &standing.record;
        if record.deletion_requested_at.is_some() {
            return Err(AppError::Deleting);
        }
        let mut draft = Draft {
            action: PlanAction::Update,
            record: None,
            after: None,
            steps: Vec::new(),
            findings: Vec::new(),
            saved: Saved::of(record.id),
        };
        let run = |goal: Goal<'_>| steps::run(&self.topology, Some(&standing), &goal, self.now());
        match self.negotiate_patch(record, patch).await? {
            Patched::Refused(Unsatisfiable { findings, .. }) => draft.findings.extend(findings),
            Patched::Same => {
                draft.rehearse(run(Goal::of(&record.intent, &record.negotiated)));
                draft.saved.intent = Some(record.intent.clone());
                draft.saved.negotiated = Some(record.negotiated.clone());
                draft.after = Some(record.clone());
            }
            Patched::Changed(change) => {
                let Change { intent, negotiated } = *change;
                if intent.name != record.intent.name {
                    draft.findings.extend(self.name_findings(caller, &intent.name, Some(record.id)).await?);
                }
                draft.findings.extend(negotiated.findings.iter().cloned());
                match &record.shared {
                    Some(link) => {
                        draft.foresee(self.change_foreseen(link, &bandwidth_asked(record, &intent)).await?);
                    }
                    None => draft.rehearse(run(Goal::of(&intent, &negotiated))),
                }
                let mut after = record.clone();
                after.intent = intent.clone();
                after.negotiated = negotiated.clone();
                after.generation += 1;
                after.updated_at = self.now();
                draft.after = Some(after);
                draft.saved.intent = Some(intent);
                draft.saved.negotiated = Some(negotiated);
            }
        }
        draft.record = Some(standing.record);
        Ok(draft)
    }

    async fn draft_delete(&self, standing: Standing) -> Result<Draft, AppError> {
        if standing.record.intent.deletion_protection {
            return Err(AppError::Protected);
        }
        let mut draft = Draft {
            action: PlanAction::Delete,
            record: None,
            after: None,
            steps: Vec::new(),
            findings: Vec::new(),
            saved: Saved::of(standing.record.id),
        };
        let goal = Goal::nothing(&standing.record);
        match &standing.record.shared {
            Some(link) => draft.foresee(self.change_foreseen(link, &PeerAsked::End).await?),
            None => draft.rehearse(steps::run(&self.topology, Some(&standing), &goal, self.now())),
        }
        draft.record = Some(standing.record);
        Ok(draft)
    }

    async fn draft_migrate(&self, standing: Standing, to: &Migration) -> Result<Draft, AppError> {
        let record = standing.record;
        let asked = self.move_asked(&record, to)?;
        let Some(link) = &record.shared else { return Err(AppError::NotShared) };
        let foreseen = self.change_foreseen(link, &asked).await?;
        let after = ConnectionRecord { generation: record.generation + 1, updated_at: self.now(), ..record.clone() };
        // What is applied later goes where this plan goes, though there be more room elsewhere by then.
        let pairing = self.topology.pairings.get(&record.intent.environment_id);
        let chosen = foreseen.to.as_ref().and_then(|to| pairing?.interconnects.get(to).cloned());
        let migration = Migration { interconnect_id: chosen.or_else(|| to.interconnect_id.clone()) };
        let mut draft = Draft {
            action: PlanAction::Migrate,
            after: Some(after),
            steps: Vec::new(),
            findings: Vec::new(),
            saved: Saved { migration: Some(migration), ..Saved::of(record.id) },
            record: Some(record),
        };
        draft.foresee(foreseen);
        Ok(draft)
    }

    async fn name_findings(
        &self,
        caller: &Caller,
        name: &str,
        own: Option<ConnectionId>,
    ) -> Result<Vec<Finding>, AppError> {
        let filter = ConnectionFilter { name: Some(name.to_owned()), ..ConnectionFilter::default() };
        let holders = self.store.connections(&caller.project, &filter, one_more(1, None)).await?;
        let holder = holders.iter().find(|holder| Some(holder.id) != own);
        Ok(holder
            .map(|holder| Finding {
                severity: Severity::Error,
                code: "nameTaken".to_owned(),
                pointer: "/name".to_owned(),
                message: format!("connection {} has this name", holder.id),
                rule: "a name is unique in its project".to_owned(),
                source: "Tieline".to_owned(),
                resolve: "choose another name, or change the connection that has it".to_owned(),
            })
            .into_iter()
            .collect())
    }

    fn finish(&self, draft: Draft) -> Result<(Plan, Saved), AppError> {
        let now = self.now();
        let mut basis = vec![Basis { name: "topology".to_owned(), revision: self.topology_revision()? }];
        if let Some(record) = &draft.record {
            basis.push(Basis { name: "connection".to_owned(), revision: format!("g{}", record.generation) });
        }
        let mut plan = Plan {
            id: None,
            hash: String::new(),
            expires_at: now.checked_add(VALID).unwrap_or(Timestamp::MAX),
            action: draft.action,
            connection_id: draft.record.as_ref().map(|record| record.id),
            base_generation: draft.record.as_ref().map(|record| record.generation),
            basis,
            after: draft.after.as_ref().map(|record| Box::new(view::connection(record, &self.topology, now))),
            applicable: draft.findings.iter().all(|finding| finding.severity != Severity::Error),
            disruption: draft.steps.iter().map(|step| step.disruption).max().unwrap_or(Disruption::None),
            costs: draft.after.as_ref().map(|record| costs::of(&self.topology, record)).unwrap_or_default(),
            steps: draft.steps,
            findings: draft.findings,
        };
        let mut document = serde_json::to_value(&plan)?;
        if let Value::Object(members) = &mut document {
            members.remove("id");
            members.remove("hash");
        }
        plan.hash = HEXLOWER.encode(&digest(&document));
        Ok((plan, draft.saved))
    }

    /// Changes whenever `tieline.toml` or the catalogue says something else.
    fn topology_revision(&self) -> Result<String, AppError> {
        let topology = &self.topology;
        let document = json!({
            "accounts": topology.accounts.values().collect::<Vec<_>>(),
            "attachPoints": topology.attach_points.values().collect::<Vec<_>>(),
            "environments": topology.environments.values().collect::<Vec<_>>(),
            "interconnects": topology.interconnects.values().collect::<Vec<_>>(),
        });
        Ok(HEXLOWER.encode(&digest(&document)[..8]))
    }
}
