//! Metrics for Prometheus. The engine reports its own work; the API reports requests and streams.
//! [`families`] holds the metrics with their names.

mod families;

use std::{sync::Arc, time::Instant};

use axum::{
    extract::{MatchedPath, Request, State},
    http::{HeaderValue, Method, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use docg_core::engine::{Fact, Observer};
use families::Families;
use prometheus::{IntGauge, TextEncoder};

use crate::{extract::NoQuery, problem::Problem, router::AppState, sse::later::RefusedWith};

/// The content type of Prometheus' text format.
const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Counters, gauges and histograms of an engine and of the API over it. Clones share their values.
///
/// If [`HttpOptions`](crate::HttpOptions) holds the metrics, `GET /metrics` shows them. A process that
/// runs workers and serves no API can publish the metrics' [text](Self::render) in another way.
#[derive(Clone, Default)]
pub struct Metrics(Arc<Families>);

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Metrics")
    }
}

/// The kind of an event stream: one execution's, or an organization's.
#[derive(Debug, Clone, Copy)]
pub(crate) enum StreamKind {
    Execution,
    Organization,
}

impl StreamKind {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Execution => "execution",
            Self::Organization => "organization",
        }
    }
}

/// Why the server closed a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ClosedFor {
    /// The client sent no whole request head in time.
    Head,
    /// The client sent no request for too long.
    Idle,
    /// The client took no byte of an answer for too long.
    Slow,
    /// The connection was closed to make room for a new one.
    Room,
    /// All connections were in use, so the new one was refused.
    Full,
}

impl ClosedFor {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Head => "head",
            Self::Idle => "idle",
            Self::Slow => "slow",
            Self::Room => "room",
            Self::Full => "full",
        }
    }
}

/// Counts in the metrics as one open stream, until it is dropped.
pub(crate) struct OpenStream(IntGauge);

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Metrics {
    /// Renders all metrics in Prometheus' text format, version 0.0.4.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = String::new();
        if let Err(error) = TextEncoder::new().encode_utf8(&self.0.registry.gather(), &mut text) {
            // Cannot happen: each metric has a sample and can be written as text.
            tracing::error!("metrics cannot be written out: {error}");
        }
        text
    }

    pub(crate) fn observer(&self) -> Arc<dyn Observer> {
        Arc::clone(&self.0) as _
    }

    pub(crate) fn stream_opened(&self, kind: StreamKind) -> OpenStream {
        let open = self.0.streams.with_label_values(&[kind.as_str()]);
        open.inc();
        OpenStream(open)
    }

    pub(crate) fn stream_closed_as_slow(&self) {
        self.0.streams_closed_slow.inc();
    }

    pub(crate) fn connection_closed_as_slow(&self) {
        self.0.connections_closed_slow.inc();
    }

    pub(crate) fn connections(&self, open: usize) {
        self.0
            .connections
            .set(i64::try_from(open).unwrap_or(i64::MAX));
    }

    pub(crate) fn connection_closed(&self, reason: ClosedFor) {
        self.0
            .connections_closed
            .with_label_values(&[reason.as_str()])
            .inc();
    }

    pub(crate) fn event_sent(&self, kind: StreamKind) {
        self.0.sse_events.with_label_values(&[kind.as_str()]).inc();
    }
}

impl Observer for Families {
    fn observe(&self, fact: &Fact<'_>) {
        match fact {
            Fact::ExecutionCreated => self.executions_created.inc(),
            Fact::StatusChanged { to } => {
                self.status_changes.with_label_values(&[to.as_str()]).inc();
            }
            Fact::StepEnded { node_type, outcome } => {
                let labels = [*node_type, outcome.as_str()];
                self.steps.with_label_values(&labels).inc();
            }
            Fact::HandlerCalled {
                node_type,
                duration,
            } => self
                .step_seconds
                .with_label_values(&[*node_type])
                .observe(duration.as_secs_f64()),
            Fact::Claimed { taken_over, waited } => {
                self.claims.inc();
                self.takeovers.inc_by(u64::from(*taken_over));
                if let Some(waited) = waited {
                    self.queue_seconds.observe(waited.as_secs_f64());
                }
            }
            Fact::LeaseLost => self.leases_lost.inc(),
            Fact::StoreCalled {
                operation,
                duration,
                error,
            } => {
                self.store_seconds
                    .with_label_values(&[*operation])
                    .observe(duration.as_secs_f64());
                if let Some(kind) = error {
                    self.store_errors
                        .with_label_values(&[*operation, kind.as_str()])
                        .inc();
                }
            }
            Fact::BusUnavailable { operation } => {
                self.bus_errors.with_label_values(&[*operation]).inc();
            }
            Fact::WebhookReceived { provider, outcome } => {
                self.webhooks
                    .with_label_values(&[*provider, outcome.as_str()])
                    .inc();
            }
            // Facts of later versions of docg-core have no metric yet.
            _ => {}
        }
    }
}

/// Reads the metrics for Prometheus
#[utoipa::path(
    get,
    path = "/metrics",
    operation_id = "metrics",
    tag = "server",
    responses(
        (status = 200, description = "Prometheus' text format, version 0.0.4.", body = String, content_type = "text/plain; version=0.0.4; charset=utf-8"),
        (status = 404, description = "They are turned off."),
    ),
)]
pub(crate) async fn page(State(state): State<AppState>, _: NoQuery) -> Response {
    let Some(metrics) = &state.options.metrics else {
        return Problem::not_found().into_response();
    };
    let active = i64::try_from(state.engine.active_executions()).unwrap_or(i64::MAX);
    metrics.0.active_executions.set(active);
    let mut response = metrics.render().into_response();
    let content_type = HeaderValue::from_static(CONTENT_TYPE);
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, content_type);
    response
}

/// Measures the time until an answer begins.
pub(crate) async fn measure(
    State(state): State<AppState>,
    request: Request,
    next: Next,
) -> Response {
    let method = method(request.method());
    let route = request.extensions().get::<MatchedPath>().cloned();
    let began = Instant::now();
    let response = next.run(request).await;
    // Label by route: clients can send any path, but the number of routes is bounded.
    let route = route.as_ref().map_or("unmatched", MatchedPath::as_str);
    // A refused `EventSource` gets status 200. Count the status of the refusal instead.
    let refused = response.extensions().get::<RefusedWith>();
    let status = refused.map_or(response.status(), |refused| refused.0);
    let class = match status.as_u16() {
        ..200 => "1xx",
        200..300 => "2xx",
        300..400 => "3xx",
        400..500 => "4xx",
        500.. => "5xx",
    };
    let labels = [route, method, class];
    let families = &state.metrics.0;
    families.http_requests.with_label_values(&labels).inc();
    families
        .http_seconds
        .with_label_values(&labels[..2])
        .observe(began.elapsed().as_secs_f64());
    response
}

/// A method's name as a label. Unknown methods share one label, because clients can send any.
fn method(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "DELETE" => "DELETE",
        "PATCH" => "PATCH",
        "OPTIONS" => "OPTIONS",
        _ => "other",
    }
}
