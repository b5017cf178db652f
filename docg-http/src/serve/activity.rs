//! Tracks for each connection whether client or server has to act next, and since when.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::http::Version;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::options::ServeOptions;
use crate::metrics::{ClosedFor, Metrics};

/// How long a client may keep the server waiting within a request before its connection can be closed
/// for a new one.
const SPARED: Duration = Duration::from_secs(1);

/// All open connections of a server.
pub(super) struct Connections {
    open: Mutex<HashMap<u64, Arc<Activity>>>,
    next: AtomicU64,
    metrics: Metrics,
}

/// The activity of one connection.
pub(super) struct Activity {
    id: u64,
    state: Mutex<State>,
    /// Cancelled if the client took too long. The connection then ends, but may finish its last answer.
    closing: CancellationToken,
    /// Cancelled to make room for a new connection. This connection then ends at once.
    closed: CancellationToken,
}

struct State {
    requests: HashMap<u64, Turn>,
    next: u64,
    /// When the last request ended, or the connection began.
    idle_since: Instant,
    /// Since when the server waits for a request's head; `None` if it does not.
    head_since: Option<Instant>,
    is_http2: bool,
}

/// The side that has to act next for a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// The server has to act.
    Server,
    /// Since this time the client has to send more of the body.
    Sending(Instant),
    /// Since this time the client has to take more of the answer.
    Taking(Instant),
}

impl Turn {
    /// Since when the server waits for the client; `None` if it is the server's turn.
    fn client_since(self) -> Option<Instant> {
        match self {
            Self::Server => None,
            Self::Sending(since) | Self::Taking(since) => Some(since),
        }
    }
}

impl Connections {
    pub(super) fn new(metrics: Metrics) -> Self {
        Self {
            open: Mutex::default(),
            next: AtomicU64::new(0),
            metrics,
        }
    }

    fn open(&self) -> MutexGuard<'_, HashMap<u64, Arc<Activity>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn count(&self) -> usize {
        self.open().len()
    }

    /// Registers a new connection, until the returned [`Place`] is dropped.
    pub(super) fn enter(self: &Arc<Self>) -> Place {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let activity = Arc::new(Activity::new(id));
        let mut open = self.open();
        open.insert(id, Arc::clone(&activity));
        self.metrics.connections(open.len());
        Place {
            connections: Arc::clone(self),
            activity,
        }
    }

    fn leave(&self, id: u64) {
        let mut open = self.open();
        open.remove(&id);
        self.metrics.connections(open.len());
    }

    /// Asks connections to end if their clients took too long.
    pub(super) fn close_overdue(&self, options: &ServeOptions) {
        let now = Instant::now();
        for activity in self.open().values() {
            if let Some(reason) = activity.overdue(now, options) {
                activity.close(reason, &self.metrics);
            }
        }
    }

    /// Closes the connection that has been idle longest. If none is idle, closes the one whose client has
    /// kept the server waiting longest within a request. Returns false if no connection can be closed.
    pub(super) fn close_oldest_idle(&self) -> bool {
        let now = Instant::now();
        let mut open = self.open();
        let oldest = open
            .values()
            .filter_map(|activity| Some((activity.spare_since(now)?, activity.id)))
            .min();
        let Some((_, id)) = oldest else { return false };
        if let Some(activity) = open.remove(&id) {
            activity.closed.cancel();
            self.metrics.connection_closed(ClosedFor::Room);
            self.metrics.connections(open.len());
        }
        true
    }
}

/// A connection's entry in [`Connections`]. Dropping it removes the entry.
pub(super) struct Place {
    connections: Arc<Connections>,
    activity: Arc<Activity>,
}

impl Place {
    pub(super) fn activity(&self) -> Arc<Activity> {
        Arc::clone(&self.activity)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.connections.leave(self.activity.id);
    }
}

impl Activity {
    fn new(id: u64) -> Self {
        let now = Instant::now();
        Self {
            id,
            state: Mutex::new(State {
                requests: HashMap::new(),
                next: 0,
                idle_since: now,
                head_since: Some(now),
                is_http2: false,
            }),
            closing: CancellationToken::new(),
            closed: CancellationToken::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Resolves when the connection has to end.
    pub(super) async fn closing(&self) {
        self.closing.cancelled().await;
    }

    /// Resolves when the connection has to end at once.
    pub(super) async fn closed(&self) {
        self.closed.cancelled().await;
    }

    /// Records that data was read.
    pub(super) fn received(&self) {
        let mut state = self.state();
        // Not for HTTP/2: between requests, its clients also send frames that begin no request.
        if state.requests.is_empty() && !state.is_http2 {
            state.head_since.get_or_insert_with(Instant::now);
        }
    }

    /// True if the server waits for a request's head, of which a part may have arrived.
    pub(super) fn awaits_head(&self) -> bool {
        let state = self.state();
        state.requests.is_empty() && state.head_since.is_some()
    }

    /// Records that a request's head has arrived.
    pub(super) fn begin(self: &Arc<Self>, version: Version) -> Running {
        let mut state = self.state();
        state.is_http2 = version == Version::HTTP_2;
        state.head_since = None;
        let request = state.next;
        state.next += 1;
        state.requests.insert(request, Turn::Server);
        Running {
            activity: Arc::clone(self),
            request,
        }
    }

    fn turn(&self, request: u64, turn: Turn) {
        if let Some(current) = self.state().requests.get_mut(&request) {
            *current = turn;
        }
    }

    fn overdue(&self, now: Instant, options: &ServeOptions) -> Option<ClosedFor> {
        let state = self.state();
        let is_over = |since: Instant, limit| now.duration_since(since) >= limit;
        if state.requests.is_empty() {
            if state
                .head_since
                .is_some_and(|since| is_over(since, options.head_timeout))
            {
                return Some(ClosedFor::Head);
            }
            return is_over(state.idle_since, options.idle_timeout).then_some(ClosedFor::Idle);
        }
        let is_slow = |turn: &Turn| matches!(turn, Turn::Taking(since) if is_over(*since, options.slow_reader));
        state
            .requests
            .values()
            .any(is_slow)
            .then_some(ClosedFor::Slow)
    }

    /// Asks the connection to end. If it was asked before, counts nothing more.
    fn close(&self, reason: ClosedFor, metrics: &Metrics) {
        if !self.closing.is_cancelled() {
            metrics.connection_closed(reason);
            self.closing.cancel();
        }
    }

    /// The connection's rank among those that may be closed for a new one: idle connections come first, then
    /// the longest wait for the client. `None` if the connection must be kept.
    fn spare_since(&self, now: Instant) -> Option<(bool, Instant)> {
        let state = self.state();
        if state.requests.is_empty() {
            return Some((false, state.idle_since));
        }
        let turns: Option<Vec<_>> = state
            .requests
            .values()
            .map(|turn| turn.client_since())
            .collect();
        let since = turns?.into_iter().max()?;
        (now.duration_since(since) >= SPARED).then_some((true, since))
    }
}

/// A running request. Dropping it records that the request has ended.
pub(super) struct Running {
    activity: Arc<Activity>,
    request: u64,
}

impl Running {
    /// A handle to the request. The handle does not keep the request running.
    pub(super) fn hand(&self) -> Hand {
        Hand {
            activity: Arc::clone(&self.activity),
            request: self.request,
        }
    }

    pub(super) fn turn(&self, turn: Turn) {
        self.activity.turn(self.request, turn);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut state = self.activity.state();
        state.requests.remove(&self.request);
        if state.requests.is_empty() {
            state.idle_since = Instant::now();
        }
    }
}

/// A handle that records whether the server or the client has to act next for a request.
pub(super) struct Hand {
    activity: Arc<Activity>,
    request: u64,
}

impl Hand {
    pub(super) fn turn(&self, turn: Turn) {
        self.activity.turn(self.request, turn);
    }
}
