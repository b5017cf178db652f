//! All routes of the API, and the layers around them.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    http::{HeaderName, Method, header},
    middleware::{from_fn, from_fn_with_state, map_response},
};
use docg_core::engine::Engine;
use tower::util::option_layer;
use tower_http::{
    catch_panic::CatchPanicLayer,
    cors::{AllowOrigin, CorsLayer},
};
use utoipa::OpenApi;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    load::{self, Load},
    metrics::{self, Metrics},
    middleware,
    openapi::{self, Api},
    options::HttpOptions,
    problem::Problem,
    routes::{
        approvals, bulk, control, events, execution_lists, executions, health, records, signatures,
        waits, workflows,
    },
    sse::{self, encoded::EncodedEvents, limits::StreamLimits, slow::SlowReaders},
};

/// The state that routes share. An application's own routes with this state can use
/// [`Caller`](crate::Caller).
#[derive(Clone)]
pub struct AppState {
    /// The engine behind the API.
    pub engine: Engine,
    pub(crate) options: Arc<HttpOptions>,
    pub(crate) streams: Arc<StreamLimits>,
    pub(crate) slow_readers: Arc<SlowReaders>,
    pub(crate) encoded: Arc<EncodedEvents>,
    pub(crate) metrics: Metrics,
    pub(crate) load: Arc<Load>,
}

impl AppState {
    /// Creates the state over an engine.
    #[must_use]
    pub fn new(engine: Engine, options: HttpOptions) -> Self {
        let metrics = options.metrics.clone().unwrap_or_default();
        if options.metrics.is_some() {
            engine.observe(metrics.observer());
        }
        let streams = StreamLimits::new(options.streams, options.streams_per_organization);
        let load = Arc::new(Load::new(&options));
        let slow_readers = SlowReaders::new(options.slow_reader, metrics.clone());
        Self {
            engine,
            options: Arc::new(options),
            streams: Arc::new(streams),
            slow_readers: Arc::new(slow_readers),
            encoded: Arc::default(),
            metrics,
            load,
        }
    }

    /// Resolves when no stream is open.
    pub async fn streams_ended(&self) {
        self.streams.none_open().await;
    }
}

/// The complete API over an engine.
pub fn router(engine: Engine, options: HttpOptions) -> Router {
    let state = AppState::new(engine, options);
    with_layers(api(), &state)
}

/// The API's routes without its layers, for applications that add their own routes before
/// [`with_layers`].
pub fn api() -> Router<AppState> {
    let routes: Router<AppState> = documented().into();
    #[cfg(feature = "console")]
    let routes = routes.merge(crate::console::routes());
    routes
}

/// All routes with their OpenAPI descriptions. Path and method are declared at each handler.
pub(crate) fn documented() -> OpenApiRouter<AppState> {
    OpenApiRouter::with_openapi(Api::openapi())
        .routes(routes!(workflows::list))
        .routes(routes!(workflows::get, workflows::put, workflows::delete))
        .routes(routes!(workflows::preflight))
        .routes(routes!(execution_lists::of_workflow, executions::create))
        .routes(routes!(execution_lists::list))
        .routes(routes!(execution_lists::count))
        .routes(routes!(bulk::call))
        .routes(routes!(waits::signatures))
        .routes(routes!(waits::approvals))
        .routes(routes!(executions::get))
        .routes(routes!(executions::steps))
        .routes(routes!(executions::preflight))
        .routes(routes!(records::logs))
        .routes(routes!(records::audit))
        .routes(routes!(records::verify))
        .routes(routes!(control::resume))
        .routes(routes!(control::pause))
        .routes(routes!(control::cancel))
        .routes(routes!(control::retry))
        .routes(routes!(control::request_signature))
        .routes(routes!(events::send))
        .routes(routes!(events::send_by_key))
        .routes(routes!(signatures::signers))
        .routes(routes!(signatures::webhook))
        .routes(routes!(approvals::get))
        .routes(routes!(approvals::approve))
        .routes(routes!(approvals::reject))
        .routes(routes!(sse::tokens::create))
        .routes(routes!(sse::list::organization))
        .routes(routes!(sse::stream::execution))
        .routes(routes!(health::sse))
        .routes(routes!(health::live))
        .routes(routes!(health::ready))
        .routes(routes!(metrics::page))
        .routes(routes!(openapi::get))
}

/// Puts the API's layers around routes. They read a request's language and ids, set headers, render errors and panics as
/// problems, limit load and time, measure requests, and answer CORS.
pub fn with_layers(routes: Router<AppState>, state: &AppState) -> Router {
    routes
        .fallback(|| async { Problem::not_found() })
        .layer(from_fn_with_state(state.clone(), middleware::time_limit))
        .layer(from_fn_with_state(state.clone(), load::admit))
        .layer(CatchPanicLayer::custom(middleware::panicked))
        .layer(from_fn(middleware::facts))
        .layer(from_fn_with_state(state.clone(), metrics::measure))
        // CORS is outside the layer that renders errors, so that pages of other origins can read errors too.
        .layer(option_layer(cors(&state.options.cors_origins)))
        .layer(map_response(middleware::secured))
        .with_state(state.clone())
}

/// How long browsers may cache the answer to a CORS preflight request.
const PREFLIGHT_KEPT: Duration = Duration::from_secs(600);

/// The CORS layer; `None` if no origin is allowed. `OPTIONS` is then a method like any other.
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
            HeaderName::from_static("traceparent"),
            HeaderName::from_static("idempotency-replayed"),
        ])
        .max_age(PREFLIGHT_KEPT);
    Some(layer)
}
