//! Gathers what arrives together and sends it as one statement, at once where nothing is waiting.
//!
//! There is no timer: while a batch is under way, what comes waits for the next one. Whoever comes
//! first takes the others along.

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

/// Something that can be sent in a batch.
#[async_trait]
pub(crate) trait Parcel: Send + Sync + Sized + 'static {
    /// What its sender learns.
    type Answer: Send + 'static;

    /// Two parcels with the same mark must not go in one batch.
    fn mark(&self) -> uuid::Uuid;

    /// About how many bytes it has.
    fn size(&self) -> usize;

    /// Sends them in one statement: one answer for each in order, or none was taken.
    async fn send(
        parcels: &[Self],
        database: &Database,
        connection: &mut PoolConnection<Postgres>,
    ) -> Result<Vec<Result<Self::Answer, Error>>, Error>;
}

/// A batch gets no larger than about this, besides its first parcel.
const MAX_BYTES: usize = 8 << 20;

pub(crate) struct Batcher<P: Parcel>(Arc<Shared<P>>);

struct Shared<P: Parcel> {
    database: Database,
    batch_size: usize,
    max_flights: usize,
    state: Mutex<State<P>>,
}

struct State<P: Parcel> {
    waiting: VecDeque<Waiting<P>>,
    flights: usize,
}

type Waiting<P> = (P, oneshot::Sender<Result<<P as Parcel>::Answer, Error>>);

impl<P: Parcel> Shared<P> {
    fn state(&self) -> MutexGuard<'_, State<P>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One of the few that may be under way at once.
struct Flight<P: Parcel> {
    shared: Arc<Shared<P>>,
    has_landed: bool,
}

/// A flight that has not landed was dropped with its runtime, or panicked: its place is free then,
/// and nobody waits for a flight that will not be.
impl<P: Parcel> Drop for Flight<P> {
    fn drop(&mut self) {
        if self.has_landed {
            return;
        }
        let mut state = self.shared.state();
        state.flights -= 1;
        if state.flights == 0 {
            // Their senders are told that it was given up.
            state.waiting.clear();
        }
    }
}

impl<P: Parcel> Batcher<P> {
    pub(crate) fn new(database: Database, batch_size: usize, max_flights: usize) -> Self {
        Self(Arc::new(Shared {
            database,
            batch_size,
            max_flights,
            state: Mutex::new(State {
                waiting: VecDeque::new(),
                flights: 0,
            }),
        }))
    }

    /// Sends a parcel, with others or alone, and returns what became of it.
    pub(crate) async fn send(&self, parcel: P) -> Result<P::Answer, Error> {
        let (answer, answered) = oneshot::channel();
        let flight = {
            let mut state = self.0.state();
            state.waiting.push_back((parcel, answer));
            (state.flights < self.0.max_flights).then(|| {
                state.flights += 1;
                Flight {
                    shared: Arc::clone(&self.0),
                    has_landed: false,
                }
            })
        };
        if let Some(flight) = flight {
            // A task of its own: that this caller goes away must not cost the others their commits.
            tokio::spawn(flight.run());
        }
        answered.await.unwrap_or(Err(Error::GivenUp))
    }
}

impl<P: Parcel> Flight<P> {
    async fn run(mut self) {
        let Some(mut batch) = self.next() else { return };
        let mut connection = match self.shared.database.connection().await {
            Ok(connection) => connection,
            Err(error) => return self.refuse_all(batch, &error),
        };
        loop {
            if let Err(error) = self.send(batch, &mut connection).await {
                // The connection is gone; what waits goes on the next one.
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

    /// The next batch. Where nothing waits the flight has landed, and who comes next starts one.
    fn next(&mut self) -> Option<Vec<Waiting<P>>> {
        let mut state = self.shared.state();
        if state.waiting.is_empty() {
            state.flights -= 1;
            self.has_landed = true;
            return None;
        }
        let mut batch: Vec<Waiting<P>> = Vec::new();
        let mut bytes = 0;
        let mut later = VecDeque::new();
        while batch.len() < self.shared.batch_size
            && let Some(waiting) = state.waiting.pop_front()
        {
            let parcel = &waiting.0;
            let full = !batch.is_empty() && bytes + parcel.size() > MAX_BYTES;
            if full || batch.iter().any(|(other, _)| other.mark() == parcel.mark()) {
                later.push_back(waiting);
                if full {
                    break;
                }
            } else {
                bytes += parcel.size();
                batch.push(waiting);
            }
        }
        for waiting in later.into_iter().rev() {
            state.waiting.push_front(waiting);
        }
        // All take their rows in the same order, so that no two batches wait for each other.
        batch.sort_by_key(|(parcel, _)| parcel.mark());
        Some(batch)
    }

    /// Sends a batch and answers its senders. Fails where the connection is gone.
    async fn send(
        &self,
        batch: Vec<Waiting<P>>,
        connection: &mut PoolConnection<Postgres>,
    ) -> Result<(), Error> {
        let (parcels, senders): (Vec<P>, Vec<_>) = batch.into_iter().unzip();
        let database = &self.shared.database;
        let mut lost = None;
        let answers = match P::send(&parcels, database, connection).await {
            Ok(answers) => answers,
            Err(error) if error.meaning() == Some(Meaning::Gone) => {
                lost = Some(error.clone());
                parcels.iter().map(|_| Err(error.clone())).collect()
            }
            Err(error) if parcels.len() == 1 => vec![Err(error)],
            Err(error) => {
                tracing::debug!("a batch was refused, so each goes alone: {error}");
                let mut answers = Vec::with_capacity(parcels.len());
                for parcel in &parcels {
                    answers.push(match &lost {
                        Some(error) => Err(Error::clone(error)),
                        None => {
                            let alone = std::slice::from_ref(parcel);
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
            // Who does not wait any more asks the version later.
            let _ = sender.send(answer);
        }
        lost.map_or(Ok(()), Err)
    }

    /// No connection was to be had in time: then nobody who waits gets one either.
    fn refuse_all(mut self, batch: Vec<Waiting<P>>, error: &Error) {
        let waiting = {
            let mut state = self.shared.state();
            state.flights -= 1;
            self.has_landed = true;
            std::mem::take(&mut state.waiting)
        };
        for (_, sender) in batch.into_iter().chain(waiting) {
            let _ = sender.send(Err(error.clone()));
        }
    }
}
