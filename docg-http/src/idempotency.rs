//! `Idempotency-Key` on calls: the first answer is given again.

use std::{future::Future, time::Duration};

use axum::{
    body::Body,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::Response,
};
use docg_core::{
    ids::OrganizationId,
    ports::{Idempotency, Memo, MemoKey},
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::{extract::idempotency_key, problem::Problem, router::AppState};

/// How long an answer is remembered.
const REMEMBERED: Duration = Duration::from_secs(24 * 3600);

/// The key of a call with what it asks for, where it has one.
pub(crate) fn of(
    headers: &HeaderMap,
    route: &str,
    body: &Value,
) -> Result<Option<Idempotency>, Problem> {
    let fingerprint = Sha256::digest(format!("{route}\n{body}").as_bytes()).into();
    Ok(idempotency_key(headers)?.map(|key| Idempotency { key, fingerprint }))
}

/// Makes a call once for its key. Errors are not remembered: what failed may be tried again.
pub(crate) async fn once<F>(
    state: &AppState,
    organization: OrganizationId,
    idempotency: Option<Idempotency>,
    call: F,
) -> Result<Response, Problem>
where
    F: Future<Output = Result<(StatusCode, Value), Problem>>,
{
    let Some(idempotency) = idempotency else {
        let (status, body) = call.await?;
        return Ok(answer(status, &body));
    };
    let key = MemoKey {
        organization_id: Some(organization),
        kind: "idempotency",
        key: idempotency.key,
    };
    let fingerprint = hex::encode(idempotency.fingerprint);
    if let Some(memo) = state.engine.recall(&key).await? {
        return again(&memo, &fingerprint);
    }
    let (status, body) = call.await?;
    let value = json!({"fingerprint": fingerprint, "status": status.as_u16(), "body": body});
    let memo = Memo {
        key,
        value,
        expires_at: state.engine.now() + REMEMBERED,
    };
    match state.engine.remember(memo).await? {
        None => Ok(answer(status, &body)),
        // The same call came twice at once; the first answer counts.
        Some(memo) => again(&memo, &fingerprint),
    }
}

fn again(memo: &Memo, fingerprint: &str) -> Result<Response, Problem> {
    if memo.value["fingerprint"] != *fingerprint {
        return Err(Problem::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "idempotency_key_reused",
        ));
    }
    let status = memo.value["status"]
        .as_u64()
        .and_then(|status| u16::try_from(status).ok());
    let status = status
        .and_then(|status| StatusCode::from_u16(status).ok())
        .unwrap_or(StatusCode::OK);
    let mut response = answer(status, &memo.value["body"]);
    response.headers_mut().insert(
        HeaderName::from_static("idempotency-replayed"),
        HeaderValue::from_static("true"),
    );
    Ok(response)
}

/// A JSON answer, with the version of an execution as its entity tag.
pub(crate) fn answer(status: StatusCode, body: &Value) -> Response {
    let mut response = Response::new(Body::from(body.to_string()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    let version = body.get("version").and_then(Value::as_u64);
    if let Some(tag) = version.and_then(|v| HeaderValue::from_str(&format!("\"{v}\"")).ok()) {
        headers.insert(header::ETAG, tag);
    }
    response
}
