//! What a handler is given besides its parameters.

use std::{ops::Deref, sync::Arc};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    ids::{ApprovalId, ExecutionId, NodeId, OrganizationId, SignatureRequestId, WorkflowId},
    observe::{AuditDraft, AuditSink, ExecutionLogger, LogDraft, LogLevel, StepRecorder},
    time::Timestamp,
};

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
    /// When the attempt is given up.
    pub deadline: Timestamp,
    /// The engine's time at the start of the attempt.
    pub started_at: Timestamp,
    /// Fires when the execution is canceled, the worker has lost the execution, or it shuts down.
    /// What has not returned within the grace time after it is dropped.
    pub cancellation: CancellationToken,
    pub(crate) recorder: StepRecorder,
    pub(crate) progress: watch::Sender<f32>,
}

impl Deref for StepContext {
    type Target = StepFacts;
    fn deref(&self) -> &StepFacts {
        &self.0
    }
}

impl StepFacts {
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
