//! One file a command.

pub(crate) mod channels;
pub(crate) mod conformance;
pub(crate) mod connections;
pub(crate) mod coordinator;
pub(crate) mod events;
pub(crate) mod flow;
pub(crate) mod gateway;
pub(crate) mod gateways;
pub(crate) mod issues;
pub(crate) mod lab;
pub(crate) mod plan;
pub(crate) mod router;
pub(crate) mod serve;
pub(crate) mod show;
pub(crate) mod tokens;

use std::path::Path;

use anyhow::Context as _;
use secrecy::SecretString;
use tieline_openapi::{
    client::{Client, ClientError, ConnectionQuery},
    v1::Connection,
};

use crate::{
    args::Api,
    exit::{Exit, Failure},
};

/// Rows of one page.
pub(crate) const PAGE: u32 = 200;

/// Everything that a list of the client holds, page after page: `every_page!(client.tokens => tokens)`.
macro_rules! every_page {
    ($client:ident.$list:ident => $rows:ident) => {{
        let mut page = tieline_openapi::client::PageQuery { size: Some($crate::commands::PAGE), token: None };
        let mut all = Vec::new();
        loop {
            let list = $client.$list(&page).await?;
            all.extend(list.$rows);
            match list.next_page_token {
                Some(token) => page.token = Some(token),
                None => break all,
            }
        }
    }};
}
pub(crate) use every_page;

/// Where `tieline serve` leaves its first token.
const TOKEN_FILE: &str = "tieline.token";

/// A client by flags, environment, or the token file beside a service started here.
pub(crate) fn client(api: &Api) -> anyhow::Result<Client> {
    let token = match &api.token {
        Some(token) => token.trim().to_owned(),
        None => match std::fs::read_to_string(Path::new(TOKEN_FILE)) {
            Ok(text) => text.trim().to_owned(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(Failure::new(
                    Exit::Denied,
                    format!("no token: set TIELINE_TOKEN, or run this where `tieline serve` wrote {TOKEN_FILE}"),
                )
                .into());
            }
            Err(error) => return Err(error).context(TOKEN_FILE),
        },
    };
    Ok(Client::new(&api.url, &SecretString::from(token))?)
}

/// The connection with this id, or this name.
pub(crate) async fn find(client: &Client, id_or_name: &str) -> anyhow::Result<Connection> {
    if let Ok(id) = id_or_name.parse() {
        return Ok(client.connection(id).await?);
    }
    let query = ConnectionQuery { name: Some(id_or_name.to_owned()), ..ConnectionQuery::default() };
    let found = client.connections(&query).await?.connections.into_iter().next();
    let none = || {
        Failure::new(Exit::Failure, format!("there is no connection `{id_or_name}`: see `tieline connections list`"))
    };
    found.ok_or_else(|| none().into())
}

/// Turns a time-out of an operation into a line that names it.
pub(crate) fn explain_timeout(error: ClientError) -> anyhow::Error {
    if let ClientError::Timeout { operation } = error {
        let line = format!(
            "operation {operation} has not ended yet; it goes on: look at it with GET /v1/operations/{operation}"
        );
        return Failure::new(Exit::Timeout, line).into();
    }
    error.into()
}
