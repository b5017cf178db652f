use axum::{
    extract::State,
    http::{HeaderMap, StatusCode},
    response::Response,
};
use docg_core::{
    engine::{ControlAnswer, ControlRequest, NamedEvent},
    ids::ExecutionId,
};

use super::executions::shown_json;
use crate::{
    auth::Scope,
    caller::Caller,
    dto::{
        self, Conditional, EventBody, EventReached, Execution, Keyed, KeyedEventBody, SignalSent,
    },
    extract::{Id, IfMatch, Json, Name, NoQuery},
    idempotency,
    problem::Problem,
    router::AppState,
};

/// Sends an event to an execution
///
/// The step that waits for the event continues. If no step waits for it yet, the execution keeps the event for a later
/// step.
#[utoipa::path(
    post,
    path = "/api/v1/executions/{id}/events/{name}",
    operation_id = "sendEvent",
    tag = "control",
    params(
        ("id" = Uuid, Path),
        ("name" = String, Path, description = "The event's name."),
        Keyed,
        Conditional,
    ),
    request_body = Option<EventBody>,
    responses(
        (status = 200, description = "Taken or kept: the execution as it is now.", body = Execution),
        (status = 202, description = "Passed on to the process that has it at hand.", body = SignalSent),
        (status = 409),
        (status = 412),
    ),
    security(("bearer" = ["executions:write"])),
)]
pub(crate) async fn send(
    State(state): State<AppState>,
    caller: Caller,
    Id(id): Id,
    Name(name): Name,
    _: NoQuery,
    headers: HeaderMap,
    body: Json<EventBody>,
) -> Result<Response, Problem> {
    caller.need(Scope::ExecutionsWrite)?;
    let mut request =
        ControlRequest::new(caller.organization, ExecutionId(id), caller.actor.clone());
    request.if_version = IfMatch::of(&headers)?.version();
    let key = idempotency::of(&headers, &format!("event {id} {name}"), &body.sent)?;
    let mut event = NamedEvent::new(name);
    event.key = body.value.key;
    event.payload = body.value.payload;
    let (engine, shown_to, to) = (state.engine.clone(), caller.clone(), state.clone());
    let call = async move {
        match engine.notify(request, event).await? {
            ControlAnswer::Applied(record) => {
                Ok((StatusCode::OK, shown_json(&to, &shown_to, &record).await?))
            }
            ControlAnswer::Pending => Ok((StatusCode::ACCEPTED, dto::json(&dto::SIGNAL_SENT))),
        }
    };
    idempotency::once(&state, &caller, key, call).await
}

/// Sends an event to all executions that wait for its key
///
/// At most 1,000 executions get the event. If no step waits for it, the answer is 404, and the event is not kept.
#[utoipa::path(
    post,
    path = "/api/v1/events/{name}",
    operation_id = "sendEventByKey",
    tag = "control",
    params(
        ("name" = String, Path, description = "The event's name."),
        Keyed,
    ),
    request_body = KeyedEventBody,
    responses(
        (status = 200, description = "The executions that got the event.", body = EventReached),
    ),
    security(("bearer" = ["executions:write"])),
)]
pub(crate) async fn send_by_key(
    State(state): State<AppState>,
    caller: Caller,
    Name(name): Name,
    _: NoQuery,
    headers: HeaderMap,
    body: Json<KeyedEventBody>,
) -> Result<Response, Problem> {
    caller.need(Scope::ExecutionsWrite)?;
    let key = idempotency::of(&headers, &format!("events {name}"), &body.sent)?;
    let mut event = NamedEvent::new(name);
    event.key = body.value.key;
    event.payload = body.value.payload;
    let (engine, organization, actor) = (
        state.engine.clone(),
        caller.organization,
        caller.actor.clone(),
    );
    let call = async move {
        let executions = engine.notify_by_key(organization, actor, event).await?;
        let reached = EventReached { executions };
        Ok((StatusCode::OK, dto::json(&reached)))
    };
    idempotency::once(&state, &caller, key, call).await
}
