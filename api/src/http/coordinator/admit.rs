//! Nobody but a peer is answered: the certificate of the connection says who calls, or a bearer token does, or both have to.

use std::sync::Arc;

use axum::{
    extract::{ConnectInfo, Request, State},
    http::{HeaderValue, header},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use tieline_openapi::{coordinator::ResourceId, problem::ProblemCode};

use super::{super::problem::Fault, Peers, listener::Caller};
use crate::coordinator::{IdentityError, Peer};

/// Who called, for the log.
#[derive(Debug, Clone)]
pub(super) struct Known(pub(super) ResourceId);

/// Who calls, for handlers.
#[derive(Clone)]
pub(super) struct Admitted(pub(super) Arc<Peer>);

/// Lets a peer's call through, and nobody else's.
pub(super) async fn peers_only(State(peers): State<Peers>, mut request: Request, next: Next) -> Response {
    // The listener tells who is there; without its word nobody is.
    let caller = request.extensions().get::<ConnectInfo<Caller>>().map(|info| info.0.clone());
    let Some(caller) = caller else { return unknown(&IdentityError::NoToken).into_response() };
    let authorization: Vec<&[u8]> =
        request.headers().get_all(header::AUTHORIZATION).iter().map(HeaderValue::as_bytes).collect();
    let known = peers.coordination.identify(caller.certified(), &authorization).await;
    drop(authorization);
    match known {
        Ok(peer) => {
            let known = Known(peer.id.clone());
            // It has told what it is for, and is nobody's business any more.
            request.headers_mut().remove(header::AUTHORIZATION);
            request.extensions_mut().insert(Admitted(peer));
            let mut response = next.run(request).await;
            response.extensions_mut().insert(known);
            response
        }
        Err(error) => {
            tracing::info!(
                error = &error as &dyn std::error::Error,
                tieline.peer = caller.certified().map_or("", ResourceId::as_str),
                "a call was refused: nobody knows whose it is"
            );
            unknown(&error).into_response()
        }
    }
}

/// The answer to a call that is nobody's (RFC 6750 section 3).
fn unknown(error: &IdentityError) -> Fault {
    let challenge = match error {
        // Whoever sent nothing is told nothing more.
        IdentityError::NoToken => "Bearer realm=\"coordinator\"",
        IdentityError::Form => "Bearer realm=\"coordinator\", error=\"invalid_request\"",
        IdentityError::Token(_) | IdentityError::Nobody => "Bearer realm=\"coordinator\", error=\"invalid_token\"",
        IdentityError::Keys(_) => {
            return Fault::new(ProblemCode::Unavailable, error.to_string()).header(header::RETRY_AFTER, "10");
        }
        IdentityError::Store(_) => {
            return Fault::new(ProblemCode::Unavailable, "whose call it is cannot be checked now");
        }
    };
    Fault::new(ProblemCode::Unauthenticated, error.to_string())
        .remedy("Send `Authorization: Bearer <token>` with a token of the agreed issuer.")
        .header(header::WWW_AUTHENTICATE, challenge)
}
