//! The latest events of each execution, and their live readers.

use std::{collections::VecDeque, sync::Arc};

use docg_core::{event::Event, ids::ExecutionId, ports::BusError};

use super::subscription::{Subscriber, Subscription};
use crate::{hash::IdMap, weight};

/// The rings of a shard, one per execution. If the shard is full, a ring without recent events is dropped
/// for a new one.
pub(super) struct Rings {
    rings: IdMap<ExecutionId, Ring>,
    /// The id of every ring once, oldest first.
    order: VecDeque<ExecutionId>,
    max: usize,
    max_bytes: usize,
    /// The size of all rings' events, in bytes.
    bytes: usize,
}

/// The latest events of one execution.
#[derive(Default)]
pub(super) struct Ring {
    /// The events kept, numbered without a gap.
    events: VecDeque<Arc<Event>>,
    /// The last `seq` that was published; 0 if none was.
    head: u64,
    subscribers: Vec<Subscriber>,
    /// True if an event was published since the ring was last considered for removal.
    is_active: bool,
    /// The size of the ring's events, in bytes.
    bytes: usize,
}

/// The outcome of publishing an event.
#[must_use]
pub(super) enum Publication {
    New,
    /// The event was published before.
    Known,
    /// The ring has the events up to `head`, and needs the events from `from` on before the published one.
    Behind {
        head: u64,
        from: u64,
    },
}

impl Rings {
    pub(super) fn new(max: usize, max_bytes: usize) -> Self {
        Self {
            rings: IdMap::default(),
            order: VecDeque::new(),
            max,
            max_bytes,
            bytes: 0,
        }
    }

    /// If the event is the next one of its execution, adds it to the ring and sends it to live readers. If
    /// `restores` is true, an empty ring may start with any event.
    pub(super) fn take(&mut self, event: &Arc<Event>, max: usize, restores: bool) -> Publication {
        let ring = self.of(event.execution_id);
        let before = ring.bytes;
        let publication = match restores {
            true => ring.restore(event, max),
            false => ring.publish(event, max),
        };
        let now = ring.bytes;
        self.bytes = self.bytes - before + now;
        self.thin_out();
        publication
    }

    /// Drops the events of the oldest rings until the rest fits in `max_bytes`. Live readers of these
    /// rings still get the next events.
    fn thin_out(&mut self) {
        for _ in 0..self.order.len() {
            if self.bytes <= self.max_bytes {
                return;
            }
            let Some(oldest) = self.order.pop_front() else {
                return;
            };
            if let Some(ring) = self.rings.get_mut(&oldest) {
                self.bytes -= std::mem::take(&mut ring.bytes);
                ring.events = VecDeque::new();
            }
            self.order.push_back(oldest);
        }
    }

    /// The ring of an execution. A missing ring is made, in place of an old one if necessary.
    pub(super) fn of(&mut self, execution: ExecutionId) -> &mut Ring {
        if !self.rings.contains_key(&execution) {
            self.make_room();
            self.order.push_back(execution);
        }
        self.rings.entry(execution).or_default()
    }

    /// If the shard is full, drops the oldest ring without readers and without an event since it was last
    /// considered. If every ring has readers, drops none.
    fn make_room(&mut self) {
        // Two rounds at most: the first clears the `is_active` marks.
        for _ in 0..self.order.len() * 2 {
            if self.rings.len() < self.max {
                return;
            }
            let Some(oldest) = self.order.pop_front() else {
                return;
            };
            match self.rings.get_mut(&oldest) {
                Some(ring) if ring.is_active || ring.is_read() => {
                    ring.is_active = false;
                    self.order.push_back(oldest);
                }
                _ => {
                    let removed = self.rings.remove(&oldest);
                    self.bytes -= removed.map_or(0, |ring| ring.bytes);
                }
            }
        }
    }
}

impl Ring {
    /// If the event is the next one, adds it to the ring and sends it to live readers.
    fn publish(&mut self, event: &Arc<Event>, max: usize) -> Publication {
        if event.seq <= self.head {
            return Publication::Known;
        }
        if event.seq > self.head + 1 {
            // An empty ring needs only as many earlier events as it can keep.
            let reach = event.seq.saturating_sub(max as u64).max(1);
            let head = self.head;
            let from = if head > 0 { head + 1 } else { reach };
            return Publication::Behind { head, from };
        }
        self.add(event, max);
        Publication::New
    }

    /// Adds an event as [`publish`](Self::publish) does, but an empty ring may start with any event.
    fn restore(&mut self, event: &Arc<Event>, max: usize) -> Publication {
        if self.head == 0 {
            self.add(event, max);
            Publication::New
        } else {
            self.publish(event, max)
        }
    }

    fn add(&mut self, event: &Arc<Event>, max: usize) {
        if self.events.len() >= max
            && let Some(oldest) = self.events.pop_front()
        {
            self.bytes -= weight::event(&oldest);
        }
        self.bytes += weight::event(event);
        self.is_active |= self.head > 0;
        self.head = event.seq;
        self.events.push_back(Arc::clone(event));
        if !self.subscribers.is_empty() {
            self.subscribers
                .retain_mut(|subscriber| subscriber.send(event));
        }
    }

    pub(super) fn subscribe(
        &mut self,
        after: u64,
        buffer: usize,
    ) -> Result<Subscription, BusError> {
        let first = self.head + 1 - self.events.len() as u64;
        if self.head > after && first > after + 1 {
            return Err(BusError::TooOld { after });
        }
        let known = usize::try_from(after.saturating_sub(first - 1)).unwrap_or(usize::MAX);
        let replay: VecDeque<_> = self.events.iter().skip(known).cloned().collect();
        let (subscriber, subscription) = Subscriber::new(replay, after.max(self.head), buffer);
        self.subscribers.retain(|subscriber| !subscriber.is_gone());
        self.subscribers.push(subscriber);
        Ok(subscription)
    }

    fn is_read(&self) -> bool {
        self.subscribers
            .iter()
            .any(|subscriber| !subscriber.is_gone())
    }
}
