//! One execution's stream: the state, what the reader has missed, then what happens.
//!
//! The body is pulled by the connection, so a reader that does not keep up costs no memory: what
//! it has not taken stays in the store.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use axum::{
    body::Body,
    extract::{FromRequestParts, Request, State},
    http::{HeaderName, HeaderValue, StatusCode, header},
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
use futures::{
    FutureExt, StreamExt,
    future::BoxFuture,
    stream::{self, BoxStream},
};
use serde_json::{Value, json};

use super::{
    encoded::EncodedEvents,
    frame,
    limits::StreamPlace,
    slow::WatchedFrames,
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
    // Whatever it is made of: what is no id of ours is told by a gap.
    let last_event_id = request
        .headers()
        .get("last-event-id")
        .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
        .or(query.last_event_id);
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
    let open = Open {
        ready: first,
        feed,
        locale: reader.locale,
        encoded: Arc::clone(&state.encoded),
        heartbeat: state.options.heartbeat,
        ends: ends(&state.options),
        _place: place,
    };
    let frames = state.slow_readers.watch(open.into_frames());
    Ok(response(frames, reader.locale))
}

/// What the given id is worth; `None` where reading can go on from it.
fn gap_reason(given: Option<u64>, earliest: u64, latest: u64) -> Option<&'static str> {
    match given {
        None => Some("unknown_id"),
        Some(seq) if seq > latest => Some("ahead"),
        Some(seq) if seq + 1 < earliest => Some("too_old"),
        Some(_) => None,
    }
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
        let Some(reason) = gap_reason(given, earliest, latest) else {
            return Ok(Self {
                after: given.unwrap_or(0),
                gap: None,
            });
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
    encoded: Arc<EncodedEvents>,
    heartbeat: Duration,
    /// Resolves at this stream's own moment after the shutdown has begun.
    ends: BoxFuture<'static, ()>,
    _place: StreamPlace,
}

impl Open {
    /// The next frame, when there is one.
    async fn next(&mut self) -> Option<Bytes> {
        if let Some(frame) = self.ready.pop_front() {
            return Some(frame);
        }
        tokio::select! {
            // The end first: a long replay must not keep a server from going down.
            biased;
            () = &mut self.ends => None,
            event = self.feed.next() => match event {
                Some(Ok(event)) => Some(self.encoded.frame(&event, self.locale)),
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
        }
    }

    fn into_frames(self) -> BoxStream<'static, Bytes> {
        let frames = stream::unfold(self, |mut open| async move {
            let frame = open.next().await?;
            Some((frame, open))
        });
        frames.boxed()
    }
}

/// Resolves some time after the shutdown has begun.
fn ends(options: &HttpOptions) -> BoxFuture<'static, ()> {
    let window = u64::try_from(options.drain_over.as_millis()).unwrap_or(u64::MAX);
    let drain = Duration::from_millis(jitter(window));
    let shutdown = options.shutdown.clone();
    async move {
        shutdown.cancelled().await;
        tokio::time::sleep(drain).await;
    }
    .boxed()
}

fn response(frames: WatchedFrames, locale: Locale) -> Response {
    let frames = frames.map(Ok::<_, std::convert::Infallible>);
    let mut response = Response::new(Body::from_stream(frames));
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-cache"),
        (HeaderName::from_static("x-accel-buffering"), "no"),
        // A token keeps the language in which it was asked for.
        (header::CONTENT_LANGUAGE, locale.tag()),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::gap_reason;

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
}
