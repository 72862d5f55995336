//! Peers differ: pages, revisions, fields that are not known.

use tieline_openapi::coordinator::OperationId as Op;

use crate::{
    peer::{Heard, State},
    session::Session,
    suite::{Case, Stop, asked},
};

pub(super) const CASES: &[Case] = &[
    asked!("reading/pages", "A list is read to its last page.", "nextPageToken of ListFeatures", pages),
    asked!(
        "reading/later-revision",
        "Fields and values of a later revision in an answer disturb nothing.",
        "The published and the later revision",
        later_revision
    ),
    asked!(
        "reading/published-revision",
        "A peer that knows the published revision only is spoken to all the same.",
        "The published revision",
        published_revision
    ),
];

fn meddles(heard: &Heard) -> bool {
    matches!(heard.op, Op::CreateFeature | Op::DeleteFeature | Op::DeleteConnection)
}

async fn pages(s: &Session) -> Result<(), Stop> {
    s.peer()?;
    s.plot().state().manners.page_size = Some(1);
    let made = s.agreed().await?;
    let since = s.elapsed();
    s.notify(&made.name).await?;
    let last = (made.channels - 1).to_string();
    let read = |state: &State| {
        let mut lists = state.of(Op::ListFeatures);
        lists.any(|heard| heard.asked("pageToken") == Some(&last)).then_some(())
    };
    s.until("the target did not ask for the last page of a list", read).await?;
    s.never(since, "what stands on a later page was taken for missing", meddles).await
}

async fn later_revision(s: &Session) -> Result<(), Stop> {
    s.peer()?;
    s.plot().state().manners.adorned = true;
    let made = s.agreed().await?;
    let since = s.elapsed();
    s.notify(&made.name).await?;
    s.never(since, "a value of a later revision made the target change a connection", meddles).await
}

async fn published_revision(s: &Session) -> Result<(), Stop> {
    s.peer()?;
    s.plot().state().manners.published = true;
    s.agreed().await.map(drop)
}
