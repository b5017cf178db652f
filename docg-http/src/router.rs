//! Every route on one page.

use std::sync::Arc;

use axum::{
    Router,
    http::{HeaderName, Method, header},
    middleware::{from_fn, from_fn_with_state},
    routing::{get, post},
};
use docg_core::engine::Engine;
use tower::util::option_layer;
use tower_http::{
    catch_panic::CatchPanicLayer,
    cors::{AllowOrigin, CorsLayer},
};

use crate::{
    middleware,
    options::HttpOptions,
    problem::Problem,
    routes::{approvals, control, executions, health, records, signatures, workflows},
    sse::{self, encoded::EncodedEvents, limits::StreamLimits, slow::SlowReaders},
};

/// What routes share. An application's own routes that take it may use [`Caller`](crate::Caller).
#[derive(Clone)]
pub struct AppState {
    /// The engine behind the API.
    pub engine: Engine,
    pub(crate) options: Arc<HttpOptions>,
    pub(crate) streams: Arc<StreamLimits>,
    pub(crate) slow_readers: Arc<SlowReaders>,
    pub(crate) encoded: Arc<EncodedEvents>,
}

impl AppState {
    /// State over an engine.
    #[must_use]
    pub fn new(engine: Engine, options: HttpOptions) -> Self {
        let streams = StreamLimits::new(options.streams, options.streams_per_organization);
        let slow_readers = SlowReaders::new(options.slow_reader);
        Self {
            engine,
            options: Arc::new(options),
            streams: Arc::new(streams),
            slow_readers: Arc::new(slow_readers),
            encoded: Arc::default(),
        }
    }
}

/// The API over an engine, whole.
pub fn router(engine: Engine, options: HttpOptions) -> Router {
    let state = AppState::new(engine, options);
    with_layers(api(), &state)
}

/// The API's routes without its layers, for applications that add their own before
/// [`with_layers`].
pub fn api() -> Router<AppState> {
    let bounded = Router::new()
        .route("/api/v1/workflows", get(workflows::list))
        .route(
            "/api/v1/workflows/{id}",
            get(workflows::get)
                .put(workflows::put)
                .delete(workflows::delete),
        )
        .route(
            "/api/v1/workflows/{id}/preflight",
            post(workflows::preflight),
        )
        .route(
            "/api/v1/workflows/{id}/executions",
            get(executions::of_workflow).post(executions::create),
        )
        .route("/api/v1/executions", get(executions::list))
        .route("/api/v1/executions/{id}", get(executions::get))
        .route("/api/v1/executions/{id}/steps", get(executions::steps))
        .route(
            "/api/v1/executions/{id}/preflight",
            get(executions::preflight),
        )
        .route("/api/v1/executions/{id}/logs", get(records::logs))
        .route("/api/v1/executions/{id}/audit", get(records::audit))
        .route("/api/v1/executions/{id}/audit/verify", get(records::verify))
        .route("/api/v1/executions/{id}/resume", post(control::resume))
        .route("/api/v1/executions/{id}/pause", post(control::pause))
        .route("/api/v1/executions/{id}/cancel", post(control::cancel))
        .route("/api/v1/executions/{id}/retry", post(control::retry))
        .route("/api/v1/signatures/{id}/signers", get(signatures::signers))
        .route(
            "/api/v1/webhooks/signature/{provider}",
            post(signatures::webhook),
        )
        .route("/api/v1/approvals/{token}", get(approvals::get))
        .route(
            "/api/v1/approvals/{token}/approve",
            post(approvals::approve),
        )
        .route("/api/v1/approvals/{token}/reject", post(approvals::reject))
        .route("/api/v1/sse/tokens", post(sse::tokens::create))
        .route("/api/v1/sse/health", get(health::sse))
        .route("/healthz", get(health::live))
        .route("/readyz", get(health::ready));
    // A stream's answer begins at once and ends late: it has limits of its own.
    bounded
        .route(
            "/api/v1/sse/executions/stream",
            get(sse::list::organization),
        )
        .route(
            "/api/v1/sse/executions/{id}/stream",
            get(sse::stream::execution),
        )
}

/// Puts the layers around routes: facts and headers, errors as problems, panics, time limit, CORS.
pub fn with_layers(routes: Router<AppState>, state: &AppState) -> Router {
    routes
        .fallback(|| async { Problem::not_found() })
        .layer(from_fn_with_state(state.clone(), middleware::time_limit))
        .layer(CatchPanicLayer::custom(middleware::panicked))
        .layer(from_fn(middleware::facts))
        // Outermost: pages of other origins read errors too.
        .layer(option_layer(cors(&state.options.cors_origins)))
        .with_state(state.clone())
}

/// `None` where no origin is allowed: `OPTIONS` is then a method like any other.
fn cors(origins: &[String]) -> Option<CorsLayer> {
    if origins.is_empty() {
        return None;
    }
    let origins = if origins.iter().any(|origin| origin == "*") {
        AllowOrigin::any()
    } else {
        AllowOrigin::list(origins.iter().filter_map(|origin| {
            origin
                .parse()
                .inspect_err(|_| tracing::error!("{origin:?} is no origin and is not allowed"))
                .ok()
        }))
    };
    let named = [
        "last-event-id",
        "idempotency-key",
        "x-organization-id",
        "x-correlation-id",
        "traceparent",
    ];
    let mut headers = vec![
        header::AUTHORIZATION,
        header::CONTENT_TYPE,
        header::ACCEPT_LANGUAGE,
        header::IF_MATCH,
    ];
    headers.extend(named.map(HeaderName::from_static));
    let layer = CorsLayer::new()
        .allow_origin(origins)
        .allow_methods([Method::GET, Method::POST, Method::PUT, Method::DELETE])
        .allow_headers(headers)
        .expose_headers([
            header::ETAG,
            header::RETRY_AFTER,
            header::CONTENT_LANGUAGE,
            HeaderName::from_static("x-correlation-id"),
            HeaderName::from_static("idempotency-replayed"),
        ]);
    Some(layer)
}
