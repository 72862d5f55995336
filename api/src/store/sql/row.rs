//! What goes into a statement and comes out of it: three kinds of value, which both databases know alike.

use serde::{Serialize, de::DeserializeOwned};
use sqlx::{Column, Row as _, TypeInfo, ValueRef, postgres::PgRow, sqlite::SqliteRow};
use tieline_openapi::v1::Timestamp;
use uuid::Uuid;

use crate::store::StoreError;

/// One argument of a statement. NULL keeps its type: Postgres wants to know it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Value {
    Int(Option<i64>),
    Text(Option<String>),
    Bytes(Option<Vec<u8>>),
}

/// The arguments of a statement, in order.
macro_rules! args {
    ($($value:expr),* $(,)?) => { vec![$($crate::store::sql::row::Value::from($value)),*] };
}
pub(crate) use args;

macro_rules! from_int {
    ($($t:ty),*) => {$(
        impl From<$t> for Value {
            fn from(n: $t) -> Self { Self::Int(Some(i64::from(n))) }
        }
        impl From<Option<$t>> for Value {
            fn from(n: Option<$t>) -> Self { Self::Int(n.map(i64::from)) }
        }
    )*};
}
from_int!(i64, u32, u16, u8, bool);

// What counts up never gets near 2^63; what a caller could make so large (a sequence, a cursor) only has to stay in order.
impl From<u64> for Value {
    fn from(n: u64) -> Self {
        Self::Int(Some(i64::try_from(n).unwrap_or(i64::MAX)))
    }
}
impl From<Option<u64>> for Value {
    fn from(n: Option<u64>) -> Self {
        Self::Int(n.map(|n| i64::try_from(n).unwrap_or(i64::MAX)))
    }
}
impl From<Timestamp> for Value {
    fn from(at: Timestamp) -> Self {
        Self::Int(Some(at.as_millisecond()))
    }
}
impl From<Option<Timestamp>> for Value {
    fn from(at: Option<Timestamp>) -> Self {
        Self::Int(at.map(Timestamp::as_millisecond))
    }
}
impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(Some(text.to_owned()))
    }
}
impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(Some(text))
    }
}
impl From<&String> for Value {
    fn from(text: &String) -> Self {
        Self::Text(Some(text.clone()))
    }
}
impl From<Option<String>> for Value {
    fn from(text: Option<String>) -> Self {
        Self::Text(text)
    }
}
impl From<Uuid> for Value {
    fn from(id: Uuid) -> Self {
        Self::Text(Some(id.to_string()))
    }
}
impl From<Vec<u8>> for Value {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Bytes(Some(bytes))
    }
}
impl From<Option<Vec<u8>>> for Value {
    fn from(bytes: Option<Vec<u8>>) -> Self {
        Self::Bytes(bytes)
    }
}
impl From<[u8; 32]> for Value {
    fn from(bytes: [u8; 32]) -> Self {
        Self::Bytes(Some(bytes.to_vec()))
    }
}

/// Refuses what Postgres cannot store in a text, so that both databases take the same.
pub(crate) fn check(args: &[Value]) -> Result<(), StoreError> {
    let nul = args.iter().any(|a| matches!(a, Value::Text(Some(text)) if text.contains('\0')));
    if nul { Err(StoreError::Invalid { reason: "a text contains the character NUL".to_owned() }) } else { Ok(()) }
}

/// One row of an answer, read from left to right.
#[derive(Debug)]
pub(crate) struct Row(std::vec::IntoIter<Value>);

impl Row {
    pub(crate) fn of(cells: Vec<Value>) -> Self {
        Self(cells.into_iter())
    }

    /// The columns that are not read yet.
    pub(crate) fn rest(self) -> Vec<Value> {
        self.0.collect()
    }

    fn next(&mut self) -> Result<Value, StoreError> {
        self.0.next().ok_or_else(|| odd("a row has too few columns"))
    }

    pub(crate) fn opt_int(&mut self) -> Result<Option<i64>, StoreError> {
        match self.next()? {
            Value::Int(n) => Ok(n),
            // An expression that is NULL has no type of its own.
            Value::Text(None) | Value::Bytes(None) => Ok(None),
            Value::Text(Some(_)) | Value::Bytes(Some(_)) => Err(odd("a column is not a number")),
        }
    }

    pub(crate) fn int(&mut self) -> Result<i64, StoreError> {
        self.opt_int()?.ok_or_else(|| odd("a number is missing"))
    }

    pub(crate) fn count(&mut self) -> Result<u64, StoreError> {
        let n = self.int()?;
        u64::try_from(n).map_err(|_| odd("a counter is below zero"))
    }

    pub(crate) fn small(&mut self) -> Result<u32, StoreError> {
        let n = self.int()?;
        u32::try_from(n).map_err(|_| odd("a small number is out of range"))
    }

    pub(crate) fn opt_time(&mut self) -> Result<Option<Timestamp>, StoreError> {
        self.opt_int()?.map(time).transpose()
    }

    pub(crate) fn time(&mut self) -> Result<Timestamp, StoreError> {
        time(self.int()?)
    }

    pub(crate) fn opt_text(&mut self) -> Result<Option<String>, StoreError> {
        match self.next()? {
            Value::Text(text) => Ok(text),
            Value::Int(None) | Value::Bytes(None) => Ok(None),
            Value::Int(Some(_)) | Value::Bytes(Some(_)) => Err(odd("a column is not a text")),
        }
    }

    pub(crate) fn text(&mut self) -> Result<String, StoreError> {
        self.opt_text()?.ok_or_else(|| odd("a text is missing"))
    }

    pub(crate) fn opt_bytes(&mut self) -> Result<Option<Vec<u8>>, StoreError> {
        match self.next()? {
            Value::Bytes(bytes) => Ok(bytes),
            Value::Int(None) | Value::Text(None) => Ok(None),
            Value::Int(Some(_)) | Value::Text(Some(_)) => Err(odd("a column holds no bytes")),
        }
    }

    pub(crate) fn bytes(&mut self) -> Result<Vec<u8>, StoreError> {
        self.opt_bytes()?.ok_or_else(|| odd("bytes are missing"))
    }

    pub(crate) fn hash(&mut self) -> Result<[u8; 32], StoreError> {
        self.bytes()?.try_into().map_err(|_| odd("a digest has not 32 bytes"))
    }

    /// An id, of whichever type.
    pub(crate) fn id<T>(&mut self) -> Result<T, StoreError>
    where
        T: std::str::FromStr<Err = tieline_openapi::ids::IdError>,
    {
        Ok(self.text()?.parse()?)
    }

    pub(crate) fn doc<T: DeserializeOwned>(&mut self, what: &'static str) -> Result<T, StoreError> {
        from_doc(what, &self.text()?)
    }

    pub(crate) fn word<T: DeserializeOwned>(&mut self, what: &'static str) -> Result<T, StoreError> {
        serde_json::from_value(serde_json::Value::String(self.text()?))
            .map_err(|source| StoreError::Decode { what, source })
    }
}

fn time(millis: i64) -> Result<Timestamp, StoreError> {
    Timestamp::from_millisecond(millis).map_err(|e| StoreError::Unusable {
        reason: "it holds a time that is out of range; restore a backup".to_owned(),
        source: Some(Box::new(e)),
    })
}

fn odd(what: &str) -> StoreError {
    StoreError::Unusable {
        reason: format!("{what}: its tables were changed by something else than Tieline; restore a backup"),
        source: None,
    }
}

/// A document as JSON text.
pub(crate) fn to_doc<T: Serialize>(what: &'static str, value: &T) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|source| StoreError::Decode { what, source })
}

/// A document from JSON text.
pub(crate) fn from_doc<T: DeserializeOwned>(what: &'static str, text: &str) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|source| StoreError::Decode { what, source })
}

/// A word of an enum, as it is stored.
pub(crate) fn from_word<T: DeserializeOwned>(what: &'static str, word: String) -> Result<T, StoreError> {
    serde_json::from_value(serde_json::Value::String(word)).map_err(|source| StoreError::Decode { what, source })
}

/// An enum's bare word, as it stands in JSON.
pub(crate) fn to_word<T: Serialize>(what: &'static str, value: &T) -> Result<String, StoreError> {
    let word = serde_json::to_value(value).map_err(|source| StoreError::Decode { what, source })?;
    Ok(word.as_str().map_or_else(|| word.to_string(), str::to_owned))
}

pub(crate) fn from_sqlite(row: &SqliteRow) -> Result<Row, sqlx::Error> {
    let mut cells = Vec::with_capacity(row.len());
    for i in 0..row.len() {
        let raw = row.try_get_raw(i)?;
        let cell = if raw.is_null() {
            Value::Int(None)
        } else {
            match raw.type_info().name() {
                "TEXT" => Value::Text(Some(row.try_get(i)?)),
                "BLOB" => Value::Bytes(Some(row.try_get(i)?)),
                _ => Value::Int(Some(row.try_get(i)?)),
            }
        };
        cells.push(cell);
    }
    Ok(Row(cells.into_iter()))
}

pub(crate) fn from_postgres(row: &PgRow) -> Result<Row, sqlx::Error> {
    let mut cells = Vec::with_capacity(row.len());
    for (i, column) in row.columns().iter().enumerate() {
        let cell = match column.type_info().name() {
            "TEXT" => Value::Text(row.try_get(i)?),
            "BYTEA" => Value::Bytes(row.try_get(i)?),
            "INT4" => Value::from(row.try_get::<Option<i32>, _>(i)?.map(i64::from)),
            _ => Value::Int(row.try_get(i)?),
        };
        debug_assert_eq!(column.ordinal(), i, "columns come in order");
        cells.push(cell);
    }
    Ok(Row(cells.into_iter()))
}
