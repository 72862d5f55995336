//! The gate in front of every documented route: which operation this is, who asks, and whether they may. A route that no
//! document and no policy knows lets nobody through.

use std::{collections::BTreeMap, time::Duration};

use axum::{
    extract::{MatchedPath, Request, State},
    http::{HeaderMap, HeaderValue, Method, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use tieline_openapi::problem::ProblemCode;
use utoipa::openapi::{OpenApi, PathItem, path::Operation};

use super::{
    Http,
    extract::{LONGEST_WAIT, last_segment, split_verb},
    finish::RequestId,
    problem::Fault,
};
use crate::{
    app::Caller,
    auth::{self, Access, Principal, Refusal},
};

/// The longest that a handler may take: the longest wait, and some.
pub(super) const LONGEST: Duration = LONGEST_WAIT.saturating_add(Duration::from_secs(15));

/// The operation of a request, for the log and the metrics.
#[derive(Debug, Clone, Copy)]
pub(super) struct OperationName(pub(super) &'static str);

/// The secret of a join token, as a hash.
#[derive(Debug, Clone, Copy)]
pub(super) struct JoinHash(pub(super) [u8; 32]);

/// Operations by documented path and method.
pub(super) struct Routes(BTreeMap<String, BTreeMap<String, (&'static str, Access)>>);

/// Why a request is no operation.
enum Miss {
    Path,
    Method(String),
}

/// The operations of a path.
pub(super) fn operations(item: &PathItem) -> impl Iterator<Item = (&'static str, &Operation)> {
    [("GET", &item.get), ("PUT", &item.put), ("POST", &item.post), ("PATCH", &item.patch), ("DELETE", &item.delete)]
        .into_iter()
        .filter_map(|(method, operation)| Some((method, operation.as_ref()?)))
}

impl Routes {
    pub(super) fn of(document: &OpenApi) -> Self {
        let of_item = |item: &PathItem| {
            operations(item)
                .filter_map(|(method, operation)| {
                    Some((method.to_owned(), auth::access(operation.operation_id.as_deref()?)?))
                })
                .collect()
        };
        Self(document.paths.paths.iter().map(|(path, item)| (path.clone(), of_item(item))).collect())
    }

    /// The operation of a matched route. HEAD is GET without its body.
    fn find(&self, method: &Method, matched: &str, path: &str) -> Result<(&'static str, Access), Miss> {
        let decoded = last_segment(path);
        let verb = if matched.ends_with("/{id}") { split_verb(&decoded).1 } else { None };
        let documented = verb.map_or_else(|| matched.to_owned(), |verb| format!("{matched}:{verb}"));
        let methods = self.0.get(&documented).ok_or(Miss::Path)?;
        let name = if method == Method::HEAD { "GET" } else { method.as_str() };
        methods.get(name).copied().ok_or_else(|| {
            let mut allowed: Vec<&str> = methods.keys().map(String::as_str).collect();
            if methods.contains_key("GET") {
                allowed.push("HEAD");
            }
            Miss::Method(allowed.join(", "))
        })
    }
}

/// Lets a request through, or answers it.
pub(super) async fn gate(
    State(http): State<Http>,
    matched: Option<MatchedPath>,
    mut request: Request,
    next: Next,
) -> Response {
    // Without a matched route the fallback says that nothing is here.
    let Some(matched) = matched else { return next.run(request).await };
    let (name, access) = match http.routes.find(request.method(), matched.as_str(), request.uri().path()) {
        Ok(found) => found,
        Err(Miss::Path) => return Fault::not_found().into_response(),
        Err(Miss::Method(allowed)) => {
            let mut fault = Fault::new(ProblemCode::MethodNotAllowed, format!("this path takes {allowed}"));
            fault.headers.extend(HeaderValue::from_str(&allowed).map(|value| (header::ALLOW, value)));
            return fault.into_response();
        }
    };
    if access != Access::Open
        && let Err(fault) = identify(&http, name, access, &mut request).await
    {
        return named(name, fault.into_response());
    }
    let answer = tokio::time::timeout(http.longest, next.run(request)).await;
    let late = || {
        let fault = Fault::new(ProblemCode::Unavailable, "the answer took too long; whether it was done is not known");
        fault.header(header::RETRY_AFTER, "1").into_response()
    };
    named(name, answer.unwrap_or_else(|_| late()))
}

fn named(name: &'static str, mut response: Response) -> Response {
    response.extensions_mut().insert(OperationName(name));
    response
}

async fn identify(http: &Http, name: &'static str, access: Access, request: &mut Request) -> Result<(), Fault> {
    let principal = match bearer(request.headers()) {
        Some(secret) => auth::principal(&*http.app.store, secret, http.app.now()).await?,
        None => None,
    };
    let Some(principal) = principal else { return Err(unauthenticated(http)) };
    let own = request.uri().path().split('/').nth(3).map(str::to_owned);
    match auth::permit(&principal, access, own.as_deref()) {
        Ok(()) => {}
        Err(Refusal::Hidden) => return Err(Fault::not_found()),
        Err(Refusal::Forbidden) => return Err(forbidden(access)),
    }
    let request_id = request.extensions().get::<RequestId>().map_or_else(String::new, |id| id.0.to_string());
    let scope = match &principal {
        Principal::Token(token) => Some(token.scope),
        Principal::Gateway { .. } => None,
        Principal::Join { hash, .. } => {
            request.extensions_mut().insert(JoinHash(*hash));
            None
        }
    };
    let caller =
        Caller { principal: principal.name(), project: principal.project().clone(), scope, request_id, action: name };
    request.extensions_mut().insert(caller);
    Ok(())
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, secret) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    (scheme.eq_ignore_ascii_case("bearer") && (1..=256).contains(&secret.len())).then_some(secret)
}

fn unauthenticated(http: &Http) -> Fault {
    http.metrics.authentication_failed();
    if !http.failures.count() {
        return Fault::new(ProblemCode::TooManyRequests, "too many failed authentications")
            .header(header::RETRY_AFTER, "1");
    }
    Fault::new(ProblemCode::Unauthenticated, "no token was sent, or one that is unknown or has ended")
        .header(header::WWW_AUTHENTICATE, "Bearer realm=\"tieline\"")
}

fn forbidden(access: Access) -> Fault {
    let needed = match access {
        Access::Open => "nothing",
        Access::Scope(tieline_openapi::v1::Scope::Read) => "an API token",
        Access::Scope(tieline_openapi::v1::Scope::Operate) => "an API token with scope OPERATE",
        Access::Scope(tieline_openapi::v1::Scope::Admin) => "an API token with scope ADMIN",
        Access::Join => "a join token",
        Access::OwnGateway => "the gateway's own credential",
    };
    Fault::new(ProblemCode::Forbidden, format!("this call needs {needed}"))
}
