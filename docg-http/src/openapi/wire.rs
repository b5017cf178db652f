//! What docg-core itself reads and writes as JSON, described field by field. The tests hold every
//! answer and every event that they see against it.

#![allow(
    dead_code,
    reason = "these types describe; docg-core has those that hold"
)]

use std::collections::HashMap;

use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

use super::names::{IssueDomain, OnError, Phase, Severity, Status, Timestamp, WaitKind};

/// A value that is well formed and wrong.
#[derive(ToSchema)]
pub(crate) struct FieldError {
    /// Where: a JSON pointer into the body (RFC 6901), or `/` and the name of a query parameter.
    pointer: String,
    /// Stable and machine-readable.
    code: String,
    /// What is wrong or what would be right.
    detail: String,
}

/// The step under way or next.
#[derive(ToSchema)]
pub(crate) struct CurrentStep {
    /// 0-based place in the workflow.
    index: u32,
    /// For people.
    label: String,
    node_id: String,
    node_type: String,
}

/// Why an execution does not move, since when, until when, and who can act.
#[derive(ToSchema)]
pub(crate) struct WaitingFor {
    kind: WaitKind,
    since: Timestamp,
    /// When the wait ends by itself; null where only a person can end it.
    until: Option<Timestamp>,
    /// What a page may show: who can act, which step, which request.
    detail: Value,
}

/// One thing that preflight found.
#[derive(ToSchema)]
pub(crate) struct Issue {
    /// Stable, such as `unresolved_variables`.
    code: String,
    domain: IssueDomain,
    severity: Severity,
    /// In the reader's language.
    message_human: String,
    /// Null without the scope `executions:debug`.
    message_tech: Option<String>,
    node_id: Option<String>,
    /// A parameter's name, or a path such as `trigger.customer.email`.
    field: Option<String>,
}

/// One thing that preflight found, as events tell it.
#[derive(ToSchema)]
pub(crate) struct PublicIssue {
    /// Stable, such as `unresolved_variables`.
    code: String,
    domain: IssueDomain,
    severity: Severity,
    /// In the reader's language.
    message_human: String,
    node_id: Option<String>,
    /// A parameter's name, or a path such as `trigger.customer.email`.
    field: Option<String>,
}

/// What a person can do about a problem.
#[derive(ToSchema)]
pub(crate) struct RecommendedAction {
    /// Stable, such as `select_template`.
    action: String,
    /// For a button, in the reader's language.
    label: String,
    /// What it is good for, in the reader's language.
    description: String,
    target_node_id: Option<String>,
    params: ActionParams,
}

/// What a client needs to carry an action out; actions may have more.
#[derive(ToSchema)]
pub(crate) struct ActionParams {
    /// The code of the issue or error that it helps against.
    issue_code: String,
    #[serde(flatten)]
    more: HashMap<String, Value>,
}

/// A stored version of a workflow.
#[derive(ToSchema)]
pub(crate) struct Workflow {
    id: Uuid,
    organization_id: Uuid,
    name: String,
    /// Counts 1, 2, 3 with each change.
    version: u32,
    /// JSON Schema 2020-12 of the trigger data.
    #[schema(value_type = Object)]
    input_schema: Value,
    settings: Settings,
    nodes: Vec<Node>,
    created_at: Timestamp,
    updated_at: Timestamp,
    /// True if some of what is stored of it cannot be read, else left out. Storing it anew repairs it.
    #[schema(default = false)]
    unreadable: bool,
}

/// Behaviour of a whole workflow.
#[derive(ToSchema)]
pub(crate) struct Settings {
    /// Park executions in `ready` until a person confirms that delivery may begin.
    confirm_before_delivery: bool,
    /// How long a review may take, in milliseconds; null for ever.
    review_expires_ms: Option<u64>,
    /// Higher is claimed first.
    priority: i16,
}

/// A node of a stored workflow.
#[derive(ToSchema)]
pub(crate) struct Node {
    id: String,
    /// The node type, such as `render-pdf`.
    r#type: String,
    /// For people.
    label: String,
    phase: Phase,
    /// Runs the node only where this expression is true.
    when: Option<String>,
    /// Values for the node type's parameters.
    #[schema(value_type = Object)]
    params: Value,
    retry: RetryPolicy,
    /// How long one attempt may take, in milliseconds.
    timeout_ms: u64,
    on_error: OnError,
}

/// How failed attempts are repeated.
#[derive(ToSchema)]
pub(crate) struct RetryPolicy {
    /// Attempts in all, the first included.
    max_attempts: u32,
    /// The pause after the first failure, in milliseconds.
    initial_ms: u64,
    /// No pause is longer than this, in milliseconds.
    max_ms: u64,
    /// What each pause is multiplied by to give the next.
    multiplier: f64,
}

/// What a caller may say of a workflow.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({
    "name": "Service contract",
    "nodes": [{"id": "details", "type": "extract", "params": {"fields": {"customer": "{{trigger.customer}}"}}}],
}))]
pub(crate) struct WorkflowDraft {
    /// For people; not blank.
    #[schema(min_length = 1)]
    name: String,
    /// JSON Schema 2020-12 of the trigger data; an empty object allows anything.
    #[serde(default)]
    #[schema(value_type = Object)]
    input_schema: Value,
    #[serde(default)]
    settings: SettingsDraft,
    /// In the order in which they run.
    #[schema(min_items = 1, max_items = 200)]
    nodes: Vec<NodeDraft>,
}

/// Behaviour of a whole workflow.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SettingsDraft {
    /// Park executions in `ready` until a person confirms that delivery may begin.
    #[serde(default)]
    confirm_before_delivery: bool,
    /// How long a review may take, in milliseconds; null for ever.
    #[serde(default)]
    #[schema(minimum = 1, maximum = 315_360_000_000_i64, default = 604_800_000)]
    review_expires_ms: Option<u64>,
    /// Higher is claimed first.
    #[serde(default)]
    #[schema(minimum = -32768, maximum = 32767)]
    priority: i16,
}

/// A node; what is left out takes the node type's defaults.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NodeDraft {
    /// Unique within the workflow.
    #[schema(pattern = "^[A-Za-z0-9_-]{1,64}$")]
    id: String,
    /// A node type that the server knows, such as `render-pdf`.
    r#type: String,
    /// For people; the id where it is left out.
    label: Option<String>,
    /// May be left out where the node type knows only one.
    phase: Option<Phase>,
    /// Runs the node only where this expression is true (minijinja's syntax).
    when: Option<String>,
    /// Values for the node type's parameters; texts may hold `{{path}}`.
    #[serde(default)]
    #[schema(value_type = Object)]
    params: Value,
    retry: Option<RetryDraft>,
    /// How long one attempt may take, in milliseconds.
    #[schema(minimum = 1, maximum = 86_400_000)]
    timeout_ms: Option<u64>,
    #[serde(default)]
    on_error: OnError,
}

/// How failed attempts are repeated. `initial_ms` is at most `max_ms`.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RetryDraft {
    /// Attempts in all, the first included.
    #[serde(default)]
    #[schema(minimum = 1, maximum = 100, default = 3)]
    max_attempts: u32,
    /// The pause after the first failure, in milliseconds.
    #[serde(default)]
    #[schema(maximum = 604_800_000, default = 500)]
    initial_ms: u64,
    /// No pause is longer than this, in milliseconds.
    #[serde(default)]
    #[schema(maximum = 604_800_000, default = 30_000)]
    max_ms: u64,
    /// What each pause is multiplied by to give the next.
    #[serde(default)]
    #[schema(minimum = 1, maximum = 1000, default = 2.0)]
    multiplier: f64,
}

/// An event of schema v1.
#[derive(ToSchema)]
pub(crate) struct Event {
    /// 1.
    #[schema(minimum = 1, maximum = 1)]
    schema_version: u32,
    event_id: Uuid,
    /// Counts 1, 2, 3 within an execution, without a hole.
    #[schema(minimum = 1)]
    seq: u64,
    timestamp: Timestamp,
    execution_id: Uuid,
    workflow_id: Uuid,
    organization_id: Uuid,
    correlation_id: String,
    /// As of this event, as are progress and current step.
    status: Status,
    #[schema(maximum = 100)]
    progress: u8,
    current_step: Option<CurrentStep>,
    #[serde(flatten)]
    data: EventData,
}

/// What happened.
#[derive(ToSchema)]
#[serde(tag = "event_type", content = "data")]
pub(crate) enum EventData {
    #[serde(rename = "execution.created")]
    ExecutionCreated { trigger_type: String },
    #[serde(rename = "execution.status_changed")]
    StatusChanged {
        from: Status,
        to: Status,
        reason: String,
    },
    #[serde(rename = "execution.progress")]
    Progress {
        #[schema(maximum = 100)]
        progress: u8,
    },
    #[serde(rename = "preflight.completed")]
    PreflightCompleted {
        blocking_count: u64,
        warning_count: u64,
        /// By domain.
        groups: HashMap<String, Vec<PublicIssue>>,
    },
    #[serde(rename = "step.started")]
    StepStarted {
        node_id: String,
        node_type: String,
        position: u32,
        attempt: u32,
    },
    #[serde(rename = "step.completed")]
    StepCompleted {
        node_id: String,
        node_type: String,
        duration_ms: u64,
        output_preview: Value,
    },
    #[serde(rename = "step.failed")]
    StepFailed {
        node_id: String,
        node_type: String,
        error_code: String,
        error_human: String,
        will_retry: bool,
        next_attempt_at: Option<Timestamp>,
    },
    #[serde(rename = "step.skipped")]
    StepSkipped {
        node_id: String,
        node_type: String,
        reason: String,
    },
    #[serde(rename = "execution.paused")]
    Paused {
        reason: Option<String>,
        waiting_for: Option<WaitingFor>,
    },
    #[serde(rename = "execution.resumed")]
    Resumed { resumed_by: String },
    #[serde(rename = "execution.completed")]
    Completed { duration_ms: u64 },
    #[serde(rename = "execution.failed")]
    Failed {
        error_code: String,
        error_human: String,
    },
    #[serde(rename = "execution.canceled")]
    Canceled {
        canceled_by: String,
        reason: Option<String>,
    },
    #[serde(rename = "approval.requested")]
    ApprovalRequested {
        approval_id: Uuid,
        approvers: Vec<String>,
    },
    #[serde(rename = "approval.decided")]
    ApprovalDecided {
        approval_id: Uuid,
        decision: String,
        decided_by: String,
    },
    #[serde(rename = "signature.requested")]
    SignatureRequested {
        signature_request_id: Uuid,
        envelope_id: String,
        provider: String,
        signers: Vec<String>,
    },
    #[serde(rename = "signature.signer.viewed")]
    SignerViewed {
        signature_request_id: Uuid,
        signer_email: String,
    },
    #[serde(rename = "signature.signer.signed")]
    SignerSigned {
        signature_request_id: Uuid,
        signer_email: String,
        signed_at: Timestamp,
    },
    #[serde(rename = "signature.signer.declined")]
    SignerDeclined {
        signature_request_id: Uuid,
        signer_email: String,
        reason: Option<String>,
    },
    #[serde(rename = "signature.completed")]
    SignatureCompleted {
        signature_request_id: Uuid,
        envelope_id: String,
        signed_at: Timestamp,
    },
    #[serde(rename = "signature.expired")]
    SignatureExpired {
        signature_request_id: Uuid,
        envelope_id: String,
        expires_at: Option<Timestamp>,
    },
}

/// The state at the moment at which an execution's stream begins.
#[derive(ToSchema)]
pub(crate) struct Connected {
    execution_id: Uuid,
    status: Status,
    #[schema(maximum = 100)]
    progress: u8,
    current_step: Option<CurrentStep>,
    /// The id of the newest event.
    last_event_id: Option<String>,
}

/// Whose list a stream follows.
#[derive(ToSchema)]
pub(crate) struct ListConnected {
    organization_id: Uuid,
}

/// Reading cannot go on from the given id.
#[derive(ToSchema)]
pub(crate) struct Gap {
    reason: GapReason,
    /// The id of the first event that is left; null where none is, and in a list.
    earliest: Option<String>,
    latest: Option<String>,
    /// Null in a list, which is to be read again.
    state: Option<RunState>,
}

/// What is wrong with the given id.
#[derive(ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum GapReason {
    TooOld,
    UnknownId,
    Ahead,
}

/// The state that a page needs to be right again.
#[derive(ToSchema)]
pub(crate) struct RunState {
    status: Status,
    #[schema(maximum = 100)]
    progress: u8,
    current_step: Option<CurrentStep>,
}

/// The stream lives.
#[derive(ToSchema)]
pub(crate) struct Heartbeat {
    timestamp: Timestamp,
}
