//! Schemas of the JSON that docg-core itself reads and writes, field by field. The tests check every
//! answer and every event against them.

#![allow(
    dead_code,
    reason = "these types describe; docg-core has those that hold"
)]

use std::collections::HashMap;

use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

use super::names::{IssueDomain, Loss, OnError, Phase, Severity, Status, Timestamp, WaitKind};

/// A value that is well formed but wrong.
#[derive(ToSchema)]
pub(crate) struct FieldError {
    /// The place of the value: a JSON pointer into the body (RFC 6901), or `/` and the name of a query
    /// parameter.
    pointer: String,
    /// A stable, machine-readable code.
    code: String,
    /// A text that says what is wrong, or what would be right.
    detail: String,
}

/// The step that is running, or the next one.
#[derive(ToSchema)]
pub(crate) struct CurrentStep {
    /// The 0-based position in the workflow.
    index: u32,
    /// A label for people.
    label: String,
    node_id: String,
    node_type: String,
}

/// The reason why an execution waits, with the time, and the people who can act.
#[derive(ToSchema)]
pub(crate) struct WaitingFor {
    kind: WaitKind,
    since: Timestamp,
    /// The time at which the wait ends by itself. Null if only a person can end it.
    until: Option<Timestamp>,
    /// Details that a page may show: who can act, which step, which request.
    detail: Value,
}

/// One problem that preflight found.
#[derive(ToSchema)]
pub(crate) struct Issue {
    /// A stable code, such as `unresolved_variables`.
    code: String,
    domain: IssueDomain,
    severity: Severity,
    /// The text for people, in the reader's language.
    message_human: String,
    /// The text for technicians. Null without the scope `executions:debug`.
    message_tech: Option<String>,
    node_id: Option<String>,
    /// The field, as a JSON pointer: `/trigger_data/customer/email` or `/nodes/<node id>/<parameter>`.
    field: Option<String>,
}

/// One problem that preflight found, as events report it: without the text for technicians.
#[derive(ToSchema)]
pub(crate) struct PublicIssue {
    /// A stable code, such as `unresolved_variables`.
    code: String,
    domain: IssueDomain,
    severity: Severity,
    /// The text for people, in the reader's language.
    message_human: String,
    node_id: Option<String>,
    /// The field, as a JSON pointer: `/trigger_data/customer/email` or `/nodes/<node id>/<parameter>`.
    field: Option<String>,
}

/// An action that a person can take to resolve a problem.
#[derive(ToSchema)]
pub(crate) struct RecommendedAction {
    /// A stable code, such as `select_template`.
    action: String,
    /// The label for a button, in the reader's language.
    label: String,
    /// The purpose of the action, in the reader's language.
    description: String,
    target_node_id: Option<String>,
    params: ActionParams,
    /// The call that carries the action out. Null if only somebody outside this system can act.
    call: Option<ActionCall>,
    /// The values that a person has to give.
    inputs: Vec<ActionInput>,
    /// The losses that the call causes. To accept them, send the same names as `acknowledge` in the body.
    loses: Vec<Loss>,
}

/// A call that carries out an action. It is one that the status allows now.
#[derive(ToSchema)]
pub(crate) struct ActionCall {
    #[schema(example = "POST")]
    method: String,
    path: String,
    #[schema(value_type = HashMap<String, Value>)]
    body: Value,
}

/// A value that a person has to give, as a part of the body of an action's call.
#[derive(ToSchema)]
pub(crate) struct ActionInput {
    /// The place of the value in the body: a JSON pointer (RFC 6901).
    pointer: String,
    /// The value's name, for people.
    label: String,
    /// The present value; null if there is none, or if it is secret.
    value: Value,
    /// The JSON Schema of the new value.
    #[schema(value_type = HashMap<String, Value>)]
    schema: Value,
}

/// The values that a client needs to carry out an action. Actions may add more.
#[derive(ToSchema)]
pub(crate) struct ActionParams {
    /// The code of the issue or error that the action resolves.
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
    /// The version number: 1, and one more with each change.
    version: u32,
    /// The JSON Schema (2020-12) of the trigger data.
    #[schema(value_type = HashMap<String, Value>)]
    input_schema: Value,
    settings: Settings,
    nodes: Vec<Node>,
    created_at: Timestamp,
    updated_at: Timestamp,
    /// True if part of the stored workflow cannot be read, else left out. Storing it again repairs it.
    #[schema(default = false)]
    unreadable: bool,
}

/// Behaviour of a whole workflow.
#[derive(ToSchema)]
pub(crate) struct Settings {
    /// The text from which the titles of executions are made, with `{{trigger.…}}`.
    title: Option<String>,
    /// True if executions wait in `ready` until a person confirms that delivery may begin.
    confirm_before_delivery: bool,
    /// How long a review may take, in milliseconds; null for no limit.
    review_expires_ms: Option<u64>,
    /// Executions with a higher priority are claimed first.
    priority: i16,
}

/// A node of a stored workflow.
#[derive(ToSchema)]
pub(crate) struct Node {
    id: String,
    /// The node type, such as `render-pdf`.
    r#type: String,
    /// A label for people.
    label: String,
    phase: Phase,
    /// The node runs only if this expression is true.
    when: Option<String>,
    /// Values for the node type's parameters.
    #[schema(value_type = HashMap<String, Value>)]
    params: Value,
    retry: RetryPolicy,
    /// How long one attempt may take, in milliseconds.
    timeout_ms: u64,
    on_error: OnError,
}

/// How failed attempts are retried.
#[derive(ToSchema)]
pub(crate) struct RetryPolicy {
    /// The number of attempts, the first included.
    max_attempts: u32,
    /// The pause after the first failed attempt, in milliseconds.
    initial_ms: u64,
    /// The longest pause, in milliseconds.
    max_ms: u64,
    /// The factor between one pause and the next.
    multiplier: f64,
}

/// A workflow as a caller sends it.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({
    "name": "Service contract",
    "nodes": [{"id": "details", "type": "extract", "params": {"fields": {"customer": "{{trigger.customer}}"}}}],
}))]
pub(crate) struct WorkflowDraft {
    /// The name for people; not blank.
    #[schema(min_length = 1)]
    name: String,
    /// The JSON Schema (2020-12) of the trigger data; an empty object allows anything.
    #[serde(default)]
    #[schema(value_type = HashMap<String, Value>)]
    input_schema: Value,
    #[serde(default)]
    settings: SettingsDraft,
    /// The nodes, in the order in which they run.
    #[schema(min_items = 1, max_items = 200)]
    nodes: Vec<NodeDraft>,
}

/// Behaviour of a whole workflow.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SettingsDraft {
    /// The title of executions for people: a text with `{{trigger.…}}`. Null gives executions no title.
    #[serde(default)]
    #[schema(example = "Contract {{trigger.contract.number}}")]
    title: Option<String>,
    /// True if executions wait in `ready` until a person confirms that delivery may begin.
    #[serde(default)]
    confirm_before_delivery: bool,
    /// How long a review may take, in milliseconds; null for no limit.
    #[serde(default)]
    #[schema(minimum = 1, maximum = 315_360_000_000_i64, default = 604_800_000)]
    review_expires_ms: Option<u64>,
    /// Executions with a higher priority are claimed first.
    #[serde(default)]
    #[schema(minimum = -32768, maximum = 32767)]
    priority: i16,
}

/// A node as a caller sends it. Fields that are left out take the node type's defaults.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NodeDraft {
    /// Unique within the workflow.
    #[schema(pattern = "^[A-Za-z0-9_-]{1,64}$")]
    id: String,
    /// A node type that the server knows, such as `render-pdf`.
    r#type: String,
    /// A label for people. If it is left out, the node's id is the label.
    label: Option<String>,
    /// The phase. It may be left out if the node type supports only one.
    phase: Option<Phase>,
    /// The node runs only if this expression is true (minijinja's syntax).
    when: Option<String>,
    /// Values for the node type's parameters; texts may hold `{{path}}`.
    #[serde(default)]
    #[schema(value_type = HashMap<String, Value>)]
    params: Value,
    retry: Option<RetryDraft>,
    /// How long one attempt may take, in milliseconds.
    #[schema(minimum = 1, maximum = 86_400_000)]
    timeout_ms: Option<u64>,
    #[serde(default)]
    on_error: OnError,
}

/// How failed attempts are retried. `initial_ms` is at most `max_ms`.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RetryDraft {
    /// The number of attempts, the first included.
    #[serde(default)]
    #[schema(minimum = 1, maximum = 100, default = 3)]
    max_attempts: u32,
    /// The pause after the first failed attempt, in milliseconds.
    #[serde(default)]
    #[schema(maximum = 604_800_000, default = 500)]
    initial_ms: u64,
    /// The longest pause, in milliseconds.
    #[serde(default)]
    #[schema(maximum = 604_800_000, default = 30_000)]
    max_ms: u64,
    /// The factor between one pause and the next.
    #[serde(default)]
    #[schema(minimum = 1, maximum = 1000, default = 2.0)]
    multiplier: f64,
}

/// An event of schema v1.
#[derive(ToSchema)]
pub(crate) struct Event {
    /// Always 1.
    #[schema(minimum = 1, maximum = 1)]
    schema_version: u32,
    event_id: Uuid,
    /// The sequence number within the execution: 1, 2, 3, without gaps.
    #[schema(minimum = 1)]
    seq: u64,
    timestamp: Timestamp,
    execution_id: Uuid,
    workflow_id: Uuid,
    organization_id: Uuid,
    correlation_id: String,
    /// The status after this event. Progress and current step are as of this event too.
    status: Status,
    #[schema(maximum = 100)]
    progress: u8,
    current_step: Option<CurrentStep>,
    #[serde(flatten)]
    data: EventData,
}

/// The type of an event, and its data.
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
        /// The issues by domain.
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
    #[serde(rename = "step.waiting")]
    StepWaiting {
        node_id: String,
        node_type: String,
        waiting_for: Option<WaitingFor>,
    },
    #[serde(rename = "step.resumed")]
    StepResumed {
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

/// The execution's state when its stream begins.
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

/// The organization whose executions a stream reports.
#[derive(ToSchema)]
pub(crate) struct ListConnected {
    organization_id: Uuid,
}

/// The stream cannot continue from the given id without missing events.
#[derive(ToSchema)]
pub(crate) struct Gap {
    reason: GapReason,
    /// The id of the oldest event that is kept. Null if none is kept, and in an organization's stream.
    earliest: Option<String>,
    latest: Option<String>,
    /// The execution's state. Null in an organization's stream: read the list of executions again.
    state: Option<RunState>,
}

/// Why the stream cannot continue from the given id.
#[derive(ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum GapReason {
    TooOld,
    UnknownId,
    Ahead,
}

/// The state that a page needs to be up to date again.
#[derive(ToSchema)]
pub(crate) struct RunState {
    status: Status,
    #[schema(maximum = 100)]
    progress: u8,
    current_step: Option<CurrentStep>,
}

/// A sign that the stream is alive.
#[derive(ToSchema)]
pub(crate) struct Heartbeat {
    timestamp: Timestamp,
}
