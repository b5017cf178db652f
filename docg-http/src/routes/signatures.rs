use axum::{
    extract::{Path, State},
    http::{HeaderMap, StatusCode},
    response::Response,
};
use docg_core::{ids::SignatureRequestId, signature::WebhookRequest};
use serde_json::json;

use crate::{
    auth::Scope,
    caller::Caller,
    dto,
    extract::{Id, NoQuery, RawBody},
    idempotency::answer,
    problem::Problem,
    router::AppState,
};

pub(crate) async fn signers(
    State(state): State<AppState>,
    caller: Caller,
    Id(id): Id,
    _: NoQuery,
) -> Result<Response, Problem> {
    caller.need(Scope::ExecutionsRead)?;
    let request = state
        .engine
        .signature_request(caller.organization, SignatureRequestId(id))
        .await?;
    Ok(answer(StatusCode::OK, &dto::signers(&request)))
}

/// The body is the provider's own; its signature over the raw bytes is what proves it.
pub(crate) async fn webhook(
    State(state): State<AppState>,
    Path(provider): Path<String>,
    headers: HeaderMap,
    RawBody(body): RawBody,
) -> Result<Response, Problem> {
    let headers = headers
        .iter()
        .filter_map(|(name, value)| {
            Some((name.as_str().to_owned(), value.to_str().ok()?.to_owned()))
        })
        .collect();
    let webhook = WebhookRequest {
        headers,
        body: body.to_vec(),
    };
    let taken = state.engine.receive_webhook(&provider, webhook).await?;
    let body = if taken.duplicate {
        json!({"duplicate": true})
    } else {
        json!({"received": true})
    };
    Ok(answer(StatusCode::OK, &body))
}
