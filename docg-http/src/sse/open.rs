//! The parts that all streams share: the reader, its position, and the answer that stays open.
//!
//! A connection asks the body for frames only when it can write, so a slow reader costs no memory: the
//! events that the reader has not taken stay in the store or the bus.

use std::time::Duration;

use axum::{
    body::Body,
    extract::{FromRequestParts, Request},
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::Response,
};
use bytes::Bytes;
use docg_core::{i18n::Locale, ids::ExecutionId, time::Timestamp};
use futures::{
    FutureExt, StreamExt,
    future::BoxFuture,
    stream::{self, BoxStream},
};
use serde_json::{Value, json};

use super::{
    frame,
    limits::StreamPlace,
    slow::WatchedFrames,
    tokens::{TokenHolder, redeem},
};
use crate::{
    auth::Scope,
    caller::Caller,
    dto::StreamQuery,
    metrics::{OpenStream, StreamKind},
    options::HttpOptions,
    problem::Problem,
    router::AppState,
};

/// The reader of a stream, with the last event id that it received, if any.
pub(super) struct Reader {
    pub(super) holder: TokenHolder,
    pub(super) last_event_id: Option<String>,
}

impl Reader {
    /// Authenticates the reader of an execution's stream, or of the organization's if `execution` is `None`,
    /// and reads the reader's last event id.
    pub(super) async fn of(
        state: &AppState,
        request: Request,
        query: StreamQuery,
        execution: Option<ExecutionId>,
    ) -> Result<Self, Problem> {
        // Accept any bytes: an id that docg never gave leads to a `gap` frame.
        let given = request.headers().get_all("last-event-id").iter();
        let last_event_id = given
            .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
            // If the header is there twice, join both values: no event has that id, which leads to a gap.
            .reduce(|one, other| format!("{one}, {other}"))
            .or(query.last_event_id)
            .map(|id| id.trim().to_owned())
            .filter(|id| !matches!(id.as_str(), "" | "0" | "0-0"));
        let (mut parts, _) = request.into_parts();
        let holder = match &query.token {
            Some(token) => redeem(state, token, execution).await?,
            None => {
                let caller = Caller::from_request_parts(&mut parts, state).await?;
                caller.need(Scope::ExecutionsRead)?;
                TokenHolder {
                    organization: caller.organization,
                    locale: caller.locale,
                }
            }
        };
        Ok(Self {
            holder,
            last_event_id,
        })
    }

    /// Counts the reader's stream as open. Refuses it with 429 if a limit of open streams is reached.
    pub(super) fn place(&self, state: &AppState) -> Result<StreamPlace, Problem> {
        state
            .streams
            .enter(self.holder.organization)
            .ok_or_else(|| {
                Problem::new(StatusCode::TOO_MANY_REQUESTS, "too_many_streams")
                    .header(header::RETRY_AFTER, HeaderValue::from_static("30"))
            })
    }
}

/// An open stream.
pub(super) struct Open {
    /// The `connected` frame, until it is sent.
    first: Option<Bytes>,
    /// The frames after `connected`. When they end, the stream ends.
    frames: BoxStream<'static, Bytes>,
    heartbeat: Duration,
    /// Resolves when this stream must end, even if frames are left.
    ends: BoxFuture<'static, ()>,
    _counted: OpenStream,
    _place: StreamPlace,
}

impl Open {
    /// Opens a stream that begins with a `connected` frame.
    pub(super) fn new(
        state: &AppState,
        kind: StreamKind,
        place: StreamPlace,
        connected: &Value,
        frames: BoxStream<'static, Bytes>,
    ) -> Self {
        Self {
            first: Some(frame::connected(1_000 + jitter(2_000), connected)),
            frames,
            heartbeat: state.options.heartbeat,
            ends: ends(&state.options),
            _counted: state.metrics.stream_opened(kind),
            _place: place,
        }
    }

    pub(super) fn into_response(self, state: &AppState, locale: Locale) -> Response {
        let frames = stream::unfold(self, |mut open| async move {
            let frame = open.next().await?;
            Some((frame, open))
        });
        response(state.slow_readers.watch(frames.boxed()), locale)
    }

    /// Waits for the next frame; `None` at the stream's end.
    async fn next(&mut self) -> Option<Bytes> {
        if let Some(first) = self.first.take() {
            return Some(first);
        }
        tokio::select! {
            // Check the end first: a long replay must not delay a shutdown.
            biased;
            () = &mut self.ends => None,
            frame = self.frames.next() => frame,
            () = tokio::time::sleep(self.heartbeat) => {
                Some(frame::control("heartbeat", &json!({"timestamp": Timestamp::now()})))
            }
        }
    }
}

/// A random number less than `below`. It only spreads reconnects over time, so weak randomness is enough.
pub(crate) fn jitter(below: u64) -> u64 {
    uuid::Uuid::new_v4().as_u64_pair().0 % below.max(1)
}

/// Resolves when a stream is `stream_age` old, give or take a tenth, or at a random time within
/// `drain_over` after shutdown begins.
fn ends(options: &HttpOptions) -> BoxFuture<'static, ()> {
    let age = options.stream_age;
    let age = age - age / 10 + random(age / 5);
    let drain = random(options.drain_over);
    let shutdown = options.shutdown.clone();
    async move {
        tokio::select! {
            () = tokio::time::sleep(age) => {}
            () = shutdown.cancelled() => tokio::time::sleep(drain).await,
        }
    }
    .boxed()
}

/// A random duration shorter than `within`, so that streams do not all end at the same time.
fn random(within: Duration) -> Duration {
    let millis = u64::try_from(within.as_millis()).unwrap_or(u64::MAX);
    Duration::from_millis(jitter(millis))
}

fn response(frames: WatchedFrames, locale: Locale) -> Response {
    let frames = frames.map(Ok::<_, std::convert::Infallible>);
    let mut response = Response::new(Body::from_stream(frames));
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-cache"),
        (HeaderName::from_static("x-accel-buffering"), "no"),
        // With a stream token, this is the language of the request that created the token.
        (header::CONTENT_LANGUAGE, locale.tag()),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}
