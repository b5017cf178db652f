//! What a handler is given besides its parameters.

use std::{future::Future, ops::Deref, sync::Arc, time::Duration};

use tokio::{sync::watch, task::futures::TaskLocalFuture};
use tokio_util::sync::CancellationToken;

use crate::{
    ids::{ApprovalId, ExecutionId, NodeId, OrganizationId, SignatureRequestId, WorkflowId},
    observe::{AuditDraft, AuditSink, ExecutionLogger, LogDraft, LogLevel, StepRecorder},
    time::{Clock, Timestamp},
};

/// Why a handler is told to stop.
///
/// Whatever the reason, a handler that stops before its effect returns [`StepFailure::stopped`], and
/// one whose effect has happened returns the output or the wait. No other answer ends anything:
///
/// | told because of | success, wait | any error, a panic, or no answer |
/// |---|---|---|
/// | cancel | recorded; what was asked of people is withdrawn | the execution ends `canceled` |
/// | shutdown | counts as always | the step runs again on another worker and no attempt is used up |
/// | lease lost | found by `probe` | another worker has the step |
/// | deadline | counts as always | the attempt has timed out |
///
/// By [`stopped`](crate::error::StepFailure::stopped) and
/// [`retryable`](crate::error::StepFailure::retryable) the handler says that
/// its effect may be tried again. Anything else leaves open whether an effect happened that is not
/// [safe to repeat](super::NodeSpec::safe_to_repeat): then the handler's `probe` is asked before the step
/// runs again, or before the execution ends `canceled`.
///
/// [`StepFailure::stopped`]: crate::error::StepFailure::stopped
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StopReason {
    /// A person ends the execution. It ends so whatever the handler returns.
    Cancel,
    /// The process shuts down; another worker goes on with the step.
    Shutdown,
    /// The worker has lost the execution. Another may be at work on the same step already.
    LeaseLost,
    /// The step has used up its time.
    Deadline,
}

/// Where and for whom a step runs, and how it speaks to the engine. Cheap to clone.
#[derive(Debug, Clone)]
pub struct StepContext(pub(crate) Arc<StepFacts>);

/// The content of a [`StepContext`], reached through it.
#[derive(Debug)]
#[non_exhaustive]
pub struct StepFacts {
    /// The run.
    pub execution_id: ExecutionId,
    /// The workflow that it runs.
    pub workflow_id: WorkflowId,
    /// The tenant.
    pub organization_id: OrganizationId,
    /// The node that the step belongs to.
    pub node_id: NodeId,
    /// What people call the step.
    pub label: Arc<str>,
    /// 1 for the first attempt.
    pub attempt: u32,
    /// The approval that this step has asked for before, where it is to ask anew.
    pub previous_approval: Option<ApprovalId>,
    /// The signature request that this step has made before: it has ended, and another one needs a
    /// name of its own.
    pub previous_signature: Option<SignatureRequestId>,
    /// Names the chain of calls that this step belongs to; pass it on.
    pub correlation_id: Arc<str>,
    /// The W3C trace context that the execution was created with.
    pub traceparent: Option<Arc<str>>,
    /// When the attempt is given up. Each [wait for a place](StepFacts::wait_for_place) puts it off.
    pub deadline: Timestamp,
    /// The engine's time at the start of the attempt.
    pub started_at: Timestamp,
    /// Fires when the handler is told to stop; [`stop_reason`](Self::stop_reason) says why. A handler
    /// that has not returned within the grace time after it is dropped.
    pub cancellation: CancellationToken,
    /// Fires with `cancellation` when the worker's lease is lost, wherever its driver is.
    pub(crate) lost: CancellationToken,
    pub(crate) told: watch::Receiver<Option<StopReason>>,
    pub(crate) recorder: StepRecorder,
    pub(crate) progress: watch::Sender<f32>,
    pub(crate) time: Time,
}

impl Deref for StepContext {
    type Target = StepFacts;
    fn deref(&self) -> &StepFacts {
        &self.0
    }
}

tokio::task_local! {
    static CURRENT: StepContext;
}

impl StepContext {
    /// The step whose handler calls this, also from where no context is handed on, such as in a signature
    /// provider. `None` in a task that the handler has spawned, and outside of handlers.
    #[must_use]
    pub fn current() -> Option<Self> {
        CURRENT.try_with(Self::clone).ok()
    }

    /// Makes this the [current](Self::current) step of a handler's call.
    pub(crate) fn enter<F: Future>(&self, call: F) -> TaskLocalFuture<Self, F> {
        CURRENT.scope(self.clone(), call)
    }
}

/// Waits for a place in a pool, and lets the time of the [current](StepContext::current) step stand still,
/// if there is one; see [`wait_for_place`](StepFacts::wait_for_place).
pub async fn wait_for_place<T>(place: impl Future<Output = T>) -> T {
    match StepContext::current() {
        Some(step) => step.wait_for_place(place).await,
        None => place.await,
    }
}

/// How long a wait for a place may take. One that takes longer ends as every attempt does whose time is up.
const LONGEST_WAIT: Duration = Duration::from_secs(3_600);

/// The time of an attempt, as [`Clock::elapsed`] tells it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Allowance {
    ends: Duration,
    /// How many waits for places are under way, and since when the first is.
    waits: usize,
    waits_since: Duration,
}

impl Allowance {
    /// When the time is up.
    pub(crate) fn ends(self) -> Duration {
        match self.waits {
            0 => self.ends,
            _ => self.ends.saturating_add(LONGEST_WAIT),
        }
    }
}

/// Keeps the time of an attempt. It stands still while the handler waits for a place.
#[derive(Debug)]
pub(crate) struct Time {
    clock: Arc<dyn Clock>,
    allowance: watch::Sender<Allowance>,
}

impl Time {
    pub(crate) fn until(ends: Duration, clock: Arc<dyn Clock>) -> Self {
        let allowance = Allowance {
            ends,
            waits: 0,
            waits_since: Duration::ZERO,
        };
        Self {
            clock,
            allowance: watch::Sender::new(allowance),
        }
    }

    pub(crate) fn watch(&self) -> watch::Receiver<Allowance> {
        self.allowance.subscribe()
    }

    fn stop(&self) -> Stopped<'_> {
        let now = self.clock.elapsed();
        self.allowance.send_modify(|it| {
            if it.waits == 0 {
                it.waits_since = now;
            }
            it.waits += 1;
        });
        Stopped(self)
    }
}

/// The time stands still until this is dropped.
struct Stopped<'t>(&'t Time);

impl Drop for Stopped<'_> {
    fn drop(&mut self) {
        let now = self.0.clock.elapsed();
        self.0.allowance.send_modify(|it| {
            it.waits -= 1;
            if it.waits == 0 {
                let waited = now.saturating_sub(it.waits_since).min(LONGEST_WAIT);
                it.ends = it.ends.saturating_add(waited);
            }
        });
    }
}

impl StepFacts {
    /// Waits for a place in a pool that other steps use too, such as one of a few renders at once. The time
    /// of the attempt stands still meanwhile, for an hour at most: a wait for others is no work.
    ///
    /// ```
    /// use std::sync::Arc;
    ///
    /// use docg_core::{prelude::*, workflow::compute};
    /// use serde_json::{Value, json};
    /// use tokio::sync::Semaphore;
    ///
    /// let converters = Arc::new(Semaphore::new(2));
    /// let spec = NodeSpec::new("convert", Phase::Render).timeout_ms(5_000);
    /// let handler = compute(spec, move |context: StepContext, _: Value| {
    ///     let converters = Arc::clone(&converters);
    ///     async move {
    ///         let _place = context.wait_for_place(converters.acquire()).await;
    ///         // … the five seconds are for this …
    ///         Ok(json!({"pages": 1}))
    ///     }
    /// });
    /// ```
    pub async fn wait_for_place<T>(&self, place: impl Future<Output = T>) -> T {
        let _stopped = self.time.stop();
        place.await
    }

    /// Why the handler is told to stop; `None` as long as it is not. The first reason stays, with two
    /// exceptions: a cancel that comes within the grace time replaces a shutdown or a deadline, and a
    /// lost lease replaces everything.
    ///
    /// ```
    /// use docg_core::{prelude::*, workflow::compute};
    /// use serde_json::{Value, json};
    ///
    /// let spec = NodeSpec::new("convert", Phase::Render);
    /// let handler = compute(spec, |context: StepContext, _: Value| async move {
    ///     for page in 0..100_u16 {
    ///         if let Some(reason) = context.stop_reason() {
    ///             tracing::info!(?reason, page, "stops before the end");
    ///             return Err(StepFailure::stopped());
    ///         }
    ///         // … one page more …
    ///         context.progress(f32::from(page) / 100.0);
    ///     }
    ///     Ok(json!({"pages": 100}))
    /// });
    /// ```
    #[must_use]
    pub fn stop_reason(&self) -> Option<StopReason> {
        if self.lost.is_cancelled() {
            return Some(StopReason::LeaseLost);
        }
        *self.told.borrow()
    }

    /// Says how much of the step is done, from 0.0 to 1.0. Going back is ignored.
    pub fn progress(&self, fraction: f32) {
        let fraction = fraction.clamp(0.0, 1.0);
        self.progress.send_if_modified(|now| {
            let forward = fraction > *now;
            if forward {
                *now = fraction;
            }
            forward
        });
    }

    /// Logs for people; kept with the execution and sent to `tracing` at once.
    pub fn log(&self, level: LogLevel, message: impl Into<crate::i18n::Text>) {
        self.recorder.log(LogDraft::new(level, message));
    }

    /// Logs with details for technicians.
    pub fn log_entry(&self, entry: LogDraft) {
        self.recorder.log(entry);
    }

    /// Adds a row to the execution's audit trail; it is stored with the step's result.
    pub fn audit(&self, row: AuditDraft) {
        self.recorder.record(row);
    }
}

/// What a handler with an effect is given. A dry run has none: only live runs can make it.
#[derive(Debug, Clone)]
pub struct EffectContext {
    step: StepContext,
    fence: u64,
}

impl EffectContext {
    pub(crate) fn live(step: StepContext, fence: u64) -> Self {
        Self { step, fence }
    }

    /// Names this step's effect: the same in every attempt and after every crash, and in no other
    /// step. Give it to providers that take one.
    #[must_use]
    pub fn idempotency_key(&self) -> String {
        format!("{}/{}", self.step.execution_id, self.step.node_id)
    }

    /// Grows each time an execution gets a new holder. A resource that remembers the highest one
    /// it saw can refuse a worker that lost its lease without noticing.
    #[must_use]
    pub fn fencing_token(&self) -> u64 {
        self.fence
    }
}

impl Deref for EffectContext {
    type Target = StepContext;
    fn deref(&self) -> &StepContext {
        &self.step
    }
}
