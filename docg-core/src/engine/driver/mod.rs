//! Drives one held execution: asks the machine for a decision, commits it, carries out the next action, and
//! repeats.
//!
//! The driver decides nothing about the execution. It is the only writer while it holds the lease. Decisions
//! are committed together if no effect begins between them and they take only a moment.
//!
//! `holding` is the execution from its claim to the end of its driver, and `active` lists all executions that
//! this process holds. `attend` waits for a handler, and `step_run` is one call of a handler. `commit` passes
//! decisions to the store. `provider_calls` asks signature providers.

pub(super) mod active;
mod attend;
mod commit;
mod holding;
pub(super) mod provider_calls;
mod step_run;

use std::{pin::pin, sync::Arc, time::Duration};

use tokio::time::Instant;

use commit::Uncommitted;
pub(crate) use holding::{Holding, Mode};

use active::Handle;
use step_run::{StepRun, Task};

use super::{
    Fact, Inner,
    machine::{self, Attendance, Decision, Input, Moment, Next, Records, Role, decide},
};
use crate::{
    ports::{Lease, RunState, Signal},
    preflight::{self, PreflightRequest},
    programs,
    time::Timestamp,
};

/// If the store does not answer a call: the pause before the second try, and the longest pause between tries.
const STORE_BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// How long a process that shuts down waits for a decision under evaluation.
const LAST_DECISION: Duration = Duration::from_secs(2);

struct Driver {
    engine: Arc<Inner>,
    handle: Handle,
    mode: Mode,
    /// The handler at work.
    step: Option<StepRun>,
    /// The records that are decided and not yet committed.
    held: Records,
    /// The latest time to commit the held records.
    held_until: Option<Instant>,
    /// False after a takeover. Every decision is then committed at once, so that a step that kills its worker
    /// leaves a trace.
    may_hold: bool,
    /// The execution's version in the store.
    stored_version: u64,
    /// True if the run state is reduced to the execution's own row.
    is_reduced: bool,
    /// The `seq` up to which the execution's events are known to be on the bus.
    published: u64,
    /// The time of the last commit of progress within a step.
    progress_at: Option<Duration>,
    /// The time of the first record, and [`Clock::elapsed`](crate::time::Clock::elapsed) at that moment.
    dated_from: Option<(Timestamp, Duration)>,
}

/// Why a driver ended without releasing its lease by a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Exit {
    /// Nothing more may be committed. The lease is another worker's, or it expires.
    LeaseLost,
    /// The process shuts down and cannot wait for a decision. The lease expires.
    ShutDown,
    /// The machine broke one of its rules. The lease expires, because a release would make another worker hit
    /// the same defect at once.
    Defect,
}

/// A way back, in case the store refuses a wait: the state and the held records before the wait, and the
/// inputs without the wait.
struct WithoutWait {
    state: RunState,
    held: Records,
    inputs: Vec<Input>,
}

impl Driver {
    /// Drives the execution until a commit releases the lease.
    async fn run(mut self, state: RunState, inputs: Vec<Input>) -> Result<(), Exit> {
        let released = self.go_on(state, inputs).await;
        self.abandon_step().await;
        released
    }

    async fn go_on(&mut self, mut state: RunState, mut inputs: Vec<Input>) -> Result<(), Exit> {
        let (mut attendance, mut without_end, mut without_wait) = (Attendance::Nobody, None, None);
        loop {
            if let Some(inputs) = machine::without_wait(self.engine.env(), &state, &inputs) {
                without_wait = Some(WithoutWait {
                    state: state.clone(),
                    held: self.held.clone(),
                    inputs,
                });
            }
            if self.step.is_some() {
                attendance = Attendance::AtWork;
            }
            let decision = self.decide(state, inputs, attendance).await?;
            attendance = Attendance::Nobody;
            if let Some(decided) = decision.without_end {
                let mut held = self.held.clone();
                held.extend(decided.1);
                without_end = Some((decided.0, held));
            }
            state = decision.state;
            self.held.extend(decision.records);
            let (next, keeps_lease) = (decision.next, decision.keeps_lease);
            // Commit nothing before a handler is stopped or probed because a person ends the execution: the
            // signals that ask for it stay in the inbox until that is done.
            let is_held = next.carries_signals()
                || decision.may_be_held && keeps_lease && self.may_hold_records();
            if is_held {
                inputs = self.perform(&state, next).await?;
                continue;
            }
            if !keeps_lease && state.execution.version == self.stored_version {
                // Without records the commit still releases the lease, and needs a new version.
                state.execution.version += 1;
            }
            match self.commit(&state, keeps_lease).await {
                Ok(committed) if !keeps_lease => {
                    self.abandon_step().await;
                    self.leave_word(&state, committed).await;
                    return Ok(());
                }
                Ok(committed) => {
                    without_wait = None;
                    if committed.signals_pending {
                        if self.step.is_some() {
                            self.handle.signal.notify_one();
                        } else {
                            inputs = self.inbox(&state).await;
                            if !inputs.is_empty() {
                                attendance = next.attendance();
                                continue;
                            }
                        }
                    }
                    inputs = self.perform(&state, next).await?;
                }
                Err(Uncommitted::Exit(exit)) => return Err(exit),
                Err(Uncommitted::NameTaken) => {
                    let Some(before) = without_wait.take() else {
                        tracing::error!(execution_id = %state.execution.id, "a name is taken that no wait brought");
                        return Err(Exit::Defect);
                    };
                    (state, self.held) = (before.state, before.held);
                    (inputs, without_end) = (before.inputs, None);
                }
                Err(Uncommitted::Signaled) => {
                    let mut signals = self.signals(&state).await;
                    signals.retain(|signal| !self.held.settled.contains(&signal.id));
                    // A cancel that arrived before the end wins; any other signal arrived too late.
                    if let Some((before, held)) = &without_end
                        && machine::ends(before, &signals)
                    {
                        (state, self.held) = (before.clone(), held.clone());
                    }
                    inputs = signals.into_iter().map(Input::Signal).collect();
                }
            }
        }
    }

    /// The present time for records. If the clock is set while this driver works, the recorded durations stay
    /// right. The next driver starts from the clock again.
    fn recorded_now(&mut self, state: &RunState) -> Timestamp {
        let elapsed = self.engine.clock.elapsed();
        let (from, then) = *self
            .dated_from
            .get_or_insert_with(|| (self.engine.now().max(state.execution.updated_at), elapsed));
        from + elapsed.saturating_sub(then)
    }

    /// Makes a decision; an expensive one is evaluated off the runtime's threads.
    async fn decide(
        &mut self,
        state: RunState,
        inputs: Vec<Input>,
        attendance: Attendance,
    ) -> Result<Decision, Exit> {
        let (id, organization) = (state.execution.id, state.execution.organization_id);
        let (now, recorded) = (self.engine.now(), self.recorded_now(&state));
        let is_cheap = machine::is_cheap(&state, &inputs, self.mode.role());
        let (engine, mode) = (Arc::clone(&self.engine), self.mode.clone());
        let job = move || {
            let mut ids = engine.ids();
            let moment = Moment {
                now,
                recorded,
                ids: &mut ids,
                role: mode.role(),
                attendance,
            };
            decide(state, inputs, moment, engine.env())
        };
        let decision = if is_cheap {
            job()
        } else {
            let shuts_down = async {
                self.mode.stopped().await;
                tokio::time::sleep(LAST_DECISION).await;
            };
            tokio::select! {
                decision = Box::pin(programs::run(organization, job)) => decision,
                () = shuts_down => return Err(Exit::ShutDown),
            }
        };
        decision.map_err(|defect| {
            tracing::error!(execution_id = %id, "a decision broke the transition table: {defect}");
            Exit::Defect
        })
    }

    /// Carries out the next action, and returns the inputs that result from it.
    async fn perform(&mut self, state: &RunState, next: Next) -> Result<Vec<Input>, Exit> {
        let (index, params, task) = match next {
            Next::Preflight => return Box::pin(self.preflight(state)).await,
            Next::CheckSignatures => return Box::pin(self.follow_up(state, false)).await,
            Next::Remind => return Box::pin(self.follow_up(state, true)).await,
            Next::Stop { signals } => return self.stop(state, signals).await,
            Next::ProbeToEnd {
                index,
                params,
                signals,
            } => return Ok(Box::pin(self.probe_to_end(state, index, params, signals)).await),
            Next::Attend | Next::Rest | Next::Done => {
                return match self.step.take() {
                    Some(step) => Box::pin(self.attend(state, step)).await,
                    None => Box::pin(self.rest(state)).await,
                };
            }
            Next::Run { index, params, .. } => (index, params, Task::Run),
            Next::Resume {
                index,
                params,
                resolution,
            } => (index, params, Task::Resume(resolution)),
            Next::Probe { index, params } => (index, params, Task::Probe),
        };
        let mut step = StepRun::begin(&self.engine, state, &self.handle, index, params, task).await;
        match step.ended() {
            Some(input) => Ok(vec![input]),
            // Boxed, because a task is as large as the largest future that it may await.
            None => Box::pin(self.attend(state, step)).await,
        }
    }

    async fn preflight(&mut self, state: &RunState) -> Result<Vec<Input>, Exit> {
        let started_at = self.recorded_now(state);
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
                () = self.handle.lost.cancelled() => Err(Exit::LeaseLost),
                issues = &mut checks => Ok(vec![Input::Preflight { issues, started_at }]),
                // A signal interrupts preflight, which has no effect. Preflight runs again if it is still
                // due.
                () = self.handle.signal.notified() => Ok(self.inbox(state).await),
                () = self.mode.stopped() => Ok(Vec::new()),
                () = self.held_long_enough() => {
                    self.commit_held(state).await?;
                    continue;
                }
            };
        }
    }

    /// Asks the provider of the open signature request for its state, or to remind the signers.
    async fn follow_up(&mut self, state: &RunState, remind: bool) -> Result<Vec<Input>, Exit> {
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
                () = self.handle.lost.cancelled() => Err(Exit::LeaseLost),
                input = &mut asking => Ok(vec![input]),
                // If a signal interrupts the question, the provider is asked again if that is still due. An
                // interrupted reminder goes on in its own task.
                () = self.handle.signal.notified() => {
                    let signals = self.inbox(state).await;
                    if signals.is_empty() {
                        continue;
                    }
                    Ok(signals)
                }
                () = self.mode.stopped() => Ok(Vec::new()),
            };
        }
    }

    /// Waits until a short rest ends.
    async fn rest(&self, state: &RunState) -> Result<Vec<Input>, Exit> {
        let now = self.engine.now();
        let left = state
            .execution
            .wake_at
            .map_or(0, |wake| wake.millis_since(now));
        tokio::select! {
            biased;
            () = self.handle.lost.cancelled() => Err(Exit::LeaseLost),
            () = self.handle.signal.notified() => Ok(self.inbox(state).await),
            () = self.engine.clock.sleep(Duration::from_millis(left)) => Ok(Vec::new()),
            () = self.mode.stopped() => Ok(Vec::new()),
        }
    }

    /// The signals in the inbox, as inputs.
    async fn inbox(&self, state: &RunState) -> Vec<Input> {
        let signals = self.signals(state).await.into_iter();
        signals.map(Input::Signal).collect()
    }

    /// The signals in the inbox. If the store does not answer, returns none, and reads again later.
    async fn signals(&self, state: &RunState) -> Vec<Signal> {
        match self.engine.store.signals(state.execution.id).await {
            Ok(signals) => signals,
            Err(error) => {
                tracing::warn!(execution_id = %state.execution.id, "the inbox cannot be read: {error}");
                self.handle.signal.notify_one();
                tokio::time::sleep(STORE_BACKOFF.0).await;
                Vec::new()
            }
        }
    }
}

impl Mode {
    /// The role in decisions. A worker that shuts down opens no more steps.
    fn role(&self) -> Role {
        match self {
            Self::Work { shutdown } if !shutdown.is_cancelled() => Role::Worker,
            Self::Work { .. } | Self::ApplySignals => Role::SignalApplier,
        }
    }

    /// True if the driver belongs to a worker whose process shuts down.
    fn is_stopped(&self) -> bool {
        matches!(self, Self::Work { shutdown } if shutdown.is_cancelled())
    }

    /// Returns once the process shuts down; never if the driver only applies signals.
    async fn stopped(&self) {
        match self {
            Self::Work { shutdown } => shutdown.cancelled().await,
            Self::ApplySignals => std::future::pending().await,
        }
    }
}

impl Inner {
    /// Marks a lease as lost: another worker has the execution, or may have it.
    pub(super) fn lose(&self, lease: Lease) {
        if self.active.lose(lease) {
            self.tell(&Fact::LeaseLost);
        }
    }
}
