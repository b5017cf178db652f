//! One call on many executions.

use std::{collections::HashSet, time::Duration};

use axum::{
    extract::State,
    http::{HeaderMap, StatusCode},
    response::Response,
};
use docg_core::{
    engine::{Command, ControlRequest, Engine, EngineError, Resume, RetryRequest},
    i18n::Text,
    ids::ExecutionId,
    query::ExecutionQuery,
};
use futures::{StreamExt, stream};
use uuid::Uuid;

use super::execution_lists::filter;
use crate::{
    auth::Scope,
    caller::Caller,
    dto::{self, BulkAction, BulkBody, Bulked, Keyed, Refused},
    extract::{Json, NoQuery},
    idempotency,
    problem::Problem,
    router::AppState,
};

/// The largest number of executions of one call.
const MOST: usize = 1_000;
/// How many executions are called concurrently.
const AT_ONCE: usize = 32;
/// How long to wait until one execution has applied its call. After that the call is in its inbox, and is applied
/// when its worker looks.
const PATIENCE: Duration = Duration::from_millis(500);

/// Cancels, pauses, resumes or retries many executions
///
/// Each execution is called by itself: one that refuses the call does not keep the others from it.
#[utoipa::path(
    post,
    path = "/api/v1/executions/bulk",
    operation_id = "callExecutions",
    tag = "control",
    params(Keyed),
    request_body = BulkBody,
    responses(
        (status = 200, description = "How many executions took the call, and which refused it.", body = Bulked),
    ),
    security(("bearer" = ["executions:write"])),
)]
pub(crate) async fn call(
    State(state): State<AppState>,
    caller: Caller,
    _: NoQuery,
    headers: HeaderMap,
    body: Json<BulkBody>,
) -> Result<Response, Problem> {
    caller.need(Scope::ExecutionsWrite)?;
    let key = idempotency::of(&headers, "bulk", &body.sent)?;
    let asked = Asked::of(body.value)?;
    let (inner, by) = (state.clone(), caller.clone());
    let call = async move {
        let answer = asked.call(&inner, &by).await?;
        Ok((StatusCode::OK, dto::json(&answer)))
    };
    idempotency::once(&state, &caller, key, call).await
}

fn required(pointer: &str, key: &'static str) -> Problem {
    Problem::invalid_field(pointer, "required", Text::key(key))
}

fn too_many(pointer: &str) -> Problem {
    let detail = Text::key("fault-too-many").with("most", MOST);
    Problem::invalid_field(pointer, "too_many", detail)
}

/// A checked body.
struct Asked {
    action: BulkAction,
    body: BulkBody,
}

impl Asked {
    fn of(body: BulkBody) -> Result<Self, Problem> {
        let action = body
            .action
            .ok_or_else(|| required("/action", "fault-bulk-action"))?;
        if body.ids.is_none() && body.filter.is_none() {
            return Err(required("/ids", "fault-ids-or-filter"));
        }
        if body.ids.as_ref().is_some_and(|ids| ids.len() > MOST) {
            return Err(too_many("/ids"));
        }
        let takes_reason = matches!(action, BulkAction::Cancel | BulkAction::Pause);
        if let Some(reason) = &body.reason {
            if !takes_reason {
                let detail = Text::key("fault-reason");
                return Err(Problem::invalid_field(
                    "/reason",
                    "unexpected_reason",
                    detail,
                ));
            }
            if let Some(fault) = docg_core::limits::REASON.fault("/reason", reason) {
                return Err(Problem::invalid(vec![fault]));
            }
        }
        Ok(Self { action, body })
    }

    async fn call(self, state: &AppState, caller: &Caller) -> Result<Bulked, Problem> {
        let ids = self.ids(state, caller).await?;
        let command = match self.action {
            BulkAction::Cancel => Command::Cancel,
            BulkAction::Pause => Command::Pause,
            BulkAction::Resume => Command::Resume,
            BulkAction::Retry => Command::Retry,
        };
        let is_dry = self.body.dry_run.unwrap_or(false);
        let results = stream::iter(ids.iter().copied()).map(|id| {
            let request = ControlRequest::new(caller.organization, id, caller.actor.clone());
            let (engine, reason) = (state.engine.clone(), self.body.reason.clone());
            let caller = caller.clone();
            async move {
                engine.check(&request, command).await?;
                if is_dry {
                    return Ok(());
                }
                // A task of its own, because the execution may take the call later than this waits.
                let call = tokio::spawn(apply(engine, caller, request, command, reason));
                match tokio::time::timeout(PATIENCE, call).await {
                    Ok(Ok(result)) => Ok(result?),
                    Ok(Err(panicked)) => Err(Problem::internal(panicked)),
                    Err(_) => Ok(()),
                }
            }
        });
        let results: Vec<_> = results.buffered(AT_ONCE).collect().await;
        let (mut applied, mut refused) = (0, Vec::new());
        for (id, result) in ids.iter().zip(results) {
            match result {
                Ok(()) => applied += 1,
                Err(error) => refused.push(Refused {
                    id: *id,
                    code: error.reason(),
                }),
            }
        }
        Ok(Bulked {
            matched: ids.len(),
            applied,
            refused,
        })
    }

    /// The executions that the call is for, each once. With ids and a filter, those of the ids that the filter
    /// selects, and the ids that are not found.
    async fn ids(&self, state: &AppState, caller: &Caller) -> Result<Vec<ExecutionId>, Problem> {
        let wanted = self.body.filter.clone().unwrap_or_default();
        let filter = filter(&wanted.into()).map_err(|problem| problem.within("/filter"))?;
        let Some(ids) = &self.body.ids else {
            let query = ExecutionQuery::of(caller.organization)
                .filter(filter)
                .limit(MOST);
            let page = state.engine.executions(query).await?;
            if page.has_more {
                return Err(too_many("/filter"));
            }
            return Ok(page
                .items
                .iter()
                .map(|record| record.execution.id)
                .collect());
        };
        let mut known = HashSet::new();
        let ids = ids.iter().map(|id: &Uuid| ExecutionId(*id));
        let ids: Vec<_> = ids.filter(|id| known.insert(*id)).collect();
        if self.body.filter.is_none() {
            return Ok(ids);
        }
        let mut selected = Vec::new();
        for id in ids {
            match state.engine.execution(caller.organization, id).await {
                Ok(record) if !filter.selects(&record.execution) => {}
                Ok(_) | Err(EngineError::NotFound(_)) => selected.push(id),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(selected)
    }
}

async fn apply(
    engine: Engine,
    caller: Caller,
    request: ControlRequest,
    command: Command,
    reason: Option<String>,
) -> Result<(), EngineError> {
    match command {
        Command::Cancel => engine.cancel(request, reason).await.map(drop),
        Command::Pause => engine.pause(request, reason).await.map(drop),
        Command::Resume => engine.resume(request, Resume::default()).await.map(drop),
        _ => {
            let mut how = RetryRequest::default();
            how.correlation_id = Some(caller.correlation_id);
            how.traceparent = caller.traceparent;
            engine.retry(request, how).await.map(drop)
        }
    }
}
