//! The routes of the API.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use axum::{
    Router,
    body::Bytes,
    extract::{Path, Query as Parameters, State},
    http::{HeaderMap, Method, Uri},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{
    operations::Operation,
    query::Query,
    resources::AttachmentBody,
    state::Google,
    wire::{self, GoogleError, Words},
};
use crate::clouds::sim::{Sim, View};

type Api = Arc<Sim<Google>>;
type Params<T> = (State<Api>, Path<T>, Parameters<Query>, HeaderMap, Bytes);

/// How long `operations.wait` holds its answer at most ("no more than the default deadline of 2 minutes").
const WAIT: Duration = Duration::from_secs(120);

pub(super) fn routes(sim: Api) -> Router {
    let region = "/compute/v1/projects/{project}/regions/{region}";
    let global = "/compute/v1/projects/{project}/global";
    Router::new()
        .route(&format!("{global}/interconnects"), get(list_interconnects))
        .route(&format!("{global}/interconnects/{{name}}"), get(get_interconnect))
        .route(&format!("{global}/operations/{{name}}"), get(get_global_operation))
        .route(&format!("{region}/interconnectAttachments"), get(list_attachments).post(insert_attachment))
        .route(
            &format!("{region}/interconnectAttachments/{{name}}"),
            get(get_attachment).patch(patch_attachment).delete(delete_attachment),
        )
        .route(&format!("{region}/routers"), get(list_routers))
        .route(&format!("{region}/routers/{{name}}"), get(get_router).patch(patch_router).put(update_router))
        .route(&format!("{region}/routers/{{name}}/getRouterStatus"), get(get_router_status))
        .route(&format!("{region}/operations"), get(list_operations))
        .route(&format!("{region}/operations/{{name}}"), get(get_operation))
        .route(&format!("{region}/operations/{{name}}/wait"), post(wait_operation))
        .fallback(nowhere)
        .method_not_allowed_fallback(nowhere)
        .with_state(sim)
}

async fn nowhere(method: Method, uri: Uri) -> Response {
    GoogleError::new(404, "notFound", format!("{method} {} is not simulated", uri.path())).into_response()
}

/// Checks the caller and the project, then runs a call under throttling and faults.
async fn run(
    sim: &Api,
    headers: &HeaderMap,
    (operation, mutating): (&str, bool),
    place: (&str, Option<&str>),
    perform: impl Future<Output = Result<Value, GoogleError>> + Send,
) -> Response {
    if let Err(refusal) = wire::authenticate(&sim.settings, headers) {
        return refusal.into_response();
    }
    let (project, region) = place;
    let wrong = sim.peek(|google| {
        if google.project != project {
            return Some(GoogleError::new(404, "notFound", format!("Failed to find project {project}")));
        }
        let unknown = region.filter(|region| *region != google.region);
        unknown.map(|region| {
            let message = format!("Invalid value for field 'region': '{region}'. Unknown region.");
            GoogleError::new(400, "invalid", message)
        })
    });
    if let Some(refusal) = wrong {
        return refusal.into_response();
    }
    let work = async {
        sim.settle().await;
        wire::answer(perform.await)
    };
    sim.call(operation, mutating, &Words, work).await
}

fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, GoogleError> {
    serde_json::from_slice(body)
        .map_err(|error| GoogleError::new(400, "badRequest", format!("Invalid JSON payload received. {error}")))
}

async fn lit(sim: &Api) -> BTreeSet<String> {
    let ports: Vec<String> = sim.peek(|google| google.interconnects.iter().map(|i| i.name.clone()).collect());
    let mut lit = BTreeSet::new();
    for port in ports {
        if sim.link_up(&port).await {
            lit.insert(port);
        }
    }
    lit
}

async fn list_interconnects((State(sim), Path(project), Parameters(query), headers, _): Params<String>) -> Response {
    let perform = async {
        let lit = lit(&sim).await;
        sim.read(View::List, |google| {
            let all = google.interconnects.iter().enumerate();
            let shown = all.map(|(n, i)| google.show_interconnect(n, i, lit.contains(&i.name))).collect();
            let path = format!("projects/{}/global/interconnects", google.project);
            query.list("compute#interconnectList", &path, shown)
        })
    };
    run(&sim, &headers, ("interconnects.list", false), (&project, None), perform).await
}

async fn get_interconnect((State(sim), Path((project, name)), _, headers, _): Params<(String, String)>) -> Response {
    let perform = async {
        let lit = lit(&sim).await;
        sim.read(View::One, |google| {
            let found = google.interconnects.iter().enumerate().find(|(_, i)| i.name == name);
            let (n, i) = found.ok_or_else(|| GoogleError::not_found(&google.interconnect_path(&name)))?;
            Ok(google.show_interconnect(n, i, lit.contains(&name)))
        })
    };
    run(&sim, &headers, ("interconnects.get", false), (&project, None), perform).await
}

async fn list_attachments(
    (State(sim), Path((project, region)), Parameters(query), headers, _): Params<(String, String)>,
) -> Response {
    let perform = async {
        let lit = lit(&sim).await;
        sim.read(View::List, |google| {
            let all = google.attachments.iter();
            let shown = all.map(|a| google.show_attachment(a, lit.contains(&a.interconnect))).collect();
            let path = format!("{}/interconnectAttachments", google.region_path());
            query.list("compute#interconnectAttachmentList", &path, shown)
        })
    };
    run(&sim, &headers, ("interconnectAttachments.list", false), (&project, Some(&region)), perform).await
}

async fn get_attachment(
    (State(sim), Path((project, region, name)), _, headers, _): Params<(String, String, String)>,
) -> Response {
    let perform = async {
        let lit = lit(&sim).await;
        sim.read(View::One, |google| {
            let path = google.path("interconnectAttachments", &name);
            let found = google.attachment(&name).ok_or_else(|| GoogleError::not_found(&path))?;
            Ok(google.show_attachment(found, lit.contains(&found.interconnect)))
        })
    };
    run(&sim, &headers, ("interconnectAttachments.get", false), (&project, Some(&region)), perform).await
}

async fn insert_attachment(
    (State(sim), Path((project, region)), Parameters(query), headers, body): Params<(String, String)>,
) -> Response {
    let perform = async {
        let body: AttachmentBody = decode(&body)?;
        sim.write(|google, now| google.insert_attachment(&body, &query, now))
    };
    run(&sim, &headers, ("interconnectAttachments.insert", true), (&project, Some(&region)), perform).await
}

async fn patch_attachment(
    (State(sim), Path((project, region, name)), Parameters(query), headers, body): Params<(String, String, String)>,
) -> Response {
    let perform = async {
        let body: AttachmentBody = decode(&body)?;
        sim.write(|google, now| google.patch_attachment(&name, &body, &query, now))
    };
    run(&sim, &headers, ("interconnectAttachments.patch", true), (&project, Some(&region)), perform).await
}

async fn delete_attachment(
    (State(sim), Path((project, region, name)), Parameters(query), headers, _): Params<(String, String, String)>,
) -> Response {
    let perform = async { sim.write(|google, now| google.delete_attachment(&name, &query, now)) };
    run(&sim, &headers, ("interconnectAttachments.delete", true), (&project, Some(&region)), perform).await
}

async fn list_routers(
    (State(sim), Path((project, region)), Parameters(query), headers, _): Params<(String, String)>,
) -> Response {
    let perform = async {
        sim.read(View::List, |google| {
            let shown = google.routers.iter().map(|router| google.show_router(router)).collect();
            query.list("compute#routerList", &format!("{}/routers", google.region_path()), shown)
        })
    };
    run(&sim, &headers, ("routers.list", false), (&project, Some(&region)), perform).await
}

async fn get_router(
    (State(sim), Path((project, region, name)), _, headers, _): Params<(String, String, String)>,
) -> Response {
    let perform = async {
        sim.read(View::One, |google| {
            let found = google.router(&name).ok_or_else(|| GoogleError::not_found(&google.path("routers", &name)))?;
            Ok(google.show_router(found))
        })
    };
    run(&sim, &headers, ("routers.get", false), (&project, Some(&region)), perform).await
}

async fn get_router_status(
    (State(sim), Path((project, region, name)), _, headers, _): Params<(String, String, String)>,
) -> Response {
    let perform = async {
        let status = sim.status().await;
        let now = sim.clock.now();
        sim.read(View::One, |google| {
            let found = google.router(&name).ok_or_else(|| GoogleError::not_found(&google.path("routers", &name)))?;
            Ok(google.show_router_status(found, &status, now))
        })
    };
    run(&sim, &headers, ("routers.getRouterStatus", false), (&project, Some(&region)), perform).await
}

async fn patch_router(
    (State(sim), Path((project, region, name)), Parameters(query), headers, body): Params<(String, String, String)>,
) -> Response {
    let perform = async {
        let body: Value = decode(&body)?;
        sim.write(|google, now| google.change_router(&name, "patch", &body, &query, now))
    };
    run(&sim, &headers, ("routers.patch", true), (&project, Some(&region)), perform).await
}

async fn update_router(
    (State(sim), Path((project, region, name)), Parameters(query), headers, body): Params<(String, String, String)>,
) -> Response {
    let perform = async {
        let body: Value = decode(&body)?;
        sim.write(|google, now| google.change_router(&name, "update", &body, &query, now))
    };
    run(&sim, &headers, ("routers.update", true), (&project, Some(&region)), perform).await
}

fn show_operation(google: &Google, name: &str) -> Result<Value, GoogleError> {
    let found = google.operations.iter().find(|op| op.name == name || op.id == name);
    let region = google.region_path();
    found.map(|op| op.show(&region)).ok_or_else(|| GoogleError::not_found(&google.path("operations", name)))
}

async fn get_operation(
    (State(sim), Path((project, region, name)), _, headers, _): Params<(String, String, String)>,
) -> Response {
    let perform = async { sim.peek(|google| show_operation(google, &name)) };
    run(&sim, &headers, ("regionOperations.get", false), (&project, Some(&region)), perform).await
}

async fn list_operations(
    (State(sim), Path((project, region)), Parameters(query), headers, _): Params<(String, String)>,
) -> Response {
    let perform = async {
        sim.read(View::List, |google| {
            let path = google.region_path();
            let shown = google.operations.iter().map(|op: &Operation| op.show(&path)).collect();
            query.list("compute#operationList", &format!("{path}/operations"), shown)
        })
    };
    run(&sim, &headers, ("regionOperations.list", false), (&project, Some(&region)), perform).await
}

async fn wait_operation(
    (State(sim), Path((project, region, name)), _, headers, _): Params<(String, String, String)>,
) -> Response {
    let perform = async {
        let done = async {
            loop {
                sim.settle().await;
                let shown = sim.peek(|google| show_operation(google, &name))?;
                if shown["status"] == "DONE" {
                    return Ok(shown);
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        match tokio::time::timeout(WAIT, done).await {
            Ok(answer) => answer,
            Err(_) => sim.peek(|google| show_operation(google, &name)),
        }
    };
    run(&sim, &headers, ("regionOperations.wait", false), (&project, Some(&region)), perform).await
}

async fn get_global_operation(
    (State(sim), Path((project, name)), _, headers, _): Params<(String, String)>,
) -> Response {
    // Nothing global changes here, so no global operation exists.
    let path = format!("projects/{project}/global/operations/{name}");
    let perform = async { Err(GoogleError::not_found(&path)) };
    run(&sim, &headers, ("globalOperations.get", false), (&project, None), perform).await
}
