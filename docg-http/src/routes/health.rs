//! Health endpoints keep their own shape, also when something is wrong.

use std::time::Duration;

use axum::{extract::State, http::StatusCode, response::Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    dto::json,
    idempotency::answer,
    options::{BusState, HttpOptions},
    router::AppState,
};

/// How a process is.
#[derive(Serialize, ToSchema)]
pub(crate) struct Health {
    status: HealthStatus,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum HealthStatus {
    Ok,
    Ready,
    ShuttingDown,
    StoreUnavailable,
}

/// How live events reach the process.
#[derive(Serialize, ToSchema)]
pub(crate) struct StreamHealth {
    status: &'static str,
    redis: Bus,
    mode: Mode,
}

/// As long as it does not answer there is no mode.
#[derive(Serialize, ToSchema)]
pub(crate) struct StreamUnhealth {
    status: &'static str,
    redis: Bus,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum Bus {
    Connected,
    Disconnected,
    NotConfigured,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum Mode {
    Memory,
    Streams,
}

/// How long a bus may take to say how it is.
const PATIENCE: Duration = Duration::from_secs(2);

/// Whether the process lives
#[utoipa::path(
    get,
    path = "/healthz",
    operation_id = "live",
    tag = "server",
    responses(
        (status = 200, description = "It lives.", body = Health),
    ),
)]
pub(crate) async fn live() -> Response {
    health(StatusCode::OK, HealthStatus::Ok)
}

/// Whether the process can serve
///
/// Its store answers, and it is not shutting down.
#[utoipa::path(
    get,
    path = "/readyz",
    operation_id = "ready",
    tag = "server",
    responses(
        (status = 200, description = "It is ready.", body = Health),
        (status = 503, description = "It is not, and why.", body = Health),
    ),
)]
pub(crate) async fn ready(State(state): State<AppState>) -> Response {
    let HttpOptions {
        draining, shutdown, ..
    } = &*state.options;
    if draining.is_cancelled() || shutdown.is_cancelled() {
        return health(StatusCode::SERVICE_UNAVAILABLE, HealthStatus::ShuttingDown);
    }
    // Why not is logged by the engine.
    match state.engine.ready().await {
        Ok(()) => health(StatusCode::OK, HealthStatus::Ready),
        Err(_) => health(
            StatusCode::SERVICE_UNAVAILABLE,
            HealthStatus::StoreUnavailable,
        ),
    }
}

/// How live events reach the process
#[utoipa::path(
    get,
    path = "/api/v1/sse/health",
    operation_id = "streamHealth",
    tag = "server",
    responses(
        (status = 200, description = "Healthy.", body = StreamHealth),
        (status = 503, description = "The bus does not answer. Streams go on, slower.", body = StreamUnhealth),
    ),
)]
pub(crate) async fn sse(State(state): State<AppState>) -> Response {
    let bus = tokio::time::timeout(PATIENCE, state.options.bus.state())
        .await
        .unwrap_or(BusState::Disconnected);
    let (redis, mode) = match bus {
        BusState::InProcess => (Bus::NotConfigured, Mode::Memory),
        BusState::Connected => (Bus::Connected, Mode::Streams),
        BusState::Disconnected => {
            let unhealthy = StreamUnhealth {
                status: "unhealthy",
                redis: Bus::Disconnected,
            };
            return answer(StatusCode::SERVICE_UNAVAILABLE, &json(&unhealthy));
        }
    };
    let healthy = StreamHealth {
        status: "healthy",
        redis,
        mode,
    };
    answer(StatusCode::OK, &json(&healthy))
}

fn health(code: StatusCode, status: HealthStatus) -> Response {
    answer(code, &json(&Health { status }))
}
