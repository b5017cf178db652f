//! The bus: recent events of each execution in rings, and live readers on bounded channels.
//!
//! [`ring`] holds the events of one execution, [`subscription`] is a reader's stream, and [`lists`]
//! holds the organization streams.

mod lists;
mod ring;
mod subscription;

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use docg_core::{
    event::Event,
    ids::{ExecutionId, OrganizationId},
    ports::{BusError, EventBus, EventStream, OrganizationStream, WakeStream},
};
use futures::{StreamExt, stream};
use tokio::sync::broadcast::{self, error::RecvError};

use crate::config::BusConfig;
use lists::Lists;
use ring::{Publication, Rings};

/// The maximum number of locks over which the rings are spread.
const MAX_SHARDS: usize = 16;

/// A bus that carries events and wake-ups within this process.
///
/// The bus keeps the latest events of each execution, so that a later reader misses nothing. If the bus has
/// no events of an execution, a reader gets only the events published after it subscribes. If these events
/// do not follow the last event that the reader has, the reader's stream ends with `TooOld`.
pub struct MemoryBus {
    config: BusConfig,
    shards: Box<[Mutex<Rings>]>,
    lists: Lists,
    wakes: broadcast::Sender<ExecutionId>,
}

impl Default for MemoryBus {
    fn default() -> Self {
        Self::new(BusConfig::default())
    }
}

impl fmt::Debug for MemoryBus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryBus")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl MemoryBus {
    /// Makes a bus without events.
    #[must_use]
    pub fn new(config: BusConfig) -> Self {
        // Few rings need few locks. Small bounds get one shard, so that the ring that is dropped is the
        // oldest of all.
        let shards = (config.max_executions / 256).clamp(1, MAX_SHARDS);
        let rings_each = config.max_executions.div_ceil(shards);
        let bytes_each = config.max_bytes / 2 / shards;
        let (wakes, _) = broadcast::channel(config.wake_buffer.max(1));
        Self {
            shards: (0..shards)
                .map(|_| Mutex::new(Rings::new(rings_each, bytes_each)))
                .collect(),
            lists: Lists::new(),
            wakes,
            config,
        }
    }

    fn rings(&self, execution: ExecutionId) -> MutexGuard<'_, Rings> {
        let shard = usize::from(execution.0.as_bytes()[15]) % self.shards.len();
        self.shards[shard]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

fn behind(event: &Event, head: u64, from: u64) -> BusError {
    BusError::Behind {
        execution: event.execution_id,
        head,
        from,
    }
}

#[async_trait]
impl EventBus for MemoryBus {
    async fn publish(&self, events: &[Arc<Event>]) -> Result<(), BusError> {
        for of_one in events.chunk_by(|a, b| a.execution_id == b.execution_id) {
            let mut rings = self.rings(of_one[0].execution_id);
            for event in of_one {
                match rings.take(event, self.config.events_per_execution, false) {
                    Publication::New => self.lists.publish(event, &self.config),
                    Publication::Known => {}
                    Publication::Behind { head, from } => return Err(behind(event, head, from)),
                }
            }
        }
        Ok(())
    }

    async fn restore(&self, events: &[Arc<Event>]) -> Result<(), BusError> {
        for event in events {
            let mut rings = self.rings(event.execution_id);
            match rings.take(event, self.config.events_per_execution, true) {
                Publication::New | Publication::Known => {}
                Publication::Behind { head, from } => return Err(behind(event, head, from)),
            }
        }
        Ok(())
    }

    async fn subscribe(&self, execution: ExecutionId, after: u64) -> Result<EventStream, BusError> {
        let subscription = self
            .rings(execution)
            .of(execution)
            .subscribe(after, self.config.subscriber_buffer)?;
        Ok(subscription.boxed())
    }

    async fn subscribe_organization(
        &self,
        organization: OrganizationId,
        after: Option<String>,
    ) -> Result<OrganizationStream, BusError> {
        self.lists
            .subscribe(organization, after.as_deref(), &self.config)
    }

    async fn wake(&self, execution: ExecutionId) -> Result<(), BusError> {
        // An error means that nobody is listening.
        let _ = self.wakes.send(execution);
        Ok(())
    }

    async fn wakes(&self) -> Result<WakeStream, BusError> {
        let wakes = stream::unfold(self.wakes.subscribe(), |mut wakes| async move {
            loop {
                match wakes.recv().await {
                    Ok(execution) => return Some((execution, wakes)),
                    // Polling finds the executions whose wake-ups were missed.
                    Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return None,
                }
            }
        });
        Ok(wakes.boxed())
    }
}
