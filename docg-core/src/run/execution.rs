//! The run state: everything about an execution that a UI shows and that the engine needs to continue it.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    error::ErrorContext,
    ids::{ExecutionId, NodeId, OrganizationId, WorkflowId},
    observe::Actor,
    preflight::PreflightSummary,
    run::{KeptEvent, Phase, Status},
    time::Timestamp,
};

/// The run state: the small record that every commit rewrites. Data that never changes (the definition) or
/// only grows (steps, events, logs, audit rows) is stored beside it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Execution {
    /// The execution's id.
    pub id: ExecutionId,
    /// The workflow that the execution runs.
    pub workflow_id: WorkflowId,
    /// The workflow's version when the execution was created.
    pub workflow_version: u32,
    /// The tenant.
    pub organization_id: OrganizationId,
    /// The execution's title for people, made from the workflow's `settings.title`; `None` if that is not set.
    #[serde(default)]
    pub title: Option<Arc<str>>,
    /// The current status.
    pub status: Status,
    /// The progress in percent, 0 to 100; never falls, and is 100 only when completed.
    pub progress: u8,
    /// The step in progress, or the next one.
    pub current_step: Option<Arc<CurrentStep>>,
    /// Why the execution waits; `None` if it does not.
    pub waiting_for: Option<WaitingFor>,
    /// The latest error.
    pub error: Option<ErrorContext>,
    /// The result of the latest preflight.
    pub preflight: Option<Arc<PreflightSummary>>,
    /// The state of delivery.
    pub delivery_state: DeliveryState,
    /// The state of signing.
    pub signature_state: SignatureState,
    /// The times of each phase.
    pub phase_metrics: PhaseMetrics,
    /// The correlation id of the chain of calls that the execution belongs to.
    pub correlation_id: Arc<str>,
    /// The W3C trace context of the call that created the execution.
    pub traceparent: Option<Arc<str>>,
    /// The actor who created the execution.
    pub created_by: Arc<Actor>,
    /// The kind of trigger that started the execution, such as `manual`.
    pub trigger_type: Arc<str>,
    /// The earlier execution that this execution retries.
    pub retry_of: Option<ExecutionId>,
    /// The earlier execution whose document this execution continues with.
    pub follows: Option<ExecutionId>,
    /// True for a dry run, which runs preflight, trigger and render only and has no effects.
    pub dry_run: bool,
    /// The last phase to run; `None` if all phases run.
    pub until_phase: Option<Phase>,
    /// The position in a chain of retries: 1 for the first execution, plus one for each retry.
    pub attempt: u32,
    /// The version, which grows with each commit.
    pub version: u64,
    /// When the engine accepted the execution.
    pub created_at: Timestamp,
    /// When a worker started the execution.
    pub started_at: Option<Timestamp>,
    /// When the execution reached a terminal status.
    pub completed_at: Option<Timestamp>,
    /// When the execution last changed.
    pub updated_at: Timestamp,

    /// The status that a pause returns to.
    pub paused_from: Option<Status>,
    /// True if preflight must run before the next step.
    pub preflight_due: bool,
    /// True if a person has confirmed that delivery may begin.
    pub delivery_confirmed: bool,
    /// The priority; a higher one is claimed first.
    pub priority: i16,
    /// When the execution next becomes due for a worker; `None` if only a signal makes it due.
    pub wake_at: Option<Timestamp>,
    /// The numbers of the last event, log entry and audit row.
    pub heads: Heads,
}

/// The numbers of an execution's last event, log entry and audit row, and the hash of the last audit row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Heads {
    /// The last event's `seq`.
    pub event_seq: u64,
    /// The last log entry's `seq`.
    pub log_seq: u64,
    /// The last audit row's `seq`.
    pub audit_seq: u64,
    /// The last audit row's hash; all zeros before the first row.
    pub audit_hash: [u8; 32],
}

/// The step in progress or next, as a UI shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CurrentStep {
    /// The node's 0-based position in the workflow.
    pub index: u32,
    /// The step's name, for people.
    pub label: Arc<str>,
    /// The node.
    pub node_id: NodeId,
    /// The node's type.
    pub node_type: Arc<str>,
}

/// The wait of an execution: its kind, beginning and end, and the people who can act.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WaitingFor {
    /// The kind of wait.
    pub kind: WaitKind,
    /// When the wait began.
    pub since: Timestamp,
    /// When the wait ends by itself; `None` if only a person can end it.
    pub until: Option<Timestamp>,
    /// Details for a UI: who can act, which step, which request.
    pub detail: Value,
}

/// The kinds of wait of an execution.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WaitKind {
    /// A person must repair something.
    Review,
    /// Approvers must decide.
    Approval,
    /// Signers must sign.
    Signature,
    /// A person must confirm that delivery may begin.
    Confirmation,
    /// A person must end the pause.
    Pause,
    /// The next attempt of a step must become due.
    Retry,
    /// A moment must come.
    Timer,
    /// An event must arrive.
    Event,
}

impl WaitKind {
    /// All variants.
    pub const ALL: [Self; 8] = [
        Self::Review,
        Self::Approval,
        Self::Signature,
        Self::Confirmation,
        Self::Pause,
        Self::Retry,
        Self::Timer,
        Self::Event,
    ];

    /// True if the execution waits for people. The time of a wait for people does not count as work.
    #[must_use]
    pub const fn is_for_people(self) -> bool {
        match self {
            Self::Review | Self::Approval | Self::Signature | Self::Confirmation | Self::Pause => {
                true
            }
            Self::Retry | Self::Timer | Self::Event => false,
        }
    }

    /// True if the time of the wait does not count as work. The pause before another attempt counts.
    #[must_use]
    pub const fn is_no_work(self) -> bool {
        !matches!(self, Self::Retry)
    }
}

/// The state of delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeliveryState {
    /// No delivery has begun.
    #[default]
    Pending,
    /// A delivery is in progress.
    Sending,
    /// A delivery is done.
    Sent,
    /// A delivery failed.
    Failed,
}

impl DeliveryState {
    /// All variants.
    pub const ALL: [Self; 4] = [Self::Pending, Self::Sending, Self::Sent, Self::Failed];
}

/// The state of signing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SignatureState {
    /// No signatures have been requested.
    #[default]
    Pending,
    /// Signatures have been requested.
    Signing,
    /// All signatures are complete.
    Signed,
    /// A signer refused to sign.
    Declined,
    /// Not all signers signed in time.
    Expired,
}

impl SignatureState {
    /// All variants.
    pub const ALL: [Self; 5] = [
        Self::Pending,
        Self::Signing,
        Self::Signed,
        Self::Declined,
        Self::Expired,
    ];
}

/// The times of each phase, in an array with the phase as its index. An array keeps the stored record small.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PhaseMetrics(pub [Option<PhaseTimes>; 6]);

impl PhaseMetrics {
    /// The phases that have begun, in order.
    pub fn iter(&self) -> impl Iterator<Item = (Phase, &PhaseTimes)> {
        Phase::ALL
            .into_iter()
            .zip(&self.0)
            .filter_map(|(phase, times)| Some((phase, times.as_ref()?)))
    }

    /// The times of one phase.
    #[must_use]
    pub fn get(&self, phase: Phase) -> Option<&PhaseTimes> {
        self.0[phase as usize].as_ref()
    }
}

/// The times of one phase. If a workflow returns to a phase, its durations add up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PhaseTimes {
    /// When the phase's first step began, or the wait for a person to confirm that the phase may begin.
    pub started_at: Timestamp,
    /// When the phase's latest step ended; `None` while a step is in progress.
    pub completed_at: Option<Timestamp>,
    /// The working time in milliseconds, without waiting for people.
    pub duration_ms: u64,
    /// The time spent waiting for people, in milliseconds.
    pub waiting_ms: u64,
    /// When work on the phase last began or resumed; `None` while no work is in progress.
    pub resumed_at: Option<Timestamp>,
    /// When the current wait for people began, if there is one. If an execution is paused while a step runs,
    /// the wait begins when that step ends.
    pub waiting_since: Option<Timestamp>,
}

impl PhaseTimes {
    /// The times of a phase that has just begun.
    #[must_use]
    pub fn new(started_at: Timestamp) -> Self {
        Self {
            started_at,
            completed_at: None,
            duration_ms: 0,
            waiting_ms: 0,
            resumed_at: None,
            waiting_since: None,
        }
    }
}

/// The data that an execution gets from outside: its input data, which only a person's repair changes, the time of
/// its start, and events that no step has taken yet.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Inputs {
    /// The trigger data as received, with a person's repairs merged in.
    pub trigger_data: Arc<Value>,
    /// Node parameters that a person has changed, by node id.
    pub node_overrides: Map<String, Value>,
    /// The time before which the execution does not start.
    #[serde(default)]
    pub start_at: Option<Timestamp>,
    /// The events that have arrived before a step waited for them, oldest first.
    #[serde(default)]
    pub events: Vec<KeptEvent>,
}
