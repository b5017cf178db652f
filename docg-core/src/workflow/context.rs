//! The context of a handler's call: its execution, its step, and its way to talk to the engine.

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
/// Whatever the reason, a handler that stops before its effect returns [`StepFailure::stopped`]; a handler
/// whose effect has happened returns its output or wait. The engine treats the answers as follows:
///
/// | reason | success, wait | any error, a panic, or no answer |
/// |---|---|---|
/// | cancel | recorded; open requests to people are withdrawn | the execution ends `canceled` |
/// | shutdown | counts as usual | the step runs again on another worker and no attempt is used up |
/// | lease lost | the next worker's `probe` finds the effect | another worker continues the step |
/// | deadline | counts as usual | the attempt has timed out |
///
/// With [`stopped`](crate::error::StepFailure::stopped) or
/// [`retryable`](crate::error::StepFailure::retryable), the handler states that its effect may be tried
/// again. After any other error the outcome is unknown, and the engine asks the handler's `probe` before the
/// step runs again or the execution ends. The outcome of two kinds of calls is never unknown: of an effect
/// that is [safe to repeat](super::NodeSpec::safe_to_repeat), and of
/// [`resumed`](super::EffectHandler::resumed), unless `resumed` itself returns an unknown outcome.
///
/// [`StepFailure::stopped`]: crate::error::StepFailure::stopped
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StopReason {
    /// A person ends the execution by canceling or rejecting it. The execution ends whatever the handler
    /// returns.
    Cancel,
    /// The process shuts down; another worker continues the step.
    Shutdown,
    /// The worker lost its lease. Another worker may already be running the same step.
    LeaseLost,
    /// The attempt reached its deadline.
    Deadline,
}

/// The context of a step's attempt, and the handler's way to talk to the engine. Cheap to clone.
#[derive(Debug, Clone)]
pub struct StepContext(pub(crate) Arc<StepFacts>);

/// The content of a [`StepContext`], to which the context dereferences.
#[derive(Debug)]
#[non_exhaustive]
pub struct StepFacts {
    /// The execution that the step belongs to.
    pub execution_id: ExecutionId,
    /// The workflow that the execution runs.
    pub workflow_id: WorkflowId,
    /// The tenant.
    pub organization_id: OrganizationId,
    /// The node that the step belongs to.
    pub node_id: NodeId,
    /// The step's name, for people.
    pub label: Arc<str>,
    /// The attempt's number, from 1.
    pub attempt: u32,
    /// The approval that this step requested before. Set if the step must request a new approval.
    pub previous_approval: Option<ApprovalId>,
    /// The signature request that this step made before, and that has ended. A new request needs another key
    /// at the provider.
    pub previous_signature: Option<SignatureRequestId>,
    /// The correlation id of the chain of calls, for the handler to pass on in its own calls.
    pub correlation_id: Arc<str>,
    /// The W3C trace context that the execution was created with.
    pub traceparent: Option<Arc<str>>,
    /// When the attempt times out. Each [wait for a place](StepFacts::wait_for_place) postpones it.
    pub deadline: Timestamp,
    /// When the attempt started, by the engine's clock.
    pub started_at: Timestamp,
    /// Fires when the handler is told to stop; [`stop_reason`](Self::stop_reason) tells why. If the handler
    /// has not returned at the end of the grace time, the worker drops it.
    pub cancellation: CancellationToken,
    /// Fires together with `cancellation` when the worker loses its lease, whatever its driver is doing.
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
    /// The step whose handler makes this call, for code that is given no context, such as a signature
    /// provider. `None` in tasks that the handler spawned, and outside of handlers.
    #[must_use]
    pub fn current() -> Option<Self> {
        CURRENT.try_with(Self::clone).ok()
    }

    /// Makes this the [current](Self::current) step during a handler's call.
    pub(crate) fn enter<F: Future>(&self, call: F) -> TaskLocalFuture<Self, F> {
        CURRENT.scope(self.clone(), call)
    }
}

/// Waits for a place in a pool, and meanwhile stops the clock of the [current](StepContext::current) step. If
/// no step is current, stops no clock. See [`wait_for_place`](StepFacts::wait_for_place).
pub async fn wait_for_place<T>(place: impl Future<Output = T>) -> T {
    match StepContext::current() {
        Some(step) => step.wait_for_place(place).await,
        None => place.await,
    }
}

/// The longest time for which a wait for a place stops the attempt's clock. After a longer wait the attempt
/// times out.
const LONGEST_WAIT: Duration = Duration::from_secs(3_600);

/// The time limit of an attempt, as measured by [`Clock::elapsed`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct Allowance {
    ends: Duration,
    /// How many waits for places are in progress, and when the first of them began.
    waits: usize,
    waits_since: Duration,
}

impl Allowance {
    /// When the attempt times out.
    pub(crate) fn ends(self) -> Duration {
        match self.waits {
            0 => self.ends,
            _ => self.ends.saturating_add(LONGEST_WAIT),
        }
    }
}

/// The clock of an attempt's timeout. It stands still while the handler waits for a place in a shared pool.
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

/// A guard that stops the attempt's clock until it is dropped.
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
    /// Waits for a place in a pool shared with other steps, such as one of a few concurrent renders.
    /// Meanwhile the attempt's clock stands still, for an hour at most: waiting for others does not count as
    /// work.
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

    /// Why the handler is told to stop; `None` if it may continue. The first reason stays, with two
    /// exceptions: a cancel within the grace time replaces a shutdown or a deadline, and a lost lease
    /// replaces every reason.
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

    /// Reports the finished part of the step, from 0.0 to 1.0. A lower value than before is ignored.
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

    /// Logs a message for people. The message is stored with the execution, and sent to `tracing` at once.
    pub fn log(&self, level: LogLevel, message: impl Into<crate::i18n::Text>) {
        self.recorder.log(LogDraft::new(level, message));
    }

    /// Logs an entry with details for technicians.
    pub fn log_entry(&self, entry: LogDraft) {
        self.recorder.log(entry);
    }

    /// Adds a row to the execution's audit trail. The row is stored together with the step's result.
    pub fn audit(&self, row: AuditDraft) {
        self.recorder.record(row);
    }
}

/// The context of a handler with an effect. The engine creates it only for live executions, so that a dry run
/// cannot call such a handler.
#[derive(Debug, Clone)]
pub struct EffectContext {
    step: StepContext,
    fence: u64,
}

impl EffectContext {
    pub(crate) fn live(step: StepContext, fence: u64) -> Self {
        Self { step, fence }
    }

    /// The idempotency key of this step's effect: the same in every attempt and after every crash, and
    /// different in every other step. Pass it to providers that accept an idempotency key.
    #[must_use]
    pub fn idempotency_key(&self) -> String {
        format!("{}/{}", self.step.execution_id, self.step.node_id)
    }

    /// The fencing token; grows with each claim of the execution. A resource that remembers the highest token
    /// it has seen can refuse a worker that lost its lease unnoticed.
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
