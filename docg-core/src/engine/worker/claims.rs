//! The claiming loop: finds due executions for the free workers of the pool.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use super::pool::WorkerPool;
use crate::{
    engine::{Inner, WorkerOptions, driver::Holding},
    ports::{ClaimWhat, Claimed},
    time::Timestamp,
};

/// The most executions per claim.
const BATCH: usize = 64;
/// The pause after the store did not answer.
const PAUSE: Duration = Duration::from_secs(1);
/// The pause before the next claim while an organization's share of leases holds a claim back: at first, and
/// at most. A released lease wakes workers; the pause is for lost wake-ups, and for processes that share no
/// bus.
const HELD_BACK: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

/// Claims executions and hands them to free workers, until the pool shuts down.
pub(super) async fn run(inner: Arc<Inner>, pool: WorkerPool) {
    let mut look_again = HELD_BACK.0;
    loop {
        // Wait for one permit, then take the others that are free, up to a batch.
        let first = tokio::select! {
            () = pool.shutdown.cancelled() => return,
            permit = Arc::clone(&pool.permits).acquire_owned() => match permit {
                Ok(permit) => permit,
                Err(_) => return,
            },
        };
        let mut free = vec![pool.slot(first)];
        while free.len() < BATCH {
            match Arc::clone(&pool.permits).try_acquire_owned() {
                Ok(permit) => free.push(pool.slot(permit)),
                Err(_) => break,
            }
        }
        let wanted = free.len();
        // True if this process can claim, and has free workers left after its claim. One of them then takes a
        // new execution. If false, a new execution wakes other processes over the bus.
        let mut waits_for_work = false;
        let pause = if let Some(pause) = inner.hold_off_claims() {
            pause
        } else {
            match due_ones(&inner, pool.options, wanted).await {
                Some(Due {
                    claimed,
                    until,
                    held_back,
                    mut pause,
                }) => {
                    let full = claimed.len() == wanted;
                    if !held_back || !claimed.is_empty() {
                        look_again = HELD_BACK.0;
                    }
                    for (claimed, slot) in claimed.into_iter().zip(free) {
                        let holding = Holding::begin(&inner, claimed, until);
                        tokio::spawn(slot.drive(holding));
                    }
                    if full {
                        continue;
                    }
                    waits_for_work = true;
                    if held_back {
                        pause = pause.min(look_again);
                        look_again = (look_again * 2).min(HELD_BACK.1);
                    }
                    pause
                }
                None => PAUSE,
            }
        };
        *inner.wake.idle() = waits_for_work.then(|| pool.clone());
        tokio::select! {
            () = pool.shutdown.cancelled() => {}
            () = inner.wake.notify.notified() => {}
            () = inner.clock.sleep(pause) => {}
        }
        *inner.wake.idle() = None;
    }
}

/// The result of a claim.
struct Due {
    claimed: Vec<Claimed>,
    /// The end of the time in which this process relies on the leases; see [`Inner::claim`].
    until: Duration,
    /// True if an organization's share held the claim back; see
    /// [`Claim::held_back`](crate::ports::Claim::held_back).
    held_back: bool,
    /// How long to wait before the next claim.
    pause: Duration,
}

/// Claims due executions; `None` if the store does not answer.
async fn due_ones(inner: &Inner, options: WorkerOptions, limit: usize) -> Option<Due> {
    let now = inner.now();
    // Take the earliest due time that was noted so far. A time that is noted from now on may come too late
    // for this claim, so it counts for the next one.
    let noted = inner.wake.due.swap(i64::MAX, Ordering::AcqRel);
    let what = ClaimWhat::Due {
        limit,
        per_organization: options.per_organization,
        node_types: Arc::clone(&inner.node_types),
    };
    let poll = now + inner.options.poll_interval.min(inner.options.lease / 2);
    match inner.claim(what).await {
        Ok((claim, until)) => {
            inner.warnings.claiming.is_over();
            if noted > now.as_millis() && noted != i64::MAX {
                inner.wake.due.fetch_min(noted, Ordering::AcqRel);
            }
            let noted = Timestamp::from_millis(inner.wake.due.load(Ordering::Acquire));
            let next = claim.next_due.unwrap_or(poll).min(poll).min(noted);
            Some(Due {
                claimed: claim.claimed,
                until,
                held_back: claim.held_back,
                pause: Duration::from_millis(next.millis_since(inner.now())),
            })
        }
        Err(error) => {
            inner.wake.due.fetch_min(noted, Ordering::AcqRel);
            inner.warnings.claiming.happened(&error);
            None
        }
    }
}
