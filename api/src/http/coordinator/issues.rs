//! Issues: tickets that the peer makes here, and what is said to them.

use std::sync::Arc;

use axum::Router;
use tieline_openapi::{
    coordinator::{
        AddComment, AddCommentResponse, CloseIssue, Comment, CreateIssue, GetIssue, Issue, IssueContext, IssueState,
        ListComments, ListCommentsResponse, ListIssues, ListIssuesResponse, ProviderPath, ResourceId,
    },
    problem::ProblemCode,
};

use super::{Fault, Incoming, Peers, with};
use crate::{app::error::field, coordinator::Coordination};

type Shared = Arc<Coordination>;

/// The longest title, body or comment, in bytes.
const LONGEST_TEXT: usize = 65_536;

pub(super) fn routes(router: Router<Peers>) -> Router<Peers> {
    let router = with::<ListIssues, _, _>(router, list);
    let router = with::<CreateIssue, _, _>(router, create);
    let router = with::<GetIssue, _, _>(router, show);
    let router = with::<CloseIssue, _, _>(router, close);
    let router = with::<ListComments, _, _>(router, comments);
    with::<AddComment, _, _>(router, comment)
}

fn invalid(pointer: &str, message: &str) -> Fault {
    Fault::invalid(vec![field(pointer, message)])
}

/// One row more than a page tells whether there is another.
fn rows(size: usize) -> u32 {
    u32::try_from(size).unwrap_or(u32::MAX).saturating_add(1)
}

async fn list(shared: Shared, asked: Incoming<ListIssues>) -> Result<ListIssuesResponse, Fault> {
    let at = asked.cut(&shared, asked.query.page_size, asked.query.page_token.as_deref())?;
    shared.books().note(asked.call.audit.clone()).await?;
    let after: Option<ResourceId> = at.after.as_deref().and_then(|id| id.parse().ok());
    let found = shared.books().peer_issues(&asked.peer().id, after.as_ref(), rows(at.size)).await?;
    let (issues, last) = crate::coordinator::cut(found, None, at.size);
    Ok(ListIssuesResponse { issues, next_page_token: at.next(&shared, last)? })
}

/// The rules of the specification's contexts, and that nothing of another peer is named.
fn check(issue: &Issue, caller: &ResourceId) -> Result<(), Fault> {
    match issue.issue_context {
        Some(IssueContext::ConnectionIssue) if issue.connection_contexts.is_empty() => {
            return Err(invalid("/connectionContexts", "a connection issue names a connection"));
        }
        Some(IssueContext::InterconnectIssue) if issue.interconnect_contexts.is_empty() => {
            return Err(invalid("/interconnectContexts", "an interconnect issue names an interconnect"));
        }
        None
        | Some(
            IssueContext::Unspecified
            | IssueContext::ConnectionIssue
            | IssueContext::InterconnectIssue
            | IssueContext::Other(_),
        ) => {}
    }
    for (pointer, text) in [("/title", &issue.title), ("/body", &issue.body)] {
        if text.len() > LONGEST_TEXT {
            return Err(invalid(pointer, "has at most 65536 bytes"));
        }
    }
    let own = format!("{}/", ProviderPath { provider: caller.clone() });
    let names = issue.channel_contexts.iter().map(|c| &c.name);
    let names = names.chain(issue.connection_contexts.iter().map(|c| &c.name));
    let names = names.chain(issue.feature_contexts.iter().map(|c| &c.name));
    let mut names = names.chain(issue.interconnect_contexts.iter().map(|c| &c.name));
    if names.any(|name| !name.starts_with(&own)) {
        return Err(invalid("", "a context is a name under the caller's own provider id"));
    }
    Ok(())
}

async fn create(shared: Shared, asked: Incoming<CreateIssue>) -> Result<Issue, Fault> {
    check(&asked.body, &asked.peer().id)?;
    let id = &asked.query.issue_id;
    let path = tieline_openapi::coordinator::IssuePath { provider: asked.path.provider.clone(), issue: id.clone() };
    let issue = Issue {
        name: Some(path.to_string()),
        create_time: Some(asked.call.audit.at),
        local_issue_id: Some(id.to_string()),
        state: Some(IssueState::Open),
        ..asked.body.clone()
    };
    if !shared.books().add_issue(&asked.peer().id, id, &issue, asked.call.audit.clone()).await? {
        return Err(Fault::new(ProblemCode::Conflict, "there is an issue of this id").remedy("Choose another id."));
    }
    Ok(issue)
}

async fn show(shared: Shared, asked: Incoming<GetIssue>) -> Result<Issue, Fault> {
    shared.books().note(asked.call.audit.clone()).await?;
    Ok(shared.books().peer_issue(&asked.peer().id, &asked.path.issue).await?)
}

async fn close(shared: Shared, asked: Incoming<CloseIssue>) -> Result<Issue, Fault> {
    let (peer, id) = (&asked.peer().id, &asked.path.issue);
    let issue = Issue { state: Some(IssueState::Closed), ..shared.books().peer_issue(peer, id).await? };
    shared.books().put_issue(peer, id, &issue, asked.call.audit.clone()).await?;
    Ok(issue)
}

async fn comments(shared: Shared, asked: Incoming<ListComments>) -> Result<ListCommentsResponse, Fault> {
    let at = asked.cut(&shared, asked.query.page_size, asked.query.page_token.as_deref())?;
    let (peer, id) = (&asked.peer().id, &asked.path.issue);
    shared.books().note(asked.call.audit.clone()).await?;
    shared.books().peer_issue(peer, id).await?;
    let before = at.after.as_deref().and_then(|n| n.parse().ok());
    let mut found = shared.books().comments(peer, id, before, rows(at.size)).await?;
    let more = found.len() > at.size;
    found.truncate(at.size);
    let last = if more { found.last().map(|(n, _)| *n) } else { None };
    let comments = found.into_iter().map(|(_, comment)| comment).collect();
    Ok(ListCommentsResponse { comments, next_page_token: at.next(&shared, last)? })
}

async fn comment(shared: Shared, asked: Incoming<AddComment>) -> Result<AddCommentResponse, Fault> {
    if asked.body.comment.body.len() > LONGEST_TEXT {
        return Err(invalid("/comment/body", "has at most 65536 bytes"));
    }
    let peer = asked.peer();
    let name = peer.config.display_name.clone().unwrap_or_else(|| peer.id.to_string());
    let at = asked.call.audit.at;
    let id = shared.random().uuid_v7(at).to_string();
    let comment = Comment {
        body: asked.body.comment.body.clone(),
        create_time: Some(at),
        display_name: Some(name),
        local_comment_id: Some(id),
    };
    let audit = asked.call.audit.clone();
    shared.books().add_comment(&peer.id, &asked.path.issue, &comment, audit).await?;
    Ok(AddCommentResponse { comment: Some(comment) })
}
