//! The OpenAPI document: collected from the handlers, completed by what holds for every operation.

use std::collections::BTreeSet;

use axum::{
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};
use utoipa::openapi::{
    Components, ContentBuilder, HeaderBuilder, Info, License, ObjectBuilder, OpenApi, OpenApiBuilder, Ref, RefOr,
    ResponseBuilder, Schema,
    path::{Operation, PathItem},
    schema::SchemaType,
    security::{Http as HttpSecurity, HttpAuthScheme, SecurityRequirement, SecurityScheme},
};
use utoipa::{PartialSchema, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Http, api,
    extract::{Nothing, Query},
    gate,
};
use crate::auth::{self, Access};

/// The name of the security scheme.
const BEARER: &str = "bearer";

pub(super) fn routes() -> OpenApiRouter<Http> {
    OpenApiRouter::new().routes(routes!(show))
}

/// Shows this document.
#[utoipa::path(get, path = "/openapi.json", operation_id = "getOpenApiDocument", tag = "health",
    responses((status = 200, description = "OpenAPI 3.1.", body = Object)))]
async fn show(State(http): State<Http>, Query(Nothing {}): Query<Nothing>) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], http.document.to_string()).into_response()
}

/// The document before any route.
pub(super) fn frame() -> OpenApi {
    let mut info = Info::new("Tieline", "1.0.0");
    info.description = Some(
        "Private links between clouds: one intent becomes matching configuration on both sides, with a WireGuard path \
         beside it. Errors are RFC 9457 problem documents."
            .to_owned(),
    );
    let mut license = License::new("Apache-2.0");
    license.identifier = Some("Apache-2.0".to_owned());
    info.license = Some(license);
    let mut components = Components::new();
    components.add_security_scheme(BEARER, SecurityScheme::Http(HttpSecurity::new(HttpAuthScheme::Bearer)));
    OpenApiBuilder::new().info(info).components(Some(components)).build()
}

/// The whole document, as it is served and committed.
#[must_use]
pub fn document() -> OpenApi {
    complete(api().into_openapi())
}

/// Adds what holds for every operation: security, problem documents, the request's id.
pub(super) fn complete(mut document: OpenApi) -> OpenApi {
    for item in document.paths.paths.values_mut() {
        complete_item(item);
    }
    let components = document.components.get_or_insert_default();
    let mut schemas = Vec::new();
    tieline_openapi::problem::Problem::schemas(&mut schemas);
    components.schemas.extend(schemas);
    components.schemas.insert("Problem".to_owned(), tieline_openapi::problem::Problem::schema());
    flatten_connection(components);
    document
}

fn complete_item(item: &mut PathItem) {
    let all = [&mut item.get, &mut item.put, &mut item.post, &mut item.patch, &mut item.delete];
    for operation in all.into_iter().flatten() {
        complete_operation(operation);
    }
}

fn complete_operation(operation: &mut Operation) {
    let access = operation.operation_id.as_deref().and_then(auth::access).map(|(_, access)| access);
    let open = access == Some(Access::Open);
    operation.security =
        Some(if open { Vec::new() } else { vec![SecurityRequirement::new(BEARER, Vec::<String>::new())] });
    let mut problems: BTreeSet<(u16, &str)> = BTreeSet::from([
        (400, "A parameter or a field is not valid; `errors` names each."),
        (500, "A defect of Tieline; the request id finds it in the log."),
        (503, "The store does not answer now, or as many streams are open as may be."),
    ]);
    if !open {
        problems.insert((401, "No token, or one that is unknown or has ended."));
        problems.insert((403, "The token does not cover this."));
        problems.insert((429, "Too many failed authentications, or too many open streams of this token."));
    }
    let parameters = operation.parameters.iter().flatten();
    let in_path = parameters.filter_map(inline).any(|parameter| parameter.name == "id");
    if in_path {
        problems.insert((404, "Nothing is there, or nothing that this token may see."));
    }
    if operation.request_body.is_some() {
        problems.insert((413, "The body is larger than 256 KiB."));
        problems.insert((415, "The body is not JSON."));
    }
    let responses = &mut operation.responses.responses;
    for (status, description) in problems {
        responses
            .entry(status.to_string())
            .or_insert_with(|| RefOr::T(ResponseBuilder::new().description(description).build()));
    }
    for (status, response) in responses {
        let RefOr::T(response) = response else { continue };
        if !status.starts_with('2') && response.content.is_empty() {
            let problem = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
            response.content.insert("application/problem+json".to_owned(), RefOr::T(problem));
        }
        let id = HeaderBuilder::new()
            .schema(Some(ObjectBuilder::new().schema_type(SchemaType::new(utoipa::openapi::Type::String))))
            .description(Some("The id of the request."))
            .build();
        response.headers.insert("X-Request-Id".to_owned(), RefOr::T(id));
    }
}

fn inline(parameter: &RefOr<utoipa::openapi::path::Parameter>) -> Option<&utoipa::openapi::path::Parameter> {
    match parameter {
        RefOr::T(parameter) => Some(parameter),
        RefOr::Ref(_) => None,
    }
}

/// A Connection is its intent's fields and more, in one object. As a composition of schemas it could not be valid: the
/// intent's schema, which denies unknown fields for request bodies, would deny the rest.
fn flatten_connection(components: &mut Components) {
    let Some(RefOr::T(Schema::Object(intent))) = components.schemas.get("ConnectionIntent").cloned() else { return };
    let Some(RefOr::T(Schema::AllOf(composed))) = components.schemas.get("Connection").cloned() else { return };
    let mut whole = intent;
    whole.additional_properties = None;
    whole.description.clone_from(&composed.description);
    // Answers always carry every field.
    whole.required = whole.properties.keys().cloned().collect();
    for part in composed.items {
        let RefOr::T(Schema::Object(part)) = part else { continue };
        whole.required.extend(part.required);
        whole.properties.extend(part.properties);
        if whole.description.is_none() {
            whole.description = part.description;
        }
    }
    components.schemas.insert("Connection".to_owned(), RefOr::T(Schema::Object(whole)));
}

/// Every operation of the document, with its path and method.
#[must_use]
pub fn operations(document: &OpenApi) -> Vec<(String, &'static str, String)> {
    let of_item = |(path, item): (&String, &PathItem)| {
        let path = path.clone();
        gate::operations(item)
            .map(|(method, operation)| (path.clone(), method, operation.operation_id.clone().unwrap_or_default()))
            .collect::<Vec<_>>()
    };
    document.paths.paths.iter().flat_map(of_item).collect()
}
