//! What was decided is committed, together where it may be, until the store has answered; then others
//! hear of it.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{Driver, LeaseLost, STORE_BACKOFF, Uncommitted};
use crate::{
    engine::decide::Next,
    ports::{Commit, Committed, EventQuery, LeaseAfter, RunState, StoreError, StoreErrorKind},
    time::Timestamp,
};

/// How long decisions may wait to be committed together.
const HOLD_BACK: Duration = Duration::from_millis(20);

impl Driver {
    /// Whether what was decided may be committed together with what comes of the next. Checks and
    /// computing touch nothing: if the worker dies, they are made again. An effect finds committed what
    /// came before it, and what somebody waits for is committed at once.
    pub(super) fn may_wait(&mut self, state: &RunState, next: &Next, goes_on: bool) -> bool {
        let may_begin = match next {
            Next::Preflight => true,
            Next::Run { index, .. } => self.engine.computes(state, *index),
            Next::Resume { .. }
            | Next::Probe { .. }
            | Next::CheckSignatures
            | Next::Remind
            | Next::Rest
            | Next::Done => false,
        };
        if !(self.may_hold && goes_on && may_begin && self.held.settled.is_empty()) {
            return false;
        }
        let now = Instant::now();
        *self.held_until.get_or_insert(now + HOLD_BACK) > now
    }

    /// When what is held back must be committed; never where nothing is.
    pub(super) async fn held_long_enough(&self) {
        match self.held_until {
            Some(until) if !self.held.is_empty() => tokio::time::sleep_until(until).await,
            _ => std::future::pending().await,
        }
    }

    /// Commits what is held back, while something is at work.
    pub(super) async fn commit_held(&mut self, state: &RunState) -> Result<(), LeaseLost> {
        match self.commit(state, true).await {
            Ok(committed) if committed.signals_pending => {
                self.handle.signal.notify_one();
                Ok(())
            }
            // Signals keep back only the end of a run.
            Ok(_) | Err(Uncommitted::Signaled) => Ok(()),
            Err(Uncommitted::LeaseLost | Uncommitted::NameTaken) => Err(LeaseLost),
        }
    }

    /// Commits what was decided, and publishes its events. The end of a run yields to signals that it
    /// has not seen; what was decided is then still held.
    pub(super) async fn commit(
        &mut self,
        state: &RunState,
        goes_on: bool,
    ) -> Result<Committed, Uncommitted> {
        self.held_until = None;
        let mut records = std::mem::take(&mut self.held);
        if records.is_empty() && goes_on {
            return Ok(Committed::default());
        }
        records.touched.sort_unstable();
        records.touched.dedup();
        let unless_signaled = state.execution.status.is_terminal();
        let kept = unless_signaled.then(|| records.clone());
        let (events, ignored) = (records.events.clone(), records.ignored);
        let made_progress = !events.is_empty() || !goes_on;
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
            unless_signaled,
            made_progress,
            then: if goes_on {
                LeaseAfter::Keep(self.lease_end())
            } else {
                LeaseAfter::Release
            },
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

    /// Hands a commit to the store until it has an answer.
    async fn store_commit(&self, mut commit: Commit) -> Result<Committed, Uncommitted> {
        let id = commit.execution.id;
        let mut pause = STORE_BACKOFF.0;
        let mut in_doubt = false;
        loop {
            // After the lease is gone one more try tells what became of the others.
            let is_last = self.handle.lost.is_cancelled();
            if let LeaseAfter::Keep(until) = &mut commit.then {
                // Whoever has waited long for an answer wants a whole lease all the same.
                *until = self.lease_end();
            }
            match self.engine.store.commit(commit.clone()).await {
                Ok(committed) => return Ok(committed),
                Err(error) if error.kind == StoreErrorKind::Conflict => {
                    if in_doubt && self.was_made(&commit).await {
                        // What the lost answer said is not known: the safe side is taken.
                        return Ok(Committed {
                            signals_pending: true,
                            share_awaited: true,
                        });
                    }
                    tracing::info!(execution_id = %id, "another worker has taken over: {error}");
                    self.engine.lose(self.handle.lease);
                    return Err(Uncommitted::LeaseLost);
                }
                Err(error) if error.kind == StoreErrorKind::NameTaken => {
                    tracing::warn!(execution_id = %id, "a request was refused: {error}");
                    return Err(Uncommitted::NameTaken);
                }
                Err(error) if error.kind == StoreErrorKind::Signaled => {
                    return Err(Uncommitted::Signaled);
                }
                Err(error) if error.kind.may_pass() => {
                    // Once for each time that the store is down: many executions may wait for it.
                    if in_doubt {
                        tracing::debug!(execution_id = %id, "a commit will be tried again: {error}");
                    } else {
                        tracing::warn!(execution_id = %id, "a commit will be tried again: {error}");
                    }
                    in_doubt = true;
                }
                Err(error) => {
                    // The lease is left to run out; whoever takes over decides anew.
                    tracing::error!(execution_id = %id, "a commit was refused: {error}");
                    return Err(Uncommitted::LeaseLost);
                }
            }
            if is_last {
                return Err(Uncommitted::LeaseLost);
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => pause = (pause * 2).min(STORE_BACKOFF.1),
                () = self.handle.lost.cancelled() => {}
            }
        }
    }

    /// When a lease ends that is kept now.
    fn lease_end(&self) -> Timestamp {
        self.engine.now() + self.engine.options.lease
    }

    /// Whether a commit that was refused had been made before, when its answer was lost. Its version
    /// tells nothing, for whoever has taken over counts on from the same number.
    async fn was_made(&self, commit: &Commit) -> bool {
        loop {
            let answer = match commit.then {
                LeaseAfter::Keep(_) => self.is_still_held().await,
                LeaseAfter::Release => self.is_recorded(commit).await,
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

    /// Who holds the lease is the only one who can have written.
    async fn is_still_held(&self) -> Result<bool, StoreError> {
        let leases = [self.handle.lease];
        let renewed = self.engine.store.renew(&leases, self.lease_end()).await?;
        Ok(renewed.lost.is_empty())
    }

    /// Where a commit has let go, its events tell whose it is. One without events has told nobody
    /// anything that would have to be passed on.
    async fn is_recorded(&self, commit: &Commit) -> Result<bool, StoreError> {
        let Some(first) = commit.events.first() else {
            return Ok(false);
        };
        let query = EventQuery {
            organization_id: commit.execution.organization_id,
            execution_id: commit.execution.id,
            after: first.seq - 1,
            limit: 1,
        };
        let stored = self.engine.store.events(query).await?;
        Ok(stored.iter().any(|event| event.event_id == first.event_id))
    }

    /// Tells workers when the execution wants one again.
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
        if self.is_stopping() {
            self.wake_others().await;
        } else if !self.works() {
            // It may be a process without workers.
            self.engine.wake_a_worker(state.execution.id).await;
        }
    }

    /// This process claims nothing any more. Where the wake-up is lost, polling finds the execution.
    async fn wake_others(&self) {
        let id = self.handle.lease.execution_id;
        let _ = self.engine.bus.wake(id).await;
    }
}
