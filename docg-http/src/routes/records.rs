use axum::{extract::State, http::StatusCode, response::Response};
use docg_core::{
    i18n::Text,
    ids::{ExecutionId, NodeId},
    limits,
    query::{AuditQuery, LogQuery},
};

use crate::{
    auth::Scope,
    caller::Caller,
    cursor::{Cursors, limit},
    dto::{self, AuditEvents, AuditReport, Listing, Logs, LogsQuery},
    extract::{Id, NoQuery, Query},
    idempotency::answer,
    problem::Problem,
    router::AppState,
};

/// Reads an execution's log
///
/// The oldest entries come first.
#[utoipa::path(
    get,
    path = "/api/v1/executions/{id}/logs",
    operation_id = "listLogs",
    tag = "records",
    params(("id" = Uuid, Path), LogsQuery),
    responses(
        (status = 200, description = "A page of the log.", body = Logs),
    ),
    security(("bearer" = ["executions:read"])),
)]
pub(crate) async fn logs(
    State(state): State<AppState>,
    caller: Caller,
    Id(id): Id,
    Query(query): Query<LogsQuery>,
) -> Result<Response, Problem> {
    caller.need(Scope::ExecutionsRead)?;
    state
        .engine
        .execution(caller.organization, ExecutionId(id))
        .await?;
    let invalid = |pointer: &'static str| {
        move |why: String| {
            let detail = Text::key("fault-invalid-value").with("why", why);
            Problem::invalid_field(pointer, "invalid_value", detail)
        }
    };
    if let Some(step) = &query.step_id
        && let Some(fault) = limits::NODE_ID.fault("/step_id", step)
    {
        return Err(Problem::invalid(vec![fault]));
    }
    let level = query
        .level
        .as_deref()
        .map(str::parse)
        .transpose()
        .map_err(invalid("/level"))?;
    let domain = query
        .domain
        .as_deref()
        .map(str::parse)
        .transpose()
        .map_err(invalid("/domain"))?;
    let list = format!(
        "logs {} {id} {level:?} {domain:?} {:?}",
        caller.organization, query.step_id
    );
    let cursors = Cursors::new(&state.options.cursor_key, list);
    let after: Option<u64> = query
        .cursor
        .as_deref()
        .map(|cursor| cursors.read(cursor))
        .transpose()?;
    let page = state
        .engine
        .logs(
            LogQuery::of(caller.organization, ExecutionId(id))
                .level(level)
                .domain(domain)
                .step_id(query.step_id.map(NodeId::from))
                .after(after.unwrap_or(0))
                .limit(limit(query.limit.as_deref())?),
        )
        .await?;
    let next = page
        .items
        .last()
        .filter(|_| page.has_more)
        .map(|last| cursors.write(&last.seq));
    let technical = caller.is_technician();
    let logs: Vec<_> = page
        .items
        .iter()
        .map(|entry| dto::log_entry(entry, caller.locale, technical))
        .collect();
    Ok(answer(
        StatusCode::OK,
        &dto::json(&Logs {
            logs,
            next_cursor: next,
            has_more: page.has_more,
        }),
    ))
}

/// Reads an execution's audit trail
///
/// The oldest entries come first.
#[utoipa::path(
    get,
    path = "/api/v1/executions/{id}/audit",
    operation_id = "listAuditEvents",
    tag = "records",
    params(("id" = Uuid, Path), Listing),
    responses(
        (status = 200, description = "A page of the audit trail.", body = AuditEvents),
    ),
    security(("bearer" = ["audit:read"])),
)]
pub(crate) async fn audit(
    State(state): State<AppState>,
    caller: Caller,
    Id(id): Id,
    Query(query): Query<Listing>,
) -> Result<Response, Problem> {
    caller.need(Scope::AuditRead)?;
    state
        .engine
        .execution(caller.organization, ExecutionId(id))
        .await?;
    let cursors = Cursors::new(
        &state.options.cursor_key,
        format!("audit {} {id}", caller.organization),
    );
    let after: Option<u64> = query
        .cursor
        .as_deref()
        .map(|cursor| cursors.read(cursor))
        .transpose()?;
    let page = state
        .engine
        .audit(
            AuditQuery::of(caller.organization, ExecutionId(id))
                .after(after.unwrap_or(0))
                .limit(limit(query.limit.as_deref())?),
        )
        .await?;
    let next = page
        .items
        .last()
        .filter(|_| page.has_more)
        .map(|last| cursors.write(&last.seq));
    let events: Vec<_> = page.items.iter().map(|row| dto::audit_event(row)).collect();
    Ok(answer(
        StatusCode::OK,
        &dto::json(&AuditEvents {
            events,
            next_cursor: next,
            has_more: page.has_more,
        }),
    ))
}

/// Verifies an execution's audit trail
#[utoipa::path(
    get,
    path = "/api/v1/executions/{id}/audit/verify",
    operation_id = "verifyAudit",
    tag = "records",
    params(("id" = Uuid, Path)),
    responses(
        (status = 200, description = "Whether the hash chain is whole.", body = AuditReport),
    ),
    security(("bearer" = ["audit:read"])),
)]
pub(crate) async fn verify(
    State(state): State<AppState>,
    caller: Caller,
    Id(id): Id,
    _: NoQuery,
) -> Result<Response, Problem> {
    caller.need(Scope::AuditRead)?;
    let report = state
        .engine
        .verify_audit(caller.organization, ExecutionId(id))
        .await?;
    Ok(answer(
        StatusCode::OK,
        &dto::json(&dto::audit_report(&report)),
    ))
}
