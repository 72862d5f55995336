//! Listing connections.

use tieline_openapi::{
    ids::ProjectId,
    v1::{Connection, ConnectionState},
};

use super::{App, AppError, view};
use crate::{
    app::{Paged, one_more},
    store::ConnectionFilter,
};

/// The most stored rows that one page looks at while it filters by state.
const SCANNED: u32 = 5_000;
/// How many of them are read at once.
const CHUNK: u32 = 500;

/// Which connections to list. The state is computed for each answer, so it is compared here and not in the store.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    /// What the store compares.
    pub stored: ConnectionFilter,
    /// Only in one of these states; any, if empty.
    pub states: Vec<ConnectionState>,
}

impl App {
    /// A page of connections in order of id. A page may be short, or even empty, and still have a next one.
    ///
    /// # Errors
    /// The store's.
    pub async fn connections(
        &self,
        project: &ProjectId,
        wanted: &Wanted,
        size: u32,
        after: Option<uuid::Uuid>,
    ) -> Result<Paged<Connection>, AppError> {
        let now = self.now();
        let view = |record: &_| view::connection(record, &self.topology, now);
        if wanted.states.is_empty() {
            let mut rows = self.store.connections(project, &wanted.stored, one_more(size, after)).await?;
            self.stand(&mut rows).await?;
            return Ok(Paged::of(rows.iter().map(view).collect(), size, |connection| connection.id.to_string()));
        }
        let (mut items, mut after, mut scanned) = (Vec::new(), after, 0);
        loop {
            let mut rows = self.store.connections(project, &wanted.stored, one_more(CHUNK, after)).await?;
            self.stand(&mut rows).await?;
            let more = rows.len() > CHUNK as usize;
            for row in rows.iter().take(CHUNK as usize) {
                scanned += 1;
                after = Some(row.id.uuid());
                let connection = view(row);
                if wanted.states.contains(&connection.state) {
                    items.push(connection);
                }
                if items.len() >= size as usize || scanned >= SCANNED {
                    return Ok(Paged { items, last: after.map(|id| id.to_string()) });
                }
            }
            if !more {
                return Ok(Paged { items, last: None });
            }
        }
    }
}
