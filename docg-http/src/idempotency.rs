//! `Idempotency-Key`: a repeated call gets the first answer again.

use std::{future::Future, time::Duration};

use axum::{
    body::Body,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::Response,
};
use docg_core::{
    approval::token_hash,
    engine::IdempotencyKey,
    ports::{TtlEntry, TtlKey},
    time::Timestamp,
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tracing::Instrument;

use crate::{caller::Caller, extract::idempotency_key, problem::Problem, router::AppState};

/// How long an answer is stored.
const REMEMBERED: Duration = Duration::from_secs(24 * 3600);
/// How long a running call reserves its key. If the process dies, the key is free after this time.
const UNDER_WAY: Duration = Duration::from_secs(60);
/// The interval at which a repeated call checks for the first call's answer.
const POLL: Duration = Duration::from_millis(20);

/// The idempotency key of a call, and the request that it came with.
#[derive(Debug, Clone)]
pub(crate) struct KeyedRequest {
    key: String,
    /// The route and the body, so that a key that comes with another request is refused.
    content: String,
}

impl KeyedRequest {
    /// The key for a call of the engine.
    pub(crate) fn for_engine(&self) -> IdempotencyKey {
        IdempotencyKey::of_content(self.key.as_str(), &self.content)
    }

    fn fingerprint(&self) -> String {
        hex::encode(Sha256::digest(&self.content))
    }
}

/// The idempotency key of a call, if any, with its route and body.
pub(crate) fn of(
    headers: &HeaderMap,
    route: &str,
    sent: &str,
) -> Result<Option<KeyedRequest>, Problem> {
    let key = idempotency_key(headers)?;
    Ok(key.map(|key| KeyedRequest {
        key,
        content: format!("{route}\n{sent}"),
    }))
}

/// The result of a call: the answer's status and body, or a problem.
pub(crate) type CallResult = Result<(StatusCode, Value), Problem>;

/// Makes a call only once for its key: a repeated request gets the stored answer. Errors are not stored, so
/// a failed call may be repeated.
///
/// If the client disconnects, the call continues, so that its answer is stored for a repeated request.
pub(crate) async fn once<F>(
    state: &AppState,
    caller: &Caller,
    request: Option<KeyedRequest>,
    call: F,
) -> Result<Response, Problem>
where
    F: Future<Output = CallResult> + Send + 'static,
{
    let key = request.map(|request| Key {
        fingerprint: request.fingerprint(),
        ttl_key: TtlKey {
            organization_id: Some(caller.organization),
            kind: "idempotency",
            key: request.key,
        },
        technical: caller.is_technician(),
    });
    keyed(state, key, call).await
}

/// Like [`once`], for an approver, whose credential is the token of a link. Each token has its own keys.
pub(crate) async fn once_for_token<F>(
    state: &AppState,
    token: &str,
    request: Option<KeyedRequest>,
    call: F,
) -> Result<Response, Problem>
where
    F: Future<Output = CallResult> + Send + 'static,
{
    let owner = hex::encode(token_hash(token));
    let key = request.map(|request| Key {
        ttl_key: TtlKey {
            organization_id: None,
            kind: "idempotency",
            key: format!("{owner}/{}", request.key),
        },
        fingerprint: request.fingerprint(),
        technical: false,
    });
    keyed(state, key, call).await
}

async fn keyed<F>(state: &AppState, key: Option<Key>, call: F) -> Result<Response, Problem>
where
    F: Future<Output = CallResult> + Send + 'static,
{
    match key {
        Some(key) => detached(key.once(state.clone(), call)).await,
        None => {
            let (status, body) = detached(call).await?;
            Ok(answer(status, &body))
        }
    }
}

/// Runs work to its end, even if the client disconnects and this future is dropped.
async fn detached<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> T {
    match tokio::spawn(work.in_current_span()).await {
        Ok(done) => done,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

struct Key {
    ttl_key: TtlKey,
    fingerprint: String,
    /// True if the answer holds texts for technicians. A caller who may not see them must not get the answer.
    technical: bool,
}

impl Key {
    async fn once(
        self,
        state: AppState,
        call: impl Future<Output = CallResult>,
    ) -> Result<Response, Problem> {
        let engine = &state.engine;
        loop {
            let held = self.entry(Value::Null, engine.now() + UNDER_WAY);
            let Some(known) = engine.remember(held).await? else {
                break;
            };
            if let Some(first) = self.first_answer(&known)? {
                return Ok(first);
            }
            // The same call is running. Wait for its answer; if it fails, the key is free.
            tokio::time::sleep(POLL).await;
        }
        let called = call.await;
        let entry = match &called {
            Ok((status, body)) => {
                let given = json!({"status": status.as_u16(), "body": body});
                self.entry(given, engine.now() + REMEMBERED)
            }
            Err(_) => self.entry(Value::Null, engine.now()),
        };
        if let Err(error) = engine.replace(entry).await {
            tracing::error!("an answer could not be remembered for its key: {error}");
        }
        let (status, body) = called?;
        Ok(answer(status, &body))
    }

    fn entry(&self, given: Value, expires_at: Timestamp) -> TtlEntry {
        TtlEntry {
            key: self.ttl_key.clone(),
            value: json!({
                "fingerprint": self.fingerprint,
                "technical": self.technical,
                "given": given,
            }),
            expires_at,
        }
    }

    /// The stored answer for the key; `None` while the first call is running.
    fn first_answer(&self, entry: &TtlEntry) -> Result<Option<Response>, Problem> {
        let fingerprint = entry.value["fingerprint"].as_str();
        let technical = entry.value["technical"].as_bool();
        let (Some(fingerprint), Some(technical)) = (fingerprint, technical) else {
            return Err(Problem::unreadable());
        };
        if fingerprint != self.fingerprint || technical != self.technical {
            return Err(Problem::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "idempotency_key_reused",
            ));
        }
        let given = match &entry.value["given"] {
            Value::Null => return Ok(None),
            given => given,
        };
        let status = given["status"]
            .as_u64()
            .and_then(|status| u16::try_from(status).ok())
            .and_then(|status| StatusCode::from_u16(status).ok())
            .ok_or_else(Problem::unreadable)?;
        let mut response = answer(status, &given["body"]);
        response.headers_mut().insert(
            HeaderName::from_static("idempotency-replayed"),
            HeaderValue::from_static("true"),
        );
        Ok(Some(response))
    }
}

/// A JSON answer. If the body has a `version`, the version becomes the entity tag.
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

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use docg_core::{engine::Engine, i18n::Locale, ids::OrganizationId, observe::Actor};
    use docg_store_memory::{MemoryBus, MemoryStore};
    use tokio::sync::Notify;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::{HttpOptions, StaticTokens};

    #[tokio::test]
    async fn a_call_that_is_under_way_is_waited_for_and_not_made_again() {
        let engine = Engine::builder(
            Arc::new(MemoryStore::default()),
            Arc::new(MemoryBus::default()),
        )
        .build();
        let options = HttpOptions::new(Arc::new(StaticTokens::default()), [0; 32]);
        let state = AppState::new(engine, options);
        let caller = Caller {
            actor: Actor::user("a"),
            organization: OrganizationId::new(),
            scopes: Vec::new(),
            locale: Locale::En,
            correlation_id: String::new(),
            traceparent: None,
        };
        let (made, began) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
        // All calls wait at the gate until the test cancels it.
        let gate = CancellationToken::new();
        let call = || {
            let (made, began, gate) = (Arc::clone(&made), Arc::clone(&began), gate.clone());
            let key = KeyedRequest {
                key: "k".to_owned(),
                content: String::new(),
            };
            once(&state, &caller, Some(key), async move {
                let count = made.fetch_add(1, Ordering::SeqCst) + 1;
                began.notify_one();
                gate.cancelled().await;
                Ok((StatusCode::OK, json!({"count": count})))
            })
        };
        let others = async {
            began.notified().await;
            let mut both = std::pin::pin!(futures::future::join(call(), call()));
            assert!(futures::poll!(&mut both).is_pending());
            gate.cancel();
            both.await
        };
        let (first, (second, third)) = tokio::join!(call(), others);
        assert!(
            [&first, &second, &third]
                .iter()
                .all(|answer| answer.is_ok())
        );
        assert_eq!(made.load(Ordering::SeqCst), 1);
    }
}
