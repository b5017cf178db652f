//! The live readers of this process. One connection feeds them all.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use docg_core::{
    event::Event,
    ids::{ExecutionId, OrganizationId},
    ports::BusError,
};
use tokio::sync::{broadcast, mpsc, watch};

use crate::{
    codec::{Entry, EntryId},
    error::Error,
};

/// An event in an organization stream.
#[derive(Clone)]
pub(crate) struct Listed {
    pub(crate) id: EntryId,
    pub(crate) position: Arc<str>,
    pub(crate) event: Arc<Event>,
}

pub(crate) struct Hub {
    readers: Mutex<Readers>,
    state: watch::Sender<State>,
    wakes: broadcast::Sender<ExecutionId>,
    buffer: usize,
    timeout: Duration,
    last_number: AtomicU64,
}

#[derive(Default)]
struct Readers {
    /// The history of the server's data that is being read; `None` if the hub is not up. One lock guards the
    /// history and the readers, so a reader that is added while the hub is up misses nothing.
    replication_id: Option<Arc<str>>,
    executions: HashMap<ExecutionId, Vec<Sender<Arc<Event>>>>,
    organizations: HashMap<OrganizationId, Vec<Sender<Listed>>>,
}

#[derive(Clone)]
enum State {
    Starting,
    Up,
    Down(Arc<str>),
}

/// The half of a live reader that the hub holds.
struct Sender<T> {
    number: u64,
    events: mpsc::Sender<T>,
    cut_off: Arc<OnceLock<BusError>>,
}

/// The half of a live reader that the reader holds. Dropping this half removes the reader from the hub.
pub(crate) struct Live<T> {
    events: mpsc::Receiver<T>,
    /// The reason why the hub cut the reader off, if it did.
    cut_off: Arc<OnceLock<BusError>>,
    /// The history of the server's data from which this reader gets its events.
    pub(crate) replication_id: Arc<str>,
    _leaves: Leaves,
}

/// A guard that removes its reader from the hub when the guard is dropped.
struct Leaves {
    hub: Arc<Hub>,
    what: What,
    number: u64,
}

#[derive(Clone, Copy)]
enum What {
    Execution(ExecutionId),
    Organization(OrganizationId),
}

impl Hub {
    pub(crate) fn new(buffer: usize, wake_buffer: usize, timeout: Duration) -> Self {
        Self {
            readers: Mutex::default(),
            state: watch::Sender::new(State::Starting),
            wakes: broadcast::channel(wake_buffer).0,
            buffer,
            timeout,
            last_number: AtomicU64::new(0),
        }
    }

    fn readers(&self) -> MutexGuard<'_, Readers> {
        self.readers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Marks the hub as up: from now on readers miss nothing in this history of the server's data.
    pub(crate) fn up(&self, replication_id: Arc<str>) {
        self.readers().replication_id = Some(replication_id);
        self.state.send_replace(State::Up);
    }

    /// Cuts off all readers, because they may miss events. After [`Error::Reset`] the connection comes back
    /// at once, so new readers wait for the connection instead of failing.
    pub(crate) fn down(&self, error: &Error) {
        let reason: Arc<str> = error.to_string().into();
        let mut readers = self.readers();
        let Readers {
            executions,
            organizations,
            ..
        } = std::mem::take(&mut *readers);
        self.state.send_replace(match error {
            Error::Reset => State::Starting,
            _ => State::Down(Arc::clone(&reason)),
        });
        drop(readers);
        let error = BusError::Unavailable(reason.to_string());
        executions
            .into_values()
            .flatten()
            .for_each(|sender| sender.cut_off(error.clone()));
        organizations
            .into_values()
            .flatten()
            .for_each(|sender| sender.cut_off(error.clone()));
    }

    /// Waits until the hub is up.
    pub(crate) async fn is_up(&self) {
        let mut state = self.state.subscribe();
        // This cannot fail, because the sender lives as long as `self`.
        let _ = state.wait_for(|state| matches!(state, State::Up)).await;
    }

    /// Fails if the hub is down. If the hub is starting, waits until it has started, at most for the timeout.
    pub(crate) async fn check(&self) -> Result<(), Error> {
        let mut state = self.state.subscribe();
        let settled = state.wait_for(|state| !matches!(state, State::Starting));
        match tokio::time::timeout(self.timeout, settled).await {
            Ok(Ok(state)) => match &*state {
                State::Down(reason) => Err(Error::Down(Arc::clone(reason))),
                State::Up | State::Starting => Ok(()),
            },
            Ok(Err(_)) | Err(_) => Err(Error::TimedOut),
        }
    }

    pub(crate) async fn listen_to_execution(
        self: &Arc<Self>,
        execution: ExecutionId,
    ) -> Result<Live<Arc<Event>>, Error> {
        self.listen(What::Execution(execution), |readers, sender| {
            readers
                .executions
                .entry(execution)
                .or_default()
                .push(sender);
        })
        .await
    }

    pub(crate) async fn listen_to_organization(
        self: &Arc<Self>,
        organization: OrganizationId,
    ) -> Result<Live<Listed>, Error> {
        self.listen(What::Organization(organization), |readers, sender| {
            readers
                .organizations
                .entry(organization)
                .or_default()
                .push(sender);
        })
        .await
    }

    async fn listen<T>(
        self: &Arc<Self>,
        what: What,
        add: impl FnOnce(&mut Readers, Sender<T>),
    ) -> Result<Live<T>, Error> {
        self.check().await?;
        let (sender, events) = mpsc::channel(self.buffer);
        let cut_off = Arc::new(OnceLock::new());
        let number = self.last_number.fetch_add(1, Ordering::Relaxed);
        let mut readers = self.readers();
        let Some(replication_id) = readers.replication_id.clone() else {
            return Err(Error::Reset);
        };
        add(
            &mut readers,
            Sender {
                number,
                events: sender,
                cut_off: Arc::clone(&cut_off),
            },
        );
        drop(readers);
        let hub = Arc::clone(self);
        Ok(Live {
            events,
            cut_off,
            replication_id,
            _leaves: Leaves { hub, what, number },
        })
    }

    /// Passes an entry of the firehose on to the readers of its execution and its organization.
    pub(crate) fn dispatch(&self, entry: &Entry) {
        let mut readers = self.readers();
        let Readers {
            replication_id: Some(replication_id),
            executions,
            organizations,
        } = &mut *readers
        else {
            return;
        };
        let execution = entry.execution().filter(|id| executions.contains_key(id));
        let organization = entry
            .organization()
            .filter(|id| organizations.contains_key(id));
        if execution.is_none() && organization.is_none() {
            return;
        }
        // Decode once for all readers.
        let event = entry.announced();
        if let Some(id) = execution {
            pass_on(executions, id, event.as_ref());
        }
        if let Some(id) = organization {
            let listed = event.map(|event| Listed {
                id: entry.id,
                position: entry.position(replication_id).into(),
                event,
            });
            pass_on(organizations, id, listed.as_ref());
        }
    }

    /// Passes a wake-up on to the listeners.
    pub(crate) fn wake(&self, execution: ExecutionId) {
        // An error means that nobody is listening.
        let _ = self.wakes.send(execution);
    }

    pub(crate) fn wakes(&self) -> broadcast::Receiver<ExecutionId> {
        self.wakes.subscribe()
    }
}

/// Passes an event on to all its readers. A reader whose buffer is full is cut off. If the event could not
/// be decoded (`None`), all its readers are cut off.
fn pass_on<K: Hash + Eq, T: Clone>(
    readers: &mut HashMap<K, Vec<Sender<T>>>,
    key: K,
    event: Option<&T>,
) {
    if let Some(senders) = readers.get_mut(&key) {
        let mut kept = Vec::with_capacity(senders.len());
        for sender in senders.drain(..) {
            let Some(event) = event else {
                let reason = "an event on the bus cannot be read".to_owned();
                sender.cut_off(BusError::Unavailable(reason));
                continue;
            };
            match sender.events.try_send(event.clone()) {
                Ok(()) => kept.push(sender),
                Err(mpsc::error::TrySendError::Full(_)) => sender.cut_off(BusError::Lagged),
                Err(mpsc::error::TrySendError::Closed(_)) => {}
            }
        }
        *senders = kept;
        if senders.is_empty() {
            readers.remove(&key);
        }
    }
}

impl<T> Sender<T> {
    /// Ends the reader's channel after the events that were sent. The reason is set before the channel ends,
    /// because the reader then looks for it.
    fn cut_off(self, reason: BusError) {
        let _ = self.cut_off.set(reason);
    }
}

impl<T> Live<T> {
    /// The next event; `None` at the stream's end. Fails if the hub cut the reader off.
    pub(crate) async fn next(&mut self) -> Result<Option<T>, BusError> {
        match self.events.recv().await {
            Some(event) => Ok(Some(event)),
            None => self.cut_off.get().cloned().map_or(Ok(None), Err),
        }
    }
}

impl Drop for Leaves {
    fn drop(&mut self) {
        let mut readers = self.hub.readers();
        match self.what {
            What::Execution(id) => leave(&mut readers.executions, id, self.number),
            What::Organization(id) => leave(&mut readers.organizations, id, self.number),
        }
    }
}

fn leave<K: Hash + Eq, T>(readers: &mut HashMap<K, Vec<Sender<T>>>, key: K, number: u64) {
    if let Some(senders) = readers.get_mut(&key) {
        senders.retain(|sender| sender.number != number);
        if senders.is_empty() {
            readers.remove(&key);
        }
    }
}
