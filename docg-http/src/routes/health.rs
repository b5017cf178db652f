//! Health endpoints. Their answers have a shape of their own, also for errors.

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

/// The health of a process.
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

/// How live events reach the process, if the bus is available.
#[derive(Serialize, ToSchema)]
pub(crate) struct StreamHealth {
    status: &'static str,
    redis: Bus,
    mode: Mode,
}

/// The state of an unavailable bus. It has no mode while the bus does not answer.
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

/// How long a store or a bus may take to report its health.
const PATIENCE: Duration = Duration::from_secs(2);

/// Checks that the process is alive
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

/// Checks that the process can serve requests
///
/// A process is ready if its store answers and it is not shutting down.
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
    // The engine logs the cause.
    match tokio::time::timeout(PATIENCE, state.engine.ready()).await {
        Ok(Ok(())) => health(StatusCode::OK, HealthStatus::Ready),
        Ok(Err(_)) | Err(_) => health(
            StatusCode::SERVICE_UNAVAILABLE,
            HealthStatus::StoreUnavailable,
        ),
    }
}

/// Checks how live events reach the process
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
