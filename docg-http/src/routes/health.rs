//! Health endpoints keep their own shape, also when something is wrong.

use axum::{extract::State, http::StatusCode, response::Response};
use docg_core::{ids::OrganizationId, ports::WorkflowQuery};
use serde_json::json;

use crate::{idempotency::answer, router::AppState};

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

/// Event streams can be served. This build's bus is in the process itself.
pub(crate) async fn sse() -> Response {
    answer(
        StatusCode::OK,
        &json!({"status": "healthy", "redis": "not_configured", "mode": "memory"}),
    )
}
