//! Lists come in pages.

use std::collections::BTreeSet;

use tieline_openapi::coordinator::{ListChannelsResponse, ListEnvironmentsResponse, OperationId as Op};

use crate::{
    session::Session,
    suite::{Case, Stop, case, must, violation},
};

pub(super) const CASES: &[Case] = &[
    case!("pages/walk", "Page by page, a list gives every item once.", "pageSize and pageToken of ListChannels", walk),
    case!("pages/large", "A page size above 1,000 is cut, not refused.", "pageSize", large),
    case!("pages/negative", "A negative page size is refused with 400.", "pageSize", negative),
    case!("pages/token", "A page token that the target never gave is refused with 400.", "pageToken", token),
];

async fn walk(s: &Session) -> Result<(), Stop> {
    let place = s.place()?;
    let whole: BTreeSet<_> = place.channels.iter().filter_map(|channel| channel.name.clone()).collect();
    let (mut seen, mut token) = (BTreeSet::new(), None::<String>);
    for _ in 0..=whole.len() {
        let mut query = vec![("pageSize", "1")];
        query.extend(token.as_deref().map(|token| ("pageToken", token)));
        let page: ListChannelsResponse = s.ask(Op::ListChannels, &place.interconnect.0, &query).await?.read()?;
        must(page.channels.len() <= 1, || format!("a page of one holds {} items", page.channels.len()))?;
        for channel in page.channels {
            let name = channel.name.unwrap_or_default();
            must(seen.insert(name.clone()), || format!("{name} is on two pages"))?;
        }
        token = page.next_page_token.filter(|next| !next.is_empty());
        if token.is_none() {
            return must(seen == whole, || format!("the pages hold {seen:?}, the whole list {whole:?}"));
        }
    }
    Err(violation("there are more pages of one item than items"))
}

async fn large(s: &Session) -> Result<(), Stop> {
    let page: ListEnvironmentsResponse =
        s.ask(Op::ListEnvironments, s.provider(), &[("pageSize", "100000")]).await?.read()?;
    must(page.environments.len() <= 1_000, || format!("a page holds {} items", page.environments.len()))
}

async fn negative(s: &Session) -> Result<(), Stop> {
    s.ask(Op::ListEnvironments, s.provider(), &[("pageSize", "-1")])
        .await?
        .refused_with(&[400], "with a page size of -1")
}

async fn token(s: &Session) -> Result<(), Stop> {
    let query = [("pageToken", "nobody-gave-this-token")];
    s.ask(Op::ListEnvironments, s.provider(), &query).await?.refused_with(&[400], "with an unknown page token")
}
