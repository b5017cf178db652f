//! Brings committed events to the bus. The driver publishes at once; the sweeper publishes what a
//! crashed process, or a bus that was down, left behind.

use std::{
    collections::HashMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use super::Inner;
use crate::{
    ids::ExecutionId,
    ports::{EventQuery, StoreError},
};

/// How often the store is told what is on the bus, and asked for what is not: while this process has
/// something to tell or has found something, and else. A stream that hears nothing reads the store
/// long before.
const BUSY_INTERVAL: Duration = Duration::from_secs(5);
const IDLE_INTERVAL: Duration = Duration::from_secs(60);
/// How long a commit's own process has to publish before the sweeper does.
const GRACE_MS: i64 = 5_000;
/// Executions that one sweep takes on.
const SWEEP: usize = 100;
/// Events that are read at once.
const BATCH: usize = 500;

/// What this process has published and not yet told the store.
#[derive(Debug, Default)]
pub(crate) struct Relay {
    published: Mutex<HashMap<ExecutionId, u64>>,
    /// The bus has refused events.
    left_behind: AtomicBool,
}

impl Relay {
    /// Notes up to where an execution's events are on the bus.
    pub(crate) fn published(&self, execution: ExecutionId, seq: u64) {
        let mut published = self
            .published
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let known = published.entry(execution).or_default();
        *known = seq.max(*known);
    }

    /// Notes that the bus did not take an execution's events.
    pub(crate) fn not_published(&self) {
        self.left_behind.store(true, Ordering::Release);
    }

    /// Whether there is a reason to look again soon.
    fn is_busy(&self) -> bool {
        self.left_behind.load(Ordering::Acquire) || {
            let published = self.published.lock();
            !published.unwrap_or_else(PoisonError::into_inner).is_empty()
        }
    }

    fn take(&self) -> Vec<(ExecutionId, u64)> {
        let mut published = self
            .published
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *published).into_iter().collect()
    }
}

/// Runs until it is dropped.
pub(super) async fn run(engine: &Inner) {
    let mut looked_at = engine.clock.elapsed();
    loop {
        engine.clock.sleep(BUSY_INTERVAL).await;
        if !engine.relay.is_busy() && engine.clock.elapsed() < looked_at + IDLE_INTERVAL {
            continue;
        }
        looked_at = engine.clock.elapsed();
        if let Err(e) = sweep(engine).await {
            tracing::warn!("publishing what was left behind failed and will be tried again: {e}");
        }
    }
}

/// Tells the store what is on the bus, and publishes what is not.
pub(super) async fn sweep(engine: &Inner) -> Result<(), StoreError> {
    flush(engine).await?;
    engine.relay.left_behind.store(false, Ordering::Release);
    let before = crate::time::Timestamp::from_millis(engine.now().as_millis() - GRACE_MS);
    for left in engine.store.unpublished(before, SWEEP).await? {
        let mut after = left.published;
        while after < left.head {
            let query = EventQuery {
                organization_id: left.organization_id,
                execution_id: left.execution_id,
                after,
                limit: BATCH,
            };
            let events = engine.store.events(query).await?;
            let Some(last) = events.last().map(|event| event.seq) else {
                break;
            };
            if let Err(e) = engine.bus.publish(&events).await {
                tracing::warn!("the bus does not take events: {e}");
                engine.relay.not_published();
                return Ok(());
            }
            after = last;
        }
        engine
            .store
            .mark_published(&[(left.execution_id, after)])
            .await?;
    }
    Ok(())
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
