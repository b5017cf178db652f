//! Brings committed events to the bus. The driver publishes at once. The sweeper publishes the events that a
//! crashed process, or a bus that was down, left behind.
//!
//! The bus refuses events that do not follow its last event, so no event is published over a hole: missing
//! events are read from the store and brought first. If the bus has forgotten an execution, its events that
//! were on the bus according to the store are restored silently, because organization streams delivered them,
//! or reported the gap. All other events are published as new. If the bus knows an execution but lacks some
//! of its events, these count as new too: a failover took them from the organization streams as well.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

use crate::{
    engine::Inner,
    event::Event,
    ids::ExecutionId,
    ports::{BusError, StoreError, Unpublished},
    query::EventQuery,
    time::Timestamp,
};

/// The time between two sweeps while this process has publications to report to the store, or has found
/// unpublished events. Otherwise the time is `IDLE_INTERVAL`. An event feed whose bus is silent reads the
/// store much earlier.
const BUSY_INTERVAL: Duration = Duration::from_secs(5);
const IDLE_INTERVAL: Duration = Duration::from_secs(60);
/// How long the process that commits has to publish its events before the sweeper does, in milliseconds.
const GRACE_MS: i64 = 5_000;
/// Executions that are read per query.
const PAGE: usize = 100;
/// A sweep ends once the bus has refused the events of this many executions. One server of a cluster that is
/// down must not hold back the events of the others, and a bus that is down must not be asked for ever.
const REFUSALS: usize = 10;
/// Events that are read per query.
const BATCH: usize = 500;

/// The last `seq` of each execution that this process has published, and not yet reported to the store.
#[derive(Debug, Default)]
pub(crate) struct Relay {
    published: Mutex<HashMap<ExecutionId, u64>>,
    /// The number of sweeps that are due soon, because the bus refused events or the sweeper found
    /// unpublished events.
    looks: AtomicU8,
}

impl Relay {
    fn lock(&self) -> MutexGuard<'_, HashMap<ExecutionId, u64>> {
        self.published
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Records the `seq` up to which an execution's events are on the bus.
    fn published(&self, execution: ExecutionId, seq: u64) {
        let mut published = self.lock();
        let known = published.entry(execution).or_default();
        *known = seq.max(*known);
    }

    /// The published `seq` of an execution that is not yet reported to the store; 0 for none.
    fn untold(&self, execution: ExecutionId) -> u64 {
        self.lock().get(&execution).copied().unwrap_or_default()
    }

    /// Requests two sweeps soon, because at the first the events may still be within the grace time.
    fn look_again(&self) {
        self.looks.store(2, Ordering::Release);
    }

    fn looked(&self) {
        let one_less = |looks: u8| looks.checked_sub(1);
        // The update fails if no sweep was due.
        let _ = self
            .looks
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, one_less);
    }

    /// True if there is a reason to sweep soon.
    fn is_busy(&self) -> bool {
        self.looks.load(Ordering::Acquire) > 0 || !self.lock().is_empty()
    }

    fn take(&self) -> Vec<(ExecutionId, u64)> {
        std::mem::take(&mut *self.lock()).into_iter().collect()
    }
}

/// Why events are not on the bus yet.
#[derive(Debug, thiserror::Error)]
enum NotPublished {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Bus(#[from] BusError),
}

impl Inner {
    /// Publishes the new events of one execution, and those that the bus lacks before them. `published` and
    /// the result are the `seq` up to which the events are known to be on the bus. If the bus refuses events,
    /// the sweeper publishes them later.
    pub(in crate::engine) async fn publish(&self, events: &[Arc<Event>], published: u64) -> u64 {
        let (Some(first), Some(last)) = (events.first(), events.last()) else {
            return published;
        };
        let execution = first.execution_id;
        let there = match self.bus.publish(events).await {
            Ok(()) => Ok(last.seq),
            Err(BusError::Behind { head, from, .. }) => {
                let left = Unpublished {
                    organization_id: first.organization_id,
                    execution_id: execution,
                    published: published.max(self.relay.untold(execution)),
                    head: last.seq,
                };
                self.bring(left, head, from).await
            }
            Err(error) => Err(error.into()),
        };
        match there {
            Ok(seq) => {
                self.warnings.publishing.is_over();
                self.relay.published(execution, seq);
                seq.max(published)
            }
            Err(error) => {
                self.warnings.publishing.happened(&error);
                self.relay.look_again();
                published
            }
        }
    }

    /// Copies an execution's events from the store to the bus, starting at `from`, or earlier if the bus asks
    /// for it. `has` is the last `seq` on the bus. Returns the `seq` up to which the events are on the bus
    /// now.
    async fn bring(
        &self,
        left: Unpublished,
        mut has: u64,
        mut from: u64,
    ) -> Result<u64, NotPublished> {
        while from <= left.head {
            let query = EventQuery::of(left.organization_id, left.execution_id)
                .after(from.saturating_sub(1))
                .limit(BATCH);
            let mut events = self.store.events(query).await?;
            // An event whose `seq` is damaged has no place on the bus.
            events.retain(|event| event.seq > 0);
            let Some(last) = events.last() else { break };
            let was_told = |event: &Arc<Event>| has == 0 && event.seq <= left.published;
            let (lost, new) = events.split_at(events.partition_point(was_told));
            match self.hand_over(lost, new).await {
                Ok(()) => from = last.seq + 1,
                Err(BusError::Behind {
                    head,
                    from: earlier,
                    ..
                }) if earlier < from => (has, from) = (head, earlier),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(from.saturating_sub(1))
    }

    async fn hand_over(&self, lost: &[Arc<Event>], new: &[Arc<Event>]) -> Result<(), BusError> {
        if !lost.is_empty() {
            self.bus.restore(lost).await?;
        }
        if !new.is_empty() {
            self.bus.publish(new).await?;
        }
        Ok(())
    }
}

/// Sweeps at intervals until the future is dropped.
pub(in crate::engine) async fn run(engine: &Inner) {
    let mut looked_at = engine.clock.elapsed();
    let mut swept = None;
    loop {
        engine.clock.sleep(BUSY_INTERVAL).await;
        if !engine.relay.is_busy() && engine.clock.elapsed() < looked_at + IDLE_INTERVAL {
            continue;
        }
        looked_at = engine.clock.elapsed();
        match sweep(engine, &mut swept).await {
            Ok(()) => engine.warnings.sweeping.is_over(),
            Err(error) => {
                engine.warnings.sweeping.happened(&error);
                engine.relay.look_again();
            }
        }
    }
}

/// Tells the store which events are on the bus, and publishes those that are not. Starts after the execution
/// at which the last sweep stopped.
async fn sweep(engine: &Inner, swept: &mut Option<ExecutionId>) -> Result<(), StoreError> {
    flush(engine).await?;
    engine.relay.looked();
    let before = Timestamp::from_millis(engine.now().as_millis() - GRACE_MS);
    let mut refusals = 0;
    loop {
        let page = engine.store.unpublished(before, *swept, PAGE).await?;
        if !page.is_empty() {
            engine.relay.look_again();
        }
        for left in &page {
            *swept = Some(left.execution_id);
            match engine
                .bring(*left, left.published, left.published + 1)
                .await
            {
                Ok(seq) => {
                    engine.warnings.publishing.is_over();
                    engine.relay.published(left.execution_id, seq);
                }
                Err(NotPublished::Store(error)) => return Err(error),
                Err(NotPublished::Bus(error)) => {
                    engine.warnings.publishing.happened(&error);
                    refusals += 1;
                    if refusals == REFUSALS {
                        return flush(engine).await;
                    }
                }
            }
        }
        flush(engine).await?;
        if page.len() < PAGE {
            // The next sweep starts at the first execution again.
            *swept = None;
            return Ok(());
        }
    }
}

/// Tells the store what this process has published.
pub(in crate::engine) async fn flush(engine: &Inner) -> Result<(), StoreError> {
    let published = engine.relay.take();
    if published.is_empty() {
        Ok(())
    } else {
        engine.store.mark_published(&published).await
    }
}
