//! An organization's stream: the events of all its executions, for lists and dashboards.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    response::Response,
};
use docg_core::engine::OrganizationItem;
use futures::StreamExt;
use serde_json::json;

use super::{
    frame,
    open::{Open, Reader},
};
use crate::{
    dto::{StreamPosition, StreamQuery},
    extract::PositionQuery,
    metrics::StreamKind,
    openapi::frames,
    problem::Problem,
    router::AppState,
};

/// Follows an organization's executions
///
/// For lists and dashboards: creations, status changes, progress and ends. Read the lists after each
/// `connected`: a reader without a last event id gets no earlier events.
#[utoipa::path(
    get,
    path = "/api/v1/sse/executions/stream",
    operation_id = "streamExecutions",
    tag = "streams",
    params(StreamPosition, ("Last-Event-ID" = Option<String>, Header, description = "As `last_event_id`, and it wins. `EventSource` sends it by itself.")),
    responses(
        (status = 200, description = "`connected`, then what happens to all executions of the organization. Where `text/event-stream` is asked for and there is no room or no store for now: only `retry`, and the end.", body = frames::ListFrame, content_type = "text/event-stream", headers(("Cache-Control" = String, description = "`no-cache`."), ("X-Accel-Buffering" = String, description = "`no`."))),
        (status = 429),
    ),
    security(("bearer" = ["executions:read"]), ("stream_token" = [])),
)]
pub(crate) async fn organization(
    State(state): State<AppState>,
    PositionQuery(query): PositionQuery<StreamQuery>,
    request: Request,
) -> Result<Response, Problem> {
    let reader = Reader::of(&state, request, query, None).await?;
    let place = reader.place(&state)?;
    let (organization, locale) = (reader.holder.organization, reader.holder.locale);
    let feed = state
        .engine
        .organization_feed(organization, reader.last_event_id)
        .await;
    let (encoded, metrics) = (Arc::clone(&state.encoded), state.metrics.clone());
    let frames = feed.map(move |item| match item {
        OrganizationItem::Event(listed) => {
            metrics.event_sent(StreamKind::Organization);
            encoded.frame(&listed.event, &listed.position, locale)
        }
        // An organization's stream has no state and no numbered events to name. The reader has to read its
        // lists again.
        OrganizationItem::Gap => frame::control(
            "gap",
            &json!({"reason": "too_old", "earliest": null, "latest": null, "state": null}),
        ),
    });
    let connected = json!({"organization_id": organization});
    let open = Open::new(
        &state,
        StreamKind::Organization,
        place,
        &connected,
        frames.boxed(),
    );
    Ok(open.into_response(&state, locale))
}
