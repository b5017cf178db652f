//! What readers of a whole organization get: its executions' list events, in the order of
//! publishing.

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

use crate::{config::BusConfig, hash::IdMap};

/// The lists that somebody reads or has read: a position can only come from a stream.
pub(super) struct Lists {
    /// Tells this bus's positions from those of the one before a restart.
    instance: Uuid,
    lists: Mutex<IdMap<OrganizationId, List>>,
    /// Spares publishing the lock while nobody has read a list yet.
    is_read: AtomicBool,
}

struct List {
    /// The last ones; `head` is the number of the newest.
    events: VecDeque<Arc<Event>>,
    head: u64,
    live: broadcast::Sender<(u64, Arc<Event>)>,
}

impl Lists {
    pub(super) fn new() -> Self {
        Self {
            instance: Uuid::new_v4(),
            lists: Mutex::default(),
            is_read: AtomicBool::new(false),
        }
    }

    fn lists(&self) -> MutexGuard<'_, IdMap<OrganizationId, List>> {
        self.lists.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Passes an event on that was not published before.
    pub(super) fn publish(&self, event: &Arc<Event>, max: usize) {
        if !event.data.is_for_lists() || !self.is_read.load(Ordering::Acquire) {
            return;
        }
        if let Some(list) = self.lists().get_mut(&event.organization_id) {
            if list.events.len() >= max {
                list.events.pop_front();
            }
            list.head += 1;
            list.events.push_back(Arc::clone(event));
            // An error means that nobody listens now.
            let _ = list.live.send((list.head, Arc::clone(event)));
        }
    }

    pub(super) fn subscribe(
        &self,
        organization: OrganizationId,
        after: Option<&str>,
        config: &BusConfig,
    ) -> Result<OrganizationStream, BusError> {
        self.is_read.store(true, Ordering::Release);
        let mut lists = self.lists();
        if !lists.contains_key(&organization) && lists.len() >= config.max_organizations {
            lists.retain(|_, list| list.live.receiver_count() > 0);
        }
        let list = lists.entry(organization).or_insert_with(|| List {
            events: VecDeque::new(),
            head: 0,
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

    /// The number in a position of this bus.
    fn number(&self, position: &str) -> Option<u64> {
        let (instance, number) = position.split_once('-')?;
        (Uuid::try_parse(instance) == Ok(self.instance))
            .then(|| number.parse().ok())
            .flatten()
    }
}
