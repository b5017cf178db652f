use axum::{
    extract::State,
    http::{HeaderMap, StatusCode},
    response::Response,
};
use docg_core::{
    engine::{Command, ControlAnswer, ControlRequest, Engine, RequestSignature, RetryRequest},
    i18n::Text,
    ids::ExecutionId,
    run::Status,
};
use serde_json::Value;
use uuid::Uuid;

use super::executions::shown_json;
use crate::{
    auth::Scope,
    caller::Caller,
    dto::{
        self, Conditional, Execution, Keyed, Reason, RequestSignatureBody, ResumeBody, Retried,
        RetryBody, SignalSent,
    },
    extract::{Id, IfMatch, Json, NoQuery},
    idempotency::{self, KeyedRequest},
    problem::Problem,
    router::AppState,
};

fn request(caller: &Caller, id: Uuid, headers: &HeaderMap) -> Result<ControlRequest, Problem> {
    caller.need(Scope::ExecutionsWrite)?;
    let mut request =
        ControlRequest::new(caller.organization, ExecutionId(id), caller.actor.clone());
    request.if_version = IfMatch::of(headers)?.version();
    Ok(request)
}

/// A caller's request to send a signal, such as a pause, to an execution.
struct Asked<'r> {
    state: AppState,
    caller: Caller,
    command: Command,
    id: Uuid,
    headers: &'r HeaderMap,
    sent: &'r str,
}

impl Asked<'_> {
    /// Sends the signal only once for its idempotency key, and answers with the execution.
    async fn once<F>(
        self,
        signal: impl FnOnce(Engine, ControlRequest) -> F,
    ) -> Result<Response, Problem>
    where
        F: Future<Output = Result<ControlAnswer, Problem>> + Send + 'static,
    {
        let request = request(&self.caller, self.id, self.headers)?;
        let route = format!("{} {}", self.command, self.id);
        let key = idempotency::of(self.headers, &route, self.sent)?;
        let sent = signal(self.state.engine.clone(), request);
        let (state, caller) = (self.state.clone(), self.caller.clone());
        let call = async move {
            match sent.await? {
                ControlAnswer::Applied(record) => {
                    Ok((StatusCode::OK, shown_json(&state, &caller, &record).await?))
                }
                ControlAnswer::Pending => Ok((StatusCode::ACCEPTED, dto::json(&dto::SIGNAL_SENT))),
            }
        };
        idempotency::once(&self.state, &self.caller, key, call).await
    }
}

/// Pauses an execution before its next step
///
/// A paused execution stays unchanged.
#[utoipa::path(
    post,
    path = "/api/v1/executions/{id}/pause",
    operation_id = "pauseExecution",
    tag = "control",
    params(("id" = Uuid, Path), Keyed, Conditional),
    request_body = Option<Reason>,
    responses(
        (status = 200, description = "Done: the execution as it is now.", body = Execution),
        (status = 202, description = "Passed on to the process that has it at hand.", body = SignalSent),
        (status = 409),
        (status = 412),
    ),
    security(("bearer" = ["executions:write"])),
)]
pub(crate) async fn pause(
    State(state): State<AppState>,
    caller: Caller,
    Id(id): Id,
    _: NoQuery,
    headers: HeaderMap,
    body: Json<Reason>,
) -> Result<Response, Problem> {
    let asked = Asked {
        state,
        caller,
        command: Command::Pause,
        id,
        headers: &headers,
        sent: &body.sent,
    };
    let signal = |engine: Engine, request| async move {
        Ok(engine.pause(request, body.value.reason).await?)
    };
    asked.once(signal).await
}

/// Cancels an execution
///
/// A running step is told to stop at once, and has a grace time to end. A canceled execution stays
/// unchanged.
#[utoipa::path(
    post,
    path = "/api/v1/executions/{id}/cancel",
    operation_id = "cancelExecution",
    tag = "control",
    params(("id" = Uuid, Path), Keyed, Conditional),
    request_body = Option<Reason>,
    responses(
        (status = 200, description = "Done: the execution as it is now.", body = Execution),
        (status = 202, description = "Passed on to the process that has it at hand.", body = SignalSent),
        (status = 409),
        (status = 412),
    ),
    security(("bearer" = ["executions:write"])),
)]
pub(crate) async fn cancel(
    State(state): State<AppState>,
    caller: Caller,
    Id(id): Id,
    _: NoQuery,
    headers: HeaderMap,
    body: Json<Reason>,
) -> Result<Response, Problem> {
    let asked = Asked {
        state,
        caller,
        command: Command::Cancel,
        id,
        headers: &headers,
        sent: &body.sent,
    };
    let signal = |engine: Engine, request| async move {
        Ok(engine.cancel(request, body.value.reason).await?)
    };
    asked.once(signal).await
}

/// Resumes an execution
///
/// The execution was paused by a person, is in `needs_review`, or is in `ready` and needs a confirmation.
/// Before it continues, the changes are applied and preflight runs again.
#[utoipa::path(
    post,
    path = "/api/v1/executions/{id}/resume",
    operation_id = "resumeExecution",
    tag = "control",
    params(("id" = Uuid, Path), Keyed, Conditional),
    request_body = Option<ResumeBody>,
    responses(
        (status = 200, description = "Done: the execution as it is now.", body = Execution),
        (status = 202, description = "Passed on to the process that has it at hand.", body = SignalSent),
        (status = 409),
        (status = 412),
    ),
    security(("bearer" = ["executions:write"])),
)]
pub(crate) async fn resume(
    State(state): State<AppState>,
    caller: Caller,
    Id(id): Id,
    _: NoQuery,
    headers: HeaderMap,
    body: Json<ResumeBody>,
) -> Result<Response, Problem> {
    let asked = Asked {
        state,
        caller,
        command: Command::Resume,
        id,
        headers: &headers,
        sent: &body.sent,
    };
    let signal = |engine: Engine, request| async move {
        Ok(engine.resume(request, body.value.into_resume()?).await?)
    };
    asked.once(signal).await
}

/// Retries an execution that has ended
///
/// This creates a new execution; the old one stays as it is.
#[utoipa::path(
    post,
    path = "/api/v1/executions/{id}/retry",
    operation_id = "retryExecution",
    tag = "control",
    params(("id" = Uuid, Path), Keyed, Conditional),
    request_body = Option<RetryBody>,
    responses(
        (status = 201, description = "A new execution, which names the old one.", body = Retried),
        (status = 409),
        (status = 412),
    ),
    security(("bearer" = ["executions:write"])),
)]
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
    how.correlation_id = Some(caller.correlation_id.clone());
    how.traceparent.clone_from(&caller.traceparent);
    how.idempotency_key = key.as_ref().map(KeyedRequest::for_engine);
    let (inner, by) = (state.clone(), caller.clone());
    let call = async move {
        let started = inner.engine.retry(request, how).await?;
        let retried = Retried {
            execution_id: started.record.execution.id,
            status: Status::Queued,
            execution: shown_json(&inner, &by, &started.record).await?,
        };
        Ok((StatusCode::CREATED, dto::json(&retried)))
    };
    idempotency::once(&state, &caller, key, call).await
}

/// Requests signatures on the document of a completed execution
///
/// This creates a new execution, which follows the completed one. The completed one stays as it is.
#[utoipa::path(
    post,
    path = "/api/v1/executions/{id}/request-signature",
    operation_id = "requestSignature",
    tag = "control",
    params(("id" = Uuid, Path), Keyed, Conditional),
    request_body = RequestSignatureBody,
    responses(
        (status = 201, description = "A new execution, which follows this one.", body = Execution),
        (status = 409),
        (status = 412),
        (status = 501),
    ),
    security(("bearer" = ["executions:write"])),
)]
pub(crate) async fn request_signature(
    State(state): State<AppState>,
    caller: Caller,
    Id(id): Id,
    _: NoQuery,
    headers: HeaderMap,
    body: Json<RequestSignatureBody>,
) -> Result<Response, Problem> {
    let request = request(&caller, id, &headers)?;
    let key = idempotency::of(&headers, &format!("request-signature {id}"), &body.sent)?;
    let RequestSignatureBody { provider, signers } = body.value;
    let Some(signers) = signers else {
        // Look the execution up first: another organization's must be answered as not found.
        let (organization, id) = (request.organization_id, request.execution_id);
        state.engine.execution(organization, id).await?;
        let detail = Text::key("fault-signers");
        return Err(Problem::invalid_field("/signers", "required", detail));
    };
    let mut how = RequestSignature::new(signers.iter().map(dto::json).collect());
    how.provider = provider;
    how.correlation_id = Some(caller.correlation_id.clone());
    how.traceparent.clone_from(&caller.traceparent);
    how.idempotency_key = key.as_ref().map(KeyedRequest::for_engine);
    let (inner, by) = (state.clone(), caller.clone());
    let call = async move {
        let started = inner.engine.request_signature(request, how).await?;
        Ok((
            StatusCode::CREATED,
            shown_json(&inner, &by, &started.record).await?,
        ))
    };
    idempotency::once(&state, &caller, key, call).await
}
