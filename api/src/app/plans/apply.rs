//! Applying exactly what was planned, or saying what moved.

use tieline_openapi::{
    ids::{ConnectionId, PlanId},
    problem::FieldError,
    v1::{Plan, PlanAction},
};

use super::{Saved, field, one_more};
use crate::{
    app::{
        App, AppError, Caller,
        connections::{Accepted, Change},
    },
    store::{ConnectionRecord, IdempotencyKey, StoreError},
};

impl App {
    /// What stands in the way of applying a plan now, if anything.
    async fn appliable(&self, caller: &Caller, plan: &Plan, saved: &Saved) -> Result<(), AppError> {
        if self.now() >= plan.expires_at {
            return Err(AppError::PlanExpired { at: plan.expires_at });
        }
        if !plan.applicable {
            return Err(AppError::NotApplicable);
        }
        if plan.action == PlanAction::Create {
            // Operations outlive their connection, so a plan is applied once even if its connection is gone again.
            let before = self.store.operations(&caller.project, Some(saved.connection_id), one_more(0, None)).await?;
            if !before.is_empty() {
                return Err(AppError::AlreadyApplied { holder: saved.connection_id.to_string() });
            }
        }
        let revision = self.topology_revision()?;
        let mut moved = Vec::new();
        for (n, basis) in plan.basis.iter().enumerate() {
            if basis.name == "topology" && basis.revision != revision {
                let message = format!("the topology is at {revision} now; the plan was computed at {}", basis.revision);
                moved.push(field(format!("/basis/{n}"), message));
            }
        }
        if moved.is_empty() { Ok(()) } else { Err(AppError::PlanMoved(moved)) }
    }

    /// Checks a saved plan as applying it would, and gives it back.
    ///
    /// # Errors
    /// As [`App::apply`].
    pub async fn dry_apply(&self, caller: &Caller, id: PlanId) -> Result<Plan, AppError> {
        let (plan, saved) = self.load_plan(caller, id).await?;
        self.appliable(caller, &plan, &saved).await?;
        if plan.action != PlanAction::Create {
            self.unmoved(caller, &plan, saved.connection_id).await?;
        }
        Ok(plan)
    }

    async fn load_plan(&self, caller: &Caller, id: PlanId) -> Result<(Plan, Saved), AppError> {
        let (plan, document) = self.store.plan(&caller.project, id).await?;
        Ok((plan, serde_json::from_value(document)?))
    }

    /// The connection of a plan, still in the generation that the plan was computed from.
    async fn unmoved(&self, caller: &Caller, plan: &Plan, id: ConnectionId) -> Result<ConnectionRecord, AppError> {
        let moved = |message: String| AppError::PlanMoved(vec![field("/baseGeneration", message)]);
        let record = match self.record(&caller.project, id).await {
            Err(AppError::NotFound) => return Err(moved("the connection is gone".to_owned())),
            other => other?,
        };
        match plan.base_generation {
            Some(base) if base == record.generation => Ok(record),
            Some(base) => Err(moved(format!("the connection is at generation {} now, not {base}", record.generation))),
            None => Err(moved("the plan names no generation".to_owned())),
        }
    }

    /// Applies exactly what was planned, taking its allocations in one transaction.
    ///
    /// # Errors
    /// [`AppError::PlanExpired`], [`AppError::PlanMoved`], [`AppError::NotApplicable`], [`AppError::AlreadyApplied`],
    /// [`AppError::NameTaken`], [`AppError::Protected`], [`AppError::Coordination`], [`AppError::KeyReused`], or the store's.
    pub async fn apply(&self, caller: &Caller, id: PlanId, key: Option<IdempotencyKey>) -> Result<Accepted, AppError> {
        if let Some(done) = self.replay(key.as_ref()).await? {
            return Ok(done);
        }
        let (plan, saved) = self.load_plan(caller, id).await?;
        self.appliable(caller, &plan, &saved).await?;
        let applied = match (plan.action, saved.intent, saved.negotiated) {
            (PlanAction::Create, Some(intent), Some(negotiated)) => {
                self.write_new(caller, saved.connection_id, &intent, negotiated, key).await
            }
            (PlanAction::Update, Some(intent), Some(negotiated)) => {
                let record = self.unmoved(caller, &plan, saved.connection_id).await?;
                if record.deletion_requested_at.is_some() {
                    return Err(AppError::Deleting);
                }
                self.write_change(caller, &record, Change { intent, negotiated }, key).await
            }
            (PlanAction::Delete, _, _) => {
                let record = self.unmoved(caller, &plan, saved.connection_id).await?;
                self.write_deletion(caller, &record, key).await
            }
            (PlanAction::Migrate, ..) => {
                let Some(to) = saved.migration else { return Err(AppError::NotApplicable) };
                let record = self.unmoved(caller, &plan, saved.connection_id).await?;
                match self.write_move(caller, &record, &to, key).await {
                    // What the plan named stood there when it was made.
                    Err(AppError::Invalid(moved)) => {
                        let steps = |error: FieldError| FieldError { pointer: "/steps".to_owned(), ..error };
                        return Err(AppError::PlanMoved(moved.into_iter().map(steps).collect()));
                    }
                    other => other,
                }
            }
            (PlanAction::Create | PlanAction::Update | PlanAction::Reconcile, _, _) => {
                return Err(AppError::NotApplicable);
            }
        };
        match applied {
            Err(AppError::Store(StoreError::AllocationTaken { what })) => {
                Err(AppError::PlanMoved(vec![field("/after/placements", what)]))
            }
            Err(AppError::Stale { wanted, actual }) => Err(AppError::PlanMoved(vec![field(
                "/baseGeneration",
                format!("the connection is at generation {actual} now, not {wanted}"),
            )])),
            other => other,
        }
    }
}
