//! Of each connection: whose turn it is, and since when.

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

/// How long a client that is waited for in the middle of a request keeps its connection in any case.
const SPARED: Duration = Duration::from_secs(1);

/// All connections of a server.
pub(super) struct Connections {
    open: Mutex<HashMap<u64, Arc<Activity>>>,
    next: AtomicU64,
    metrics: Metrics,
}

/// A connection.
pub(super) struct Activity {
    id: u64,
    state: Mutex<State>,
    /// Its client has taken too long: it is to end, with its last words.
    closing: CancellationToken,
    /// Its place is needed: it is to end at once.
    closed: CancellationToken,
}

struct State {
    requests: HashMap<u64, Turn>,
    next: u64,
    /// Since when there has been no request.
    idle_since: Instant,
    /// Since when a request's head is awaited.
    head_since: Option<Instant>,
    is_http2: bool,
}

/// Who has to do something next for a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// The server.
    Server,
    /// The client is to send more of the body.
    Sending(Instant),
    /// The client is to take more of the answer.
    Taking(Instant),
}

impl Turn {
    /// Since when the client is waited for.
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

    /// A place for a new connection, until it is dropped.
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

    /// Has connections end whose client has taken too long.
    pub(super) fn close_overdue(&self, options: &ServeOptions) {
        let now = Instant::now();
        for activity in self.open().values() {
            if let Some(reason) = activity.overdue(now, options) {
                activity.close(reason, &self.metrics);
            }
        }
    }

    /// Closes the connection that has been idle longest; failing that, one whose client has been waited
    /// for longest in the middle of a request. Whether there was one.
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

/// A connection's place among all; dropping it frees the place.
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

    /// Resolves when it is to end.
    pub(super) async fn closing(&self) {
        self.closing.cancelled().await;
    }

    /// Resolves when it is to end at once.
    pub(super) async fn closed(&self) {
        self.closed.cancelled().await;
    }

    /// Something was read.
    pub(super) fn received(&self) {
        let mut state = self.state();
        // Between requests HTTP/2 sends frames that begin none.
        if state.requests.is_empty() && !state.is_http2 {
            state.head_since.get_or_insert_with(Instant::now);
        }
    }

    /// Whether a request's head is awaited, and some of it may have come.
    pub(super) fn awaits_head(&self) -> bool {
        let state = self.state();
        state.requests.is_empty() && state.head_since.is_some()
    }

    /// A request's head is there.
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

    /// Asks it to end, once.
    fn close(&self, reason: ClosedFor, metrics: &Metrics) {
        if !self.closing.is_cancelled() {
            metrics.connection_closed(reason);
            self.closing.cancel();
        }
    }

    /// Since when it could be spared, those in the middle of a request last.
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

/// A request that is answered, until it is dropped.
pub(super) struct Running {
    activity: Arc<Activity>,
    request: u64,
}

impl Running {
    /// A second hand on it, which does not keep it running.
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

/// Tells whose turn it is.
pub(super) struct Hand {
    activity: Arc<Activity>,
    request: u64,
}

impl Hand {
    pub(super) fn turn(&self, turn: Turn) {
        self.activity.turn(self.request, turn);
    }
}
