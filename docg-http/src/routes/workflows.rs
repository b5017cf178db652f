use axum::{
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
};
use docg_core::{
    engine::EngineError,
    error::FieldFault,
    i18n::Text,
    ids::{OrganizationId, WorkflowId},
    observe::{REDACTED, Redaction},
    query::WorkflowQuery,
    time::Timestamp,
    workflow::{Workflow, WorkflowDraft},
};
use serde_json::Value;
use uuid::Uuid;

use crate::{
    auth::Scope,
    caller::Caller,
    cursor::{Cursors, limit},
    dto::{self, Conditional, Listing, PreflightBody, PreflightReport, Workflows},
    extract::{Id, IfMatch, Json, NoQuery, Query, Sent},
    idempotency::answer,
    openapi::wire,
    problem::Problem,
    router::AppState,
    shape::{self, contains, push_token},
};

/// A workflow as this caller sees it. Parameters of nodes may hold secrets, which only callers with the
/// scope `workflows:write` may see.
fn shown(state: &AppState, caller: &Caller, workflow: &Workflow) -> Value {
    let mut shown = dto::json(workflow);
    if !caller.scopes.contains(&Scope::WorkflowsWrite) {
        let nodes = shown.get_mut("nodes").and_then(Value::as_array_mut);
        for node in nodes.into_iter().flatten() {
            if let Some(params) = node.get_mut("params") {
                *params = state.engine.redaction().redacted(params);
            }
        }
    }
    shown
}

/// Lists workflows
///
/// The newest come first. Callers without the scope `workflows:write` see `[redacted]` in place of
/// secrets in the parameters of nodes.
#[utoipa::path(
    get,
    path = "/api/v1/workflows",
    operation_id = "listWorkflows",
    tag = "workflows",
    params(Listing),
    responses(
        (status = 200, description = "A page of workflows.", body = Workflows),
    ),
    security(("bearer" = ["executions:read"])),
)]
pub(crate) async fn list(
    State(state): State<AppState>,
    caller: Caller,
    Query(query): Query<Listing>,
) -> Result<Response, Problem> {
    caller.need(Scope::ExecutionsRead)?;
    let cursors = Cursors::new(
        &state.options.cursor_key,
        format!("workflows {}", caller.organization),
    );
    let after: Option<(i64, Uuid)> = query
        .cursor
        .as_deref()
        .map(|cursor| cursors.read(cursor))
        .transpose()?;
    let page = state
        .engine
        .workflows(
            WorkflowQuery::of(caller.organization)
                .after(after.map(|(time, id)| (Timestamp::from_millis(time), WorkflowId(id))))
                .limit(limit(query.limit.as_deref())?),
        )
        .await?;
    let next = page.items.last().filter(|_| page.has_more);
    let next = next.map(|last| cursors.write(&(last.created_at.as_millis(), last.id.0)));
    let workflows = page.items.iter();
    let page = Workflows {
        workflows: workflows
            .map(|workflow| shown(&state, &caller, workflow))
            .collect(),
        next_cursor: next,
        has_more: page.has_more,
    };
    Ok(answer(StatusCode::OK, &dto::json(&page)))
}

/// Reads a workflow
///
/// Callers without the scope `workflows:write` see `[redacted]` in place of secrets in the parameters of
/// nodes.
#[utoipa::path(
    get,
    path = "/api/v1/workflows/{id}",
    operation_id = "getWorkflow",
    tag = "workflows",
    params(("id" = Uuid, Path)),
    responses(
        (status = 200, description = "Its newest version.", body = wire::Workflow),
    ),
    security(("bearer" = ["executions:read"])),
)]
pub(crate) async fn get(
    State(state): State<AppState>,
    caller: Caller,
    Id(id): Id,
    _: NoQuery,
) -> Result<Response, Problem> {
    caller.need(Scope::ExecutionsRead)?;
    let workflow = state
        .engine
        .workflow(caller.organization, WorkflowId(id))
        .await?;
    Ok(answer(StatusCode::OK, &shown(&state, &caller, &workflow)))
}

/// Stores a new version of a workflow
///
/// A definition that cannot run is refused, with every fault in `errors`. Executions keep the
/// version with which they were created. A definition that holds `[redacted]` in place of a secret is
/// refused too, because storing it would lose the secret.
#[utoipa::path(
    put,
    path = "/api/v1/workflows/{id}",
    operation_id = "putWorkflow",
    tag = "workflows",
    params(("id" = Uuid, Path), Conditional),
    request_body = wire::WorkflowDraft,
    responses(
        (status = 201, description = "Stored as its first version.", body = wire::Workflow),
        (status = 200, description = "Stored as a new version.", body = wire::Workflow),
        (status = 412),
    ),
    security(("bearer" = ["workflows:write"])),
)]
pub(crate) async fn put(
    State(state): State<AppState>,
    caller: Caller,
    Id(id): Id,
    _: NoQuery,
    headers: HeaderMap,
    Sent(sent): Sent,
) -> Result<Response, Problem> {
    caller.need(Scope::WorkflowsWrite)?;
    let if_match = IfMatch::of(&headers)?;
    let draft = draft(&state, caller.organization, &sent).await?;
    if if_match == IfMatch::Any {
        let found = state
            .engine
            .workflow(caller.organization, WorkflowId(id))
            .await;
        if matches!(found, Err(EngineError::NotFound(_))) {
            return Err(Problem::new(
                StatusCode::PRECONDITION_FAILED,
                "version_mismatch",
            ));
        }
    }
    let if_version = if_match
        .version()
        .map(|version| u32::try_from(version).unwrap_or(u32::MAX));
    let put = state
        .engine
        .put_workflow(caller.organization, WorkflowId(id), draft, if_version)
        .await?;
    let status = if put.created {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    Ok(answer(status, &dto::json(&put.workflow)))
}

/// Reads a workflow from a request's JSON. The problem names the faults of its shape and, if the workflow
/// can be read in spite of them, the engine's.
async fn draft(
    state: &AppState,
    organization: OrganizationId,
    sent: &Value,
) -> Result<WorkflowDraft, Problem> {
    let (draft, mut faults) = shape::workflow(sent);
    let nodes = sent.get("nodes").and_then(Value::as_array);
    for (index, node) in nodes.into_iter().flatten().enumerate() {
        if let Some(params) = node.get("params") {
            let mut at = format!("/nodes/{index}/params");
            find_redacted(state.engine.redaction(), params, &mut at, &mut faults);
        }
    }
    match draft {
        Some(draft) if faults.is_empty() => Ok(draft),
        Some(draft) => {
            let checked = state.engine.check_workflow_of(organization, draft).await;
            let others = checked.err().unwrap_or_default();
            let known =
                |pointer: &str| faults.iter().any(|fault| contains(&fault.pointer, pointer));
            let others: Vec<_> = others
                .into_iter()
                .filter(|other| !known(&other.pointer))
                .collect();
            faults.extend(others);
            Err(Problem::invalid(faults))
        }
        None => Err(Problem::invalid(faults)),
    }
}

/// Finds the places below `at` that hold `[redacted]` in place of a secret. Storing a redacted copy would
/// lose the secret.
fn find_redacted(
    redaction: &Redaction,
    value: &Value,
    at: &mut String,
    faults: &mut Vec<FieldFault>,
) {
    let fault = |at: &str| FieldFault::new(at, "invalid_value", Text::key("fault-redacted"));
    let length = at.len();
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                push_token(at, key);
                if redaction.is_secret(key) && value == REDACTED {
                    faults.push(fault(at));
                } else {
                    find_redacted(redaction, value, at, faults);
                }
                at.truncate(length);
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                push_token(at, &index.to_string());
                find_redacted(redaction, item, at, faults);
                at.truncate(length);
            }
        }
        Value::String(text) if redaction.holds_redacted(text) => faults.push(fault(at)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Deletes a workflow
///
/// The workflow is hidden; its executions stay.
#[utoipa::path(
    delete,
    path = "/api/v1/workflows/{id}",
    operation_id = "deleteWorkflow",
    tag = "workflows",
    params(("id" = Uuid, Path)),
    responses(
        (status = 204, description = "Hidden. Its executions are left."),
    ),
    security(("bearer" = ["workflows:write"])),
)]
pub(crate) async fn delete(
    State(state): State<AppState>,
    caller: Caller,
    Id(id): Id,
    _: NoQuery,
) -> Result<Response, Problem> {
    caller.need(Scope::WorkflowsWrite)?;
    state
        .engine
        .delete_workflow(caller.organization, WorkflowId(id))
        .await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Checks that a workflow can run
///
/// No execution is created.
#[utoipa::path(
    post,
    path = "/api/v1/workflows/{id}/preflight",
    operation_id = "checkWorkflow",
    tag = "workflows",
    params(("id" = Uuid, Path)),
    request_body = Option<PreflightBody>,
    responses(
        (status = 200, description = "What was found.", body = PreflightReport),
    ),
    security(("bearer" = ["executions:read"])),
)]
pub(crate) async fn preflight(
    State(state): State<AppState>,
    caller: Caller,
    Id(id): Id,
    _: NoQuery,
    body: Json<PreflightBody>,
) -> Result<Response, Problem> {
    caller.need(Scope::ExecutionsRead)?;
    let data = Value::Object(body.value.trigger_data.unwrap_or_default());
    let found = state
        .engine
        .preflight(caller.organization, WorkflowId(id), data)
        .await?;
    let report = dto::preflight_report(
        &found.summary,
        &found.actions,
        caller.locale,
        caller.is_technician(),
    );
    Ok(answer(StatusCode::OK, &dto::json(&report)))
}
