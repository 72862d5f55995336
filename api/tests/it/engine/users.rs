//! What people do with a simulation: they create, change and delete connections, and answer what nothing else can tell.

use std::{collections::BTreeMap, fmt::Write as _};

use serde_json::json;
use tieline_api::{
    engine::clock::Random,
    plan::{
        negotiate::{Allocated, Negotiated, Request, Touched, allocations, negotiate},
        step::{CreateAnswer, Instance},
    },
    store::{
        Audit, ChangeTo, ConnectionChange, ConnectionRecord, IssueAnswered, NewConnection, NewEvent, SealedSecret,
        Store, StoreError,
    },
};
use tieline_openapi::{
    ids::{ConnectionId, OperationId},
    v1::{ConnectionIntent, ConnectionKind, End, Operation, OperationKind, OperationState},
};

use super::sim::{ACCOUNTS, Sim, parse, project};

/// Nothing that others were seen to have is given out.
fn assert_apart(negotiated: &Negotiated, allocated: &Allocated) {
    for channel in &negotiated.channels {
        for side in End::BOTH.map(|end| channel.sides.get(end)) {
            let vlans = allocated.foreign_vlans.get(&side.port_id);
            let theirs = vlans.and_then(|vlans| vlans.get(&side.vlan.get()));
            assert_eq!(theirs, None, "VLAN {} of {} is given out", side.vlan, side.port_id);
            for (subnet, by) in allocated.foreign_subnets.get(&side.attach_point_id).into_iter().flatten() {
                let apart = channel.reserved_subnets.iter().all(|net| !net.contains(subnet) && !subnet.contains(net));
                assert!(apart, "{subnet} of {by} is given out");
            }
        }
    }
}

impl Sim {
    fn operation(&self, target: ConnectionId, kind: OperationKind, generation: u64) -> Operation {
        Operation {
            id: OperationId(self.random.uuid_v7(self.sched.now())),
            kind,
            target,
            generation,
            state: OperationState::Running,
            stages: Vec::new(),
            problem: None,
            created_at: self.sched.now(),
            finished_at: None,
        }
    }

    fn event(&self, id: ConnectionId, kind: &str) -> NewEvent {
        NewEvent {
            project: project(),
            time: self.sched.now(),
            kind: kind.to_owned(),
            subject: format!("/v1/connections/{id}"),
            generation: Some(1),
            cause: "test".to_owned(),
            data: json!({}),
        }
    }

    fn audit(&self) -> Audit {
        Audit {
            principal: "token:t".to_owned(),
            request_id: "r".to_owned(),
            action: "createConnection".to_owned(),
            subject: "/v1/connections".to_owned(),
            at: self.sched.now(),
        }
    }

    pub(crate) async fn create(&self, name: &str, redundancy: &str) -> ConnectionId {
        let id = ConnectionId(self.random.uuid_v7(self.sched.now()));
        // Links of one attach point must not announce the same.
        let n = name.bytes().fold(0u8, u8::wrapping_add);
        let intent: ConnectionIntent = serde_json::from_value(json!({
            "name": name, "environmentId": "env", "bandwidthMbps": 1000, "redundancy": redundancy,
            "a": { "attachPointId": "point-0", "advertisedPrefixes": [format!("10.0.{n}.0/24")] },
            "b": { "attachPointId": "point-1", "advertisedPrefixes": [format!("10.1.{n}.0/24")] },
        }))
        .unwrap();
        let allocated = self.store.allocated(&Touched::of(&self.topology, &intent)).await.unwrap();
        let request = Request { connection_id: id, intent: &intent, keep: BTreeMap::new(), refused: BTreeMap::new() };
        let negotiated = negotiate(&self.topology, &allocated, &request).unwrap();
        assert_apart(&negotiated, &allocated);
        let secrets = negotiated.channels.iter().map(|channel| SealedSecret {
            channel_id: channel.channel_id.clone(),
            generation: channel.generation,
            name: "bgpPassword".to_owned(),
            sealed: b"secret1".to_vec(),
        });
        let new = NewConnection {
            id,
            project: project(),
            kind: ConnectionKind::Direct,
            allocations: allocations(&negotiated, &self.topology),
            secrets: secrets.collect(),
            intent,
            negotiated,
            operation: self.operation(id, OperationKind::Create, 1),
            event: self.event(id, "connection.created"),
            audit: self.audit(),
            idempotency: None,
            shared: None,
            at: self.sched.now(),
        };
        self.store.create_connection(new).await.unwrap();
        id
    }

    /// Changes how much is wanted and what is announced, as long as nobody has asked for the deletion.
    pub(crate) async fn change(&self, id: ConnectionId) {
        let Some(record) = self.record(id).await.filter(|r| r.deletion_requested_at.is_none()) else { return };
        let mut intent = record.intent.clone();
        let other = if intent.bandwidth_mbps.get() == 1_000 { 100 } else { 1_000 };
        intent.bandwidth_mbps = u64::from(other as u32).try_into().unwrap();
        let whole = intent.a.advertised_prefixes.clone();
        intent.a.advertised_prefixes = match whole.as_slice() {
            [one] => one.subnets(one.prefix_len() + 1).unwrap().collect(),
            several => vec![several[0].supernet().unwrap()],
        };
        let mut allocated = self.store.allocated(&Touched::of(&self.topology, &intent)).await.unwrap();
        allocated.release(id, &record.negotiated.channels);
        let keep = record.negotiated.channels.iter().map(|c| (c.channel_id.clone(), c.clone())).collect();
        let request = Request { connection_id: id, intent: &intent, keep, refused: BTreeMap::new() };
        let negotiated = negotiate(&self.topology, &allocated, &request).unwrap();
        let change = ConnectionChange {
            id,
            project: project(),
            expected_generation: record.generation,
            to: ChangeTo::Intent {
                intent: Box::new(intent.clone()),
                allocations: allocations(&negotiated, &self.topology),
                negotiated: Box::new(negotiated),
                secrets: Vec::new(),
            },
            operation: self.operation(id, OperationKind::Update, record.generation + 1),
            event: self.event(id, "connection.updated"),
            audit: self.audit(),
            idempotency: None,
            at: self.sched.now(),
        };
        match self.store.change_connection(change).await {
            Ok(()) | Err(StoreError::AllocationTaken { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }

    /// A person answers what nothing else can tell, once nothing of it can be on its way any more; and errs at times.
    pub(crate) async fn answer_issues(&self, after_ms: u64) {
        // However long it was held.
        if self.about_to_send(None) {
            return;
        }
        let page = tieline_api::store::Page { limit: 100, after: None };
        let late = self.world.late_creates();
        for issue in self.store.issues(&project(), page).await.unwrap() {
            let [connection, resource] = issue.about.as_slice() else { continue };
            let Ok(id) = connection.trim_start_matches("/v1/connections/").parse::<ConnectionId>() else { continue };
            if issue.code != "create-without-answer" || issue.resolved_at.is_some() {
                continue;
            }
            let Some(record) = self.record(id).await else { continue };
            let is_it = |i: &&Instance| {
                let path = format!("{connection}/channels/{}/{}/{}", i.channel_id, i.key.end.as_str(), i.key.kind);
                path == *resource
            };
            let Some(instance) = record.instances.iter().find(is_it).map(|i| i.id) else { continue };
            if late.contains(&instance) || self.rows.created_at(instance) + after_ms > self.sched.now_ms() {
                continue;
            }
            let there = self.world.live().into_iter().find(|object| object.made_for == Some(instance));
            let answer = match self.random.below(6) {
                0 => CreateAnswer::Created { cloud_id: "nothing-of-the-kind".to_owned() },
                1 => CreateAnswer::Created { cloud_id: self.world.strangers()[0].cloud_id.clone() },
                _ => there
                    .as_ref()
                    .map_or(CreateAnswer::NotCreated, |o| CreateAnswer::Created { cloud_id: o.cloud_id.clone() }),
            };
            let answered = IssueAnswered {
                issue: issue.id,
                project: project(),
                resource: resource.clone(),
                answer,
                event: self.event(id, "issue.answered"),
                audit: self.audit(),
                idempotency: None,
            };
            let truth = there.is_some_and(
                |there| matches!(&answered.answer, CreateAnswer::Created { cloud_id } if *cloud_id == there.cloud_id),
            );
            match self.store.answer_issue(answered).await {
                Ok(()) | Err(StoreError::NotAsked) => {}
                // Somebody named the same in error before, of another create: whoever errs second is told so.
                Err(StoreError::AllocationTaken { .. }) if !truth => {}
                Err(error) => panic!("{error}"),
            }
        }
    }

    pub(crate) async fn delete(&self, id: ConnectionId) {
        let Some(record) = self.record(id).await else { return };
        let change = ConnectionChange {
            id,
            project: project(),
            expected_generation: record.generation,
            to: ChangeTo::Deletion,
            operation: self.operation(id, OperationKind::Delete, record.generation + 1),
            event: self.event(id, "connection.deletionRequested"),
            audit: self.audit(),
            idempotency: None,
            at: self.sched.now(),
        };
        self.store.change_connection(change).await.unwrap();
    }

    pub(crate) async fn record(&self, id: ConnectionId) -> Option<ConnectionRecord> {
        match self.store.connection(&project(), id).await {
            Ok(record) => Some(record),
            Err(StoreError::NotFound) => None,
            Err(error) => panic!("{error}"),
        }
    }

    /// Every connection.
    pub(crate) async fn records(&self) -> Vec<ConnectionRecord> {
        let page = tieline_api::store::Page { limit: 100, after: None };
        self.store.connections(&project(), &Default::default(), page).await.unwrap()
    }

    /// What every connection waits for, as the store has it: for whoever reads why a schedule stands still.
    pub(crate) async fn standstill(&self) -> String {
        let mut text = String::new();
        for record in self.records().await {
            let _ = writeln!(text, "{} ({})", record.id, record.intent.name);
            for instance in &record.instances {
                let _ = writeln!(text, "  {instance:?}");
                for row in self.rows.log().iter().filter(|row| row.instance == instance.id) {
                    let _ = writeln!(text, "    {row:?}");
                }
            }
        }
        for account in ACCOUNTS {
            let watch = self.store.account_watch(&parse(account)).await;
            let _ = writeln!(text, "{account}: {watch:?}");
        }
        text
    }

    pub(crate) async fn last_operation(&self, id: ConnectionId) -> Operation {
        // Two of one millisecond are in no order by their ids.
        if let Some(record) = self.record(id).await {
            return self.store.operation(&project(), record.last_operation).await.unwrap();
        }
        let page = tieline_api::store::Page { limit: 10, after: None };
        self.store.operations(&project(), Some(id), page).await.unwrap().remove(0)
    }
}
