//! The lists of open signature requests and pending approvals.

use axum::{extract::State, http::StatusCode, response::Response};
use docg_core::{
    i18n::Text,
    ids::{ExecutionId, SignatureRequestId},
    query::{ExecutionFilter, ExecutionQuery, ExecutionRecord, Page},
    run::WaitKind,
    time::Timestamp,
};
use futures::{StreamExt, TryStreamExt, stream};
use uuid::Uuid;

use crate::{
    auth::Scope,
    caller::Caller,
    cursor::{Cursors, limit},
    dto::{
        self, ApprovalsQuery, OpenApprovals, OpenSignatures, SignaturesQuery, open_approval,
        open_signature,
    },
    extract::Query,
    idempotency::answer,
    problem::Problem,
    router::AppState,
};

/// How many signature requests of a page are read concurrently.
const AT_ONCE: usize = 8;

/// Lists the signature requests that are open
///
/// Those of the newest executions come first.
#[utoipa::path(
    get,
    path = "/api/v1/signatures",
    operation_id = "listSignatures",
    tag = "signatures",
    params(SignaturesQuery),
    responses((status = 200, description = "A page of signature requests.", body = OpenSignatures)),
    security(("bearer" = ["executions:read"])),
)]
pub(crate) async fn signatures(
    State(state): State<AppState>,
    caller: Caller,
    Query(query): Query<SignaturesQuery>,
) -> Result<Response, Problem> {
    let (page, next_cursor) = page(&state, &caller, &query, WaitKind::Signature, "open").await?;
    let requests = stream::iter(page.items).map(|record| {
        let engine = state.engine.clone();
        async move {
            let id = detail_id(&record, "signature_request_id").map(SignatureRequestId);
            let organization = record.execution.organization_id;
            let request = match id {
                Some(id) => Some(engine.signature_request(organization, id).await?),
                None => None,
            };
            let open = request.map(|request| open_signature(&record.execution, &request));
            Ok::<_, Problem>(open)
        }
    });
    let requests: Vec<_> = requests.buffered(AT_ONCE).try_collect().await?;
    let page = OpenSignatures {
        signatures: requests.into_iter().flatten().collect(),
        has_more: next_cursor.is_some(),
        next_cursor,
    };
    Ok(answer(StatusCode::OK, &dto::json(&page)))
}

/// Lists the approvals that are pending
///
/// Those of the newest executions come first. The answer never shows the approvers' tokens.
#[utoipa::path(
    get,
    path = "/api/v1/approvals",
    operation_id = "listApprovals",
    tag = "approvals",
    params(ApprovalsQuery),
    responses((status = 200, description = "A page of approvals.", body = OpenApprovals)),
    security(("bearer" = ["executions:read"])),
)]
pub(crate) async fn approvals(
    State(state): State<AppState>,
    caller: Caller,
    Query(query): Query<ApprovalsQuery>,
) -> Result<Response, Problem> {
    let query = query.into();
    let (page, next_cursor) = page(&state, &caller, &query, WaitKind::Approval, "pending").await?;
    let approvals = page.items.iter().filter_map(|record| {
        let id = detail_id(record, "approval_id")?;
        open_approval(&record.execution, id)
    });
    let page = OpenApprovals {
        approvals: approvals.collect(),
        has_more: next_cursor.is_some(),
        next_cursor,
    };
    Ok(answer(StatusCode::OK, &dto::json(&page)))
}

fn detail_id(record: &ExecutionRecord, name: &str) -> Option<Uuid> {
    let detail = &record.execution.waiting_for.as_ref()?.detail;
    detail[name].as_str()?.parse().ok()
}

/// A page of the executions that wait, and the cursor of the next. `status` is the only status that the list has.
async fn page(
    state: &AppState,
    caller: &Caller,
    query: &SignaturesQuery,
    kind: WaitKind,
    status: &str,
) -> Result<(Page<ExecutionRecord>, Option<String>), Problem> {
    caller.need(Scope::ExecutionsRead)?;
    if query.status.as_deref().is_some_and(|given| given != status) {
        let detail = Text::key("fault-one-of").with("values", status);
        return Err(Problem::invalid_field("/status", "invalid_value", detail));
    }
    let list = format!("{kind:?} {}", caller.organization);
    let cursors = Cursors::new(&state.options.cursor_key, list);
    let after: Option<(i64, Uuid)> = query
        .cursor
        .as_deref()
        .map(|cursor| cursors.read(cursor))
        .transpose()?;
    let mut filter = ExecutionFilter::default();
    filter.waiting_for = vec![kind];
    let query = ExecutionQuery::of(caller.organization)
        .filter(filter)
        .after(after.map(|(time, id)| (Timestamp::from_millis(time), ExecutionId(id))))
        .limit(limit(query.limit.as_deref())?);
    let sort = query.sort;
    let page = state.engine.executions(query).await?;
    let last = page.items.last().filter(|_| page.has_more);
    let next = last.map(|last| {
        let (time, id) = sort.place(&last.execution);
        cursors.write(&(time.as_millis(), id.0))
    });
    Ok((page, next))
}
