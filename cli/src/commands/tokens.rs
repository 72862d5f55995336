//! `tieline tokens`: list, create, revoke.

use std::process::ExitCode;

use tieline_openapi::{
    client::Client,
    ids::TokenId,
    v1::{Scope, TokenRequest},
};

use super::{client, every_page};
use crate::{
    args::{ScopeArg, Tokens},
    exit::{Exit, Failure},
    output,
};

/// Runs `tieline tokens ...`.
pub(crate) async fn run(command: Tokens) -> anyhow::Result<ExitCode> {
    match command {
        Tokens::List { api } => list(&client(&api)?, api.json).await?,
        Tokens::Create { api, name, scope, expires_in_seconds } => {
            let scope = match scope {
                ScopeArg::Read => Scope::Read,
                ScopeArg::Operate => Scope::Operate,
                ScopeArg::Admin => Scope::Admin,
            };
            let issued = client(&api)?.issue_token(&TokenRequest { name, scope, expires_in_seconds }).await?;
            if api.json {
                output::json(&issued)?;
            } else {
                // Alone on standard output: `TIELINE_TOKEN=$(tieline tokens create ...)`.
                anstream::eprintln!(
                    "token {} ({}); its secret is shown this once:",
                    issued.token.name,
                    issued.token.id
                );
                output::say!("{}", issued.secret.unwrap_or_default());
            }
        }
        Tokens::Revoke { api, which } => {
            let client = client(&api)?;
            let id = find(&client, &which).await?;
            client.revoke_token(id).await?;
            if api.json {
                output::json(&serde_json::json!({ "id": id }))?;
            } else {
                output::say!("token {id} has ended");
            }
        }
    }
    Ok(Exit::Ok.into())
}

async fn list(client: &Client, json: bool) -> anyhow::Result<()> {
    let all = every_page!(client.tokens => tokens);
    if json {
        return output::json(&all);
    }
    let mut table = output::table(&["NAME", "SCOPE", "ENDS", "LAST USED", "ID"]);
    for token in &all {
        table.add_row([
            token.name.clone(),
            output::word(&token.scope),
            token.expires_at.map_or_else(|| "never".to_owned(), output::time),
            token.last_used_at.map_or_else(|| "-".to_owned(), output::time),
            token.id.to_string(),
        ]);
    }
    output::say!("{table}");
    Ok(())
}

/// The token with this id, or this name.
async fn find(client: &Client, id_or_name: &str) -> anyhow::Result<TokenId> {
    if let Ok(id) = id_or_name.parse() {
        return Ok(id);
    }
    let found = every_page!(client.tokens => tokens).into_iter().find(|token| token.name == id_or_name);
    let none =
        || Failure::new(Exit::Failure, format!("there is no token `{id_or_name}`: see `tieline tokens list`")).into();
    found.map(|token| token.id).ok_or_else(none)
}
