//! Commits decisions, several together where that is safe, and retries until the store answers. Then
//! publishes the events and answers the callers.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{Driver, Exit, STORE_BACKOFF};
use crate::{
    engine::machine::Role,
    ports::{Commit, Committed, LeaseAfter, RunState, StoreError, StoreErrorKind},
    query::EventQuery,
    time::Timestamp,
};

/// How long decisions may be held back to be committed together.
const HOLD_BACK: Duration = Duration::from_millis(20);

/// Why a decision was not committed.
pub(super) enum Uncommitted {
    /// Nothing more may be committed.
    Exit(Exit),
    /// The commit would end the execution, and the inbox has signals that the decision has not seen.
    Signaled,
    /// The link or envelope of a request already leads to another execution.
    NameTaken,
}

impl Driver {
    /// True if the held records may wait for the next decision. Records that settle signals may not, because
    /// callers wait for the result.
    pub(super) fn may_hold_records(&mut self) -> bool {
        if !(self.may_hold && self.held.settled.is_empty()) {
            return false;
        }
        let now = Instant::now();
        *self.held_until.get_or_insert(now + HOLD_BACK) > now
    }

    /// Returns when the held records must be committed; never if there are none.
    pub(super) async fn held_long_enough(&self) {
        match self.held_until {
            Some(until) if !self.held.is_empty() => tokio::time::sleep_until(until).await,
            _ => std::future::pending().await,
        }
    }

    /// Commits the held records while preflight or a handler is at work.
    pub(super) async fn commit_held(&mut self, state: &RunState) -> Result<(), Exit> {
        match self.commit(state, true).await {
            Ok(committed) if committed.signals_pending => {
                self.handle.signal.notify_one();
                Ok(())
            }
            // Only a commit that ends the execution can be `Signaled`.
            Ok(_) | Err(Uncommitted::Signaled) => Ok(()),
            Err(Uncommitted::Exit(exit)) => Err(exit),
            // The records of a wait are never held.
            Err(Uncommitted::NameTaken) => Err(Exit::Defect),
        }
    }

    /// Commits the held records and publishes their events. A commit that ends the execution yields to
    /// signals that the decision has not seen; the records then stay held.
    pub(super) async fn commit(
        &mut self,
        state: &RunState,
        keeps_lease: bool,
    ) -> Result<Committed, Uncommitted> {
        self.held_until = None;
        let mut records = std::mem::take(&mut self.held);
        if records.is_empty() && keeps_lease {
            return Ok(Committed::default());
        }
        records.touched.sort_unstable();
        records.touched.dedup();
        let then = if keeps_lease {
            LeaseAfter::Keep(self.lease_end())
        } else {
            LeaseAfter::release(&state.execution)
        };
        let kept = matches!(then, LeaseAfter::End).then(|| records.clone());
        let (events, ignored) = (records.events.clone(), records.ignored);
        let made_progress = !events.is_empty() || !keeps_lease;
        let signature_changed = records.signature_changed;
        let commit = Commit {
            lease: self.handle.lease,
            expected_version: self.stored_version,
            execution: state.execution.clone(),
            is_reduced: self.is_reduced,
            inputs: records.inputs_changed.then(|| Arc::clone(&state.inputs)),
            steps: records
                .touched
                .iter()
                .map(|index| state.steps[*index].clone())
                .collect(),
            events: records.events,
            logs: records.logs,
            audit: records.audit,
            settled: records.settled,
            signature: state
                .signature
                .clone()
                .filter(|_| records.signature_changed),
            approval: state.approval.clone().filter(|_| records.approval_changed),
            published: Some(self.published),
            made_progress,
            then,
        };
        let settled = commit.settled.clone();
        let committed = match self.store_commit(commit).await {
            Ok(committed) => committed,
            Err(uncommitted) => {
                self.held = kept.unwrap_or_default();
                return Err(uncommitted);
            }
        };
        self.stored_version = state.execution.version;
        self.engine.tell_events(&events);
        self.published = self.engine.publish(&events, self.published).await;
        self.engine.active.settle(&settled, &ignored);
        if let Some(request) = state.signature.as_ref().filter(|_| signature_changed) {
            self.engine.withdraw(request);
        }
        Ok(committed)
    }

    /// Passes a commit to the store, again and again until the store answers or the lease is lost.
    async fn store_commit(&self, mut commit: Commit) -> Result<Committed, Uncommitted> {
        let id = commit.execution.id;
        let mut pause = STORE_BACKOFF.0;
        let mut in_doubt = false;
        loop {
            // After the lease is lost, one last attempt tells whether an earlier attempt landed.
            let is_last = self.handle.lost.is_cancelled();
            if let LeaseAfter::Keep(until) = &mut commit.then {
                // Every attempt asks for a whole lease, however long the earlier attempts took.
                *until = self.lease_end();
            }
            match self.engine.store.commit(commit.clone()).await {
                Ok(committed) => return Ok(committed),
                Err(error) if error.kind == StoreErrorKind::Conflict => {
                    if in_doubt && self.was_made(&commit).await {
                        // The answer of the commit that landed is lost. Assume that signals are pending, and
                        // that a claim waits for the organization's share of leases.
                        return Ok(Committed {
                            signals_pending: true,
                            share_awaited: true,
                        });
                    }
                    tracing::info!(execution_id = %id, "another worker has taken over: {error}");
                    self.engine.lose(self.handle.lease);
                    return Err(Uncommitted::Exit(Exit::LeaseLost));
                }
                Err(error) if error.kind == StoreErrorKind::NameTaken => {
                    tracing::warn!(execution_id = %id, "a request was refused: {error}");
                    return Err(Uncommitted::NameTaken);
                }
                Err(error) if error.kind == StoreErrorKind::Signaled => {
                    return Err(Uncommitted::Signaled);
                }
                Err(error) if error.kind.may_pass() => {
                    // Warn at the first failure only: in an outage many executions may retry.
                    if in_doubt {
                        tracing::debug!(execution_id = %id, "a commit will be tried again: {error}");
                    } else {
                        tracing::warn!(execution_id = %id, "a commit will be tried again: {error}");
                    }
                    in_doubt = true;
                }
                Err(error) => {
                    // Let the lease expire; the worker that takes over decides again.
                    tracing::error!(execution_id = %id, "a commit was refused: {error}");
                    return Err(Uncommitted::Exit(Exit::LeaseLost));
                }
            }
            if is_last {
                return Err(Uncommitted::Exit(Exit::LeaseLost));
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => pause = (pause * 2).min(STORE_BACKOFF.1),
                () = self.handle.lost.cancelled() => {}
            }
        }
    }

    /// The end of a lease that begins now.
    fn lease_end(&self) -> Timestamp {
        self.engine.now() + self.engine.options.lease
    }

    /// True if a refused commit had landed in an earlier attempt, whose answer was lost. The version is no
    /// proof, because the next holder's commits continue from the same number.
    async fn was_made(&self, commit: &Commit) -> bool {
        loop {
            let answer = match commit.then {
                LeaseAfter::Keep(_) => self.is_still_held().await,
                LeaseAfter::Release { .. } | LeaseAfter::End => self.is_recorded(commit).await,
            };
            match answer {
                Ok(was_made) => return was_made,
                Err(error) if error.kind.may_pass() && !self.handle.lost.is_cancelled() => {
                    let id = commit.execution.id;
                    tracing::warn!(execution_id = %id, "what became of a commit will be asked again: {error}");
                    tokio::time::sleep(STORE_BACKOFF.1).await;
                }
                Err(_) => return false,
            }
        }
    }

    /// True if this worker still holds the lease. Then no other worker can have committed.
    async fn is_still_held(&self) -> Result<bool, StoreError> {
        let leases = [self.handle.lease];
        let renewed = self.engine.store.renew(&leases, self.lease_end()).await?;
        Ok(renewed.lost.is_empty())
    }

    /// True if a commit that was to release the lease was made: its first event is stored. A commit without
    /// events leaves no such trace and counts as not made. This does no harm, since it has nothing to publish.
    async fn is_recorded(&self, commit: &Commit) -> Result<bool, StoreError> {
        let Some(first) = commit.events.first() else {
            return Ok(false);
        };
        let query = EventQuery::of(commit.execution.organization_id, commit.execution.id)
            .after(first.seq - 1)
            .limit(1);
        let stored = self.engine.store.events(query).await?;
        Ok(stored.iter().any(|event| event.event_id == first.event_id))
    }

    /// Wakes workers after the lease was released, if the execution needs one now or later.
    pub(super) async fn leave_word(&self, state: &RunState, committed: Committed) {
        if committed.share_awaited {
            self.engine.wake_all_workers(state.execution.id).await;
        }
        let wake_at = state.execution.wake_at;
        let due = if committed.signals_pending {
            Some(self.engine.now())
        } else {
            wake_at
        };
        let Some(due) = due else { return };
        self.engine.wake_workers_at(due);
        if self.mode.is_stopped() {
            self.wake_others().await;
        } else if self.mode.role() != Role::Worker {
            // This process may have no workers, so wake one wherever it is.
            self.engine.wake_a_worker(state.execution.id).await;
        }
    }

    /// Wakes another process, because this process claims nothing more. If the wake-up is lost, polling finds
    /// the execution.
    async fn wake_others(&self) {
        let id = self.handle.lease.execution_id;
        let _ = self.engine.bus.wake(id).await;
    }
}
