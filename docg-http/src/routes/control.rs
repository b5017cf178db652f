use axum::{
    extract::State,
    http::{HeaderMap, StatusCode},
    response::Response,
};
use docg_core::{
    engine::{ControlAnswer, ControlRequest, RetryRequest},
    ids::ExecutionId,
};
use serde_json::{Value, json};
use uuid::Uuid;

use super::executions::shown;
use crate::{
    auth::Scope,
    caller::Caller,
    dto::{Reason, ResumeBody, RetryBody},
    extract::{Id, IfMatch, Json, NoQuery},
    idempotency::{self, CallResult},
    problem::Problem,
    router::AppState,
};

fn request(caller: &Caller, id: Uuid, headers: &HeaderMap) -> Result<ControlRequest, Problem> {
    caller.need(Scope::ExecutionsWrite)?;
    let mut request =
        ControlRequest::new(caller.organization, ExecutionId(id), caller.actor.clone());
    request.if_version = IfMatch::of(headers).version();
    Ok(request)
}

async fn answered(state: &AppState, caller: &Caller, answer: ControlAnswer) -> CallResult {
    match answer {
        ControlAnswer::Applied(record) => {
            Ok((StatusCode::OK, shown(state, caller, &record).await?))
        }
        ControlAnswer::Sent => Ok((StatusCode::ACCEPTED, json!({"status": "signal_sent"}))),
    }
}

pub(crate) async fn pause(
    State(state): State<AppState>,
    caller: Caller,
    Id(id): Id,
    _: NoQuery,
    headers: HeaderMap,
    body: Json<Reason>,
) -> Result<Response, Problem> {
    let request = request(&caller, id, &headers)?;
    let key = idempotency::of(&headers, &format!("pause {id}"), &body.sent)?;
    let (inner, by) = (state.clone(), caller.clone());
    let call = async move {
        let answer = inner.engine.pause(request, body.value.reason).await?;
        answered(&inner, &by, answer).await
    };
    idempotency::once(&state, &caller, key, call).await
}

pub(crate) async fn cancel(
    State(state): State<AppState>,
    caller: Caller,
    Id(id): Id,
    _: NoQuery,
    headers: HeaderMap,
    body: Json<Reason>,
) -> Result<Response, Problem> {
    let request = request(&caller, id, &headers)?;
    let key = idempotency::of(&headers, &format!("cancel {id}"), &body.sent)?;
    let (inner, by) = (state.clone(), caller.clone());
    let call = async move {
        let answer = inner.engine.cancel(request, body.value.reason).await?;
        answered(&inner, &by, answer).await
    };
    idempotency::once(&state, &caller, key, call).await
}

pub(crate) async fn resume(
    State(state): State<AppState>,
    caller: Caller,
    Id(id): Id,
    _: NoQuery,
    headers: HeaderMap,
    body: Json<ResumeBody>,
) -> Result<Response, Problem> {
    let request = request(&caller, id, &headers)?;
    let key = idempotency::of(&headers, &format!("resume {id}"), &body.sent)?;
    let signal = body.value.into_signal()?;
    let (inner, by) = (state.clone(), caller.clone());
    let call = async move {
        let answer = inner.engine.resume(request, signal).await?;
        answered(&inner, &by, answer).await
    };
    idempotency::once(&state, &caller, key, call).await
}

pub(crate) async fn retry(
    State(state): State<AppState>,
    caller: Caller,
    Id(id): Id,
    _: NoQuery,
    headers: HeaderMap,
    body: Json<RetryBody>,
) -> Result<Response, Problem> {
    let request = request(&caller, id, &headers)?;
    let key = idempotency::of(&headers, &format!("retry {id}"), &body.sent)?;
    let RetryBody {
        trigger_data,
        from_step,
        dry_run,
        until_phase,
    } = body.value;
    let mut how = RetryRequest::default();
    how.trigger_data = trigger_data.map(Value::Object);
    how.from_step = from_step;
    how.dry_run = dry_run;
    how.until_phase = until_phase;
    how.correlation_id.clone_from(&caller.correlation_id);
    how.traceparent.clone_from(&caller.traceparent);
    how.idempotency.clone_from(&key);
    let (inner, by) = (state.clone(), caller.clone());
    let call = async move {
        let started = inner.engine.retry(request, how).await?;
        let execution = shown(&inner, &by, &started.record).await?;
        let id = started.record.execution.id;
        Ok((
            StatusCode::CREATED,
            json!({"execution_id": id, "status": "queued", "execution": execution}),
        ))
    };
    idempotency::once(&state, &caller, key, call).await
}
