//! Brings committed events to the bus. The driver publishes at once; the sweeper publishes what a
//! crashed process, or a bus that was down, left behind.
//!
//! The bus refuses events that do not follow those that it has, so nothing is ever published over a
//! hole: what is missing is read from the store and brought first. Where the bus has forgotten an
//! execution, what the store knows to have been there is given back in silence, because lists have
//! told of it, or of the gap in which it was lost. All else is news: also what is missing of an
//! execution that the bus still knows, which a failover took from its lists as well.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

use super::Inner;
use crate::{
    event::Event,
    ids::ExecutionId,
    ports::{BusError, EventQuery, StoreError, Unpublished},
    time::Timestamp,
};

/// How often the store is told what is on the bus, and asked for what is not: while this process has
/// something to tell or has found something, and else. A stream that hears nothing reads the store
/// long before.
const BUSY_INTERVAL: Duration = Duration::from_secs(5);
const IDLE_INTERVAL: Duration = Duration::from_secs(60);
/// How long a commit's own process has to publish before the sweeper does.
const GRACE_MS: i64 = 5_000;
/// Executions that are asked for at once.
const PAGE: usize = 100;
/// Executions whose events the bus does not take before a sweep ends. One server of a cluster that is
/// down must not keep back what the others take, and a bus that is down is not asked for ever.
const REFUSALS: usize = 10;
/// Events that are read at once.
const BATCH: usize = 500;

/// What this process has published and not yet told the store.
#[derive(Debug, Default)]
pub(crate) struct Relay {
    published: Mutex<HashMap<ExecutionId, u64>>,
    /// Looks that are due soon, because the bus has refused events or the sweeper found some.
    looks: AtomicU8,
}

impl Relay {
    fn lock(&self) -> MutexGuard<'_, HashMap<ExecutionId, u64>> {
        self.published
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes up to where an execution's events are on the bus.
    fn published(&self, execution: ExecutionId, seq: u64) {
        let mut published = self.lock();
        let known = published.entry(execution).or_default();
        *known = seq.max(*known);
    }

    /// What the store is yet to be told of an execution; 0 for nothing.
    fn untold(&self, execution: ExecutionId) -> u64 {
        self.lock().get(&execution).copied().unwrap_or_default()
    }

    /// Has the sweeper look soon, and once more: the first look may come within the grace time.
    fn look_again(&self) {
        self.looks.store(2, Ordering::Release);
    }

    fn looked(&self) {
        let one_less = |looks: u8| looks.checked_sub(1);
        // An error means that none was due.
        let _ = self
            .looks
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, one_less);
    }

    /// Whether there is a reason to look again soon.
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
    /// Publishes events of one execution that were just committed, and what is missing before them.
    /// Takes and returns up to where the execution's events are known to be on the bus. The sweeper
    /// publishes what the bus has not taken.
    pub(super) async fn publish(&self, events: &[Arc<Event>], published: u64) -> u64 {
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

    /// Brings an execution's events from the store to the bus, which has those up to `has`: from one
    /// on, and from an earlier one where the bus wants it. Returns up to where they are there.
    async fn bring(
        &self,
        left: Unpublished,
        mut has: u64,
        mut from: u64,
    ) -> Result<u64, NotPublished> {
        while from <= left.head {
            let query = EventQuery {
                organization_id: left.organization_id,
                execution_id: left.execution_id,
                after: from.saturating_sub(1),
                limit: BATCH,
            };
            let events = self.store.events(query).await?;
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

/// Runs until it is dropped.
pub(super) async fn run(engine: &Inner) {
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

/// Tells the store what is on the bus, and publishes what is not, beginning after the execution at
/// which the sweep before gave up.
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
            // The next one begins at the first again.
            *swept = None;
            return Ok(());
        }
    }
}

/// Tells the store what this process has published.
pub(super) async fn flush(engine: &Inner) -> Result<(), StoreError> {
    let published = engine.relay.take();
    if published.is_empty() {
        Ok(())
    } else {
        engine.store.mark_published(&published).await
    }
}
