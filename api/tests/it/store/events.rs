//! Events, their cursors, and issues.

use tieline_api::{
    events::Topic,
    store::{ChangeTo, EngineWrite, HousekeepingLimits, NewEvent, Page, Store, StoreError},
};
use tieline_openapi::{
    ids::{ConnectionId, IssueId},
    v1::{Issue, IssueState, Severity},
};

use super::{fixture::*, on_both};

on_both!(
    cursors_rise_without_a_gap,
    a_project_sees_its_own_events,
    old_events_go_and_their_cursors_are_told,
    commits_give_hints,
    an_issue_is_raised_once,
);

fn cursors(events: &[tieline_openapi::v1::Event]) -> Vec<u64> {
    events.iter().map(|e| e.cursor.parse().unwrap()).collect()
}

async fn cursors_rise_without_a_gap(db: Db) {
    assert_eq!(db.store.last_cursor().await.unwrap(), 0);
    let id = db.created("a").await;
    let writes = vec![EngineWrite::Event(event("x.1", id)), EngineWrite::Event(event("x.2", id))];
    db.store.write_unclaimed(writes).await.unwrap();
    let events = db.store.events(&project(), 0, 9).await.unwrap();
    assert_eq!(cursors(&events), [1, 2, 3]);
    let NewEvent { time, kind, subject, generation, cause, data, .. } = event("x.2", id);
    let last = events.last().unwrap().clone();
    assert_eq!((last.time, last.kind, last.subject), (time, kind, subject));
    assert_eq!((last.generation, last.cause, last.data), (generation, cause, data));
    assert_eq!(cursors(&db.store.events(&project(), 1, 1).await.unwrap()), [2]);
    assert!(db.store.events(&project(), 3, 9).await.unwrap().is_empty());
    assert_eq!(db.store.last_cursor().await.unwrap(), 3);
}

async fn a_project_sees_its_own_events(db: Db) {
    let id = ConnectionId(db.uuid());
    let other = NewEvent { project: "other".parse().unwrap(), ..event("x.1", id) };
    db.store.write_unclaimed(vec![EngineWrite::Event(other), EngineWrite::Event(event("x.2", id))]).await.unwrap();
    assert_eq!(cursors(&db.store.events(&project(), 0, 9).await.unwrap()), [2]);
    assert_eq!(cursors(&db.store.events(&"other".parse().unwrap(), 0, 9).await.unwrap()), [1]);
}

async fn old_events_go_and_their_cursors_are_told(db: Db) {
    let id = ConnectionId(db.uuid());
    let many = (0..20).map(|n| EngineWrite::Event(event(&format!("x.{n}"), id))).collect();
    db.store.write_unclaimed(many).await.unwrap();
    let limits = HousekeepingLimits { events: 5, rows: 10, ..HousekeepingLimits::default() };
    db.store.housekeep(&limits).await.unwrap();
    assert_eq!(cursors(&db.store.events(&project(), 10, 1).await.unwrap()), [11], "10 at a time");
    for _ in 0..3 {
        db.store.housekeep(&limits).await.unwrap();
    }
    assert!(matches!(db.store.events(&project(), 14, 9).await, Err(StoreError::CursorTooOld)));
    assert_eq!(cursors(&db.store.events(&project(), 15, 9).await.unwrap()), [16, 17, 18, 19, 20]);
    assert_eq!(cursors(&db.store.events(&project(), 0, 1).await.unwrap()), [16], "from the oldest that is kept");
    // Even with all of them gone the cursor goes on.
    let none = HousekeepingLimits { events: 0, ..limits };
    db.store.housekeep(&none).await.unwrap();
    db.store.write_unclaimed(vec![EngineWrite::Event(event("x.y", id))]).await.unwrap();
    assert_eq!(cursors(&db.store.events(&project(), 20, 9).await.unwrap()), [21]);
}

async fn commits_give_hints(db: Db) {
    let [mut events, mut due, mut configuration] =
        [Topic::Events, Topic::Due, Topic::Configuration].map(|topic| db.options.hints.subscribe(topic));
    let id = db.created("a").await;
    events.wait().await;
    due.wait().await;
    configuration.wait().await;
    db.store.change_connection(db.change(id, 1, ChangeTo::Deletion)).await.unwrap();
    due.wait().await;
    // A transaction that fails gives none.
    let mut fresh = db.options.hints.subscribe(Topic::Events);
    db.store.create_connection(db.connection("a")).await.unwrap_err();
    let waited = tokio::time::timeout(std::time::Duration::from_millis(20), fresh.wait()).await;
    assert!(waited.is_err());
}

async fn an_issue_is_raised_once(db: Db) {
    let issue = |title: &str| Issue {
        id: IssueId(db.uuid()),
        severity: Severity::Warning,
        code: "quota".to_owned(),
        about: vec!["/v1/connections/x".to_owned()],
        title: title.to_owned(),
        cost: None,
        remediation: "ask".to_owned(),
        state: IssueState::Open,
        created_at: ms(START + 5),
        resolved_at: None,
    };
    let raise = |issue: &Issue| EngineWrite::RaiseIssue { project: project(), issue: Box::new(issue.clone()) };
    let first = issue("first");
    db.store.write_unclaimed(vec![raise(&first)]).await.unwrap();
    let again = Issue { created_at: ms(START + 9), ..issue("again") };
    db.store.write_unclaimed(vec![raise(&again)]).await.unwrap();
    let page = || Page { limit: 9, after: None };
    let expected = Issue { title: "again".to_owned(), ..first.clone() };
    assert_eq!(db.store.issues(&project(), page()).await.unwrap(), [expected]);

    let resolve = EngineWrite::ResolveIssue {
        code: "quota".to_owned(),
        subject: "/v1/connections/x".to_owned(),
        at: ms(START + 10),
    };
    db.store.write_unclaimed(vec![resolve]).await.unwrap();
    let resolved = db.store.issue(&project(), first.id).await.unwrap();
    assert_eq!((resolved.state, resolved.resolved_at), (IssueState::Resolved, Some(ms(START + 10))));
    let new = issue("new");
    db.store.write_unclaimed(vec![raise(&new)]).await.unwrap();
    let all = db.store.issues(&project(), page()).await.unwrap();
    assert_eq!(all.iter().map(|i| i.id).collect::<Vec<_>>(), [new.id, first.id], "newest first");
    assert!(matches!(db.store.issue(&"other".parse().unwrap(), new.id).await, Err(StoreError::NotFound)));
}
