//! The connection for everything but waiting: one per process, which all calls share. While it is
//! down calls fail at once, and a task of its own tries to get it back.

use std::{
    future::Future,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use redis::RedisResult;
use tokio::sync::watch;

use crate::{
    backoff::Backoff,
    connect::{Connection, Connector},
    error::{Error, wants_reconnect},
};

/// Servers and what lies before them drop connections that are idle, often without a word.
const CHECK_INTERVAL: Duration = Duration::from_secs(2);

/// Why the connection was left.
const LEFT: &str = "another server may have taken over";

pub(crate) struct Link {
    state: watch::Sender<State>,
    timeout: Duration,
    /// A command has succeeded since the last failure: what answers a PING may still refuse to work.
    has_worked: AtomicBool,
    /// The connections up to this one were left; 0 for none.
    left: AtomicU64,
    /// In which histories of the data it has worked last, two at most.
    uses: Mutex<Vec<Use>>,
}

struct Use {
    replication_id: Option<Arc<str>>,
    last: Instant,
}

#[derive(Clone)]
enum State {
    Starting,
    Up {
        connection: Connection,
        number: u64,
        /// Which history the server's data have, where there is one server.
        replication_id: Option<Arc<str>>,
    },
    Down(Arc<str>),
}

impl Link {
    pub(crate) fn new(timeout: Duration) -> Self {
        Self {
            state: watch::Sender::new(State::Starting),
            timeout,
            has_worked: AtomicBool::new(false),
            left: AtomicU64::new(0),
            uses: Mutex::default(),
        }
    }

    /// Does something on the connection, at most for the timeout.
    pub(crate) async fn run<T, F>(&self, work: impl FnOnce(Connection) -> F) -> Result<T, Error>
    where
        F: Future<Output = RedisResult<T>>,
    {
        let (connection, number, replication_id) = self.connection().await?;
        let done = tokio::time::timeout(self.timeout, work(connection)).await;
        if matches!(done, Ok(Ok(_))) {
            self.note_use(replication_id);
        }
        let error = match done {
            Ok(Ok(_)) if number <= self.left.load(Ordering::Acquire) => {
                return Err(Error::Down(LEFT.into()));
            }
            Ok(Ok(done)) => {
                self.has_worked.store(true, Ordering::Relaxed);
                return Ok(done);
            }
            Ok(Err(error)) if !wants_reconnect(&error) => return Err(error.into()),
            Ok(Err(error)) => Error::from(error),
            Err(_) => Error::TimedOut,
        };
        self.found_broken(number, &error);
        Err(error)
    }

    fn found_broken(&self, number: u64, error: &Error) {
        let reason = error.to_string();
        self.state.send_if_modified(|state| {
            let is_current =
                matches!(state, State::Up { number: current, .. } if *current == number);
            if is_current {
                *state = State::Down(reason.as_str().into());
            }
            is_current
        });
    }

    /// Leaves the connection, because another server may have taken over, unless it is known to lead
    /// there. What is still under way on it does not count; who comes now waits for the next one.
    pub(crate) fn move_to(&self, here: &Arc<str>) {
        self.state.send_if_modified(|state| match state {
            State::Up {
                number,
                replication_id,
                ..
            } if replication_id.as_ref() != Some(here) => {
                self.left.store(*number, Ordering::Release);
                *state = State::Starting;
                true
            }
            _ => false,
        });
    }

    /// Comes before the look at what was left, so that no work is in neither.
    fn note_use(&self, replication_id: Option<Arc<str>>) {
        let mut uses = self.uses.lock().unwrap_or_else(PoisonError::into_inner);
        uses.retain(|known| known.replication_id != replication_id);
        if uses.len() == 2 {
            uses.remove(0);
        }
        let last = Instant::now();
        uses.push(Use {
            replication_id,
            last,
        });
    }

    /// When it has last done anything that may not be in this history of the data.
    pub(crate) fn last_used_elsewhere(&self, here: &Arc<str>) -> Option<Instant> {
        let uses = self.uses.lock().unwrap_or_else(PoisonError::into_inner);
        let is_elsewhere = |known: &&Use| known.replication_id.as_ref() != Some(here);
        uses.iter().rev().find(is_elsewhere).map(|known| known.last)
    }

    /// Whether it leads to a server whose data have another history.
    pub(crate) fn is_elsewhere(&self, here: &Arc<str>) -> bool {
        match &*self.state.borrow() {
            State::Up {
                replication_id: Some(there),
                ..
            } => there != here,
            _ => false,
        }
    }

    /// Asks one question.
    pub(crate) async fn ask<T: redis::FromRedisValue>(&self, cmd: &redis::Cmd) -> Result<T, Error> {
        self.run(|mut connection| async move { cmd.query_async(&mut connection).await })
            .await
    }

    async fn connection(&self) -> Result<(Connection, u64, Option<Arc<str>>), Error> {
        let mut state = self.state.subscribe();
        let settled = state.wait_for(|state| !matches!(state, State::Starting));
        let settled = tokio::time::timeout(self.timeout, settled)
            .await
            .map_err(|_| Error::TimedOut)?
            .map_err(|_| Error::TimedOut)?;
        match &*settled {
            State::Up {
                connection,
                number,
                replication_id,
            } => Ok((connection.clone(), *number, replication_id.clone())),
            State::Down(reason) => Err(Error::Down(Arc::clone(reason))),
            State::Starting => Err(Error::TimedOut),
        }
    }

    /// Waits until the server answers.
    pub(crate) async fn up(&self) {
        let mut state = self.state.subscribe();
        // The sender lives as long as `self`.
        let _ = state
            .wait_for(|state| matches!(state, State::Up { .. }))
            .await;
    }

    /// Keeps the connection up, until it is dropped.
    pub(crate) async fn keep(&self, connector: &Connector) {
        let mut backoff = Backoff::default();
        let mut is_told = false;
        for number in 1.. {
            let reason = match connector.connect().await {
                Ok((connection, replication_id)) => {
                    tracing::info!("connected to Redis");
                    is_told = false;
                    self.state.send_replace(State::Up {
                        connection,
                        number,
                        replication_id,
                    });
                    let reason = loop {
                        match tokio::time::timeout(CHECK_INTERVAL, self.broken()).await {
                            Ok(reason) => break reason,
                            Err(_) => self.check().await,
                        }
                    };
                    if self.has_worked.swap(false, Ordering::Relaxed) {
                        backoff.reset();
                    }
                    reason
                }
                Err(error) => {
                    let reason: Arc<str> = error.to_string().into();
                    self.state.send_replace(State::Down(Arc::clone(&reason)));
                    reason
                }
            };
            // Once for each time that it is down.
            if !std::mem::replace(&mut is_told, true) {
                tracing::warn!("events are not published, until Redis is back: {reason}");
            }
            tokio::time::sleep(backoff.next()).await;
        }
    }

    /// Finds a connection broken that nobody uses, so that the next who does need not. A cluster's
    /// mends itself.
    async fn check(&self) {
        let Ok((Connection::Server(mut connection), number, _)) = self.connection().await else {
            return;
        };
        let ping = redis::cmd("PING");
        let answer = ping.query_async::<()>(&mut connection);
        match tokio::time::timeout(self.timeout, answer).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => self.found_broken(number, &error.into()),
            Err(_) => self.found_broken(number, &Error::TimedOut),
        }
    }

    /// Waits until somebody has found the connection broken, or left it.
    async fn broken(&self) -> Arc<str> {
        let mut states = self.state.subscribe();
        loop {
            match &*states.borrow_and_update() {
                State::Down(reason) => return Arc::clone(reason),
                State::Starting => return LEFT.into(),
                State::Up { .. } => {}
            }
            // The sender lives as long as `self`.
            let _ = states.changed().await;
        }
    }
}
