//! Routers that do not answer, and sessions that they refuse, are told to the projects whose connections they carry.

use std::collections::{BTreeMap, BTreeSet};

use tieline_openapi::{
    ids::{ConnectionId, IssueId, ProjectId},
    v1::{Issue, IssueState, Severity},
};
use tieline_providers::network::DeviceError;
use uuid::Uuid;

use super::{Memory, Router};
use crate::{
    coordinator::{Coordination, CoordinationError, Peer},
    plan::coordinate::Row,
    store::EngineWrite,
};

/// The router does not answer.
const UNREACHABLE: &str = "router-unreachable";
/// The router does not take a session.
const REFUSED: &str = "session-refused";

/// Connections that an issue names.
const MOST: usize = 20;

/// An issue, by its code and its subject.
pub(super) type Code = (&'static str, String);

/// What a person is told.
struct Trouble {
    title: String,
    remedy: &'static str,
    connection: Option<Uuid>,
}

/// How a router took it.
pub(super) enum Told {
    /// Not at all, and not for the first time.
    Silent(CoordinationError),
    /// It did what it was asked, but for sessions that it refused.
    Answered {
        refused: Vec<(Uuid, DeviceError)>,
        /// At the first look after a start: the connections that it carries.
        first: BTreeSet<Uuid>,
    },
}

impl Coordination {
    /// Raises issues that are new, and resolves those that are over, in the projects that they are about. A failure here is
    /// told again at the next pass.
    pub(super) async fn tell_of_router(&self, peer: &Peer, router: &Router, memory: &mut Memory, told: Told) {
        let unreachable = (UNREACHABLE, format!("routers/{}/peers/{}", router.config.id, peer.id));
        let refusal =
            |shared: Uuid| (REFUSED, format!("routers/{}/peers/{}/connections/{shared}", router.config.id, peer.id));
        let mut troubles: BTreeMap<Code, Trouble> = BTreeMap::new();
        let known = memory.standing.take();
        // After a start nothing is known to stand, and whatever an earlier one has told may be over.
        let mut before = known.clone().unwrap_or_else(|| BTreeSet::from([unreachable.clone()]));
        let stands = |key: &Code| known.as_ref().is_some_and(|known| known.contains(key));
        match told {
            Told::Silent(error) => {
                let title = format!("router {} does not do what it is asked: {error}", router.config.id);
                let remedy = "check that it is up and that [[routers]] of tieline.toml says how to reach it; \
                    what it holds stays as it is meanwhile";
                troubles.insert(unreachable, Trouble { title, remedy, connection: None });
            }
            Told::Answered { refused, first } => {
                // The first look after a start ends what an earlier one left.
                before.extend(first.into_iter().map(refusal));
                for (connection, error) in refused {
                    let title = format!("router {} does not take a session: {error}", router.config.id);
                    let remedy = "mend what the text names; the session is put again by itself";
                    let trouble = Trouble { title, remedy, connection: Some(connection) };
                    troubles.entry(refusal(connection)).or_insert(trouble);
                }
            }
        }
        let at = self.now();
        let gone = before.iter().filter(|key| !troubles.contains_key(*key));
        let mut writes: Vec<_> = gone
            .map(|(code, subject)| EngineWrite::ResolveIssue { code: (*code).to_owned(), subject: subject.clone(), at })
            .collect();
        let mut standing: BTreeSet<Code> = troubles.keys().filter(|key| stands(key)).cloned().collect();
        for (key, trouble) in troubles.iter().filter(|(key, _)| !stands(key)) {
            let (code, subject) = key;
            let projects = self.projects(peer, router, trouble.connection).await;
            if !projects.is_empty() {
                // Where the router carries nobody's connection yet nobody is told: whoever comes later is.
                standing.insert(key.clone());
            }
            for (project, ids) in projects {
                let connections = ids.iter().take(MOST).map(|id| format!("/v1/connections/{id}"));
                let issue = Issue {
                    id: IssueId(self.parts.random.uuid_v7(at)),
                    severity: Severity::Error,
                    code: (*code).to_owned(),
                    about: [subject.clone()].into_iter().chain(connections).collect(),
                    title: trouble.title.clone(),
                    cost: None,
                    remediation: trouble.remedy.to_owned(),
                    state: IssueState::Open,
                    created_at: at,
                    resolved_at: None,
                };
                writes.push(EngineWrite::RaiseIssue { project, issue: Box::new(issue) });
            }
        }
        let written = if writes.is_empty() { Ok(()) } else { self.parts.store.write_unclaimed(writes).await };
        match written {
            Ok(()) if known.is_none() && standing.is_empty() && !troubles.is_empty() => {}
            Ok(()) => memory.standing = Some(standing),
            Err(error) => {
                tracing::warn!(%error, router = %router.config.id, "an issue was put off");
                memory.standing = known;
            }
        }
    }

    /// Whose connections a router carries, or whose one connection is.
    async fn projects(
        &self,
        peer: &Peer,
        router: &Router,
        connection: Option<Uuid>,
    ) -> BTreeMap<ProjectId, Vec<ConnectionId>> {
        let of = async {
            let (_, book) = self.load(peer, None).await?;
            let carried = |row: &&Row| {
                connection.map_or_else(
                    || {
                        row.features
                            .keys()
                            .any(|c| peer.router(&row.place, c).is_some_and(|at| at.id == router.config.id))
                    },
                    |uuid| uuid == row.uuid,
                )
            };
            let mut projects: BTreeMap<_, Vec<_>> = BTreeMap::new();
            for uuid in book.rows.values().filter(carried).map(|row| row.uuid).collect::<BTreeSet<_>>() {
                if let Some((project, id)) = self.parts.books.shared_as(&peer.id, uuid).await? {
                    projects.entry(project).or_default().push(id);
                }
            }
            Ok::<_, CoordinationError>(projects)
        };
        of.await.unwrap_or_else(|error| {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "whose connections a router carries is not known now"
            );
            BTreeMap::new()
        })
    }
}
