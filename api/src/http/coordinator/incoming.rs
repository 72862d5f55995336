//! A call, decoded: who sent it, about what, and with what.

use axum::{
    RequestPartsExt as _,
    body::Bytes,
    extract::{FromRequest as _, RawPathParams, Request},
    http::{header, request::Parts},
};
use serde::de::DeserializeOwned;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use std::sync::Arc;
use tieline_openapi::{
    coordinator::{Method, Operation, OperationId, PathParameters as _, page_size},
    problem::ProblemCode,
};
use uuid::Uuid;

use super::{
    super::{
        extract, finish,
        problem::{self, Fault},
    },
    Peers,
    admit::Admitted,
};
use crate::{
    app::error::field,
    coordinator::{
        Call, Coordination, Peer,
        proof::{Given, HEADER},
    },
    store::Audit,
};

/// A call of a peer, of one operation.
pub(super) struct Incoming<O: Operation> {
    /// Who calls, and what the protocol needs of it.
    pub(super) call: Call,
    /// The ids of its path.
    pub(super) path: O::Path,
    /// Its query.
    pub(super) query: O::Query,
    /// Its body.
    pub(super) body: O::Body,
}

impl<O: Operation> Incoming<O> {
    /// The peer.
    pub(super) fn peer(&self) -> &Arc<Peer> {
        &self.call.peer
    }

    /// Size and beginning of a page.
    pub(super) fn cut(
        &self,
        coordination: &Coordination,
        size: Option<i32>,
        token: Option<&str>,
    ) -> Result<Cut, Fault> {
        let invalid = |pointer: &str, message: &str| Fault::invalid(vec![field(pointer, message)]);
        let size = page_size(size).ok_or_else(|| invalid("?pageSize", "is not negative"))?;
        let list = format!("{}|{}", O::ID.as_str(), O::ID.path(&self.path));
        let after = match token.filter(|token| !token.is_empty()) {
            None => None,
            Some(token) => {
                let read = coordination.vault().read_page_token(&list, token);
                let wrong = || invalid("?pageToken", "is not one that this list gave: begin again without it");
                Some(read.ok_or_else(wrong)?)
            }
        };
        Ok(Cut { size, after, list })
    }
}

/// Where a page begins and how long it is.
pub(super) struct Cut {
    /// Items.
    pub(super) size: usize,
    /// The last id of the page before.
    pub(super) after: Option<String>,
    list: String,
}

impl Cut {
    /// The token of the next page.
    pub(super) fn next(
        &self,
        coordination: &Coordination,
        last: Option<impl ToString>,
    ) -> Result<Option<String>, Fault> {
        let token = last.map(|last| coordination.vault().page_token(&self.list, &last.to_string()));
        Ok(token.transpose()?)
    }
}

/// Decodes a call.
pub(super) async fn read<O: Operation>(peers: &Peers, request: Request) -> Result<Incoming<O>, Fault> {
    let (mut parts, body) = request.into_parts();
    // Nobody gets here who is no peer.
    let nobody = || Fault::new(ProblemCode::Unauthenticated, "the connection is not a peer's");
    let Admitted(peer) = parts.extensions.get::<Admitted>().cloned().ok_or_else(nobody)?;
    if !peers.limits.get(&peer.id).is_some_and(|limit| limit.take()) {
        return Err(Fault::new(ProblemCode::TooManyRequests, "too many calls").header(header::RETRY_AFTER, "1"));
    }
    // Before anything is refused: a body that is left unread ends the connection, and with it what else the peer sends.
    let bytes = bytes(&parts, body).await?;
    let path = path::<O>(&mut parts).await?;
    // The first id is the caller's own: what is not in its subtree is not there. Our own resource is the exception.
    let own = peers.coordination.us();
    let provider = path.parameters().iter().find(|(name, _)| *name == "provider").map(|(_, id)| (*id).to_owned());
    let visible = |id: &String| *id == peer.id.as_str() || (O::ID == OperationId::GetProvider && *id == own.as_str());
    if !provider.as_ref().is_none_or(visible) {
        return Err(Fault::not_found());
    }
    let query = query::<O::Query>(&parts)?;
    let digest = digest(&parts, &bytes);
    let body = decode::<O>(&parts, &bytes)?;
    let audit = audit::<O>(peers, &peer, &parts);
    let proof = parts.headers.get_all(HEADER).iter().map(|value| value.as_bytes().to_vec());
    let proof = Given::new(proof.collect());
    let call = Call { peer, request_id: request_id(&parts), digest, proof, audit };
    Ok(Incoming { call, path, query, body })
}

async fn path<O: Operation>(parts: &mut Parts) -> Result<O::Path, Fault> {
    let ids = match parts.extract::<RawPathParams>().await {
        Ok(params) => params.iter().map(|(name, id)| (name.to_owned(), Value::from(id))).collect(),
        // An id that is no UTF-8 is nobody's.
        Err(_) if O::ID.template().contains('{') => return Err(Fault::not_found()),
        Err(_) => serde_json::Map::new(),
    };
    let ids = if ids.is_empty() { Value::Null } else { Value::Object(ids) };
    serde_json::from_value(ids).map_err(|_| Fault::not_found())
}

/// What is not known in a query is left out: the specification forbids none, and later revisions have more.
fn query<Q: DeserializeOwned>(parts: &Parts) -> Result<Q, Fault> {
    let text = parts.uri.query().unwrap_or_default();
    let decoder = serde_urlencoded::Deserializer::new(form_urlencoded::parse(text.as_bytes()));
    serde_path_to_error::deserialize(decoder).map_err(|error| {
        let pointer = format!("?{}", error.path());
        Fault::invalid(vec![field(pointer.trim_end_matches('.'), error.inner().to_string())])
    })
}

/// The `requestId` of whatever operation; one that is no UUID was refused with the query.
fn request_id(parts: &Parts) -> Option<Uuid> {
    let query = parts.uri.query().unwrap_or_default();
    let mut ids = form_urlencoded::parse(query.as_bytes()).filter(|(name, _)| name == "requestId");
    ids.next().and_then(|(_, id)| id.parse().ok())
}

async fn bytes(parts: &Parts, body: axum::body::Body) -> Result<Bytes, Fault> {
    let mut request = Request::new(body);
    // The limit of the body travels with the request.
    *request.extensions_mut() = parts.extensions.clone();
    Bytes::from_request(request, &()).await.map_err(|rejection| problem::of_status(rejection.status()))
}

/// Of the bytes as they came: what is left out in decoding still tells two requests apart.
fn digest(parts: &Parts, body: &[u8]) -> [u8; 32] {
    let line = format!("{} {}\n", parts.method, parts.uri);
    Sha256::new().chain_update(line).chain_update(body).finalize().into()
}

fn decode<O: Operation>(parts: &Parts, bytes: &[u8]) -> Result<O::Body, Fault> {
    let has_body = matches!(O::ID.method(), Method::Post | Method::Patch);
    if !has_body || bytes.is_empty() {
        // A message that says nothing may be left out.
        let nothing = serde_json::from_value(Value::Object(serde_json::Map::new()));
        return nothing.map_err(|_| Fault::invalid(vec![field("", "a JSON body is needed")]));
    }
    let sent = parts.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = sent.split(';').next().unwrap_or_default().trim();
    if !essence.eq_ignore_ascii_case("application/json") {
        return Err(Fault::new(ProblemCode::UnsupportedMediaType, "the body is application/json"));
    }
    extract::value(bytes)?;
    let mut decoder = serde_json::Deserializer::from_slice(bytes);
    serde_path_to_error::deserialize(&mut decoder)
        .map_err(|error| Fault::invalid(vec![crate::app::intent::at_path(error.path(), &error.inner().to_string())]))
}

fn audit<O: Operation>(peers: &Peers, peer: &Peer, parts: &Parts) -> Audit {
    let request_id = parts.extensions.get::<finish::RequestId>();
    Audit {
        principal: format!("peer:{}", peer.id),
        request_id: request_id.map_or_else(String::new, |id| id.0.to_string()),
        action: O::ID.as_str().to_owned(),
        subject: parts.uri.path().to_owned(),
        at: peers.coordination.clock().now(),
    }
}
