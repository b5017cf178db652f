use axum::{
    extract::State,
    http::{HeaderMap, StatusCode},
    response::Response,
};
use docg_core::{ids::SignatureRequestId, signature::WebhookRequest};

use crate::{
    auth::Scope,
    caller::Caller,
    dto::{self, Signers, WebhookTaken},
    extract::{Id, NoQuery, Provider, RawBody},
    idempotency::answer,
    problem::Problem,
    router::AppState,
};

/// Reads the signers of a signature request, and their progress
#[utoipa::path(
    get,
    path = "/api/v1/signatures/{id}/signers",
    operation_id = "listSigners",
    tag = "signatures",
    params(("id" = Uuid, Path)),
    responses(
        (status = 200, description = "The request and its signers.", body = Signers),
    ),
    security(("bearer" = ["executions:read"])),
)]
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
    Ok(answer(StatusCode::OK, &dto::json(&dto::signers(&request))))
}

/// Receives a webhook of a signature provider
///
/// The provider's signature over the raw body authenticates the webhook.
#[utoipa::path(
    post,
    path = "/api/v1/webhooks/signature/{provider}",
    operation_id = "receiveSignatureWebhook",
    tag = "signatures",
    params(("provider" = String, Path, description = "The name of a provider that the server knows.")),
    request_body(content = serde_json::Value, content_type = "*/*", description = "The provider's own."),
    responses(
        (status = 200, description = "Taken, now or before.", body = WebhookTaken),
        (status = 401),
    ),
)]
pub(crate) async fn webhook(
    State(state): State<AppState>,
    Provider(provider): Provider,
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
        WebhookTaken::Again { duplicate: true }
    } else {
        WebhookTaken::First { received: true }
    };
    Ok(answer(StatusCode::OK, &dto::json(&body)))
}
