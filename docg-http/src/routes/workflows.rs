use axum::{
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
};
use docg_core::{
    engine::EngineError, ids::WorkflowId, ports::WorkflowQuery, time::Timestamp,
    workflow::WorkflowDraft,
};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    auth::Scope,
    caller::Caller,
    cursor::{Cursors, limit},
    dto::{self, Listing, PreflightBody},
    extract::{Id, IfMatch, Json, NoQuery, Query, RequiredJson},
    idempotency::answer,
    problem::Problem,
    router::AppState,
};

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
        .workflows(WorkflowQuery {
            organization_id: caller.organization,
            after: after.map(|(time, id)| (Timestamp::from_millis(time), WorkflowId(id))),
            limit: limit(query.limit.as_deref())?,
        })
        .await?;
    let next = page.items.last().filter(|_| page.has_more);
    let next = next.map(|last| cursors.write(&(last.created_at.as_millis(), last.id.0)));
    let workflows: Vec<_> = page
        .items
        .iter()
        .map(|workflow| dto::workflow(workflow))
        .collect();
    Ok(answer(
        StatusCode::OK,
        &json!({"workflows": workflows, "next_cursor": next, "has_more": page.has_more}),
    ))
}

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
    Ok(answer(StatusCode::OK, &dto::workflow(&workflow)))
}

pub(crate) async fn put(
    State(state): State<AppState>,
    caller: Caller,
    Id(id): Id,
    _: NoQuery,
    headers: HeaderMap,
    RequiredJson(draft): RequiredJson<WorkflowDraft>,
) -> Result<Response, Problem> {
    caller.need(Scope::WorkflowsWrite)?;
    let if_match = IfMatch::of(&headers);
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
    Ok(answer(status, &dto::workflow(&put.workflow)))
}

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
    let actions: Vec<_> = found
        .actions
        .iter()
        .map(|action| action.for_reader(caller.locale))
        .collect();
    let body = json!({
        "can_execute": found.summary.can_execute(),
        "blocking_count": found.summary.blocking_count,
        "warning_count": found.summary.warning_count,
        "groups": found.summary.groups(caller.locale, Some(caller.is_technician())),
        "recommended_actions": actions,
    });
    Ok(answer(StatusCode::OK, &body))
}
