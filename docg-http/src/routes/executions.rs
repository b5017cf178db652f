use axum::{
    extract::State,
    http::{HeaderMap, StatusCode},
    response::Response,
};
use docg_core::{
    engine::StartRequest,
    ids::{ExecutionId, WorkflowId},
    ports::{ExecutionQuery, ExecutionRecord},
    run::Status,
    time::Timestamp,
};
use futures::{StreamExt, TryStreamExt, stream};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    auth::Scope,
    caller::Caller,
    cursor::{Cursors, limit},
    dto::{self, CreateExecution, ExecutionsQuery},
    extract::{Id, Json, NoQuery, Query},
    idempotency::{self, answer},
    problem::Problem,
    router::AppState,
};

/// How many rows of a page are completed at once.
const AT_ONCE: usize = 8;

/// The execution object as this caller sees it.
pub(crate) async fn shown(
    state: &AppState,
    caller: &Caller,
    record: &ExecutionRecord,
) -> Result<Value, Problem> {
    let execution = &record.execution;
    // Only what went wrong in a step needs the steps.
    let steps = if execution.error.is_some() {
        state
            .engine
            .steps(caller.organization, execution.id)
            .await?
    } else {
        Vec::new()
    };
    let actions = state.engine.recommended_actions(execution, &steps);
    Ok(dto::execution(
        record,
        &actions,
        state.engine.redaction(),
        caller.locale,
        caller.is_technician(),
    ))
}

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
    request.correlation_id.clone_from(&caller.correlation_id);
    request.traceparent.clone_from(&caller.traceparent);
    request.idempotency = idempotency::of(&headers, &format!("create {workflow}"), &body.sent)?;
    let started = state.engine.start(request).await?;
    let status = if started.created {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    Ok(answer(
        status,
        &shown(&state, &caller, &started.record).await?,
    ))
}

pub(crate) async fn get(
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
    Ok(answer(
        StatusCode::OK,
        &shown(&state, &caller, &record).await?,
    ))
}

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
    Ok(answer(StatusCode::OK, &json!({"steps": steps})))
}

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
    let body = json!({
        "preflight_summary": shown["preflight_summary"],
        "recommended_actions": shown["recommended_actions"],
    });
    Ok(answer(StatusCode::OK, &body))
}

pub(crate) async fn list(
    State(state): State<AppState>,
    caller: Caller,
    Query(query): Query<ExecutionsQuery>,
) -> Result<Response, Problem> {
    page(&state, &caller, query).await
}

pub(crate) async fn of_workflow(
    State(state): State<AppState>,
    caller: Caller,
    Id(workflow): Id,
    Query(mut query): Query<ExecutionsQuery>,
) -> Result<Response, Problem> {
    caller.need(Scope::ExecutionsRead)?;
    state
        .engine
        .workflow(caller.organization, WorkflowId(workflow))
        .await?;
    if query.workflow_id.replace(workflow.to_string()).is_some() {
        let detail = "the workflow is given by the path";
        return Err(Problem::invalid_field(
            "/workflow_id",
            "unknown_field",
            detail,
        ));
    }
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
            Problem::invalid_field("/status", "invalid_value", format!("one of {names}"))
        })?),
        None => None,
    };
    let workflow: Option<Uuid> = match &query.workflow_id {
        Some(id) => Some(Uuid::parse_str(id).map_err(|_| {
            Problem::invalid_field("/workflow_id", "invalid_value", "a UUID is expected")
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
    let query = ExecutionQuery {
        organization_id: caller.organization,
        workflow_id: workflow.map(WorkflowId),
        status,
        after: after.map(|(time, id)| (Timestamp::from_millis(time), ExecutionId(id))),
        limit: limit(query.limit.as_deref())?,
    };
    let page = state.engine.executions(query).await?;
    let next =
        page.items.last().filter(|_| page.has_more).map(|last| {
            cursors.write(&(last.execution.created_at.as_millis(), last.execution.id.0))
        });
    // Those that went wrong ask the store once more; a few at a time, in the page's order.
    let executions = stream::iter(page.items).map(|record| {
        let (state, caller) = (state.clone(), caller.clone());
        async move { shown(&state, &caller, &record).await }
    });
    let executions: Vec<_> = executions.buffered(AT_ONCE).try_collect().await?;
    let body = json!({"executions": executions, "next_cursor": next, "has_more": page.has_more});
    Ok(answer(StatusCode::OK, &body))
}
