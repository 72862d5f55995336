//! `tieline connections list`: a table, and with `--watch` the rows that change.

use std::{collections::BTreeMap, time::Duration};

use comfy_table::{ColumnConstraint, Width};
use tieline_openapi::{
    client::{Client, ClientError, ConnectionQuery, PageQuery},
    ids::ConnectionId,
    problem::ProblemCode,
    v1::{Connection, Event},
};

use super::told;
use crate::{commands::PAGE, output};

const HEAD: [&str; 6] = ["NAME", "STATE", "MBIT/S", "ENVIRONMENT", "CARRIED BY", "ID"];

/// What a row says in place of the state of a connection that is not there any more.
const GONE: &str = "GONE";

/// Watched connections are all looked at this often without an event: which path carries one is none.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// Lists every connection; watched, whatever changes afterwards as well, without end.
pub(super) async fn run(client: &Client, watch: bool, json: bool) -> anyhow::Result<()> {
    let all = all(client).await?;
    if json {
        output::json(&all)?;
    }
    let mut list = List { json, widths: HEAD.map(str::len), shown: BTreeMap::new() };
    let rows: Vec<_> = all.iter().map(|connection| row(connection, output::word(&connection.state))).collect();
    list.shown = all.into_iter().map(|connection| (connection.id, told(&connection))).collect();
    if !json {
        list.print(true, rows);
    }
    if watch { list.follow(client).await } else { Ok(()) }
}

async fn all(client: &Client) -> Result<Vec<Connection>, ClientError> {
    let mut query = ConnectionQuery { page: PageQuery { size: Some(PAGE), token: None }, ..ConnectionQuery::default() };
    let mut all = Vec::new();
    loop {
        let page = client.connections(&query).await?;
        all.extend(page.connections);
        query.page.token = page.next_page_token;
        if query.page.token.is_none() {
            return Ok(all);
        }
    }
}

fn row(connection: &Connection, state: String) -> [String; 6] {
    let carrying = connection.paths.iter().filter(|p| p.carries.a_to_b || p.carries.b_to_a).map(|p| p.id.as_str());
    let carrying = carrying.collect::<Vec<_>>().join("+");
    [
        connection.intent.name.clone(),
        state,
        connection.intent.bandwidth_mbps.to_string(),
        connection.intent.environment_id.to_string(),
        if carrying.is_empty() { "-".to_owned() } else { carrying },
        connection.id.to_string(),
    ]
}

/// What is on the screen.
struct List {
    json: bool,
    /// The widest cell of each column so far.
    widths: [usize; 6],
    shown: BTreeMap<ConnectionId, Connection>,
}

impl List {
    fn print(&mut self, head: bool, rows: Vec<[String; 6]>) {
        for row in &rows {
            for (width, cell) in self.widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let mut table = output::table(if head { &HEAD } else { &[] });
        table.add_rows(rows);
        // Later rows stand below the columns of earlier ones.
        for (column, width) in table.column_iter_mut().zip(self.widths) {
            let width = u16::try_from(width).unwrap_or(u16::MAX).saturating_add(column.padding_width());
            column.set_constraint(ColumnConstraint::LowerBoundary(Width::Fixed(width)));
        }
        output::say!("{table}");
    }

    async fn follow(mut self, client: &Client) -> anyhow::Result<()> {
        let mut events = client.watch_events(None);
        let mut again = tokio::time::interval(LOOK_AGAIN);
        loop {
            tokio::select! {
                _ = again.tick() => match all(client).await {
                    Ok(now) => self.all_are(now)?,
                    Err(error) => passes(error)?,
                },
                event = events.next() => match event {
                    Some(Ok(event)) => self.happened(client, &event).await?,
                    Some(Err(error)) => passes(error)?,
                    None => return Ok(()),
                },
            }
        }
    }

    async fn happened(&mut self, client: &Client, event: &Event) -> anyhow::Result<()> {
        let id = event.subject.strip_prefix("/v1/connections/").and_then(|id| id.parse().ok());
        let Some(id) = id else { return Ok(()) };
        match client.connection(id).await {
            Ok(now) => self.is(&now),
            Err(ClientError::Problem { problem, .. }) if problem.code == ProblemCode::NotFound => self.is_gone(id),
            Err(error) => passes(error),
        }
    }

    fn all_are(&mut self, now: Vec<Connection>) -> anyhow::Result<()> {
        let gone = self.shown.keys().filter(|id| now.iter().all(|connection| connection.id != **id));
        for id in gone.copied().collect::<Vec<_>>() {
            self.is_gone(id)?;
        }
        now.iter().try_for_each(|connection| self.is(connection))
    }

    fn is(&mut self, now: &Connection) -> anyhow::Result<()> {
        let state = output::word(&now.state);
        let before = self.shown.insert(now.id, told(now));
        if self.json {
            return if before.is_some_and(|before| before == told(now)) { Ok(()) } else { output::json(now) };
        }
        let shown = row(now, state);
        if before.is_none_or(|before| row(&before, output::word(&before.state)) != shown) {
            self.print(false, vec![shown]);
        }
        Ok(())
    }

    fn is_gone(&mut self, id: ConnectionId) -> anyhow::Result<()> {
        if let Some(before) = self.shown.remove(&id) {
            if self.json {
                anstream::eprintln!("{} is gone", before.intent.name);
            } else {
                self.print(false, vec![row(&before, GONE.to_owned())]);
            }
        }
        Ok(())
    }
}

/// What ends a watch; anything else passes, and the next look tells.
fn passes(error: ClientError) -> anyhow::Result<()> {
    if error.is_transient() { Ok(()) } else { Err(error.into()) }
}
