//! The first start: the first admin token goes into a file that only its owner can read.

use std::{
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use secrecy::ExposeSecret;
use tieline_openapi::{
    ids::{IdError, ProjectId, TokenId},
    v1::{Scope, Token},
};

use crate::{
    engine::clock::{Clock, Random},
    secrets,
    store::{Audit, NewToken, Store, StoreError},
};

/// The project of the first token.
pub const FIRST_PROJECT: &str = "default";

/// Why there is no first token.
#[derive(Debug, thiserror::Error)]
pub enum BootstrapError {
    /// The file could not be written.
    #[error("cannot write the first admin token to {path}: make its folder writable, or name another file")]
    Write {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The store failed.
    #[error("the store failed at the first start")]
    Store(#[from] StoreError),
    /// The built-in project's name is not one.
    #[error("the first project's name is not an identifier")]
    Project(#[from] IdError),
}

/// Makes the first admin token if the store has none, and writes it to a file with mode 0600. The file comes first: a crash
/// between the two leaves a file that the next start replaces, never a token that nobody knows. Gives whether it made one.
///
/// # Errors
/// [`BootstrapError`].
pub async fn first_token(
    store: &dyn Store,
    clock: &dyn Clock,
    random: &dyn Random,
    path: &Path,
) -> Result<bool, BootstrapError> {
    if store.count_tokens().await? > 0 {
        return Ok(false);
    }
    let now = clock.now();
    let id = TokenId(random.uuid_v7(now));
    let secret = secrets::token_secret(random);
    let hash = secrets::token_hash(secret.expose_secret());
    write(path, secret.expose_secret(), id)
        .map_err(|source| BootstrapError::Write { path: path.to_owned(), source })?;
    let token = Token {
        id,
        name: "first".to_owned(),
        project: FIRST_PROJECT.parse::<ProjectId>()?,
        scope: Scope::Admin,
        expires_at: None,
        last_used_at: None,
        created_at: now,
    };
    let audit = Audit {
        principal: "installation".to_owned(),
        request_id: String::new(),
        action: "firstToken".to_owned(),
        subject: format!("/v1/tokens/{id}"),
        at: now,
    };
    store.insert_token(NewToken { token, hash, audit, idempotency: None }).await?;
    Ok(true)
}

/// Writes beside the file and renames: a reader sees the whole secret or none.
fn write(path: &Path, secret: &str, id: TokenId) -> std::io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{id}"));
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
    file.write_all(secret.as_bytes())?;
    file.write_all(b"\n")?;
    file.sync_all()?;
    std::fs::rename(&beside, path)
}
