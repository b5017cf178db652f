//! Takes one held execution forward: decide, commit, publish, do what comes next, and again.
//!
//! Decisions between which nothing was touched are committed together, if that takes no longer than
//! a moment.
//!
//! The driver is the execution's only writer while it holds the lease. Whatever comes meanwhile -
//! a handler's result, a signal, a deadline, the loss of the lease, shutdown - comes to it as an
//! input of the next decision, or ends it.

use std::{pin::pin, sync::Arc, time::Duration};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    Inner,
    active::Handle,
    decide::{self, Call, Input, Moment, Next, Records, Verdict, decide, judge},
    observer::Fact,
    step_run::{StepRun, Task},
};
use crate::{
    event::Event,
    ids::ExecutionId,
    ports::{
        Claimed, Commit, Committed, Lease, LeaseAfter, RunState, Signal, SignalKind, StoreErrorKind,
    },
    preflight::{self, PreflightRequest},
    time::Timestamp,
    workflow::{Handler, Probe},
};

/// How far a driver goes.
#[derive(Debug, Clone)]
pub(crate) enum Mode {
    /// Until the execution rests, or the worker shuts down.
    Work { shutdown: CancellationToken },
    /// Only as far as what is in the inbox; the rest is a worker's.
    ApplySignals,
}

/// A rest that is shorter than this is waited out with the lease kept.
const SHORT_REST_MS: u64 = 1_000;
/// Progress within a step is committed no more often than this.
const PROGRESS_INTERVAL_MS: u64 = 500;
/// How long decisions may wait to be committed together, while only what touches nothing is done.
const HOLD_BACK: Duration = Duration::from_millis(20);
/// The pause after a store that did not answer, and its longest.
const STORE_BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

pub(crate) async fn drive(engine: Arc<Inner>, claimed: Claimed, mode: Mode) {
    engine.tell_claimed(&claimed, matches!(mode, Mode::Work { .. }));
    let lease = claimed.lease;
    let handle = engine.active.enter(lease);
    let left = Leaving {
        engine: Arc::clone(&engine),
        lease,
    };
    let mut inputs = Vec::with_capacity(claimed.signals.len() + 1);
    let works = matches!(mode, Mode::Work { .. });
    if works && decide::is_step_abandoned(&claimed.state, claimed.taken_over) {
        inputs.push(Input::TakenOver);
    }
    inputs.extend(claimed.signals.into_iter().map(Input::Signal));
    let shutdown = match mode {
        Mode::Work { shutdown } => Some(shutdown),
        Mode::ApplySignals => None,
    };
    let driver = Driver {
        engine,
        handle,
        shutdown,
        drains: false,
        step: None,
        held: Records::default(),
        held_until: None,
        // What killed its worker before is not begun again without a trace.
        may_hold: !claimed.taken_over,
        stored_version: claimed.state.execution.version,
        published: None,
        progress_at: Timestamp::from_millis(0),
    };
    driver.run(claimed.state, inputs).await;
    drop(left);
}

/// Takes the execution out of the active ones, also when the driver panics.
struct Leaving {
    engine: Arc<Inner>,
    lease: Lease,
}

impl Drop for Leaving {
    fn drop(&mut self) {
        self.engine.active.leave(self.lease);
    }
}

struct Driver {
    engine: Arc<Inner>,
    handle: Handle,
    /// `None` where the driver opens no steps.
    shutdown: Option<CancellationToken>,
    /// The shutdown was heard; what is done from here on is the end of it.
    drains: bool,
    /// The handler that is at work.
    step: Option<StepRun>,
    /// What was decided and is not yet committed.
    held: Records,
    /// When it must be committed at the latest.
    held_until: Option<Instant>,
    may_hold: bool,
    /// The version that the store has.
    stored_version: u64,
    published: Option<u64>,
    /// When progress within a step was last committed.
    progress_at: Timestamp,
}

/// Nothing may be committed any more.
struct LeaseLost;

impl Driver {
    async fn run(mut self, mut state: RunState, mut inputs: Vec<Input>) {
        loop {
            let (id, now) = (state.execution.id, self.engine.now());
            let opens_steps = self.works();
            let mut ids = self.engine.ids();
            let moment = Moment {
                now,
                ids: &mut ids,
                opens_steps,
            };
            let decision = match decide(state, inputs, moment, self.engine.env()) {
                Ok(decision) => decision,
                Err(defect) => {
                    // The lease is left to run out: at once would be tried again at once.
                    tracing::error!(execution_id = %id, "a decision broke the transition table: {defect}");
                    return;
                }
            };
            state = decision.state;
            let next = decision.next;
            self.held.extend(decision.records);
            let goes_on = self.goes_on(&state, &next, now);
            if !self.may_wait(&state, &next, goes_on) {
                if self.held.is_empty() && !goes_on {
                    // The lease is given back, and the next moment may be another.
                    state.execution.version += 1;
                }
                let Ok(committed) = self.commit(&state, goes_on).await else {
                    self.stop_step().await;
                    return;
                };
                if !goes_on {
                    // A run can be ended while its handler is at work.
                    self.stop_step().await;
                    self.leave_word(&state, committed).await;
                    return;
                }
                if committed.signals_pending {
                    inputs = self.inbox(&state).await;
                    continue;
                }
            }
            inputs = match self.act(&state, next).await {
                Ok(inputs) => inputs,
                Err(LeaseLost) => return,
            };
        }
    }

    /// Whether this driver may begin work.
    fn works(&self) -> bool {
        self.shutdown
            .as_ref()
            .is_some_and(|shutdown| !shutdown.is_cancelled())
    }

    /// Whether this driver has worked, and its process shuts down.
    fn is_stopping(&self) -> bool {
        self.shutdown
            .as_ref()
            .is_some_and(CancellationToken::is_cancelled)
    }

    /// Whether the lease is kept after a decision.
    fn goes_on(&self, state: &RunState, next: &Next, now: Timestamp) -> bool {
        match next {
            Next::Done => false,
            _ if self.step.is_some() => true,
            Next::Rest => {
                let soon = state
                    .execution
                    .wake_at
                    .is_some_and(|wake| wake.millis_since(now) <= SHORT_REST_MS);
                soon && self.works()
            }
            Next::Preflight
            | Next::Run { .. }
            | Next::Resume { .. }
            | Next::Probe { .. }
            | Next::CheckSignatures
            | Next::Remind => self.works(),
        }
    }

    /// Whether what was decided may be committed together with what comes of the next. Checks and
    /// computing touch nothing: if the worker dies, they are made again. Any other step's intent is
    /// committed before it begins, and so is whatever somebody waits for.
    fn may_wait(&mut self, state: &RunState, next: &Next, goes_on: bool) -> bool {
        let touches_nothing = match next {
            Next::Preflight => true,
            Next::Run { index, .. } => self.engine.computes(state, *index),
            Next::Resume { .. }
            | Next::Probe { .. }
            | Next::CheckSignatures
            | Next::Remind
            | Next::Rest
            | Next::Done => false,
        };
        if !(self.may_hold && goes_on && touches_nothing && self.held.settled.is_empty()) {
            return false;
        }
        let now = Instant::now();
        *self.held_until.get_or_insert(now + HOLD_BACK) > now
    }

    /// When what is held back must be committed; never where nothing is.
    async fn held_long_enough(&self) {
        match self.held_until {
            Some(until) if !self.held.is_empty() => tokio::time::sleep_until(until).await,
            _ => std::future::pending().await,
        }
    }

    /// Commits what is held back, while something is at work.
    async fn commit_held(&mut self, state: &RunState) -> Result<(), LeaseLost> {
        if self.commit(state, true).await?.signals_pending {
            self.handle.signal.notify_one();
        }
        Ok(())
    }

    /// Commits what was decided, and publishes its events.
    async fn commit(&mut self, state: &RunState, goes_on: bool) -> Result<Committed, LeaseLost> {
        self.held_until = None;
        let mut records = std::mem::take(&mut self.held);
        if records.is_empty() && goes_on {
            return Ok(Committed {
                signals_pending: false,
            });
        }
        records.touched.sort_unstable();
        records.touched.dedup();
        let (events, ignored) = (records.events.clone(), records.ignored);
        let signature_changed = records.signature_changed;
        let commit = Commit {
            lease: self.handle.lease,
            expected_version: self.stored_version,
            execution: state.execution.clone(),
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
            published: self.published,
            then: if goes_on {
                LeaseAfter::Keep(self.engine.now() + self.engine.options.lease)
            } else {
                LeaseAfter::Release
            },
        };
        let settled = commit.settled.clone();
        let committed = self.store_commit(commit).await?;
        self.stored_version = state.execution.version;
        self.engine.tell_events(&events);
        if self.engine.publish(state.execution.id, &events).await {
            self.published = events.last().map(|event| event.seq);
        }
        self.engine.active.settle(&settled, &ignored);
        if let Some(request) = state.signature.as_ref().filter(|_| signature_changed) {
            self.engine.withdraw(request);
        }
        Ok(committed)
    }

    /// Hands a commit to the store until it has an answer.
    async fn store_commit(&self, commit: Commit) -> Result<Committed, LeaseLost> {
        let id = commit.execution.id;
        let mut pause = STORE_BACKOFF.0;
        let mut in_doubt = false;
        loop {
            match self.engine.store.commit(commit.clone()).await {
                Ok(committed) => return Ok(committed),
                Err(error) if error.kind == StoreErrorKind::Conflict => {
                    if in_doubt && self.is_still_held().await {
                        return Ok(Committed {
                            signals_pending: true,
                        });
                    }
                    tracing::info!(execution_id = %id, "another worker has taken over: {error}");
                    self.engine.lose(self.handle.lease);
                    return Err(LeaseLost);
                }
                Err(error) if error.kind.may_pass() => {
                    in_doubt = true;
                    tracing::warn!(execution_id = %id, "a commit will be tried again: {error}");
                }
                Err(error) => {
                    // The lease is left to run out; whoever takes over decides anew.
                    tracing::error!(execution_id = %id, "a commit was refused: {error}");
                    return Err(LeaseLost);
                }
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => pause = (pause * 2).min(STORE_BACKOFF.1),
                () = self.handle.lost.cancelled() => return Err(LeaseLost),
            }
        }
    }

    /// Whether a commit that was refused had been made before, when its answer was lost: its version
    /// is there, and who holds the lease is the only one who can have written it. The version alone
    /// tells nothing, for whoever has taken over counts on from the same number.
    async fn is_still_held(&self) -> bool {
        let lease = self.handle.lease;
        loop {
            let until = self.engine.now() + self.engine.options.lease;
            match self.engine.store.renew(&[lease], until).await {
                Ok(lost) => return lost.is_empty(),
                Err(error) if error.kind.may_pass() && !self.handle.lost.is_cancelled() => {
                    tracing::warn!(execution_id = %lease.execution_id, "whether the lease is lost will be asked again: {error}");
                    tokio::time::sleep(STORE_BACKOFF.1).await;
                }
                Err(_) => return false,
            }
        }
    }

    /// Tells workers when the execution wants one again.
    async fn leave_word(&self, state: &RunState, committed: Committed) {
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

    /// Does what comes next, until something has happened.
    async fn act(&mut self, state: &RunState, next: Next) -> Result<Vec<Input>, LeaseLost> {
        match next {
            Next::Preflight => return Box::pin(self.preflight(state)).await,
            Next::CheckSignatures | Next::Remind => {
                return Box::pin(self.follow_up(state, matches!(next, Next::Remind))).await;
            }
            Next::Run { index, params } => self.begin(state, index, params, Task::Run).await,
            Next::Resume {
                index,
                params,
                resolution,
            } => {
                self.begin(state, index, params, Task::Resume(resolution))
                    .await;
            }
            Next::Probe { index, params } => self.begin(state, index, params, Task::Probe).await,
            Next::Rest | Next::Done => {}
        }
        match self.step.take() {
            // Boxed: an execution's task is as large as the largest thing that it may come to await.
            Some(mut step) => match step.ended() {
                Some(input) => Ok(vec![input]),
                None => Box::pin(self.attend(state, step)).await,
            },
            None => Box::pin(self.rest(state)).await,
        }
    }

    async fn begin(
        &mut self,
        state: &RunState,
        index: usize,
        params: Arc<serde_json::Value>,
        task: Task,
    ) {
        // A signal was applied while the handler was at work: it still is.
        if self.step.is_none() {
            self.step = Some(
                StepRun::begin(&self.engine, state, self.handle.lease, index, params, task).await,
            );
        }
    }

    async fn preflight(&mut self, state: &RunState) -> Result<Vec<Input>, LeaseLost> {
        let started_at = self.engine.now();
        let engine = Arc::clone(&self.engine);
        let mut checks = pin!(preflight::run(PreflightRequest {
            organization_id: state.execution.organization_id,
            workflow: &state.workflow,
            inputs: &state.inputs,
            registry: &engine.registry,
            probe: &engine.probe,
            limits: &engine.limits,
            steps: &state.steps,
            dry_run: state.execution.dry_run,
            until_phase: state.execution.until_phase,
        }));
        loop {
            return tokio::select! {
                biased;
                () = self.handle.lost.cancelled() => Err(LeaseLost),
                issues = &mut checks => Ok(vec![Input::Preflight { issues, started_at }]),
                // Checks touch nothing: they are dropped, and made again if they are still due.
                () = self.handle.signal.notified() => Ok(self.inbox(state).await),
                () = self.shutting_down() => Ok(Vec::new()),
                () = self.held_long_enough() => {
                    self.commit_held(state).await?;
                    continue;
                }
            };
        }
    }

    /// Asks the provider of the open signature request, or has it remind the signers.
    async fn follow_up(&mut self, state: &RunState, remind: bool) -> Result<Vec<Input>, LeaseLost> {
        let Some(request) = &state.signature else {
            return Ok(Vec::new());
        };
        let engine = Arc::clone(&self.engine);
        let mut asking = pin!(async {
            match remind {
                true => engine.remind(request).await,
                false => engine.check_signatures(request).await,
            }
        });
        loop {
            return tokio::select! {
                biased;
                () = self.handle.lost.cancelled() => Err(LeaseLost),
                input = &mut asking => Ok(vec![input]),
                // A question is dropped, and asked again if it is still due; a reminder goes out by
                // itself.
                () = self.handle.signal.notified() => {
                    let signals = self.inbox(state).await;
                    if signals.is_empty() {
                        continue;
                    }
                    Ok(signals)
                }
                () = self.shutting_down() => Ok(Vec::new()),
            };
        }
    }

    /// Waits for a handler, or for what comes first.
    async fn attend(
        &mut self,
        state: &RunState,
        mut step: StepRun,
    ) -> Result<Vec<Input>, LeaseLost> {
        let deadline = step.deadline;
        let mut progress = step.progress.clone();
        loop {
            tokio::select! {
                biased;
                () = self.handle.lost.cancelled() => {
                    tracing::warn!(execution_id = %state.execution.id, "the lease is lost: the handler was told to stop");
                    self.stop(&mut step).await;
                    return Err(LeaseLost);
                }
                input = step.finished() => return Ok(vec![input]),
                () = self.handle.signal.notified() => {
                    let signals = self.inbox(state).await;
                    if signals.is_empty() {
                        continue;
                    }
                    if cancels(state, &signals) {
                        return Ok(self.cancel(state, step, signals).await);
                    }
                    self.step = Some(step);
                    return Ok(signals);
                }
                () = self.held_long_enough() => {
                    if let Err(lost) = self.commit_held(state).await {
                        self.stop(&mut step).await;
                        return Err(lost);
                    }
                }
                () = self.engine.clock.sleep_until(deadline) => {
                    let input = match self.stop(&mut step).await {
                        Some(input) => input,
                        None => step.timed_out(),
                    };
                    return Ok(vec![input]);
                }
                Ok(()) = progress.changed() => {
                    let now = self.engine.now();
                    let fraction = *progress.borrow_and_update();
                    if now.millis_since(self.progress_at) >= PROGRESS_INTERVAL_MS {
                        self.progress_at = now;
                        step.progress = progress;
                        self.step = Some(step);
                        return Ok(vec![Input::Progress(fraction)]);
                    }
                }
                () = self.shutting_down() => {
                    self.drains = true;
                    self.commit_held(state).await?;
                    let answer = self.stop(&mut step).await;
                    return match answer.and_then(Input::after_stop) {
                        Some(input) => Ok(vec![input]),
                        // Whoever takes over finds the step open.
                        None => {
                            drop(step);
                            self.hand_back().await;
                            Err(LeaseLost)
                        }
                    };
                }
            }
        }
    }

    /// Ends a handler whose execution is canceled, and finds out what became of its effect.
    async fn cancel(
        &mut self,
        state: &RunState,
        mut step: StepRun,
        signals: Vec<Input>,
    ) -> Vec<Input> {
        let input = match self.stop(&mut step).await {
            Some(input) => input,
            None if step.leaves_doubt() => {
                let index = step.index;
                let effect = self.probe(state, index).await;
                step.dropped(effect)
            }
            None => step.dropped(Probe::NotDone),
        };
        let mut inputs = vec![input];
        inputs.extend(signals);
        inputs
    }

    async fn probe(&self, state: &RunState, index: usize) -> Probe {
        let shown = || {
            state.steps[index]
                .data_in
                .as_ref()
                .map(|data| Arc::new(data.to_value()))
        };
        let params = decide::params_of(state, index)
            .or_else(shown)
            .unwrap_or_default();
        let mut probe = StepRun::begin(
            &self.engine,
            state,
            self.handle.lease,
            index,
            params,
            Task::Probe,
        )
        .await;
        let deadline = probe.deadline;
        tokio::select! {
            input = probe.finished() => match input {
                Input::Probed { effect, .. } => effect,
                _ => Probe::Unknown,
            },
            () = self.engine.clock.sleep_until(deadline) => Probe::Unknown,
        }
    }

    /// Tells a handler to stop and gives it the grace time; `None` where it did not return.
    async fn stop(&self, step: &mut StepRun) -> Option<Input> {
        step.tell_to_stop();
        tokio::select! {
            biased;
            input = step.finished() => Some(input),
            () = tokio::time::sleep(self.engine.options.cancel_grace) => None,
        }
    }

    async fn stop_step(&mut self) {
        if let Some(mut step) = self.step.take() {
            self.stop(&mut step).await;
        }
    }

    /// Waits out a short rest.
    async fn rest(&self, state: &RunState) -> Result<Vec<Input>, LeaseLost> {
        let until = state.execution.wake_at.unwrap_or_else(|| self.engine.now());
        tokio::select! {
            biased;
            () = self.handle.lost.cancelled() => Err(LeaseLost),
            () = self.handle.signal.notified() => Ok(self.inbox(state).await),
            () = self.engine.clock.sleep_until(until) => Ok(Vec::new()),
            () = self.shutting_down() => Ok(Vec::new()),
        }
    }

    async fn shutting_down(&self) {
        match &self.shutdown {
            Some(shutdown) if !self.drains => shutdown.cancelled().await,
            _ => std::future::pending().await,
        }
    }

    /// What is in the inbox; nothing where the store does not answer, and it is asked again later.
    async fn inbox(&self, state: &RunState) -> Vec<Input> {
        match self.engine.store.signals(state.execution.id).await {
            Ok(signals) => signals.into_iter().map(Input::Signal).collect(),
            Err(error) => {
                tracing::warn!(execution_id = %state.execution.id, "the inbox cannot be read: {error}");
                self.handle.signal.notify_one();
                tokio::time::sleep(STORE_BACKOFF.0).await;
                Vec::new()
            }
        }
    }

    async fn hand_back(&self) {
        let (leases, now) = ([self.handle.lease], self.engine.now());
        match self.engine.store.release(&leases, now).await {
            Ok(()) => self.wake_others().await,
            Err(error) => {
                let execution_id = self.handle.lease.execution_id;
                tracing::warn!(%execution_id, "a lease could not be given back and will run out: {error}");
            }
        }
    }
}

/// Whether the inbox holds a cancel that will be applied. One that is sent on a version is, as the
/// first signal on that version.
fn cancels(state: &RunState, inputs: &[Input]) -> bool {
    let is_cancel = |(place, input): (usize, &Input)| {
        let Input::Signal(Signal {
            kind: SignalKind::Cancel { .. },
            if_version,
            ..
        }) = input
        else {
            return false;
        };
        if_version.is_none_or(|it| place == 0 && it == state.execution.version)
    };
    inputs.iter().enumerate().any(is_cancel)
        && judge(&state.execution, Call::Cancel) == Verdict::Apply
}

impl Inner {
    fn tell_claimed(&self, claimed: &Claimed, works: bool) {
        let due = claimed.state.execution.wake_at;
        let waited = due
            .filter(|_| works && !claimed.taken_over)
            .filter(|due| *due <= self.now())
            .map(|due| Duration::from_millis(self.now().millis_since(due)));
        self.tell(&Fact::Claimed {
            taken_over: claimed.taken_over,
            waited,
        });
    }

    /// Notes that a lease is another's, or may be.
    pub(super) fn lose(&self, lease: Lease) {
        if self.active.lose(lease) {
            self.tell(&Fact::LeaseLost);
        }
    }

    /// Whether a step only computes.
    fn computes(&self, state: &RunState, index: usize) -> bool {
        state.execution.dry_run
            || matches!(
                self.registry.get(&state.workflow.nodes[index].node_type),
                Some(Handler::Compute(_))
            )
    }

    /// Publishes events that are committed; whether the bus has taken them. The sweeper publishes
    /// what it has not.
    pub(crate) async fn publish(&self, execution: ExecutionId, events: &[Arc<Event>]) -> bool {
        let Some(last) = events.last() else {
            return false;
        };
        match self.bus.publish(events).await {
            Ok(()) => {
                self.relay.published(execution, last.seq);
                true
            }
            Err(error) => {
                tracing::warn!(execution_id = %execution, "events will be published later: {error}");
                self.relay.not_published();
                false
            }
        }
    }
}
