//! The bus: recent events of each execution in rings, live readers on bounded channels.
//!
//! [`ring`] is one execution's, [`subscription`] what a reader holds, [`lists`] what readers of a
//! whole organization get.

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

/// Rings are spread over at most this many locks.
const MAX_SHARDS: usize = 16;

/// Carries events and wake-ups within this process.
///
/// It keeps what was published last of each execution, so that a reader who comes later misses
/// nothing. Of an execution that it does not know, or no longer, a reader gets what is published
/// from then on; where that does not follow what the reader has, its stream ends with `TooOld`.
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
    /// A bus on which nothing was published.
    #[must_use]
    pub fn new(config: BusConfig) -> Self {
        // Few rings need few locks; and then the oldest of all is the oldest of its shard.
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
        // An error means that nobody listens.
        let _ = self.wakes.send(execution);
        Ok(())
    }

    async fn wakes(&self) -> Result<WakeStream, BusError> {
        let wakes = stream::unfold(self.wakes.subscribe(), |mut wakes| async move {
            loop {
                match wakes.recv().await {
                    Ok(execution) => return Some((execution, wakes)),
                    // Polling finds what was missed.
                    Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return None,
                }
            }
        });
        Ok(wakes.boxed())
    }
}
