//! Takes one held execution forward: decide, commit, publish, do what comes next, and again.
//!
//! Decisions between which nothing was touched are committed together, if that takes no longer than
//! a moment.
//!
//! The driver is the execution's only writer while it holds the lease. Whatever comes meanwhile -
//! a handler's result, a signal, a deadline, the loss of the lease, shutdown - comes to it as an
//! input of the next decision, or ends it.

mod attend;
mod commit;
mod holding;

use std::{pin::pin, sync::Arc, time::Duration};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub(crate) use holding::Holding;

use super::{
    Inner,
    active::Handle,
    decide::{self, Decision, Input, Moment, Next, Records, decide},
    kept,
    observer::Fact,
    step_run::{StepRun, Task},
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
    /// Only as far as what is in the inbox; the rest is a worker's.
    ApplySignals,
}

/// A rest that is shorter than this is waited out with the lease kept.
const SHORT_REST_MS: u64 = 1_000;
/// The pause after a store that did not answer, and its longest.
const STORE_BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// How long a process that shuts down waits for a decision that is evaluated.
const LAST_DECISION: Duration = Duration::from_secs(2);

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
    /// Handlers may be asked what became of their effects before a cancel.
    asks: bool,
    /// The version that the store has.
    stored_version: u64,
    /// Something of the run could not be read.
    is_reduced: bool,
    /// Up to where its events are known to be on the bus.
    published: u64,
    /// When progress within a step was last committed.
    progress_at: Option<Duration>,
    /// The moment of the first record, and what [`Clock::elapsed`](crate::time::Clock::elapsed) told then.
    dated_from: Option<(Timestamp, Duration)>,
}

/// Nothing may be committed any more.
struct LeaseLost;

/// Why a decision is not committed.
enum Uncommitted {
    LeaseLost,
    /// The run would end, and signals are in the inbox that it has not seen.
    Signaled,
    /// A request has a name that leads to another execution.
    NameTaken,
}

/// What is decided instead if a wait cannot be stored: the state before it, and an input that refuses it.
struct Instead {
    state: RunState,
    held: Records,
    input: Input,
}

impl Driver {
    async fn run(mut self, mut state: RunState, mut inputs: Vec<Input>) {
        // What an earlier holder has left open nobody attends until the first decision here.
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
            if let Some(input) = kept::without_wait(&self.engine, &state, &inputs) {
                instead = Some(Instead {
                    state: state.clone(),
                    held: self.held.clone(),
                    input,
                });
            }
            let decision = match self.decide(state, inputs, (now, recorded)).await {
                Ok(Some(decision)) => decision,
                // The lease is left to run out, and another process decides.
                Ok(None) => {
                    self.give_up_step().await;
                    return;
                }
                Err(defect) => {
                    // The lease is left to run out: at once would be tried again at once.
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
                    // The lease is given back, and the next moment may be another.
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
                        // A cancel that came before the end wins; any other signal comes too late.
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
                    // A cancel is for whoever attends the handler: it gives it its grace.
                    self.handle.signal.notify_one();
                }
            }
            inputs = match self.act(&state, next).await {
                Ok(inputs) => inputs,
                Err(LeaseLost) => return,
            };
        }
    }

    /// The present moment, as records tell it. A clock that is set while this driver works makes no step
    /// longer or shorter; the next driver goes by the clock again.
    fn recorded_now(&mut self, state: &RunState) -> Timestamp {
        let elapsed = self.engine.clock.elapsed();
        let (from, then) = *self
            .dated_from
            .get_or_insert_with(|| (self.engine.now().max(state.execution.updated_at), elapsed));
        from + elapsed.saturating_sub(then)
    }

    /// Whether a signal was applied or ignored by what is held back.
    fn has_settled(&self, input: &Input) -> bool {
        matches!(input, Input::Signal(signal) if self.held.settled.contains(&signal.id))
    }

    /// Decides, beside the runtime's threads where that evaluates more than a little. `None` where the
    /// process shuts down before that has had its turn.
    async fn decide(
        &self,
        state: RunState,
        inputs: Vec<Input>,
        (now, recorded): (Timestamp, Timestamp),
    ) -> Result<Option<Decision>, InvalidTransition> {
        let organization = state.execution.organization_id;
        // Who opens no steps comes to no condition.
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

    /// Whether this driver may begin work.
    fn works(&self) -> bool {
        works(self.shutdown.as_ref())
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

    /// Waits out a short rest.
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
}

/// Whether a driver that may be shut down by this may begin work.
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

    /// Whether a step only computes.
    fn computes(&self, state: &RunState, index: usize) -> bool {
        let node_type = &state.workflow.nodes[index].node_type;
        let handler = self.registry.get(node_type);
        state.execution.dry_run || matches!(handler, Some(Handler::Compute(_)))
    }

    /// Notes that a lease is another's, or may be.
    pub(super) fn lose(&self, lease: Lease) {
        if self.active.lose(lease) {
            self.tell(&Fact::LeaseLost);
        }
    }
}
