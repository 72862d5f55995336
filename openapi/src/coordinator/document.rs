//! The OpenAPI document, made from the operations and the types.

use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        ComponentsBuilder, Content, InfoBuilder, OpenApi, OpenApiBuilder, Paths, RefOr, Required, ResponseBuilder,
        Schema, ServerBuilder,
        extensions::Extensions,
        path::{HttpMethod, OperationBuilder, ParameterBuilder, ParameterIn},
        request_body::RequestBodyBuilder,
        schema::{ArrayItems, OneOf, SchemaType, Type},
        security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme},
        tag::TagBuilder,
    },
};

use super::operation::{Method, OperationId, Schemas};
use crate::problem::Problem;

/// Where the API stands on its listener.
pub const BASE_PATH: &str = "/coordinator/v1";

const DESCRIPTION: &str = "The Connection Coordinator API of the open Interconnect specification, as Tieline serves and \
    speaks it. The first id of every path is the caller's own provider id. An answer of 2xx has the shape under \
    `default`; any other is a problem document (RFC 9457). A list has 50 items a page if nothing is said, 1000 at most. \
    A repeated `requestId` is answered as before; with another content it is a conflict.";

/// What any call may be answered with beside its result.
const REFUSALS: &[(&str, &str)] = &[
    ("400", "The request breaks a rule; `errors` names the field and the rule."),
    ("401", "The caller is not known."),
    ("403", "The caller is known and may not do this."),
    ("404", "It is not there, or the caller may not see it."),
    ("405", "This is never done."),
    ("409", "It clashes with what is there; read it and decide anew."),
    ("413", "The body is too large."),
    ("415", "The body is no JSON."),
    ("429", "Too many requests; `Retry-After` tells how long to wait."),
    ("500", "A defect of the server."),
    ("503", "The server cannot answer now; try again."),
];

/// The document.
#[must_use]
pub fn document() -> OpenApi {
    let mut schemas = Schemas::new();
    let mut paths = Paths::new();
    for id in OperationId::ALL {
        paths.add_path_operation(id.template(), vec![method(id.method())], operation(*id, &mut schemas));
    }
    for (name, schema) in [
        ("Problem", Problem::schema()),
        // Nothing on the wire has this shape: it is what version 2 of a key hides.
        ("ActivationKeyEncryptedPayload", super::ActivationKeyEncryptedPayload::schema()),
    ] {
        schemas.push((name.to_owned(), schema));
    }
    Problem::schemas(&mut schemas);
    for (_, schema) in &mut schemas {
        without_null(schema);
    }
    let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format("JWT").build();
    let components = ComponentsBuilder::new()
        .schemas_from_iter(schemas)
        .security_scheme(
            "mutualTls",
            SecurityScheme::MutualTls { description: None, deprecated: None, extensions: None },
        )
        .security_scheme("bearer", SecurityScheme::Http(bearer))
        .build();
    let mut tags: Vec<&str> = OperationId::ALL.iter().map(|id| id.tag()).collect();
    tags.dedup();
    OpenApiBuilder::new()
        .info(
            InfoBuilder::new().title("Connection Coordinator API").version("v1").description(Some(DESCRIPTION)).build(),
        )
        .servers(Some([ServerBuilder::new().url(BASE_PATH).build()]))
        .paths(paths)
        .components(Some(components))
        .security(Some(["mutualTls", "bearer"].map(|name| SecurityRequirement::new(name, Vec::<String>::new()))))
        .tags(Some(tags.into_iter().map(|name| TagBuilder::new().name(name).build())))
        .build()
}

const fn method(method: Method) -> HttpMethod {
    match method {
        Method::Get => HttpMethod::Get,
        Method::Post => HttpMethod::Post,
        Method::Patch => HttpMethod::Patch,
        Method::Delete => HttpMethod::Delete,
    }
}

fn operation(id: OperationId, schemas: &mut Schemas) -> utoipa::openapi::path::Operation {
    let mut operation =
        OperationBuilder::new().operation_id(Some(id.as_str())).tag(id.tag()).summary(Some(id.summary().trim()));
    for name in id.template().split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')) {
        let parameter = ParameterBuilder::new()
            .name(name)
            .parameter_in(ParameterIn::Path)
            .required(Required::True)
            .schema(Some(String::schema()));
        operation = operation.parameter(parameter);
    }
    for mut parameter in id.query() {
        parameter.schema.iter_mut().for_each(without_null);
        operation = operation.parameter(parameter);
    }
    if let Some(body) = id.body(schemas) {
        let body = RequestBodyBuilder::new().content("application/json", Content::new(Some(body))).build();
        operation = operation.request_body(Some(body));
    }
    let answer = Content::new(Some(id.answer(schemas)));
    let done = ResponseBuilder::new().description("The result.").content("application/json", answer).build();
    operation = operation.response("default", done);
    for (status, description) in REFUSALS {
        let problem = Content::new(Some(utoipa::openapi::Ref::from_schema_name("Problem")));
        let refusal = ResponseBuilder::new().description(*description).content("application/problem+json", problem);
        operation = operation.response(*status, refusal.build());
    }
    operation.build()
}

/// Takes `null` out of a schema: it is read as absent and never written.
fn without_null(schema: &mut RefOr<Schema>) {
    let RefOr::T(inner) = schema else { return };
    match inner {
        Schema::Object(object) => {
            not_null(&mut object.schema_type);
            object.properties.values_mut().for_each(without_null);
        }
        Schema::Array(array) => {
            not_null(&mut array.schema_type);
            // An absent list and an empty one say the same, so a default says nothing.
            array.default = None;
            if let ArrayItems::RefOrSchema(items) = &mut array.items
                && take_read_only(items)
            {
                let marked: Extensions = [("readOnly", true)].into_iter().collect();
                array.extensions.get_or_insert_default().merge(marked);
            }
        }
        Schema::OneOf(one_of) => {
            one_of.items.retain(|item| !is_null(item));
            one_of.items.iter_mut().for_each(without_null);
            if let OneOf { items, discriminator: None, .. } = one_of
                && items.len() == 1
                && let Some(only) = items.pop()
            {
                *schema = match only {
                    RefOr::Ref(mut reference) => {
                        reference.description = one_of.description.take().unwrap_or_default();
                        reference.read_only = one_of.read_only;
                        RefOr::Ref(reference)
                    }
                    only @ RefOr::T(_) => only,
                };
            }
        }
        Schema::AllOf(_) | Schema::AnyOf(_) | _ => {}
    }
}

/// The generator marks the items of a list that is read only; the list is meant.
fn take_read_only(items: &mut RefOr<Schema>) -> bool {
    let mark = match items {
        RefOr::Ref(reference) => reference.read_only.take(),
        RefOr::T(Schema::Object(object)) => object.read_only.take(),
        RefOr::T(_) => None,
    };
    mark.unwrap_or(false)
}

fn not_null(kind: &mut SchemaType) {
    if let SchemaType::Array(kinds) = kind {
        kinds.retain(|kind| *kind != Type::Null);
        if let [only] = kinds.as_slice() {
            *kind = SchemaType::Type(only.clone());
        }
    }
}

fn is_null(schema: &RefOr<Schema>) -> bool {
    matches!(schema, RefOr::T(Schema::Object(object)) if object.schema_type == SchemaType::Type(Type::Null))
}
