//! The OpenAPI document: the descriptions of the routes, and the parts that all routes share.

mod complete;
pub(crate) mod frames;
pub(crate) mod names;
pub(crate) mod wire;

use std::sync::LazyLock;

use axum::{
    body::Body,
    http::{HeaderValue, header},
    response::Response,
};
use serde_json::{Map, Value};
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;

use crate::{extract::NoQuery, problem::Problem, router::documented};

/// The description of the API as a whole.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "docg",
        description = "Document workflows: started, watched, controlled. Absent values are null, not \
                       left out, and unknown fields of a request are refused. Errors are problem \
                       details (RFC 9457).",
        license(name = "MIT OR Apache-2.0", identifier = "MIT OR Apache-2.0"),
    ),
    tags(
        (name = "workflows", description = "Definitions, by version."),
        (name = "executions", description = "Runs of workflows, started and read."),
        (name = "control", description = "Calls on a run under way, or on one that has ended."),
        (name = "records", description = "What a run has left: its log and its audit trail."),
        (name = "signatures", description = "Who signs, and what their providers report."),
        (name = "approvals", description = "Decisions. The token in the path is all the proof that an approver needs."),
        (name = "streams", description = "Events as they happen (server-sent events)."),
        (name = "server", description = "The server itself."),
    ),
    components(schemas(names::Call, names::ExecutionOrder, names::View, wire::FieldError)),
)]
pub(crate) struct Api;

static DOCUMENT: LazyLock<String> = LazyLock::new(|| {
    let described = OpenApiRouter::into_openapi(documented());
    // Cannot fail: every document that utoipa builds can be written as JSON.
    let described = serde_json::to_value(described).unwrap_or(Value::Object(Map::new()));
    complete::completed(described).to_string()
});

/// The OpenAPI 3.1 document of the API, as `GET /openapi.json` returns it.
#[must_use]
pub fn openapi() -> &'static str {
    &DOCUMENT
}

/// Reads this OpenAPI document
#[utoipa::path(
    get,
    path = "/openapi.json",
    operation_id = "getOpenApi",
    tag = "server",
    responses((status = 200, description = "OpenAPI 3.1.", body = Object)),
)]
pub(crate) async fn get(_: NoQuery) -> Result<Response, Problem> {
    let mut response = Response::new(Body::from(openapi()));
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    Ok(response)
}
