//! SQLite: one file, one process. WAL with `synchronous=FULL`, one writer connection on which every transaction begins
//! with `BEGIN IMMEDIATE` (a deferred one that turns into a writer fails at once where another writes, whatever the busy
//! timeout), a few readers, and an operating-system lock against a second process.

use std::{
    fs::{File, TryLockError},
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use sqlx::{
    Connection, Row as _, Sqlite, SqlitePool, Transaction,
    pool::PoolConnection,
    sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

use super::{
    StoreError,
    sql::{error::classify, migrate},
};

/// The store's time in milliseconds.
pub(crate) const NOW: &str = "CAST(ROUND(unixepoch('now', 'subsec') * 1000) AS INTEGER)";

/// What tells our file from others' (<https://www.sqlite.org/pragma.html#pragma_application_id>): "TIEL".
const APPLICATION_ID: i64 = 0x5449_454c;

/// Readers beside the writer.
pub(crate) const READERS: u32 = 4;

const MIGRATIONS: &[(i64, &str, &str)] = &[
    (1, "foundation", include_str!("../../../migrations/sqlite/0001_foundation.sql")),
    (2, "account watch", include_str!("../../../migrations/sqlite/0002_account_watch.sql")),
    (3, "twins", include_str!("../../../migrations/sqlite/0003_twins.sql")),
    (4, "path conditions", include_str!("../../../migrations/sqlite/0004_path_conditions.sql")),
    (5, "answers and ages", include_str!("../../../migrations/sqlite/0005_answers_and_ages.sql")),
    (6, "plans of a connection", include_str!("../../../migrations/sqlite/0006_plans_of_a_connection.sql")),
    (7, "foreign and carried", include_str!("../../../migrations/sqlite/0007_foreign_and_carried.sql")),
    (8, "coordinator", include_str!("../../../migrations/sqlite/0008_coordinator.sql")),
    (9, "shared connections", include_str!("../../../migrations/sqlite/0009_shared_connections.sql")),
    (11, "channels", include_str!("../../../migrations/sqlite/0011_channels.sql")),
    (12, "peer proofs", include_str!("../../../migrations/sqlite/0012_peer_proofs.sql")),
    (13, "tunnel keys", include_str!("../../../migrations/sqlite/0013_tunnel_keys.sql")),
    (14, "kernel lanes", include_str!("../../../migrations/sqlite/0014_kernel_lanes.sql")),
    (15, "calm accounts", include_str!("../../../migrations/sqlite/0015_calm_accounts.sql")),
];

/// The connections to one file.
pub(crate) struct SqlitePools {
    writer: SqlitePool,
    readers: SqlitePool,
    /// Held as long as the file is open.
    _lock: Option<File>,
}

impl SqlitePools {
    /// Opens `sqlite://PATH`, or `sqlite::memory:` for a database that lives as long as this value.
    pub(crate) async fn open(url: &str) -> Result<Self, StoreError> {
        if url == "sqlite::memory:" {
            return Self::open_memory().await;
        }
        let path = file_of(url)?;
        let lock = lock(&path)?;
        inspect(&path).await?;
        let options = SqliteConnectOptions::new()
            .filename(&path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(Duration::from_secs(10));
        let writer = pool(1).connect_with(options.clone()).await.map_err(classify)?;
        prepare(&writer).await?;
        let readers = pool(READERS)
            .connect_with(options.create_if_missing(false).pragma("query_only", "ON"))
            .await
            .map_err(classify)?;
        Ok(Self { writer, readers, _lock: Some(lock) })
    }

    async fn open_memory() -> Result<Self, StoreError> {
        let options = SqliteConnectOptions::from_str("sqlite::memory:").map_err(classify)?.foreign_keys(true);
        // Every connection to :memory: is a database of its own: one connection reads and writes.
        let writer = pool(1).connect_with(options).await.map_err(classify)?;
        prepare(&writer).await?;
        Ok(Self { readers: writer.clone(), writer, _lock: None })
    }

    pub(crate) async fn begin_write(&self) -> Result<Transaction<'static, Sqlite>, StoreError> {
        self.writer.begin_with("BEGIN IMMEDIATE").await.map_err(classify)
    }

    pub(crate) async fn begin_read(&self) -> Result<Transaction<'static, Sqlite>, StoreError> {
        self.readers.begin().await.map_err(classify)
    }

    /// A connection for one statement that reads.
    pub(crate) async fn reader(&self) -> Result<PoolConnection<Sqlite>, StoreError> {
        self.readers.acquire().await.map_err(classify)
    }

    /// One statement that is a transaction of its own.
    pub(crate) async fn execute(&self, sql: &'static str, value: i64) -> Result<(), StoreError> {
        sqlx::query(sql).bind(value).execute(&self.writer).await.map(drop).map_err(classify)
    }

    pub(crate) async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }
}

/// A pool whose connections live as long as it does: a file's connection does not break, and `:memory:` must not be lost.
fn pool(connections: u32) -> SqlitePoolOptions {
    SqlitePoolOptions::new()
        .min_connections(1)
        .max_connections(connections)
        .test_before_acquire(false)
        // On a full disk SQLite rolls back by itself, and the driver, whose own rollback fails then, would take the
        // connection for one inside a transaction for ever: such a one is replaced.
        .before_acquire(|connection, _| Box::pin(async move { Ok(!connection.is_in_transaction()) }))
        .idle_timeout(None)
        .max_lifetime(None)
}

/// Marks the file as ours and brings it to this version's schema.
async fn prepare(writer: &SqlitePool) -> Result<(), StoreError> {
    sqlx::query(sqlx::AssertSqlSafe(format!("PRAGMA application_id = {APPLICATION_ID}")))
        .execute(writer)
        .await
        .map_err(classify)?;
    migrate::run(MIGRATIONS, writer).await
}

fn file_of(url: &str) -> Result<PathBuf, StoreError> {
    let options = SqliteConnectOptions::from_str(url).map_err(classify)?;
    let path = options.get_filename();
    // One file has one lock, however it is spelled: relative, or through a link.
    let resolved = match path.canonicalize() {
        Ok(path) => path,
        Err(_) => {
            let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
            let folder = folder.canonicalize().map_err(|e| cannot_open(folder, e))?;
            folder.join(path.file_name().unwrap_or_default())
        }
    };
    Ok(resolved)
}

fn cannot_open(path: &Path, source: std::io::Error) -> StoreError {
    StoreError::Unusable {
        reason: format!("{} cannot be opened: check that its folder exists and who may write there", path.display()),
        source: Some(Box::new(source)),
    }
}

/// Takes the lock of a database file; it ends with the process, however that ends.
fn lock(database: &Path) -> Result<File, StoreError> {
    let mut path = database.as_os_str().to_owned();
    path.push(".lock");
    let path = PathBuf::from(path);
    let file =
        File::options().create(true).truncate(false).write(true).open(&path).map_err(|e| cannot_open(&path, e))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StoreError::InUse { path: database.display().to_string() }),
        Err(TryLockError::Error(e)) => Err(cannot_open(&path, e)),
    }
}

/// Looks at an existing file without changing it: ours, and whole.
async fn inspect(path: &Path) -> Result<(), StoreError> {
    match path.metadata() {
        Ok(found) if found.len() > 0 => {}
        Ok(_) => return Ok(()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(cannot_open(path, e)),
    }
    let options = SqliteConnectOptions::new().filename(path).read_only(true);
    let mut connection = SqliteConnection::connect_with(&options).await.map_err(classify)?;
    let id: i64 = scalar(&mut connection, "PRAGMA application_id").await?;
    let tables: i64 = scalar(&mut connection, "SELECT COUNT(*) FROM sqlite_schema").await?;
    let sound: String = scalar(&mut connection, "PRAGMA quick_check(1)").await?;
    connection.close().await.map_err(classify)?;
    let reason = if sound != "ok" {
        format!("{} is damaged ({sound}); nothing was changed: restore a backup", path.display())
    } else if tables > 0 && id != APPLICATION_ID {
        format!("{} is another program's SQLite database: name another file", path.display())
    } else {
        return Ok(());
    };
    Err(StoreError::Unusable { reason, source: None })
}

async fn scalar<T>(connection: &mut SqliteConnection, sql: &'static str) -> Result<T, StoreError>
where
    T: for<'r> sqlx::Decode<'r, Sqlite> + sqlx::Type<Sqlite>,
{
    let row = sqlx::query(sql).fetch_one(connection).await.map_err(classify)?;
    row.try_get(0).map_err(classify)
}
