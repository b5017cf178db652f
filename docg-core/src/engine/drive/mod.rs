//! Drives one held execution forward: decide, commit, publish, do the next thing, and repeat.
//!
//! Decisions are committed together if no effect begins between them and they take only a moment.
//!
//! The driver is the execution's only writer while it holds the lease. A handler's result, a signal or a
//! deadline becomes an input of the next decision. A lost lease or a shutdown ends the driver.

mod attend;
mod commit;
mod holding;

use std::{pin::pin, sync::Arc, time::Duration};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub(crate) use holding::Holding;

use super::{
    Fact, Inner,
    decide::{self, Decision, Input, Moment, Next, Records, decide},
    step_run::{StepRun, Task},
    worker::{active::Handle, answers},
};
use crate::{
    ports::{Claimed, Lease, RunState},
    preflight::{self, PreflightRequest},
    programs,
    run::InvalidTransition,
    time::Timestamp,
    workflow::Handler,
};

/// How far a driver goes.
#[derive(Debug, Clone)]
pub(crate) enum Mode {
    /// Until the execution rests, or the worker shuts down.
    Work { shutdown: CancellationToken },
    /// Only until the signals in the inbox are applied; a worker does the rest.
    ApplySignals,
}

/// The driver waits through a shorter rest without releasing its lease.
const SHORT_REST_MS: u64 = 1_000;
/// The first and the longest pause after the store did not answer.
const STORE_BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// How long a process that shuts down waits for a decision under evaluation.
const LAST_DECISION: Duration = Duration::from_secs(2);

struct Driver {
    engine: Arc<Inner>,
    handle: Handle,
    /// `None` if the driver opens no steps.
    shutdown: Option<CancellationToken>,
    /// True once the driver has reacted to the shutdown; it does not react again.
    drains: bool,
    /// The handler at work.
    step: Option<StepRun>,
    /// The records that are decided and not yet committed.
    held: Records,
    /// The latest time to commit the held records.
    held_until: Option<Instant>,
    may_hold: bool,
    /// True if handlers may be probed about their effects before a cancel.
    asks: bool,
    /// The execution's version in the store.
    stored_version: u64,
    /// True if a part of the execution could not be read.
    is_reduced: bool,
    /// The `seq` up to which the execution's events are known to be on the bus.
    published: u64,
    /// The time of the last commit of progress within a step.
    progress_at: Option<Duration>,
    /// The time of the first record, and [`Clock::elapsed`](crate::time::Clock::elapsed) at that moment.
    dated_from: Option<(Timestamp, Duration)>,
}

/// The lease is lost; nothing more may be committed.
struct LeaseLost;

/// Why a decision was not committed.
enum Uncommitted {
    LeaseLost,
    /// The commit would end the execution, and the inbox has signals that the decision has not seen.
    Signaled,
    /// The link or envelope of a request already leads to another execution.
    NameTaken,
}

/// The fallback if a wait cannot be stored: the state before the wait, and an input that rejects it.
struct Instead {
    state: RunState,
    held: Records,
    input: Input,
}

impl Driver {
    async fn run(mut self, mut state: RunState, mut inputs: Vec<Input>) {
        // Until the first decision here, nobody attends the steps that an earlier holder left open.
        let mut left_open = true;
        let mut before_end = None;
        let mut instead = None;
        loop {
            if self.asks && attend::ends_run(&state, &inputs) {
                self.ask_before_end(&state, &mut inputs, left_open).await;
            }
            let (id, now) = (state.execution.id, self.engine.now());
            let recorded = self.recorded_now(&state);
            let asked = inputs
                .iter()
                .any(|input| matches!(input, Input::Probed { .. }));
            if let Some(input) = answers::without_wait(&self.engine, &state, &inputs) {
                instead = Some(Instead {
                    state: state.clone(),
                    held: self.held.clone(),
                    input,
                });
            }
            let decision = match self.decide(state, inputs, (now, recorded)).await {
                Ok(Some(decision)) => decision,
                // The process shuts down. Let the lease expire; another process decides.
                Ok(None) => {
                    self.give_up_step().await;
                    return;
                }
                Err(defect) => {
                    // Let the lease expire. Releasing it now would make another worker retry at once and hit
                    // the same defect.
                    tracing::error!(execution_id = %id, "a decision broke the transition table: {defect}");
                    return;
                }
            };
            left_open = self.shutdown.is_none();
            state = decision.state;
            let next = decision.next;
            if let Some(before) = decision.before_end {
                let mut held = self.held.clone();
                held.extend(before.records);
                before_end = Some((before.state, held));
            }
            self.held.extend(decision.records);
            let goes_on = self.goes_on(&state, &next, now);
            if !self.may_wait(&state, &next, goes_on) {
                if self.held.is_empty() && !goes_on {
                    // The commit has no records, but it releases the lease and may change `wake_at`: it needs
                    // a new version.
                    state.execution.version += 1;
                }
                let committed = match self.commit(&state, goes_on).await {
                    Ok(committed) => committed,
                    Err(Uncommitted::LeaseLost) => {
                        self.give_up_step().await;
                        return;
                    }
                    Err(Uncommitted::NameTaken) => match instead.take() {
                        Some(before) => {
                            (state, self.held) = (before.state, before.held);
                            (inputs, before_end) = (vec![before.input], None);
                            continue;
                        }
                        None => {
                            tracing::error!(execution_id = %id, "a name is taken that no wait brought");
                            self.give_up_step().await;
                            return;
                        }
                    },
                    Err(Uncommitted::Signaled) => {
                        inputs = self.inbox(&state).await;
                        // A cancel that arrived before the end wins; any other signal arrived too late.
                        match before_end.take() {
                            Some((before, held)) if attend::ends_run(&before, &inputs) => {
                                (state, self.held) = (before, held);
                            }
                            kept => {
                                before_end = kept;
                                inputs.retain(|input| !self.has_settled(input));
                            }
                        }
                        continue;
                    }
                };
                instead = None;
                if !goes_on {
                    self.give_up_step().await;
                    self.leave_word(&state, committed).await;
                    return;
                }
                if committed.signals_pending {
                    if self.step.is_none() && !matches!(next, Next::Probe { .. }) {
                        inputs = self.inbox(&state).await;
                        if let Next::Run { index, .. } = next
                            && attend::ends_run(&state, &inputs)
                        {
                            let dropped = self.drop_unbegun(&state, index, asked).await;
                            inputs.insert(0, dropped);
                        }
                        continue;
                    }
                    // Leave the cancel to `attend`, which gives the running handler its grace time.
                    self.handle.signal.notify_one();
                }
            }
            inputs = match self.act(&state, next).await {
                Ok(inputs) => inputs,
                Err(LeaseLost) => return,
            };
        }
    }

    /// The present time for records. If the clock is set while this driver works, no step becomes longer or
    /// shorter. The next driver starts from the clock again.
    fn recorded_now(&mut self, state: &RunState) -> Timestamp {
        let elapsed = self.engine.clock.elapsed();
        let (from, then) = *self
            .dated_from
            .get_or_insert_with(|| (self.engine.now().max(state.execution.updated_at), elapsed));
        from + elapsed.saturating_sub(then)
    }

    /// True if the held records already settle this signal.
    fn has_settled(&self, input: &Input) -> bool {
        matches!(input, Input::Signal(signal) if self.held.settled.contains(&signal.id))
    }

    /// Makes a decision; an expensive one is evaluated off the runtime's threads. Returns `None` if the
    /// process shuts down before the evaluation ends.
    async fn decide(
        &self,
        state: RunState,
        inputs: Vec<Input>,
        (now, recorded): (Timestamp, Timestamp),
    ) -> Result<Option<Decision>, InvalidTransition> {
        let organization = state.execution.organization_id;
        // A driver that opens no steps evaluates no condition.
        let is_small =
            inputs.iter().all(decide::is_little) && (!self.works() || decide::is_small(&state));
        let (engine, shutdown) = (Arc::clone(&self.engine), self.shutdown.clone());
        let job = move || {
            let opens_steps = works(shutdown.as_ref());
            let mut ids = engine.ids();
            let moment = Moment {
                now,
                recorded,
                ids: &mut ids,
                opens_steps,
            };
            decide(state, inputs, moment, engine.env())
        };
        if is_small {
            return job().map(Some);
        }
        let shuts_down = async {
            match &self.shutdown {
                Some(shutdown) => shutdown.cancelled().await,
                None => std::future::pending().await,
            }
            tokio::time::sleep(LAST_DECISION).await;
        };
        tokio::select! {
            decision = Box::pin(programs::run(organization, job)) => decision.map(Some),
            () = shuts_down => Ok(None),
        }
    }

    /// True if this driver may begin work.
    fn works(&self) -> bool {
        works(self.shutdown.as_ref())
    }

    /// True if this driver has worked, and its process shuts down.
    fn is_stopping(&self) -> bool {
        self.shutdown
            .as_ref()
            .is_some_and(CancellationToken::is_cancelled)
    }

    /// True if the driver keeps its lease after a decision.
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

    /// Does the next thing, and returns the inputs that come of it.
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
            // Boxed, because a task is as large as the largest future that it may await.
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
        // If a handler is already at work, a signal was applied meanwhile: let the handler continue.
        if self.step.is_none() {
            self.step =
                Some(StepRun::begin(&self.engine, state, &self.handle, index, params, task).await);
        }
    }

    async fn preflight(&mut self, state: &RunState) -> Result<Vec<Input>, LeaseLost> {
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
                () = self.handle.lost.cancelled() => Err(LeaseLost),
                issues = &mut checks => Ok(vec![Input::Preflight { issues, started_at }]),
                // Preflight has no effect: a signal drops it, and it runs again if it is still due.
                () = self.handle.signal.notified() => Ok(self.inbox(state).await),
                () = self.shutting_down() => Ok(Vec::new()),
                () = self.held_long_enough() => {
                    self.commit_held(state).await?;
                    continue;
                }
            };
        }
    }

    /// Asks the provider of the open signature request for its state, or to remind the signers.
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
                // A dropped question is asked again if it is still due. A dropped reminder continues in its
                // own task.
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

    /// Waits until a short rest ends.
    async fn rest(&self, state: &RunState) -> Result<Vec<Input>, LeaseLost> {
        let now = self.engine.now();
        let left = state
            .execution
            .wake_at
            .map_or(0, |wake| wake.millis_since(now));
        tokio::select! {
            biased;
            () = self.handle.lost.cancelled() => Err(LeaseLost),
            () = self.handle.signal.notified() => Ok(self.inbox(state).await),
            () = self.engine.clock.sleep(Duration::from_millis(left)) => Ok(Vec::new()),
            () = self.shutting_down() => Ok(Vec::new()),
        }
    }

    async fn shutting_down(&self) {
        match &self.shutdown {
            Some(shutdown) if !self.drains => shutdown.cancelled().await,
            _ => std::future::pending().await,
        }
    }

    /// The signals in the inbox. If the store does not answer, returns none, and reads again later.
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
}

/// True if a driver with this shutdown token may begin work.
fn works(shutdown: Option<&CancellationToken>) -> bool {
    shutdown.is_some_and(|shutdown| !shutdown.is_cancelled())
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

    /// True if a step only computes.
    fn computes(&self, state: &RunState, index: usize) -> bool {
        let node_type = &state.workflow.nodes[index].node_type;
        let handler = self.registry.get(node_type);
        state.execution.dry_run || matches!(handler, Some(Handler::Compute(_)))
    }

    /// Marks a lease as lost to another worker, for certain or possibly.
    pub(super) fn lose(&self, lease: Lease) {
        if self.active.lose(lease) {
            self.tell(&Fact::LeaseLost);
        }
    }
}
