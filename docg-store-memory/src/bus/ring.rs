//! The last events of each execution, and who reads them live.

use std::{collections::VecDeque, sync::Arc};

use docg_core::{event::Event, ids::ExecutionId, ports::BusError};

use super::subscription::{Subscriber, Subscription};
use crate::{hash::IdMap, weight};

/// The rings of a shard, of which those that were quiet longest make room for new ones.
pub(super) struct Rings {
    rings: IdMap<ExecutionId, Ring>,
    /// Every ring once, oldest first.
    order: VecDeque<ExecutionId>,
    max: usize,
    max_bytes: usize,
    /// How many bytes the events of all of them take.
    bytes: usize,
}

/// One execution's last events.
#[derive(Default)]
pub(super) struct Ring {
    /// Contiguous.
    events: VecDeque<Arc<Event>>,
    /// The last `seq` that was published; 0 for none.
    head: u64,
    subscribers: Vec<Subscriber>,
    /// Something was published since the ring was last up for removal.
    is_active: bool,
    /// How many bytes its events take.
    bytes: usize,
}

/// What became of an event.
#[must_use]
pub(super) enum Publication {
    New,
    /// It is there already.
    Known,
    /// The ring has those up to `head`, and wants those from `from` on before it.
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

    /// Takes an event into its ring and passes it on, if it follows; where `restores`, an empty ring may
    /// begin anywhere.
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

    /// Lets the oldest rings give up their events, until the rest is small enough. Who reads one gets
    /// what comes next all the same.
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

    /// The ring of an execution; a new one takes the place of an old one.
    pub(super) fn of(&mut self, execution: ExecutionId) -> &mut Ring {
        if !self.rings.contains_key(&execution) {
            self.make_room();
            self.order.push_back(execution);
        }
        self.rings.entry(execution).or_default()
    }

    /// Drops the oldest ring that was quiet since it was last looked at and that nobody reads;
    /// none where all are read.
    fn make_room(&mut self) {
        // Twice round at most: the first time clears the marks.
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
    /// Takes an event in and passes it on, if it follows.
    fn publish(&mut self, event: &Arc<Event>, max: usize) -> Publication {
        if event.seq <= self.head {
            return Publication::Known;
        }
        if event.seq > self.head + 1 {
            // An empty ring needs no more of the past than it keeps.
            let reach = event.seq.saturating_sub(max as u64).max(1);
            let head = self.head;
            let from = if head > 0 { head + 1 } else { reach };
            return Publication::Behind { head, from };
        }
        self.add(event, max);
        Publication::New
    }

    /// As [`publish`](Self::publish), but an empty ring may begin anywhere.
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
