//! Organization streams: those events of an organization's executions that a list of executions shows, in
//! the order of publishing.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use docg_core::{
    event::Event,
    ids::OrganizationId,
    ports::{BusError, ListEvent, OrganizationStream},
};
use futures::{StreamExt, stream};
use tokio::sync::broadcast::{self, error::RecvError};
use uuid::Uuid;

use crate::{config::BusConfig, hash::IdMap, weight};

/// The organization streams that are or were read. Events of other organizations are not kept: without a
/// stream, no reader has a position from which to continue.
pub(super) struct Lists {
    /// Part of each position, so that positions from before a restart are rejected.
    instance: Uuid,
    lists: Mutex<Tenants>,
    /// False until a reader subscribes to a stream. Until then `publish` skips the lock.
    is_read: AtomicBool,
}

#[derive(Default)]
struct Tenants {
    lists: IdMap<OrganizationId, List>,
    /// The size of all streams' events, in bytes.
    bytes: usize,
}

struct List {
    /// The newest events; `head` is the number of the last.
    events: VecDeque<Arc<Event>>,
    head: u64,
    /// The size of the stream's events, in bytes.
    bytes: usize,
    live: broadcast::Sender<(u64, Arc<Event>)>,
}

impl Tenants {
    /// Drops half of the largest stream's events, until all streams fit in `max` bytes.
    fn thin_out(&mut self, max: usize) {
        while self.bytes > max {
            let Some(largest) = self.lists.values_mut().max_by_key(|list| list.bytes) else {
                return;
            };
            let before = largest.bytes;
            for _ in 0..largest.events.len().div_ceil(2) {
                largest.forget_oldest();
            }
            self.bytes = self.bytes - before + largest.bytes;
        }
    }
}

impl List {
    fn forget_oldest(&mut self) {
        if let Some(oldest) = self.events.pop_front() {
            self.bytes -= weight::event(&oldest);
        }
    }
}

impl Lists {
    pub(super) fn new() -> Self {
        Self {
            instance: Uuid::new_v4(),
            lists: Mutex::default(),
            is_read: AtomicBool::new(false),
        }
    }

    fn lists(&self) -> MutexGuard<'_, Tenants> {
        self.lists.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds an event to its organization's stream, if the stream is kept, and sends it to live readers. The
    /// caller passes each event only once.
    pub(super) fn publish(&self, event: &Arc<Event>, config: &BusConfig) {
        if !event.data.is_for_lists() || !self.is_read.load(Ordering::Acquire) {
            return;
        }
        let tenants = &mut *self.lists();
        let Some(list) = tenants.lists.get_mut(&event.organization_id) else {
            return;
        };
        let before = list.bytes;
        if list.events.len() >= config.events_per_organization {
            list.forget_oldest();
        }
        list.head += 1;
        list.events.push_back(Arc::clone(event));
        list.bytes += weight::event(event);
        // An error means that nobody is listening.
        let _ = list.live.send((list.head, Arc::clone(event)));
        tenants.bytes = tenants.bytes - before + list.bytes;
        tenants.thin_out(config.max_bytes / 2);
    }

    pub(super) fn subscribe(
        &self,
        organization: OrganizationId,
        after: Option<&str>,
        config: &BusConfig,
    ) -> Result<OrganizationStream, BusError> {
        self.is_read.store(true, Ordering::Release);
        let tenants = &mut *self.lists();
        let lists = &mut tenants.lists;
        if !lists.contains_key(&organization) && lists.len() >= config.max_organizations {
            lists.retain(|_, list| list.live.receiver_count() > 0);
            tenants.bytes = lists.values().map(|list| list.bytes).sum();
        }
        let list = lists.entry(organization).or_insert_with(|| List {
            events: VecDeque::new(),
            head: 0,
            bytes: 0,
            live: broadcast::channel(config.subscriber_buffer).0,
        });
        let first = list.head + 1 - list.events.len() as u64;
        let after = match after {
            None => list.head,
            Some(position) => self
                .number(position)
                .filter(|after| (first..=list.head + 1).contains(&(after + 1)))
                .ok_or(BusError::UnknownPosition)?,
        };
        let known = usize::try_from(after + 1 - first).unwrap_or(usize::MAX);
        let replay: Vec<_> = (after + 1..)
            .zip(list.events.iter().skip(known).cloned())
            .collect();
        let live = stream::unfold(Some(list.live.subscribe()), |live| async move {
            let mut live = live?;
            match live.recv().await {
                Ok(event) => Some((Ok(event), Some(live))),
                Err(RecvError::Lagged(_)) => Some((Err(BusError::Lagged), None)),
                Err(RecvError::Closed) => None,
            }
        });
        let instance = self.instance.simple();
        Ok(stream::iter(replay)
            .map(Ok)
            .chain(live)
            .map(move |numbered| {
                numbered.map(|(number, event)| ListEvent {
                    position: format!("{instance}-{number}"),
                    event,
                })
            })
            .boxed())
    }

    /// The number in a position; `None` if the position is not from this bus.
    fn number(&self, position: &str) -> Option<u64> {
        let (instance, number) = position.split_once('-')?;
        (Uuid::try_parse(instance) == Ok(self.instance))
            .then(|| number.parse().ok())
            .flatten()
    }
}
