//! Tokens for readers of streams that cannot send headers. A token is valid for one stream. The store
//! holds only the token's hash.

use std::time::Duration;

use axum::{
    extract::State,
    http::{HeaderMap, StatusCode},
    response::Response,
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use docg_core::{
    i18n::Locale,
    ids::{ExecutionId, OrganizationId},
    ports::{TtlEntry, TtlKey},
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::{
    auth::Scope,
    caller::{Caller, unauthorized},
    dto::{self, SseTokenBody, StreamToken},
    extract::{Json, NoQuery},
    idempotency::answer,
    problem::Problem,
    router::AppState,
};

/// The time within which a new token must be used to connect.
const TO_CONNECT: Duration = Duration::from_secs(60);
/// How long a token is valid after its stream last connected. At each reconnect the authenticator also
/// decides whether the credentials that created the token are still valid.
const TO_RECONNECT: Duration = Duration::from_secs(30 * 24 * 3600);

/// The organization of a stream's reader, and the reader's language.
pub(super) struct TokenHolder {
    pub(super) organization: OrganizationId,
    pub(super) locale: Locale,
}

fn key(token: &str) -> TtlKey {
    TtlKey {
        organization_id: None,
        kind: "sse_token",
        key: hex::encode(Sha256::digest(token.as_bytes())),
    }
}

/// Creates a token for a stream
///
/// For `EventSource`, which cannot send headers.
#[utoipa::path(
    post,
    path = "/api/v1/sse/tokens",
    operation_id = "createStreamToken",
    tag = "streams",
    request_body = Option<SseTokenBody>,
    responses(
        (status = 201, description = "A token: 60 seconds to connect, and reconnects of the same stream for as long as its bearer is valid.", body = StreamToken),
        (status = 404, description = "There is no such execution."),
    ),
    security(("bearer" = ["executions:read"])),
)]
pub(crate) async fn create(
    State(state): State<AppState>,
    caller: Caller,
    _: NoQuery,
    headers: HeaderMap,
    body: Json<SseTokenBody>,
) -> Result<Response, Problem> {
    caller.need(Scope::ExecutionsRead)?;
    let execution = body.value.execution_id.map(ExecutionId);
    if let Some(id) = execution {
        state.engine.execution(caller.organization, id).await?;
    }
    // Make the token of two random UUIDs: 244 bits from the operating system.
    let token =
        URL_SAFE_NO_PAD.encode([Uuid::new_v4().into_bytes(), Uuid::new_v4().into_bytes()].concat());
    let expires_at = state.engine.now() + TO_CONNECT;
    let receipt = state.options.authenticator.receipt(&headers).await;
    let value = json!({
        "organization_id": caller.organization,
        "execution_id": execution,
        "locale": caller.locale,
        "receipt": receipt.map_err(|_| unauthorized())?,
    });
    state
        .engine
        .remember(TtlEntry {
            key: key(&token),
            value,
            expires_at,
        })
        .await?;
    Ok(answer(
        StatusCode::CREATED,
        &dto::json(&StreamToken { token, expires_at }),
    ))
}

/// Checks that a token opens this execution's stream, or the organization's if `execution` is `None`.
/// Then prolongs the token for reconnects.
pub(super) async fn redeem(
    state: &AppState,
    token: &str,
    execution: Option<ExecutionId>,
) -> Result<TokenHolder, Problem> {
    let entry = state
        .engine
        .recall(&key(token))
        .await?
        .ok_or_else(unauthorized)?;
    let field = |name: &str| entry.value.get(name).and_then(Value::as_str);
    let organization = field("organization_id")
        .and_then(|id| id.parse().ok())
        .ok_or_else(Problem::unreadable)?;
    let execution = execution.map(|id| id.to_string());
    if field("execution_id") != execution.as_deref() {
        return Err(Problem::new(
            StatusCode::FORBIDDEN,
            "token_for_another_stream",
        ));
    }
    let bearer = state
        .options
        .authenticator
        .recognize(field("receipt").unwrap_or_default())
        .await
        .map_err(|_| unauthorized())?;
    if !bearer.organizations.contains(&organization)
        || !bearer.scopes.contains(&Scope::ExecutionsRead)
    {
        return Err(unauthorized());
    }
    let locale = field("locale")
        .and_then(|tag| tag.parse().ok())
        .unwrap_or_default();
    let expires_at = state.engine.now() + TO_RECONNECT;
    state
        .engine
        .replace(TtlEntry {
            expires_at,
            ..entry
        })
        .await?;
    Ok(TokenHolder {
        organization,
        locale,
    })
}
