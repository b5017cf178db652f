//! The common part of both fake providers: an HTTP server that records every call and can be told to fail.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::Bytes,
    extract::{Request, State},
    http::{HeaderMap, Method, StatusCode, Uri},
    middleware::{self, Next},
    response::{IntoResponse, Response},
};
use serde_json::Value;
use tokio::net::TcpListener;

use crate::process::DEADLINE;

/// A faulty answer to one call of the fake provider.
pub(super) struct Fault {
    /// The call that gets the faulty answer, such as `POST /api/v1/docs/`.
    pub(super) call: &'static str,
    pub(super) status: u16,
    pub(super) body: &'static str,
    pub(super) retry_after: Option<&'static str>,
    /// True if the call takes effect, so that only its answer is lost.
    pub(super) done: bool,
    /// True if the answer never comes.
    pub(super) held: bool,
}

impl Fault {
    pub(super) fn new(call: &'static str, status: u16, body: &'static str) -> Self {
        Self {
            call,
            status,
            body,
            retry_after: None,
            done: false,
            held: false,
        }
    }
}

/// The HTTP side of a fake provider: its URL, recorded calls and faults.
#[derive(Clone)]
pub(super) struct Desk {
    pub(super) url: String,
    authorization: &'static str,
    faults: Arc<Mutex<VecDeque<Fault>>>,
    calls: Arc<Mutex<Vec<(String, Value)>>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("not poisoned")
}

impl Desk {
    /// Serves a provider's API on a free port. Calls without `authorization` are rejected. Documents have
    /// secret links and are fetched without it.
    pub(super) async fn serve(
        authorization: &'static str,
        router: impl FnOnce(Self) -> Router,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let desk = Self {
            url: format!("http://{address}"),
            authorization,
            faults: Arc::default(),
            calls: Arc::default(),
        };
        let app = router(desk.clone()).layer(middleware::from_fn_with_state(desk.clone(), guarded));
        tokio::spawn(async move { axum::serve(listener, app).await });
        desk
    }

    pub(super) fn fails(&self, fault: Fault) {
        locked(&self.faults).push_back(fault);
    }

    /// The bodies of the calls whose method and path begin with `call`.
    pub(super) fn calls(&self, call: &str) -> Vec<Value> {
        let calls = locked(&self.calls);
        let those = calls.iter().filter(|(made, _)| made.starts_with(call));
        those.map(|(_, body)| body.clone()).collect()
    }

    /// Waits until `call` was made. Returns the body of the last such call.
    pub(super) async fn until_called(&self, call: &str) -> Value {
        let began = Instant::now();
        loop {
            if let Some(body) = self.calls(call).pop() {
                return body;
            }
            assert!(began.elapsed() < DEADLINE, "nobody called {call}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

async fn guarded(State(desk): State<Desk>, request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 64 << 20).await.expect("a body");
    let call = format!("{} {}", parts.method, parts.uri.path());
    let is_document = parts.uri.path().starts_with("/files/");
    let shown = parts.headers.get("authorization");
    let shown = shown.and_then(|value| value.to_str().ok());
    if is_document != shown.is_none() {
        let status = StatusCode::BAD_REQUEST;
        return (
            status,
            "documents are fetched without a token, and nothing else",
        )
            .into_response();
    }
    if !is_document && shown != Some(desk.authorization) {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    let json = serde_json::from_slice(&body).unwrap_or(Value::Null);
    locked(&desk.calls).push((call.clone(), json));
    let fault = {
        let mut faults = locked(&desk.faults);
        let place = faults.iter().position(|fault| fault.call == call);
        place.and_then(|place| faults.remove(place))
    };
    let request = Request::from_parts(parts, body.into());
    let Some(fault) = fault else {
        return next.run(request).await;
    };
    if fault.done {
        next.run(request).await;
    }
    if fault.held {
        std::future::pending::<()>().await;
    }
    let status = StatusCode::from_u16(fault.status).expect("a status");
    let mut headers = HeaderMap::new();
    if let Some(retry_after) = fault.retry_after {
        headers.insert("retry-after", retry_after.parse().expect("a value"));
    }
    (status, headers, fault.body).into_response()
}

/// The answer to every route that a provider does not have.
pub(super) async fn unknown(method: Method, uri: Uri, _: Bytes) -> Response {
    (StatusCode::NOT_FOUND, format!("there is no {method} {uri}")).into_response()
}
