//! Saved answers: what an idempotency key was answered with.

use super::{
    SqlStore,
    row::{Row, args, from_doc, to_doc},
    tx::Tx,
};
use crate::store::{IdempotencyKey, SavedAnswer, StoreError};

/// Milliseconds that an answer is given again.
const KEEP_MS: u64 = 7 * 24 * 3_600_000;

const WHERE_KEY: &str = "principal = $1 AND method = $2 AND path = $3 AND idem_key = $4";

fn answer(row: &mut Row, key: &IdempotencyKey) -> Result<SavedAnswer, StoreError> {
    let digest = row.hash()?;
    if digest == key.digest { from_doc("saved answer", &row.text()?) } else { Err(StoreError::IdempotencyKeyReused) }
}

/// Saves an answer in the transaction of the write that it answers.
///
/// # Errors
/// [`StoreError::IdempotencyReplay`] when the same request has committed meanwhile,
/// [`StoreError::IdempotencyKeyReused`] when another one has.
pub(super) async fn save(tx: &mut Tx, key: &IdempotencyKey, saved: &SavedAnswer) -> Result<(), StoreError> {
    let at_key = || args![&key.principal, &key.method, &key.path, &key.key];
    let mut args = at_key();
    args.extend(args![KEEP_MS]);
    tx.execute(&format!("DELETE FROM answers WHERE {WHERE_KEY} AND created_at <= {{now}} - $5"), args).await?;
    let mut args = at_key();
    args.extend(args![key.digest, to_doc("saved answer", saved)?]);
    let written = tx
        .execute(
            "INSERT INTO answers (principal, method, path, idem_key, digest, answer, created_at)
             VALUES ($1, $2, $3, $4, $5, $6, {now})
             ON CONFLICT (principal, method, path, idem_key) DO NOTHING",
            args,
        )
        .await?;
    if written > 0 {
        return Ok(());
    }
    let row = tx.row(&format!("SELECT digest, answer FROM answers WHERE {WHERE_KEY}"), at_key()).await?;
    Err(StoreError::IdempotencyReplay(Box::new(answer(&mut row.ok_or(StoreError::NotFound)?, key)?)))
}

impl SqlStore {
    pub(super) async fn find_answer(&self, key: &IdempotencyKey) -> Result<Option<SavedAnswer>, StoreError> {
        let mut tx = self.look().await?;
        let row = tx
            .row(
                &format!("SELECT digest, answer FROM answers WHERE {WHERE_KEY} AND created_at > {{now}} - $5"),
                args![&key.principal, &key.method, &key.path, &key.key, KEEP_MS],
            )
            .await?;
        tx.done().await?;
        row.map(|mut row| answer(&mut row, key)).transpose()
    }
}
