use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use crate::{Metrics, auth::Authenticator};

/// Tells how the bus behind event streams is, for `GET /api/v1/sse/health`.
#[async_trait]
pub trait BusProbe: Send + Sync + 'static {
    /// How it is at the moment. An answer that takes longer than two seconds counts as
    /// [`BusState::Disconnected`].
    async fn state(&self) -> BusState;
}

/// How a bus is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BusState {
    /// It is a part of this process.
    InProcess,
    /// Its server answers.
    Connected,
    /// Its server does not answer. Streams go on, slower: they read the store.
    Disconnected,
}

/// A bus in the process is always well.
struct InProcess;

#[async_trait]
impl BusProbe for InProcess {
    async fn state(&self) -> BusState {
        BusState::InProcess
    }
}

/// How the API behaves.
#[derive(Clone)]
#[non_exhaustive]
pub struct HttpOptions {
    /// Who proves who calls.
    pub authenticator: Arc<dyn Authenticator>,
    /// Signs cursors, so that one list's cursor is no other's. All processes need the same.
    pub cursor_key: [u8; 32],
    /// How often an idle stream says that it lives.
    pub heartbeat: Duration,
    /// The largest body that is read, in bytes.
    pub max_body: usize,
    /// How many bytes of bodies are in memory at once. More is answered 503. What a body becomes when it
    /// is read takes several times as much.
    pub body_memory: usize,
    /// Requests that are worked on at once; streams that are open do not count. More is answered 503.
    pub requests: usize,
    /// How long a request may take; streams are not bound by it.
    pub request_timeout: Duration,
    /// Streams of one organization at once, in this process.
    pub streams_per_organization: usize,
    /// Streams at once, in this process.
    pub streams: usize,
    /// A reader that takes longer for one event is closed; it comes back with its last id. Serve by
    /// [`serve`](crate::serve), or through a [`WriteTimeout`](crate::WriteTimeout), so that its
    /// connection ends too.
    pub slow_reader: Duration,
    /// No stream stays open for longer, give or take a tenth: its reader comes back with its last
    /// id, and whether it may is asked again.
    pub stream_age: Duration,
    /// Cancel it as the first thing of a shutdown: `GET /readyz` says that nothing more is to be
    /// sent here, and everything else goes on.
    pub draining: CancellationToken,
    /// Cancel it when the server is about to close its connections: streams end.
    pub shutdown: CancellationToken,
    /// Over how long streams end at shutdown, so that not all clients come back at once.
    pub drain_over: Duration,
    /// How the bus is; by default it is taken to be in the process.
    pub bus: Arc<dyn BusProbe>,
    /// Origins whose pages may call the API, such as `https://app.example.com`, or `*`; none by
    /// default.
    pub cors_origins: Vec<String>,
    /// What `GET /metrics` shows. It asks for no credentials: keep the path from those who are not
    /// to see it. Without it, which is the default, the path is not found.
    pub metrics: Option<Metrics>,
}

impl HttpOptions {
    /// The defaults, with the two things that have none.
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
