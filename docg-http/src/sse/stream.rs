//! An execution's stream: its state, then the events that the reader missed, then live events.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use docg_core::{
    engine::EngineError,
    event::Event,
    ids::{ExecutionId, OrganizationId},
    query::ExecutionRecord,
};
use futures::{StreamExt, stream};
use serde_json::{Value, json};

use super::{
    frame,
    open::{Open, Reader},
};
use crate::{
    dto::{StreamPosition, StreamQuery},
    extract::{Id, PositionQuery},
    metrics::StreamKind,
    openapi::frames,
    problem::Problem,
    router::AppState,
};

/// Follows an execution
#[utoipa::path(
    get,
    path = "/api/v1/sse/executions/{id}/stream",
    operation_id = "streamExecution",
    tag = "streams",
    params(("id" = Uuid, Path), StreamPosition, ("Last-Event-ID" = Option<String>, Header, description = "As `last_event_id`, and it wins. `EventSource` sends it by itself.")),
    responses(
        (status = 200, description = "`connected`, then what the reader has missed, then what happens, until the execution ends. Where `text/event-stream` is asked for and there is no room or no store for now: only `retry`, and the end.", body = frames::ExecutionFrame, content_type = "text/event-stream", headers(("Cache-Control" = String, description = "`no-cache`."), ("X-Accel-Buffering" = String, description = "`no`."))),
        (status = 204, description = "The execution has ended, and the reader has its last event."),
        (status = 429),
    ),
    security(("bearer" = ["executions:read"]), ("stream_token" = [])),
)]
pub(crate) async fn execution(
    State(state): State<AppState>,
    Id(id): Id,
    PositionQuery(query): PositionQuery<StreamQuery>,
    request: Request,
) -> Result<Response, Problem> {
    let id = ExecutionId(id);
    let reader = Reader::of(&state, request, query, Some(id)).await?;
    let (organization, locale) = (reader.holder.organization, reader.holder.locale);
    let record = state.engine.execution(organization, id).await?;
    let last_event_id = reader.last_event_id.as_deref();
    let start = Start::of(&state, organization, &record, last_event_id).await?;
    let head = record.execution.heads.event_seq;
    if record.execution.status.is_terminal() && start.gap.is_none() && start.after == head {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let place = reader.place(&state)?;
    let feed = state.engine.feed(organization, id, start.after).await?;
    let (encoded, metrics) = (Arc::clone(&state.encoded), state.metrics.clone());
    let mut last = start.after;
    let events = feed
        .map(move |event| match event {
            Ok(event) => {
                metrics.event_sent(StreamKind::Execution);
                let missed = missed(last, &event, head);
                last = event.seq;
                let frame = encoded.frame(&event, &format!("{}-0", event.seq), locale);
                let gap = missed.map(|gap| frame::control("gap", &gap));
                Some(stream::iter(gap.into_iter().chain([frame])))
            }
            Err(error) => {
                // End the stream: the reader reconnects with its last event id.
                tracing::warn!("a stream ends early: {error}");
                None
            }
        })
        .take_while(|frame| std::future::ready(frame.is_some()))
        .filter_map(std::future::ready)
        .flatten();
    let gap = start.gap.map(|gap| frame::control("gap", &gap));
    let connected = json!({
        "execution_id": id,
        "status": record.execution.status,
        "progress": record.execution.progress,
        "current_step": record.execution.current_step,
        "last_event_id": (head > 0).then(|| format!("{head}-0")),
    });
    let frames = stream::iter(gap).chain(events).boxed();
    let open = Open::new(&state, StreamKind::Execution, place, &connected, frames);
    Ok(open.into_response(&state, locale))
}

/// Why the stream cannot continue from the given id; `None` if it can.
fn gap_reason(given: Option<u64>, earliest: u64, latest: u64) -> Option<&'static str> {
    match given {
        None => Some("unknown_id"),
        Some(seq) if seq > latest => Some("ahead"),
        Some(seq) if seq + 1 < earliest => Some("too_old"),
        Some(_) => None,
    }
}

/// The data of a `gap` frame before `event`, if the events between `last` and `event` are gone.
fn missed(last: u64, event: &Event, latest: u64) -> Option<Value> {
    (event.seq > last + 1).then(|| {
        json!({
            "reason": "too_old",
            "earliest": format!("{}-0", event.seq),
            "latest": format!("{}-0", latest.max(event.seq)),
            "state": {
                "status": event.status,
                "progress": event.progress,
                "current_step": event.current_step,
            },
        })
    })
}

/// The id of the oldest event that is still stored; `None` if no event is.
fn first_left(earliest: u64, latest: u64) -> Option<String> {
    (earliest <= latest).then(|| format!("{earliest}-0"))
}

/// The event number after which a stream begins, and the data of a `gap` frame to send first, if any.
struct Start {
    after: u64,
    gap: Option<Value>,
}

impl Start {
    async fn of(
        state: &AppState,
        organization: OrganizationId,
        record: &ExecutionRecord,
        last_event_id: Option<&str>,
    ) -> Result<Self, EngineError> {
        let Some(id) = last_event_id else {
            return Ok(Self {
                after: 0,
                gap: None,
            });
        };
        let given = frame::parse_id(id);
        let execution = &record.execution;
        let latest = execution.heads.event_seq;
        let earliest = state
            .engine
            .earliest_event(organization, execution.id)
            .await?;
        let Some(reason) = gap_reason(given, earliest, latest) else {
            return Ok(Self {
                after: given.unwrap_or(0),
                gap: None,
            });
        };
        let gap = json!({
            "reason": reason,
            "earliest": first_left(earliest, latest),
            "latest": format!("{latest}-0"),
            "state": {
                "status": execution.status,
                "progress": execution.progress,
                "current_step": execution.current_step,
            },
        });
        Ok(Self {
            after: earliest - 1,
            gap: Some(gap),
        })
    }
}

#[cfg(test)]
mod tests {
    use docg_core::conformance::fixtures::events;

    use super::{first_left, gap_reason, missed};

    #[test]
    fn events_that_are_gone_leave_a_gap_and_never_a_silent_hole() {
        let (mut last, mut told) = (0, Vec::new());
        for event in events(9)
            .iter()
            .filter(|it| ![1, 4, 7, 8].contains(&it.seq))
        {
            told.extend(missed(last, event, 9).map(|gap| gap["earliest"].clone()));
            last = event.seq;
        }
        assert_eq!(told, ["2-0", "5-0", "9-0"]);
    }

    #[test]
    fn an_id_is_good_as_long_as_its_successor_is_left() {
        for (given, reason) in [
            (Some(3), Some("too_old")),
            (Some(4), None),
            (Some(5), None),
            (Some(9), None),
            (Some(10), Some("ahead")),
            (None, Some("unknown_id")),
        ] {
            assert_eq!(gap_reason(given, 5, 9), reason, "{given:?}");
        }
    }

    #[test]
    fn a_gap_after_which_nothing_is_left_names_no_earliest_event() {
        assert_eq!(first_left(5, 9).as_deref(), Some("5-0"));
        assert_eq!(first_left(9, 9).as_deref(), Some("9-0"));
        assert_eq!(first_left(10, 9), None);
    }
}
