use axum::{
    extract::State,
    http::{HeaderMap, StatusCode},
    response::Response,
};
use docg_core::{
    engine::StartRequest,
    i18n::Text,
    ids::{ExecutionId, WorkflowId},
    query::{ExecutionQuery, ExecutionRecord},
    run::Status,
    time::Timestamp,
};
use futures::{StreamExt, TryStreamExt, stream};
use serde_json::Value;
use uuid::Uuid;

use crate::{
    auth::Scope,
    caller::Caller,
    cursor::{Cursors, limit},
    dto::{
        self, CreateExecution, Execution, ExecutionPreflight, Executions, ExecutionsQuery, Keyed,
        Steps, WorkflowExecutionsQuery,
    },
    extract::{Id, Json, NoQuery, Query},
    idempotency::{self, answer},
    problem::Problem,
    router::AppState,
};

/// How many executions of a page are prepared concurrently.
const AT_ONCE: usize = 8;

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
    let actions = state.engine.recommended_actions(execution, &steps);
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

/// Lists executions
///
/// The newest come first.
#[utoipa::path(
    get,
    path = "/api/v1/executions",
    operation_id = "listExecutions",
    tag = "executions",
    params(ExecutionsQuery),
    responses(
        (status = 200, description = "A page of executions.", body = Executions),
    ),
    security(("bearer" = ["executions:read"])),
)]
pub(crate) async fn list(
    State(state): State<AppState>,
    caller: Caller,
    Query(query): Query<ExecutionsQuery>,
) -> Result<Response, Problem> {
    page(&state, &caller, query).await
}

/// Lists a workflow's executions
///
/// The newest come first.
#[utoipa::path(
    get,
    path = "/api/v1/workflows/{id}/executions",
    operation_id = "listWorkflowExecutions",
    tag = "executions",
    params(("id" = Uuid, Path), WorkflowExecutionsQuery),
    responses(
        (status = 200, description = "A page of executions.", body = Executions),
    ),
    security(("bearer" = ["executions:read"])),
)]
pub(crate) async fn of_workflow(
    State(state): State<AppState>,
    caller: Caller,
    Id(workflow): Id,
    Query(query): Query<WorkflowExecutionsQuery>,
) -> Result<Response, Problem> {
    caller.need(Scope::ExecutionsRead)?;
    // A deleted workflow still has executions, so only a workflow that never existed is not found.
    state
        .engine
        .latest_workflow_version(caller.organization, WorkflowId(workflow))
        .await?;
    let query = ExecutionsQuery {
        status: query.status,
        workflow_id: Some(workflow.to_string()),
        cursor: query.cursor,
        limit: query.limit,
    };
    page(&state, &caller, query).await
}

async fn page(
    state: &AppState,
    caller: &Caller,
    query: ExecutionsQuery,
) -> Result<Response, Problem> {
    caller.need(Scope::ExecutionsRead)?;
    let status: Option<Status> = match &query.status {
        Some(name) => Some(name.parse().map_err(|_| {
            let names = Status::ALL.map(Status::as_str).join(", ");
            Problem::invalid_field(
                "/status",
                "invalid_value",
                Text::key("fault-one-of").with("values", names),
            )
        })?),
        None => None,
    };
    let workflow: Option<Uuid> = match &query.workflow_id {
        Some(id) => Some(Uuid::parse_str(id).map_err(|_| {
            Problem::invalid_field("/workflow_id", "invalid_value", Text::key("fault-uuid"))
        })?),
        None => None,
    };
    let list = format!("executions {} {status:?} {workflow:?}", caller.organization);
    let cursors = Cursors::new(&state.options.cursor_key, list);
    let after: Option<(i64, Uuid)> = query
        .cursor
        .as_deref()
        .map(|cursor| cursors.read(cursor))
        .transpose()?;
    let query = ExecutionQuery::of(caller.organization)
        .workflow_id(workflow.map(WorkflowId))
        .status(status)
        .after(after.map(|(time, id)| (Timestamp::from_millis(time), ExecutionId(id))))
        .limit(limit(query.limit.as_deref())?);
    let page = state.engine.executions(query).await?;
    let next =
        page.items.last().filter(|_| page.has_more).map(|last| {
            cursors.write(&(last.execution.created_at.as_millis(), last.execution.id.0))
        });
    // A failed execution needs another read of the store. Prepare a few at a time, in the page's order.
    let executions = stream::iter(page.items).map(|record| {
        let (state, caller) = (state.clone(), caller.clone());
        async move { shown_json(&state, &caller, &record).await }
    });
    let executions = executions.buffered(AT_ONCE).try_collect().await?;
    let page = Executions {
        executions,
        next_cursor: next,
        has_more: page.has_more,
    };
    Ok(answer(StatusCode::OK, &dto::json(&page)))
}
