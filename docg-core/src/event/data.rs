use std::{borrow::Cow, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::{
    i18n::Text,
    ids::{ApprovalId, NodeId, SignatureRequestId},
    observe::JsonText,
    preflight::PreflightSummary,
    run::{Status, WaitingFor},
    time::Timestamp,
};

/// The content of an event. The variants' names on the wire are the event types of schema v1.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event_type", content = "data")]
#[allow(
    missing_docs,
    reason = "the fields are those of the wire schema, named as there"
)]
#[non_exhaustive]
pub enum EventData {
    #[serde(rename = "execution.created")]
    ExecutionCreated { trigger_type: Arc<str> },
    #[serde(rename = "execution.status_changed")]
    StatusChanged {
        from: Status,
        to: Status,
        reason: Cow<'static, str>,
    },
    #[serde(rename = "execution.progress")]
    Progress { progress: u8 },
    #[serde(rename = "preflight.completed")]
    PreflightCompleted { summary: Arc<PreflightSummary> },
    #[serde(rename = "step.started")]
    StepStarted {
        node_id: NodeId,
        node_type: Arc<str>,
        position: u32,
        attempt: u32,
    },
    #[serde(rename = "step.completed")]
    StepCompleted {
        node_id: NodeId,
        node_type: Arc<str>,
        duration_ms: u64,
        output_preview: Option<JsonText>,
    },
    #[serde(rename = "step.failed")]
    StepFailed {
        node_id: NodeId,
        node_type: Arc<str>,
        error_code: Cow<'static, str>,
        error_human: Box<Text>,
        will_retry: bool,
        next_attempt_at: Option<Timestamp>,
    },
    #[serde(rename = "step.skipped")]
    StepSkipped {
        node_id: NodeId,
        node_type: Arc<str>,
        reason: Cow<'static, str>,
    },
    #[serde(rename = "step.waiting")]
    StepWaiting {
        node_id: NodeId,
        node_type: Arc<str>,
        waiting_for: Option<Box<WaitingFor>>,
    },
    #[serde(rename = "step.resumed")]
    StepResumed {
        node_id: NodeId,
        node_type: Arc<str>,
        reason: Cow<'static, str>,
    },
    #[serde(rename = "execution.paused")]
    Paused {
        reason: Option<String>,
        waiting_for: Option<Box<WaitingFor>>,
    },
    #[serde(rename = "execution.resumed")]
    Resumed { resumed_by: String },
    /// `duration_ms` is the time from start to end, without waiting for people, here and in step events.
    #[serde(rename = "execution.completed")]
    Completed { duration_ms: u64 },
    #[serde(rename = "execution.failed")]
    Failed {
        error_code: Cow<'static, str>,
        error_human: Box<Text>,
    },
    #[serde(rename = "execution.canceled")]
    Canceled {
        canceled_by: String,
        reason: Option<String>,
    },
    #[serde(rename = "approval.requested")]
    ApprovalRequested {
        approval_id: ApprovalId,
        approvers: Vec<String>,
    },
    #[serde(rename = "approval.decided")]
    ApprovalDecided {
        approval_id: ApprovalId,
        decision: Cow<'static, str>,
        decided_by: String,
    },
    #[serde(rename = "signature.requested")]
    SignatureRequested {
        signature_request_id: SignatureRequestId,
        envelope_id: String,
        provider: String,
        signers: Vec<String>,
    },
    #[serde(rename = "signature.signer.viewed")]
    SignerViewed {
        signature_request_id: SignatureRequestId,
        signer_email: String,
    },
    #[serde(rename = "signature.signer.signed")]
    SignerSigned {
        signature_request_id: SignatureRequestId,
        signer_email: String,
        signed_at: Timestamp,
    },
    #[serde(rename = "signature.signer.declined")]
    SignerDeclined {
        signature_request_id: SignatureRequestId,
        signer_email: String,
        reason: Option<String>,
    },
    #[serde(rename = "signature.completed")]
    SignatureCompleted {
        signature_request_id: SignatureRequestId,
        envelope_id: String,
        signed_at: Timestamp,
    },
    #[serde(rename = "signature.expired")]
    SignatureExpired {
        signature_request_id: SignatureRequestId,
        envelope_id: String,
        expires_at: Option<Timestamp>,
    },
}

impl EventData {
    /// The event type on the wire.
    #[must_use]
    pub const fn event_type(&self) -> &'static str {
        match self {
            Self::ExecutionCreated { .. } => "execution.created",
            Self::StatusChanged { .. } => "execution.status_changed",
            Self::Progress { .. } => "execution.progress",
            Self::PreflightCompleted { .. } => "preflight.completed",
            Self::StepStarted { .. } => "step.started",
            Self::StepCompleted { .. } => "step.completed",
            Self::StepFailed { .. } => "step.failed",
            Self::StepSkipped { .. } => "step.skipped",
            Self::StepWaiting { .. } => "step.waiting",
            Self::StepResumed { .. } => "step.resumed",
            Self::Paused { .. } => "execution.paused",
            Self::Resumed { .. } => "execution.resumed",
            Self::Completed { .. } => "execution.completed",
            Self::Failed { .. } => "execution.failed",
            Self::Canceled { .. } => "execution.canceled",
            Self::ApprovalRequested { .. } => "approval.requested",
            Self::ApprovalDecided { .. } => "approval.decided",
            Self::SignatureRequested { .. } => "signature.requested",
            Self::SignerViewed { .. } => "signature.signer.viewed",
            Self::SignerSigned { .. } => "signature.signer.signed",
            Self::SignerDeclined { .. } => "signature.signer.declined",
            Self::SignatureCompleted { .. } => "signature.completed",
            Self::SignatureExpired { .. } => "signature.expired",
        }
    }

    /// The signature request that this event announces; `None` for other events.
    #[must_use]
    pub const fn requested_signatures(&self) -> Option<SignatureRequestId> {
        match self {
            Self::SignatureRequested {
                signature_request_id,
                ..
            } => Some(*signature_request_id),
            _ => None,
        }
    }

    /// True if the event goes to the organization stream: an execution's creation, status, progress and end.
    #[must_use]
    pub const fn is_for_lists(&self) -> bool {
        matches!(
            self,
            Self::ExecutionCreated { .. }
                | Self::StatusChanged { .. }
                | Self::Progress { .. }
                | Self::Completed { .. }
                | Self::Failed { .. }
                | Self::Canceled { .. }
        )
    }
}
