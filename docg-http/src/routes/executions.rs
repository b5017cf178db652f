use axum::{
    extract::State,
    http::{HeaderMap, StatusCode},
    response::Response,
};
use docg_core::{
    engine::StartRequest,
    ids::{ExecutionId, WorkflowId},
    query::ExecutionRecord,
    run::Status,
};
use serde_json::Value;

use crate::{
    auth::Scope,
    caller::Caller,
    dto::{self, CreateExecution, Execution, ExecutionPreflight, Keyed, Steps},
    extract::{Id, Json, NoQuery},
    idempotency::{self, answer},
    problem::Problem,
    router::AppState,
};

/// The execution object as this caller sees it.
pub(crate) async fn shown(
    state: &AppState,
    caller: &Caller,
    record: &ExecutionRecord,
) -> Result<Execution, Problem> {
    let execution = &record.execution;
    // Read the steps only if one failed or was interrupted: else the actions do not depend on them. A
    // cancel interrupts the running step without an error.
    let needs_steps = execution.error.is_some() || execution.status == Status::Canceled;
    let steps = if needs_steps {
        state
            .engine
            .steps(caller.organization, execution.id)
            .await?
    } else {
        Vec::new()
    };
    let actions = state.engine.actions_with_calls(record, &steps).await?;
    let trigger_data = state.engine.shown_trigger_data(record).await;
    Ok(dto::execution(
        record,
        &actions,
        trigger_data,
        caller.locale,
        caller.is_technician(),
    ))
}

/// The execution object as this caller sees it, as JSON.
pub(crate) async fn shown_json(
    state: &AppState,
    caller: &Caller,
    record: &ExecutionRecord,
) -> Result<Value, Problem> {
    Ok(dto::json(&shown(state, caller, record).await?))
}

/// Starts an execution
#[utoipa::path(
    post,
    path = "/api/v1/workflows/{id}/executions",
    operation_id = "startExecution",
    tag = "executions",
    params(("id" = Uuid, Path), Keyed),
    request_body = Option<CreateExecution>,
    responses(
        (status = 201, description = "Started.", body = Execution),
        (status = 200, description = "Started before, for this key.", body = Execution),
    ),
    security(("bearer" = ["executions:write"])),
)]
pub(crate) async fn create(
    State(state): State<AppState>,
    caller: Caller,
    Id(workflow): Id,
    _: NoQuery,
    headers: HeaderMap,
    body: Json<CreateExecution>,
) -> Result<Response, Problem> {
    caller.need(Scope::ExecutionsWrite)?;
    let CreateExecution {
        trigger_data,
        trigger_type,
        dry_run,
        until_phase,
        start_at,
    } = body.value;
    let mut request = StartRequest::new(
        caller.organization,
        WorkflowId(workflow),
        caller.actor.clone(),
    );
    request.trigger_data = Value::Object(trigger_data.unwrap_or_default());
    if let Some(trigger_type) = trigger_type {
        request.trigger_type = trigger_type;
    }
    request.dry_run = dry_run.unwrap_or(false);
    request.until_phase = until_phase;
    request.start_at = start_at;
    request.correlation_id.clone_from(&caller.correlation_id);
    request.traceparent.clone_from(&caller.traceparent);
    let key = idempotency::of(&headers, &format!("create {workflow}"), &body.sent)?;
    request.idempotency_key = key.map(|key| key.for_engine());
    let started = state.engine.start(request).await?;
    let status = if started.created {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    Ok(answer(
        status,
        &shown_json(&state, &caller, &started.record).await?,
    ))
}

/// Reads an execution
#[utoipa::path(
    get,
    path = "/api/v1/executions/{id}",
    operation_id = "getExecution",
    tag = "executions",
    params(("id" = Uuid, Path)),
    responses(
        (status = 200, description = "The execution.", body = Execution),
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
    let record = state
        .engine
        .inspected(caller.organization, ExecutionId(id))
        .await?;
    Ok(answer(
        StatusCode::OK,
        &shown_json(&state, &caller, &record).await?,
    ))
}

/// Reads an execution's steps
#[utoipa::path(
    get,
    path = "/api/v1/executions/{id}/steps",
    operation_id = "listSteps",
    tag = "executions",
    params(("id" = Uuid, Path)),
    responses(
        (status = 200, description = "The steps, in their order.", body = Steps),
    ),
    security(("bearer" = ["executions:read"])),
)]
pub(crate) async fn steps(
    State(state): State<AppState>,
    caller: Caller,
    Id(id): Id,
    _: NoQuery,
) -> Result<Response, Problem> {
    caller.need(Scope::ExecutionsRead)?;
    let steps = state
        .engine
        .steps(caller.organization, ExecutionId(id))
        .await?;
    let steps: Vec<_> = steps
        .iter()
        .map(|step| dto::step(step, caller.locale, caller.is_technician()))
        .collect();
    Ok(answer(StatusCode::OK, &dto::json(&Steps { steps })))
}

/// Reads the result of an execution's last preflight
#[utoipa::path(
    get,
    path = "/api/v1/executions/{id}/preflight",
    operation_id = "getPreflight",
    tag = "executions",
    params(("id" = Uuid, Path)),
    responses(
        (status = 200, description = "What its last preflight found.", body = ExecutionPreflight),
    ),
    security(("bearer" = ["executions:read"])),
)]
pub(crate) async fn preflight(
    State(state): State<AppState>,
    caller: Caller,
    Id(id): Id,
    _: NoQuery,
) -> Result<Response, Problem> {
    caller.need(Scope::ExecutionsRead)?;
    let record = state
        .engine
        .execution(caller.organization, ExecutionId(id))
        .await?;
    let shown = shown(&state, &caller, &record).await?;
    let found = ExecutionPreflight::from(shown);
    Ok(answer(StatusCode::OK, &dto::json(&found)))
}
