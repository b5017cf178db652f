//! One execution's stream: the state, what the reader has missed, then what happens.
//!
//! The body is pulled by the connection, so a reader that does not keep up costs no memory: what
//! it has not taken stays in the store.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    body::Body,
    extract::{FromRequestParts, Request, State},
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use docg_core::{
    engine::{EngineError, EventFeed},
    i18n::Locale,
    ids::{ExecutionId, OrganizationId},
    ports::ExecutionRecord,
    time::Timestamp,
};
use futures::{FutureExt, StreamExt, future::BoxFuture, stream};
use serde_json::{Value, json};

use super::{
    frame,
    limits::StreamPlace,
    tokens::{TokenHolder, redeem},
};
use crate::{
    auth::Scope,
    caller::Caller,
    dto::StreamQuery,
    extract::{Id, Query},
    options::HttpOptions,
    problem::Problem,
    router::AppState,
};

pub(crate) async fn execution(
    State(state): State<AppState>,
    Id(id): Id,
    Query(query): Query<StreamQuery>,
    request: Request,
) -> Result<Response, Problem> {
    let id = ExecutionId(id);
    let last_event_id = request
        .headers()
        .get("last-event-id")
        .and_then(|value| value.to_str().ok());
    let last_event_id = last_event_id.map(str::to_owned).or(query.last_event_id);
    let (mut parts, _) = request.into_parts();
    let reader = match &query.token {
        Some(token) => redeem(&state, token, id).await?,
        None => {
            let caller = Caller::from_request_parts(&mut parts, &state).await?;
            caller.need(Scope::ExecutionsRead)?;
            TokenHolder {
                organization: caller.organization,
                locale: caller.locale,
            }
        }
    };
    let record = state.engine.execution(reader.organization, id).await?;
    let start = Start::of(
        &state,
        reader.organization,
        &record,
        last_event_id.as_deref(),
    )
    .await?;
    let head = record.execution.heads.event_seq;
    if record.execution.status.is_terminal() && start.gap.is_none() && start.after == head {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let place = state.streams.enter(reader.organization).ok_or_else(|| {
        Problem::new(StatusCode::TOO_MANY_REQUESTS, "too_many_streams")
            .header(header::RETRY_AFTER, HeaderValue::from_static("30"))
    })?;
    let feed = state
        .engine
        .feed(reader.organization, id, start.after)
        .await?;
    let mut first = VecDeque::from([
        frame::retry(1_000 + jitter(2_000)),
        frame::control(
            "connected",
            &json!({
                "execution_id": id,
                "status": record.execution.status,
                "progress": record.execution.progress,
                "current_step": record.execution.current_step,
                "last_event_id": (head > 0).then(|| format!("{head}-0")),
            }),
        ),
    ]);
    first.extend(start.gap.map(|gap| frame::control("gap", &gap)));
    Ok(Open::new(first, feed, reader.locale, place, &state.options).into_response())
}

/// Where a stream begins.
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
        let given = match last_event_id.map(str::trim) {
            None | Some("" | "0" | "0-0") => {
                return Ok(Self {
                    after: 0,
                    gap: None,
                });
            }
            Some(id) => frame::parse_id(id),
        };
        let execution = &record.execution;
        let latest = execution.heads.event_seq;
        let earliest = state
            .engine
            .earliest_event(organization, execution.id)
            .await?;
        let reason = match given {
            None => "unknown_id",
            Some(seq) if seq > latest => "ahead",
            Some(seq) if seq + 1 < earliest => "too_old",
            Some(seq) => {
                return Ok(Self {
                    after: seq,
                    gap: None,
                });
            }
        };
        let gap = json!({
            "reason": reason,
            "earliest": format!("{earliest}-0"),
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

/// Spreads what would otherwise happen to all at once; it needs no good randomness.
fn jitter(below: u64) -> u64 {
    uuid::Uuid::new_v4().as_u64_pair().0 % below.max(1)
}

/// An open stream.
struct Open {
    /// Frames to be given before the feed is read on.
    ready: VecDeque<Bytes>,
    feed: EventFeed,
    locale: Locale,
    heartbeat: Duration,
    slow_reader: Duration,
    /// Resolves at this stream's own moment after the shutdown has begun.
    ends: BoxFuture<'static, ()>,
    /// When the last frame was given to the connection.
    given_at: Option<Instant>,
    _place: StreamPlace,
}

impl Open {
    fn new(
        ready: VecDeque<Bytes>,
        feed: EventFeed,
        locale: Locale,
        place: StreamPlace,
        options: &Arc<HttpOptions>,
    ) -> Self {
        let window = u64::try_from(options.drain_over.as_millis()).unwrap_or(u64::MAX);
        let (shutdown, drain) = (
            options.shutdown.clone(),
            Duration::from_millis(jitter(window)),
        );
        let ends = async move {
            shutdown.cancelled().await;
            tokio::time::sleep(drain).await;
        };
        Self {
            ready,
            feed,
            locale,
            heartbeat: options.heartbeat,
            slow_reader: options.slow_reader,
            ends: ends.boxed(),
            given_at: None,
            _place: place,
        }
    }

    async fn next(&mut self) -> Option<Bytes> {
        if self
            .given_at
            .is_some_and(|given| given.elapsed() > self.slow_reader)
        {
            tracing::info!("a stream's reader does not keep up and is closed");
            return None;
        }
        let frame = match self.ready.pop_front() {
            Some(frame) => Some(frame),
            None => tokio::select! {
                biased;
                event = self.feed.next() => match event {
                    Some(Ok(event)) => Some(frame::event(&event, self.locale)),
                    Some(Err(error)) => {
                        // The reader comes back with its last id.
                        tracing::warn!("a stream ends early: {error}");
                        None
                    }
                    None => None,
                },
                () = tokio::time::sleep(self.heartbeat) => {
                    Some(frame::control("heartbeat", &json!({"timestamp": Timestamp::now()})))
                }
                () = &mut self.ends => None,
            },
        };
        self.given_at = Some(Instant::now());
        frame
    }
}

impl IntoResponse for Open {
    fn into_response(self) -> Response {
        let frames = stream::unfold(self, |mut open| async move {
            let frame = open.next().await?;
            Some((Ok::<_, std::convert::Infallible>(frame), open))
        });
        let mut response = Response::new(Body::from_stream(frames));
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("text/event-stream"),
        );
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
        response
    }
}
