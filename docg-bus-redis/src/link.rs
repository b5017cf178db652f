//! The connection for all commands except blocking reads: one per process, shared by all calls. While it
//! is down, calls fail at once and a task reconnects.

use std::{
    future::Future,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
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

/// How often an idle connection is checked. Servers and proxies drop idle connections, often silently.
const CHECK_INTERVAL: Duration = Duration::from_secs(2);

/// The reason why a connection was abandoned.
const LEFT: &str = "another server may have taken over";

pub(crate) struct Link {
    state: watch::Sender<State>,
    timeout: Duration,
    /// True if a command has succeeded since the connection last broke. A server may answer a PING and still
    /// fail commands, so the backoff restarts only after a command has succeeded.
    has_worked: AtomicBool,
    work: Mutex<Work>,
}

/// Records where and when commands succeeded, and which connections were abandoned. Connections are
/// numbered from 1.
#[derive(Default)]
struct Work {
    /// The number of the latest connection; 0 if there was none yet.
    last: u64,
    /// Connections up to this number were abandoned.
    left: u64,
    /// The last successful command in each of the two latest histories of the data.
    uses: Vec<Use>,
}

struct Use {
    /// The history of the data in which the command succeeded; `None` in a cluster, which does not report its
    /// history.
    replication_id: Option<Arc<str>>,
    last: Instant,
}

#[derive(Clone)]
enum State {
    Starting,
    Up {
        connection: Connection,
        number: u64,
        /// The history of the server's data; `None` in a cluster, which does not report it.
        replication_id: Option<Arc<str>>,
    },
    Down(Arc<str>),
}

impl Work {
    /// Records that a command succeeded on a connection. Fails if the connection was abandoned, because the
    /// command's effect may be lost.
    fn note(&mut self, number: u64, replication_id: Option<Arc<str>>) -> Result<(), Error> {
        if number <= self.left {
            return Err(Error::Down(LEFT.into()));
        }
        self.uses
            .retain(|used| used.replication_id != replication_id);
        if self.uses.len() == 2 {
            self.uses.remove(0);
        }
        let last = Instant::now();
        self.uses.push(Use {
            replication_id,
            last,
        });
        Ok(())
    }
}

impl Link {
    pub(crate) fn new(timeout: Duration) -> Self {
        Self {
            state: watch::Sender::new(State::Starting),
            timeout,
            has_worked: AtomicBool::new(false),
            work: Mutex::default(),
        }
    }

    /// Runs commands on the connection, at most for the timeout.
    pub(crate) async fn run<T, F>(&self, work: impl FnOnce(Connection) -> F) -> Result<T, Error>
    where
        F: Future<Output = RedisResult<T>>,
    {
        let (connection, number, replication_id) = self.connection().await?;
        let done = tokio::time::timeout(self.timeout, work(connection)).await;
        let error = match done {
            Ok(Ok(done)) => {
                self.work().note(number, replication_id)?;
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

    fn work(&self) -> MutexGuard<'_, Work> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Abandons all connections, because another server may have taken over. Keeps the current connection only if
    /// the replication id of its server is `here` (see [`history`](crate::history)). Commands under way on abandoned connections fail. New calls
    /// wait for the next connection.
    pub(crate) fn move_to(&self, here: &Arc<str>) {
        self.state.send_if_modified(|state| {
            let mut work = self.work();
            let (is_up, is_here) = match state {
                State::Up { replication_id, .. } => (true, replication_id.as_ref() == Some(here)),
                State::Starting | State::Down(_) => (false, false),
            };
            work.left = work.last.saturating_sub(u64::from(is_here));
            let leaves = is_up && !is_here;
            if leaves {
                *state = State::Starting;
            }
            leaves
        });
    }

    /// The time of the last command whose effect may be missing in the history `here`. A cluster does not
    /// report its history, so its commands count as done in the history `before`.
    pub(crate) fn last_used_elsewhere(
        &self,
        here: &Arc<str>,
        before: Option<&Arc<str>>,
    ) -> Option<Instant> {
        let work = self.work();
        let is_elsewhere = |used: &&Use| {
            let there = used.replication_id.as_ref().or(before);
            there.is_some_and(|there| there != here)
        };
        work.uses
            .iter()
            .rev()
            .find(is_elsewhere)
            .map(|used| used.last)
    }

    /// True if the connection is known to lead to another history of the data.
    pub(crate) fn is_elsewhere(&self, here: &Arc<str>) -> bool {
        match &*self.state.borrow() {
            State::Up {
                replication_id: Some(there),
                ..
            } => there != here,
            _ => false,
        }
    }

    /// Sends one command, and returns its answer.
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

    /// Waits until the link is up.
    pub(crate) async fn up(&self) {
        let mut state = self.state.subscribe();
        // This cannot fail, because the sender lives as long as `self`.
        let _ = state
            .wait_for(|state| matches!(state, State::Up { .. }))
            .await;
    }

    /// Keeps the connection up, until the task is dropped.
    pub(crate) async fn keep(&self, connector: &Connector) {
        let mut backoff = Backoff::default();
        let mut is_told = false;
        for number in 1.. {
            let reason = match connector.connect().await {
                Ok((connection, replication_id)) => {
                    tracing::info!("connected to Redis");
                    is_told = false;
                    self.state.send_modify(|state| {
                        self.work().last = number;
                        *state = State::Up {
                            connection,
                            number,
                            replication_id,
                        };
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
            // Warn once per outage.
            if !std::mem::replace(&mut is_told, true) {
                tracing::warn!("events are not published, until Redis is back: {reason}");
            }
            tokio::time::sleep(backoff.next()).await;
        }
    }

    /// Pings the connection, so that a broken one is replaced before the next call needs it. A cluster's
    /// connection repairs itself.
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

    /// Waits until the connection is found broken or is abandoned.
    async fn broken(&self) -> Arc<str> {
        let mut states = self.state.subscribe();
        loop {
            match &*states.borrow_and_update() {
                State::Down(reason) => return Arc::clone(reason),
                State::Starting => return LEFT.into(),
                State::Up { .. } => {}
            }
            // This cannot fail, because the sender lives as long as `self`.
            let _ = states.changed().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use docg_test_servers::redis::PrivateServer;
    use tokio::sync::oneshot;

    use super::*;
    use crate::config::RedisConfig;

    /// A command that ends on an abandoned connection must fail. This also holds if another call found the
    /// connection broken before it was abandoned.
    #[tokio::test]
    async fn what_ends_on_a_connection_that_was_left_does_not_count() {
        let server = PrivateServer::start();
        let config = RedisConfig::new(&server.url()).expect("is a URL");
        let connector = Connector::new(&config).expect("is a configuration");
        let link = Link::new(Duration::from_secs(10));
        let test = async {
            link.up().await;
            let (end, ended) = oneshot::channel();
            let under_way = link.run(|_| async move {
                ended.await.expect("is told");
                Ok(())
            });
            let leave = async {
                let lost = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
                let failed = link.run(|_| async { RedisResult::<()>::Err(lost.into()) });
                assert!(failed.await.is_err());
                link.up().await;
                // Abandon the first connection. The second one leads to `replication_id`, and is kept.
                let State::Up { replication_id, .. } = link.state.borrow().clone() else {
                    panic!("it is up");
                };
                link.move_to(&replication_id.expect("is one server"));
                end.send(()).expect("is under way");
            };
            let (done, ()) = tokio::join!(under_way, leave);
            assert!(matches!(done, Err(Error::Down(_))), "{done:?}");
            link.run(|_| async { Ok(()) }).await.expect("works");
        };
        tokio::select! {
            () = link.keep(&connector) => {}
            () = test => {}
        }
    }

    #[test]
    fn what_a_cluster_does_is_taken_to_be_done_where_it_was_before() {
        let (one, two): (Arc<str>, Arc<str>) = ("one".into(), "two".into());
        let link = Link::new(Duration::ZERO);
        assert!(link.work().note(1, None).is_ok());
        let is_elsewhere = |before| link.last_used_elsewhere(&two, before).is_some();
        assert!(!is_elsewhere(None));
        assert!(!is_elsewhere(Some(&two)));
        assert!(is_elsewhere(Some(&one)));
    }
}
