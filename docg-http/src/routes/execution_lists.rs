//! Lists and counts of executions, with the filters that both share.

use axum::{extract::State, http::StatusCode, response::Response};
use docg_core::{
    error::FieldFault,
    i18n::Text,
    ids::{ExecutionId, WorkflowId},
    limits,
    query::{ExecutionCounts, ExecutionFilter, ExecutionQuery, ExecutionSort, Search},
    run::{Status, WaitKind},
    time::Timestamp,
};
use futures::{StreamExt, TryStreamExt, stream};
use serde::Serialize;
use uuid::Uuid;

use super::executions::shown;
use crate::{
    auth::Scope,
    caller::Caller,
    cursor::{Cursors, limit},
    dto::{
        self, Counts, CountsQuery, Executions, ExecutionsQuery, WorkflowExecutionsQuery, counts,
    },
    extract::{Id, Query},
    idempotency::answer,
    problem::Problem,
    router::AppState,
};

/// How many executions of a page are prepared concurrently.
const AT_ONCE: usize = 8;

/// Lists executions
///
/// The newest come first, unless `sort` names another order.
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
/// The newest come first, unless `sort` names another order.
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
    page(&state, &caller, query.of(workflow)).await
}

/// Counts executions
///
/// By status, and by what they wait for.
#[utoipa::path(
    get,
    path = "/api/v1/executions/counts",
    operation_id = "countExecutions",
    tag = "executions",
    params(CountsQuery),
    responses(
        (status = 200, description = "The numbers of executions.", body = Counts),
    ),
    security(("bearer" = ["executions:read"])),
)]
pub(crate) async fn count(
    State(state): State<AppState>,
    caller: Caller,
    Query(query): Query<CountsQuery>,
) -> Result<Response, Problem> {
    caller.need(Scope::ExecutionsRead)?;
    let filter = filter(&query.into())?;
    let found: ExecutionCounts = state
        .engine
        .execution_counts(caller.organization, &filter)
        .await?;
    Ok(answer(StatusCode::OK, &dto::json(&counts(&found))))
}

/// The filter that a query names.
pub(super) fn filter(query: &ExecutionsQuery) -> Result<ExecutionFilter, Problem> {
    let mut filter = ExecutionFilter::default();
    let status = |status: &Status| status.as_str().to_owned();
    filter.statuses = names("/status", query.status.as_deref(), &Status::ALL, status)?;
    let waiting = query.waiting_for.as_deref();
    filter.waiting_for = names("/waiting_for", waiting, &WaitKind::ALL, serde_name)?;
    filter.workflow_id = match &query.workflow_id {
        Some(id) => {
            Some(WorkflowId(Uuid::parse_str(id).map_err(|_| {
                invalid("/workflow_id", Text::key("fault-uuid"))
            })?))
        }
        None => None,
    };
    filter.created_from = moment("/created_from", query.created_from.as_deref())?;
    filter.created_to = moment("/created_to", query.created_to.as_deref())?;
    if let Some(id) = &query.correlation_id {
        refuse(limits::CORRELATION_ID.fault("/correlation_id", id))?;
        filter.correlation_id = Some(id.clone());
    }
    if let Some(text) = &query.q {
        refuse(limits::SEARCH.fault("/q", text))?;
        filter.search = (!limits::is_blank(text)).then(|| Search::of(text));
    }
    Ok(filter)
}

fn invalid(pointer: &str, detail: Text) -> Problem {
    Problem::invalid_field(pointer, "invalid_value", detail)
}

fn refuse(fault: Option<FieldFault>) -> Result<(), Problem> {
    fault.map_or(Ok(()), |fault| Err(Problem::invalid(vec![fault])))
}

/// The name that serde gives a variant without fields.
fn serde_name(variant: &impl Serialize) -> String {
    let name = dto::json(variant);
    name.as_str().unwrap_or_default().to_owned()
}

/// The variants that a list of names, separated by commas, names. None is repeated.
fn names<T: Copy + PartialEq>(
    pointer: &str,
    given: Option<&str>,
    all: &[T],
    name: impl Fn(&T) -> String,
) -> Result<Vec<T>, Problem> {
    let mut found = Vec::new();
    for given in given.into_iter().flat_map(|given| given.split(',')) {
        let known = all.iter().find(|variant| name(variant) == given);
        let known = known.ok_or_else(|| {
            let names: Vec<_> = all.iter().map(&name).collect();
            invalid(
                pointer,
                Text::key("fault-one-of").with("values", names.join(", ")),
            )
        })?;
        if !found.contains(known) {
            found.push(*known);
        }
    }
    Ok(found)
}

fn moment(pointer: &str, given: Option<&str>) -> Result<Option<Timestamp>, Problem> {
    let read = |given: &str| given.parse();
    let moment = given.map(read).transpose();
    moment.map_err(|_| invalid(pointer, Text::key("fault-moment")))
}

fn order(sort: Option<&str>) -> Result<ExecutionSort, Problem> {
    Ok(match sort {
        None | Some("-created_at") => ExecutionSort::NewestFirst,
        Some("created_at") => ExecutionSort::OldestFirst,
        Some("-updated_at") => ExecutionSort::LastChangedFirst,
        Some("updated_at") => ExecutionSort::FirstChangedFirst,
        Some(_) => {
            let names = dto::SORTS.join(", ");
            return Err(invalid(
                "/sort",
                Text::key("fault-one-of").with("values", names),
            ));
        }
    })
}

async fn page(
    state: &AppState,
    caller: &Caller,
    query: ExecutionsQuery,
) -> Result<Response, Problem> {
    caller.need(Scope::ExecutionsRead)?;
    let filter = filter(&query)?;
    let sort = order(query.sort.as_deref())?;
    let is_summary = match query.view.as_deref() {
        None | Some("full") => false,
        Some("summary") => true,
        Some(_) => {
            let names = dto::VIEWS.join(", ");
            return Err(invalid(
                "/view",
                Text::key("fault-one-of").with("values", names),
            ));
        }
    };
    let list = format!("executions {} {filter:?} {sort:?}", caller.organization);
    let cursors = Cursors::new(&state.options.cursor_key, list);
    let after: Option<(i64, Uuid)> = query
        .cursor
        .as_deref()
        .map(|cursor| cursors.read(cursor))
        .transpose()?;
    let query = ExecutionQuery::of(caller.organization)
        .filter(filter)
        .sort(sort)
        .after(after.map(|(time, id)| (Timestamp::from_millis(time), ExecutionId(id))))
        .limit(limit(query.limit.as_deref())?);
    let page = state.engine.executions(query).await?;
    let last = page.items.last().filter(|_| page.has_more);
    let next = last.map(|last| {
        let (time, id) = sort.place(&last.execution);
        cursors.write(&(time.as_millis(), id.0))
    });
    // A failed execution needs another read of the store. Prepare a few at a time, in the page's order.
    let executions = stream::iter(page.items).map(|record| {
        let (state, caller) = (state.clone(), caller.clone());
        async move {
            let shown = shown(&state, &caller, &record).await?;
            let shown = if is_summary { shown.summary() } else { shown };
            Ok::<_, Problem>(dto::json(&shown))
        }
    });
    let executions = executions.buffered(AT_ONCE).try_collect().await?;
    let page = Executions {
        executions,
        has_more: next.is_some(),
        next_cursor: next,
    };
    Ok(answer(StatusCode::OK, &dto::json(&page)))
}
