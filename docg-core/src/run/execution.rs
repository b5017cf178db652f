//! The run state: all that a UI must know about one run, and what the engine needs to go on.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    error::ErrorContext,
    ids::{ExecutionId, NodeId, OrganizationId, WorkflowId},
    observe::Actor,
    preflight::PreflightSummary,
    run::{Phase, Status},
    time::Timestamp,
};

/// The small record that every commit rewrites. What never changes (the definition) or only grows
/// (steps, events, logs, audit rows) lies beside it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Execution {
    /// Unique.
    pub id: ExecutionId,
    /// The workflow that it runs.
    pub workflow_id: WorkflowId,
    /// The version of the workflow that it was made with.
    pub workflow_version: u32,
    /// The tenant.
    pub organization_id: OrganizationId,
    /// Where it stands.
    pub status: Status,
    /// 0 to 100; never falls, 100 exactly when completed.
    pub progress: u8,
    /// The step under way or next.
    pub current_step: Option<Arc<CurrentStep>>,
    /// Why it does not move, where it does not.
    pub waiting_for: Option<WaitingFor>,
    /// What went wrong last.
    pub error: Option<ErrorContext>,
    /// What preflight found.
    pub preflight: Option<Arc<PreflightSummary>>,
    /// How far delivery has come.
    pub delivery_state: DeliveryState,
    /// How far signing has come.
    pub signature_state: SignatureState,
    /// When each phase ran.
    pub phase_metrics: PhaseMetrics,
    /// Names the chain of calls that it belongs to.
    pub correlation_id: Arc<str>,
    /// The W3C trace context that it was created with.
    pub traceparent: Option<Arc<str>>,
    /// Who created it.
    pub created_by: Arc<Actor>,
    /// What started it, such as `manual`.
    pub trigger_type: Arc<str>,
    /// The execution that this one retries.
    pub retry_of: Option<ExecutionId>,
    /// The execution whose document this one goes on with.
    pub follows: Option<ExecutionId>,
    /// Runs preflight, trigger and render only, and touches nothing.
    pub dry_run: bool,
    /// The last phase to run.
    pub until_phase: Option<Phase>,
    /// 1, and one more for each retry in the chain.
    pub attempt: u32,
    /// Grows with each commit.
    pub version: u64,
    /// When it was accepted.
    pub created_at: Timestamp,
    /// When a worker first took it.
    pub started_at: Option<Timestamp>,
    /// When it reached a terminal status.
    pub completed_at: Option<Timestamp>,
    /// When it last changed.
    pub updated_at: Timestamp,

    /// The status that a pause returns to.
    pub paused_from: Option<Status>,
    /// Preflight must run before the next step.
    pub preflight_due: bool,
    /// A person has confirmed that delivery may begin.
    pub delivery_confirmed: bool,
    /// Higher is claimed first.
    pub priority: i16,
    /// When it next wants a worker; `None` while only a signal can move it.
    pub wake_at: Option<Timestamp>,
    /// How long its event, log and audit sequences are.
    pub heads: Heads,
}

/// The ends of an execution's sequences.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Heads {
    /// The last event's `seq`.
    pub event_seq: u64,
    /// The last log entry's `seq`.
    pub log_seq: u64,
    /// The last audit row's `seq`.
    pub audit_seq: u64,
    /// The last audit row's hash; zeros before the first.
    pub audit_hash: [u8; 32],
}

/// The step under way or next, as a UI shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CurrentStep {
    /// 0-based place in the workflow.
    pub index: u32,
    /// For people.
    pub label: Arc<str>,
    /// The node.
    pub node_id: NodeId,
    /// The node's type.
    pub node_type: Arc<str>,
}

/// Why an execution does not move, since when, until when, and who can act.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WaitingFor {
    /// What for.
    pub kind: WaitKind,
    /// Since when.
    pub since: Timestamp,
    /// When the wait ends by itself; `None` where only a person can end it.
    pub until: Option<Timestamp>,
    /// What a UI may show: who can act, which step, which request.
    pub detail: Value,
}

/// What an execution can wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WaitKind {
    /// A person who repairs something.
    Review,
    /// A decision.
    Approval,
    /// Signatures.
    Signature,
    /// A person who lets delivery begin.
    Confirmation,
    /// A person who ends the pause.
    Pause,
    /// The next attempt of a step.
    Retry,
}

impl WaitKind {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Review,
        Self::Approval,
        Self::Signature,
        Self::Confirmation,
        Self::Pause,
        Self::Retry,
    ];

    /// Whether people, not machines, are waited for; such time is not counted as work.
    #[must_use]
    pub const fn is_for_people(self) -> bool {
        match self {
            Self::Review | Self::Approval | Self::Signature | Self::Confirmation | Self::Pause => {
                true
            }
            Self::Retry => false,
        }
    }
}

/// How far delivery has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeliveryState {
    /// Not begun.
    #[default]
    Pending,
    /// Under way.
    Sending,
    /// Done.
    Sent,
    /// Did not succeed.
    Failed,
}

impl DeliveryState {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Pending, Self::Sending, Self::Sent, Self::Failed];
}

/// How far signing has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SignatureState {
    /// Not begun.
    #[default]
    Pending,
    /// Asked for.
    Signing,
    /// All are in.
    Signed,
    /// A signer refused.
    Declined,
    /// Not all came in time.
    Expired,
}

impl SignatureState {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Pending,
        Self::Signing,
        Self::Signed,
        Self::Declined,
        Self::Expired,
    ];
}

/// When each phase ran. Indexed by phase, so that it stays small.
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

/// When one phase ran. A workflow may come back to a phase; then the stretches add up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PhaseTimes {
    /// When its first step began, or the wait for a person who lets it begin.
    pub started_at: Timestamp,
    /// When its last step so far ended; `None` while one is under way.
    pub completed_at: Option<Timestamp>,
    /// Work, in milliseconds; waiting for people is not in it.
    pub duration_ms: u64,
    /// Waiting for people, in milliseconds.
    pub waiting_ms: u64,
    /// Where the present stretch of work began; `None` while the phase rests.
    pub resumed_at: Option<Timestamp>,
    /// Where the present wait for people began, if it waits. It begins when work has ended: a step
    /// that was under way when a pause came works on.
    pub waiting_since: Option<Timestamp>,
}

impl PhaseTimes {
    /// A phase that begins.
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

/// What an execution was given to work on. Changes only when a person repairs it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Inputs {
    /// The trigger data as it came.
    pub trigger_data: Arc<Value>,
    /// Node parameters that a person has changed, by node.
    pub node_overrides: Map<String, Value>,
}
