//! Gathers requests that arrive together into one statement; a request that comes alone is sent at once.
//!
//! There is no timer. While as many batches are under way as allowed, new requests wait; the task whose
//! batch ends first sends them in its next batch.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use sqlx::{Postgres, pool::PoolConnection};
use tokio::sync::oneshot;

use crate::{
    database::Database,
    error::{Error, Meaning},
};

/// A request that can be sent in a batch with others.
#[async_trait]
pub(crate) trait BatchItem: Send + Sync + Sized + 'static {
    /// The result of one request.
    type Answer: Send + 'static;

    /// The request's key. Two requests with the same key must not go in one batch.
    fn mark(&self) -> uuid::Uuid;

    /// The approximate size of the request in bytes.
    fn size(&self) -> usize;

    /// Sends the requests in one statement. Returns one answer for each, in order. An error means that the
    /// whole statement failed.
    async fn send(
        items: &[Self],
        database: &Database,
        connection: &mut PoolConnection<Postgres>,
    ) -> Result<Vec<Result<Self::Answer, Error>>, Error>;
}

/// The approximate maximum size of a batch in bytes. A larger request is sent alone.
const MAX_BYTES: usize = 8 << 20;

pub(crate) struct Batcher<P: BatchItem>(Arc<Shared<P>>);

struct Shared<P: BatchItem> {
    database: Database,
    batch_size: usize,
    max_batches: usize,
    state: Mutex<State<P>>,
}

struct State<P: BatchItem> {
    waiting: VecDeque<Waiting<P>>,
    running: usize,
}

type Waiting<P> = (P, oneshot::Sender<Result<<P as BatchItem>::Answer, Error>>);

impl<P: BatchItem> Shared<P> {
    fn state(&self) -> MutexGuard<'_, State<P>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A task that sends one batch after the other until no request waits. At most `max_batches` of these tasks
/// run at once.
struct BatchTask<P: BatchItem> {
    shared: Arc<Shared<P>>,
    has_ended: bool,
}

/// A task that is dropped before it ends has panicked, or its runtime was shut down. It no longer counts as
/// running then, so that new requests start another task and do not wait for this one.
impl<P: BatchItem> Drop for BatchTask<P> {
    fn drop(&mut self) {
        if self.has_ended {
            return;
        }
        let mut state = self.shared.state();
        state.running -= 1;
        if state.running == 0 {
            // No task is left to send the waiting requests. Dropping their channels makes each caller get
            // `GivenUp`.
            state.waiting.clear();
        }
    }
}

impl<P: BatchItem> Batcher<P> {
    pub(crate) fn new(database: Database, batch_size: usize, max_batches: usize) -> Self {
        Self(Arc::new(Shared {
            database,
            batch_size,
            max_batches,
            state: Mutex::new(State {
                waiting: VecDeque::new(),
                running: 0,
            }),
        }))
    }

    /// Sends a request, alone or with others, and returns its result.
    pub(crate) async fn send(&self, item: P) -> Result<P::Answer, Error> {
        let (answer, answered) = oneshot::channel();
        let task = {
            let mut state = self.0.state();
            state.waiting.push_back((item, answer));
            (state.running < self.0.max_batches).then(|| {
                state.running += 1;
                BatchTask {
                    shared: Arc::clone(&self.0),
                    has_ended: false,
                }
            })
        };
        if let Some(task) = task {
            // Use a separate task: if this caller is dropped, the requests of other callers are still sent.
            tokio::spawn(task.run());
        }
        answered.await.unwrap_or(Err(Error::GivenUp))
    }
}

impl<P: BatchItem> BatchTask<P> {
    async fn run(mut self) {
        let Some(mut batch) = self.next() else { return };
        let mut connection = match self.shared.database.connection().await {
            Ok(connection) => connection,
            Err(error) => return self.refuse_all(batch, &error),
        };
        loop {
            if let Err(error) = self.send(batch, &mut connection).await {
                // The connection is lost; the waiting requests are sent on a new one.
                drop(connection);
                let Some(next) = self.next() else { return };
                tracing::warn!("a connection to the database was lost: {error}");
                connection = match self.shared.database.connection().await {
                    Ok(connection) => connection,
                    Err(error) => return self.refuse_all(next, &error),
                };
                batch = next;
                continue;
            }
            batch = match self.next() {
                Some(next) => next,
                None => return,
            };
        }
    }

    /// Takes the next batch from the waiting requests. If none waits, this task ends, and the next request
    /// starts a new task.
    fn next(&mut self) -> Option<Vec<Waiting<P>>> {
        let mut state = self.shared.state();
        if state.waiting.is_empty() {
            state.running -= 1;
            self.has_ended = true;
            return None;
        }
        let mut batch: Vec<Waiting<P>> = Vec::new();
        let mut bytes = 0;
        let mut later = VecDeque::new();
        while batch.len() < self.shared.batch_size
            && let Some(waiting) = state.waiting.pop_front()
        {
            let item = &waiting.0;
            let full = !batch.is_empty() && bytes + item.size() > MAX_BYTES;
            if full || batch.iter().any(|(other, _)| other.mark() == item.mark()) {
                later.push_back(waiting);
                if full {
                    break;
                }
            } else {
                bytes += item.size();
                batch.push(waiting);
            }
        }
        for waiting in later.into_iter().rev() {
            state.waiting.push_front(waiting);
        }
        // All batches lock their rows in the same order, so no two of them wait for each other.
        batch.sort_by_key(|(item, _)| item.mark());
        Some(batch)
    }

    /// Sends a batch and passes each answer to the caller that waits for it. Fails only if the connection
    /// is lost.
    async fn send(
        &self,
        batch: Vec<Waiting<P>>,
        connection: &mut PoolConnection<Postgres>,
    ) -> Result<(), Error> {
        let (items, senders): (Vec<P>, Vec<_>) = batch.into_iter().unzip();
        let database = &self.shared.database;
        let mut lost = None;
        let answers = match P::send(&items, database, connection).await {
            Ok(answers) => answers,
            Err(error) if error.meaning() == Some(Meaning::Gone) => {
                lost = Some(error.clone());
                items.iter().map(|_| Err(error.clone())).collect()
            }
            Err(error) if items.len() == 1 => vec![Err(error)],
            Err(error) => {
                tracing::debug!("a batch was refused, so each goes alone: {error}");
                let mut answers = Vec::with_capacity(items.len());
                for item in &items {
                    answers.push(match &lost {
                        Some(error) => Err(Error::clone(error)),
                        None => {
                            let alone = std::slice::from_ref(item);
                            let sent = P::send(alone, database, connection).await;
                            lost = sent
                                .as_ref()
                                .err()
                                .filter(|error| error.meaning() == Some(Meaning::Gone))
                                .cloned();
                            sent.and_then(|mut answers| {
                                answers.pop().unwrap_or(Err(Error::GivenUp))
                            })
                        }
                    });
                }
                answers
            }
        };
        for (sender, answer) in senders.into_iter().zip(answers) {
            // If the caller no longer waits, its answer is dropped. The store tells later whether the
            // request took effect.
            let _ = sender.send(answer);
        }
        lost.map_or(Ok(()), Err)
    }

    /// Fails this batch and all waiting requests: no connection came free in time for any of them.
    fn refuse_all(mut self, batch: Vec<Waiting<P>>, error: &Error) {
        let waiting = {
            let mut state = self.shared.state();
            state.running -= 1;
            self.has_ended = true;
            std::mem::take(&mut state.waiting)
        };
        for (_, sender) in batch.into_iter().chain(waiting) {
            let _ = sender.send(Err(error.clone()));
        }
    }
}
