use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use crate::{Metrics, auth::Authenticator};

/// Reports the state of the bus behind event streams, for `GET /api/v1/sse/health`.
#[async_trait]
pub trait BusProbe: Send + Sync + 'static {
    /// The current state. If the answer takes longer than two seconds, the bus counts as
    /// [`BusState::Disconnected`].
    async fn state(&self) -> BusState;
}

/// The state of a bus.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BusState {
    /// The bus is a part of this process.
    InProcess,
    /// The bus's server answers.
    Connected,
    /// The bus's server does not answer. Streams continue more slowly, because they read from the store.
    Disconnected,
}

/// The probe for a bus in this process, which is always available.
struct InProcess;

#[async_trait]
impl BusProbe for InProcess {
    async fn state(&self) -> BusState {
        BusState::InProcess
    }
}

/// The options of the API.
#[derive(Clone)]
#[non_exhaustive]
pub struct HttpOptions {
    /// Authenticates the callers.
    pub authenticator: Arc<dyn Authenticator>,
    /// The key that signs cursors, so that a cursor is valid only for its own list. All processes need the
    /// same key.
    pub cursor_key: [u8; 32],
    /// The time after which an idle stream sends a heartbeat.
    pub heartbeat: Duration,
    /// The largest accepted request body, in bytes.
    pub max_body: usize,
    /// The limit of all request bodies in memory at once, in bytes. Requests beyond the limit are answered
    /// 503. In addition, a parsed body takes several times its size.
    pub body_memory: usize,
    /// The limit of requests at once, not counting open streams. Requests beyond the limit are answered 503.
    pub requests: usize,
    /// How long a request may take until its answer begins. Streams stay open longer.
    pub request_timeout: Duration,
    /// The limit of open streams of one organization, in this process.
    pub streams_per_organization: usize,
    /// The limit of open streams, in this process.
    pub streams: usize,
    /// How long a reader may take for one event. A slower reader's stream is closed; the reader reconnects
    /// with its last event id. Serve with [`serve`](crate::serve) or a
    /// [`WriteTimeout`](crate::WriteTimeout), so that the reader's connection is closed too.
    pub slow_reader: Duration,
    /// How long a stream stays open, give or take a tenth. Then its reader reconnects with its last event
    /// id, and is authenticated again.
    pub stream_age: Duration,
    /// Cancel this token first in a shutdown. `GET /readyz` then answers 503, so that load balancers send
    /// no more requests. All other routes and open streams continue.
    pub draining: CancellationToken,
    /// Cancel this token before the server closes its connections. All streams then end within
    /// [`drain_over`](HttpOptions::drain_over).
    pub shutdown: CancellationToken,
    /// The time over which streams end at shutdown, so that not all clients reconnect at once.
    pub drain_over: Duration,
    /// Reports the state of the bus. By default the bus counts as part of this process.
    pub bus: Arc<dyn BusProbe>,
    /// Origins whose pages may call the API, such as `https://app.example.com`, or `*`; none by
    /// default.
    pub cors_origins: Vec<String>,
    /// The metrics that `GET /metrics` shows. The route asks for no credentials: restrict access to it
    /// elsewhere. With `None`, the default, the path is not found.
    pub metrics: Option<Metrics>,
}

impl HttpOptions {
    /// The default options. Only the authenticator and the cursor key have no default.
    #[must_use]
    pub fn new(authenticator: Arc<dyn Authenticator>, cursor_key: [u8; 32]) -> Self {
        Self {
            authenticator,
            cursor_key,
            heartbeat: Duration::from_secs(5),
            max_body: 1024 * 1024,
            body_memory: 64 * 1024 * 1024,
            requests: 1_000,
            request_timeout: Duration::from_secs(30),
            streams_per_organization: 1_000,
            streams: 20_000,
            slow_reader: Duration::from_secs(30),
            stream_age: Duration::from_secs(600),
            draining: CancellationToken::new(),
            shutdown: CancellationToken::new(),
            drain_over: Duration::from_secs(2),
            bus: Arc::new(InProcess),
            cors_origins: Vec::new(),
            metrics: None,
        }
    }
}
