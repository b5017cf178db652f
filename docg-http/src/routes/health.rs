//! Health endpoints keep their own shape, also when something is wrong.

use std::time::Duration;

use axum::{extract::State, http::StatusCode, response::Response};
use docg_core::{ids::OrganizationId, ports::WorkflowQuery};
use serde_json::json;

use crate::{idempotency::answer, options::BusState, router::AppState};

/// How long a bus may take to say how it is.
const PATIENCE: Duration = Duration::from_secs(2);

/// The process lives.
pub(crate) async fn live() -> Response {
    answer(StatusCode::OK, &json!({"status": "ok"}))
}

/// The process can serve: its store answers, and it is not shutting down.
pub(crate) async fn ready(State(state): State<AppState>) -> Response {
    if state.options.shutdown.is_cancelled() {
        return answer(
            StatusCode::SERVICE_UNAVAILABLE,
            &json!({"status": "shutting_down"}),
        );
    }
    let nobody = OrganizationId(uuid::Uuid::nil());
    match state
        .engine
        .workflows(WorkflowQuery {
            organization_id: nobody,
            after: None,
            limit: 1,
        })
        .await
    {
        Ok(_) => answer(StatusCode::OK, &json!({"status": "ready"})),
        Err(error) => {
            tracing::warn!("not ready: {error}");
            answer(
                StatusCode::SERVICE_UNAVAILABLE,
                &json!({"status": "store_unavailable"}),
            )
        }
    }
}

/// How live events reach this process.
pub(crate) async fn sse(State(state): State<AppState>) -> Response {
    let bus = tokio::time::timeout(PATIENCE, state.options.bus.state())
        .await
        .unwrap_or(BusState::Disconnected);
    let (status, body) = match bus {
        BusState::InProcess => (
            StatusCode::OK,
            json!({"status": "healthy", "redis": "not_configured", "mode": "memory"}),
        ),
        BusState::Connected => (
            StatusCode::OK,
            json!({"status": "healthy", "redis": "connected", "mode": "streams"}),
        ),
        BusState::Disconnected => (
            StatusCode::SERVICE_UNAVAILABLE,
            json!({"status": "unhealthy", "redis": "disconnected"}),
        ),
    };
    answer(status, &body)
}
