//! What a database's error means to a caller.

use sqlx::error::{DatabaseError, ErrorKind};

use crate::store::StoreError;

/// SQLite's primary result codes (<https://www.sqlite.org/rescode.html>).
const SQLITE_BUSY: i64 = 5;
const SQLITE_LOCKED: i64 = 6;
const SQLITE_READONLY: i64 = 8;
const SQLITE_IOERR: i64 = 10;
const SQLITE_CORRUPT: i64 = 11;
const SQLITE_FULL: i64 = 13;
const SQLITE_CANTOPEN: i64 = 14;
const SQLITE_NOTADB: i64 = 26;

/// The variant for an error of the driver.
pub(crate) fn classify(error: sqlx::Error) -> StoreError {
    let kind = if let sqlx::Error::Database(e) = &error {
        if e.try_downcast_ref::<sqlx::sqlite::SqliteError>().is_some() {
            sqlite(e.as_ref())
        } else {
            postgres(e.as_ref())
        }
    } else if matches!(
        error,
        sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed
            | sqlx::Error::BeginFailed
            | sqlx::Error::Protocol(_)
    ) {
        Kind::Silent
    } else {
        Kind::Refused
    };
    kind.into_error(error)
}

/// Whether a statement ran into a UNIQUE constraint.
pub(crate) fn is_unique(error: &StoreError) -> bool {
    let StoreError::Unusable { source: Some(source), .. } = error else { return false };
    matches!(
        source.downcast_ref::<sqlx::Error>(),
        Some(sqlx::Error::Database(e)) if matches!(e.kind(), ErrorKind::UniqueViolation)
    )
}

enum Kind {
    Full,
    Damaged,
    Silent,
    Unwritable,
    Refused,
}

impl Kind {
    fn into_error(self, error: sqlx::Error) -> StoreError {
        let unusable = |reason: &str, error| StoreError::Unusable {
            reason: reason.to_owned(),
            source: Some(Box::new(error) as Box<dyn std::error::Error + Send + Sync>),
        };
        match self {
            Self::Full => StoreError::Full,
            Self::Silent => StoreError::Unavailable(Box::new(error)),
            Self::Damaged => unusable(
                "the file is damaged or is no SQLite database; nothing was changed: restore a backup, or name another file",
                error,
            ),
            Self::Unwritable => unusable(
                "the file or its folder cannot be opened for writing: check that it exists and who may write there",
                error,
            ),
            Self::Refused => {
                unusable("it refused a statement: its tables are not as this version of Tieline knows them", error)
            }
        }
    }
}

fn sqlite(error: &dyn DatabaseError) -> Kind {
    // The low byte is the primary code, the rest tells more.
    let code = error.code().and_then(|c| c.parse::<i64>().ok()).unwrap_or(0) & 0xff;
    match code {
        SQLITE_FULL => Kind::Full,
        SQLITE_CORRUPT | SQLITE_NOTADB => Kind::Damaged,
        SQLITE_BUSY | SQLITE_LOCKED | SQLITE_IOERR => Kind::Silent,
        SQLITE_READONLY | SQLITE_CANTOPEN => Kind::Unwritable,
        _ => Kind::Refused,
    }
}

/// By SQLSTATE (<https://www.postgresql.org/docs/current/errcodes-appendix.html>).
fn postgres(error: &dyn DatabaseError) -> Kind {
    let code = error.code().unwrap_or_default();
    match code.as_ref() {
        // disk_full
        "53100" => Kind::Full,
        // serialization_failure, deadlock_detected: the same call succeeds when it is made again.
        "40001" | "40P01" => Kind::Silent,
        code if ["08", "53", "55", "57", "58"].contains(&code.get(..2).unwrap_or_default()) => Kind::Silent,
        _ => Kind::Refused,
    }
}
