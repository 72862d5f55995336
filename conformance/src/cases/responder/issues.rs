//! Issues between the two providers.

use serde_json::{Value, json};
use tieline_openapi::coordinator::{
    AddCommentResponse, Issue, IssuePath, IssueState, ListCommentsResponse, ListIssuesResponse, OperationId as Op,
};

use crate::{
    session::Session,
    suite::{Case, Stop, case, must},
    wire::Answer,
};

pub(super) const CASES: &[Case] = &[
    case!("issues/create", "An issue is created, shown and listed.", "CreateIssue, GetIssue, ListIssues", create),
    case!("issues/close", "A closed issue is in the state of one.", "CloseIssue", close),
    case!("issues/comments", "Comments are listed, the newest first.", "AddComment, ListComments", comments),
    case!(
        "issues/interconnect-context",
        "ISSUE_CONTEXT_INTERCONNECT_ISSUE needs an interconnect in its contexts.",
        "Issue.issueContext",
        interconnect_context
    ),
    case!(
        "issues/connection-context",
        "ISSUE_CONTEXT_CONNECTION_ISSUE needs a connection in its contexts.",
        "Issue.issueContext",
        connection_context
    ),
    case!("issues/exists", "Creating an issue that exists is refused with 409.", "CreateIssue", exists),
    case!("issues/unknown", "An issue that does not exist is answered with 404.", "GetIssue", unknown),
];

fn path(s: &Session) -> IssuePath {
    IssuePath { provider: s.provider().provider.clone(), issue: s.uuid().into() }
}

fn body(s: &Session, path: &IssuePath) -> Result<Value, Stop> {
    Ok(json!({
        "name": path.to_string(),
        "title": "Conformance",
        "body": "Made by the conformance suite; it closes what it makes.",
        "issueContext": "ISSUE_CONTEXT_INTERCONNECT_ISSUE",
        "interconnectContexts": [{ "name": s.place()?.interconnect.0.to_string() }],
        "priority": "PRIORITY_P4",
    }))
}

async fn send(s: &Session, path: &IssuePath, body: &Value) -> Result<Answer, Stop> {
    s.call(Op::CreateIssue, s.provider(), &[("issueId", path.issue.as_str())], body).await
}

async fn shut(s: &Session, path: &IssuePath) -> Result<Answer, Stop> {
    s.call(Op::CloseIssue, path, &[], &json!({})).await
}

async fn made(s: &Session) -> Result<IssuePath, Stop> {
    let path = path(s);
    send(s, &path, &body(s, &path)?).await?.read::<Issue>()?;
    Ok(path)
}

async fn create(s: &Session) -> Result<(), Stop> {
    let path = made(s).await?;
    let shown: Issue = s.get(Op::GetIssue, &path).await?.read()?;
    must(shown.title == "Conformance", || format!("the title is {:?}", shown.title))?;
    let into = |page: ListIssuesResponse| (page.issues, page.next_page_token);
    let listed = s.whole(Op::ListIssues, s.provider(), into).await?;
    let name = path.to_string();
    let there = listed.iter().any(|issue| issue.name.as_deref() == Some(&name));
    shut(s, &path).await?;
    must(there, || format!("ListIssues does not hold {name}"))
}

async fn close(s: &Session) -> Result<(), Stop> {
    let path = made(s).await?;
    shut(s, &path).await?.read::<Issue>()?;
    let shown: Issue = s.get(Op::GetIssue, &path).await?.read()?;
    must(shown.state == Some(IssueState::Closed), || format!("a closed issue is in the state {:?}", shown.state))
}

async fn comments(s: &Session) -> Result<(), Stop> {
    let path = made(s).await?;
    for text in ["first", "second"] {
        let comment = json!({ "comment": { "body": text } });
        s.call(Op::AddComment, &path, &[], &comment).await?.read::<AddCommentResponse>()?;
    }
    let into = |page: ListCommentsResponse| (page.comments, page.next_page_token);
    let listed = s.whole(Op::ListComments, &path, into).await?;
    shut(s, &path).await?;
    let texts: Vec<_> = listed.into_iter().map(|comment| comment.body).collect();
    must(texts == ["second", "first"], || format!("the comments are listed as {texts:?}"))
}

async fn without(s: &Session, context: &str, field: &str) -> Result<(), Stop> {
    let path = path(s);
    let mut body = body(s, &path)?;
    body["issueContext"] = json!(context);
    if let Some(members) = body.as_object_mut() {
        members.remove(field);
    }
    send(s, &path, &body).await?.refused_with(&[400], "without what its context needs")
}

async fn interconnect_context(s: &Session) -> Result<(), Stop> {
    without(s, "ISSUE_CONTEXT_INTERCONNECT_ISSUE", "interconnectContexts").await
}

async fn connection_context(s: &Session) -> Result<(), Stop> {
    without(s, "ISSUE_CONTEXT_CONNECTION_ISSUE", "connectionContexts").await
}

async fn exists(s: &Session) -> Result<(), Stop> {
    let path = made(s).await?;
    let mut other = body(s, &path)?;
    other["title"] = json!("Another");
    let answer = send(s, &path, &other).await?;
    shut(s, &path).await?;
    answer.refused_with(&[409], "of an issue that exists")
}

async fn unknown(s: &Session) -> Result<(), Stop> {
    s.get(Op::GetIssue, &path(s)).await?.refused_with(&[404], "for an issue that does not exist")
}
