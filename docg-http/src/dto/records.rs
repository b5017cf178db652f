use std::{borrow::Cow, sync::Arc};

use docg_core::{
    approval,
    engine::OpenApproval,
    i18n::Locale,
    ids::{ApprovalId, AuditId, ExecutionId, LogId, NodeId, OrganizationId, SignatureRequestId},
    observe::{self, ChainReport, JsonText},
    signature,
    time::Timestamp,
};
use serde::Serialize;
use utoipa::ToSchema;

use crate::openapi::names;

/// Log entries, oldest first.
#[derive(Serialize, ToSchema)]
pub(crate) struct Logs {
    pub(crate) logs: Vec<LogEntry>,
    /// The cursor of the next page; null at the end.
    pub(crate) next_cursor: Option<String>,
    pub(crate) has_more: bool,
}

/// One entry of an execution's log.
#[derive(Serialize, ToSchema)]
pub(crate) struct LogEntry {
    #[schema(value_type = Uuid)]
    id: LogId,
    #[schema(value_type = Uuid)]
    execution_id: ExecutionId,
    /// The id of the node that the entry is about, if any.
    #[schema(value_type = Option<String>)]
    step_id: Option<NodeId>,
    #[schema(value_type = names::Timestamp)]
    timestamp: Timestamp,
    #[schema(value_type = names::LogLevel)]
    level: observe::LogLevel,
    #[schema(value_type = names::LogDomain)]
    domain: observe::LogDomain,
    /// The text for people. It is in the reader's language if docg itself wrote it.
    message_human: String,
    /// Details for technicians. Null without the scope `executions:debug`.
    #[schema(value_type = Value)]
    details_tech: Option<JsonText>,
    /// The text for technicians. Null without the scope `executions:debug`.
    message_tech: Option<String>,
    #[schema(value_type = String)]
    correlation_id: Arc<str>,
}

pub(crate) fn log_entry(entry: &observe::LogEntry, locale: Locale, technical: bool) -> LogEntry {
    LogEntry {
        id: entry.id,
        execution_id: entry.execution_id,
        step_id: entry.step_id.clone(),
        timestamp: entry.timestamp,
        level: entry.level,
        domain: entry.domain,
        message_human: entry.message_human.render(locale),
        details_tech: entry.details_tech.clone().filter(|_| technical),
        message_tech: entry.message_tech.clone().filter(|_| technical),
        correlation_id: Arc::clone(&entry.correlation_id),
    }
}

/// Rows of an audit trail, oldest first.
#[derive(Serialize, ToSchema)]
pub(crate) struct AuditEvents {
    pub(crate) events: Vec<AuditEvent>,
    /// The cursor of the next page; null at the end.
    pub(crate) next_cursor: Option<String>,
    pub(crate) has_more: bool,
}

/// One row of an execution's audit trail, which is a hash chain.
#[derive(Serialize, ToSchema)]
pub(crate) struct AuditEvent {
    #[schema(value_type = Uuid)]
    id: AuditId,
    /// The sequence number within the execution: 1, 2, 3, without gaps.
    #[schema(minimum = 1)]
    seq: u64,
    #[schema(value_type = Uuid)]
    organization_id: OrganizationId,
    #[schema(value_type = Uuid)]
    execution_id: ExecutionId,
    #[schema(value_type = names::Timestamp)]
    timestamp: Timestamp,
    #[schema(value_type = names::ActorType)]
    actor_type: observe::ActorType,
    #[schema(value_type = String)]
    actor_id: Arc<str>,
    /// The action, such as `execution.started`.
    #[schema(value_type = String)]
    action: Cow<'static, str>,
    #[schema(value_type = String)]
    target_type: Cow<'static, str>,
    target_id: String,
    #[schema(value_type = Value)]
    metadata: JsonText,
    /// The salt with which actor and metadata are hashed into `commitment`. Null if they were erased.
    #[schema(value_type = Option<Uuid>)]
    salt: Option<uuid::Uuid>,
    /// The salted hash of actor and metadata. `hash` covers it in place of them.
    #[schema(value_type = names::Sha256)]
    commitment: String,
    #[schema(value_type = names::Sha256)]
    prev_hash: String,
    #[schema(value_type = names::Sha256)]
    hash: String,
}

pub(crate) fn audit_event(row: &observe::AuditEvent) -> AuditEvent {
    AuditEvent {
        id: row.id,
        seq: row.seq,
        organization_id: row.organization_id,
        execution_id: row.execution_id,
        timestamp: row.timestamp,
        actor_type: row.actor.actor_type,
        actor_id: Arc::clone(&row.actor.actor_id),
        action: row.action.clone(),
        target_type: row.target.kind.clone(),
        target_id: row.target.id.clone(),
        metadata: row.metadata.clone(),
        salt: row.salt,
        commitment: hex::encode(row.commitment),
        prev_hash: hex::encode(row.prev_hash),
        hash: hex::encode(row.hash),
    }
}

/// The result of an audit trail's verification.
#[derive(Serialize, ToSchema)]
pub(crate) struct AuditReport {
    valid: bool,
    count: u64,
    #[schema(value_type = names::Sha256)]
    head_hash: String,
    /// The first row that is wrong. If the end of the trail is missing, the first missing row.
    #[schema(minimum = 1)]
    first_invalid_seq: Option<u64>,
}

pub(crate) fn audit_report(report: &ChainReport) -> AuditReport {
    AuditReport {
        valid: report.fault.is_none(),
        count: report.count,
        head_hash: hex::encode(report.head_hash),
        first_invalid_seq: report.fault.map(|fault| fault.seq),
    }
}

/// An approval, with all that a page for the decision needs.
#[derive(Serialize, ToSchema)]
pub(crate) struct Approval {
    #[schema(value_type = Uuid)]
    approval_id: ApprovalId,
    #[schema(value_type = Uuid)]
    execution_id: ExecutionId,
    workflow_name: String,
    #[schema(value_type = names::ApprovalStatus)]
    status: approval::ApprovalStatus,
    /// True if part of the stored record cannot be read, else left out. Its ids are right in any case.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[schema(default = false)]
    unreadable: bool,
    /// The message to the approvers.
    message: Option<String>,
    /// The e-mail address of the approver to whom the token belongs.
    approver: String,
    approvers: Vec<Approver>,
    /// How many approvers must agree. A single rejection decides.
    #[schema(minimum = 1)]
    quorum: u32,
    #[schema(value_type = names::Timestamp)]
    created_at: Timestamp,
    #[schema(value_type = Option<names::Timestamp>)]
    expires_at: Option<Timestamp>,
    /// The decision; null while the approval is open.
    #[schema(value_type = Option<names::Decision>)]
    decision: Option<approval::Decision>,
    decided_by: Option<String>,
    /// The comments of the approvers, one on each line.
    comment: Option<String>,
    #[schema(value_type = Option<names::Timestamp>)]
    decided_at: Option<Timestamp>,
}

/// An approver, with their vote.
#[derive(Serialize, ToSchema)]
struct Approver {
    email: String,
    #[schema(value_type = Option<names::Decision>)]
    decision: Option<approval::Decision>,
    comment: Option<String>,
    #[schema(value_type = Option<names::Timestamp>)]
    decided_at: Option<Timestamp>,
}

pub(crate) fn approval(open: &OpenApproval) -> Approval {
    let approval = &open.approval;
    let approvers = approval.approvers.iter().map(|approver| Approver {
        email: approver.email.clone(),
        decision: approver.vote,
        comment: approver.comment.clone(),
        decided_at: approver.voted_at,
    });
    Approval {
        approval_id: approval.id,
        execution_id: approval.execution_id,
        workflow_name: open.workflow_name.clone(),
        status: open.status,
        unreadable: approval.unreadable,
        message: approval.message.clone(),
        approver: open.approver.clone(),
        approvers: approvers.collect(),
        quorum: approval.quorum,
        created_at: approval.created_at,
        expires_at: approval.expires_at,
        decision: approval.decision,
        decided_by: approval.decided_by.clone(),
        comment: approval.comment(),
        decided_at: approval.decided_at,
    }
}

/// A signature request and the progress of its signers.
#[derive(Serialize, ToSchema)]
pub(crate) struct Signers {
    #[schema(value_type = Uuid)]
    signature_request_id: SignatureRequestId,
    #[schema(value_type = names::SignatureStatus)]
    status: signature::RequestStatus,
    /// True if part of the stored record cannot be read, else left out. Its ids are right in any case.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[schema(default = false)]
    unreadable: bool,
    provider: String,
    #[schema(value_type = Option<names::Timestamp>)]
    expires_at: Option<Timestamp>,
    all_signed: bool,
    signers: Vec<Signer>,
}

/// A person who is asked to sign.
#[derive(Serialize, ToSchema)]
struct Signer {
    email: String,
    name: Option<String>,
    #[schema(value_type = names::SignerStatus)]
    status: signature::SignerStatus,
    #[schema(value_type = Option<names::Timestamp>)]
    viewed_at: Option<Timestamp>,
    #[schema(value_type = Option<names::Timestamp>)]
    signed_at: Option<Timestamp>,
    #[schema(value_type = Option<names::Timestamp>)]
    declined_at: Option<Timestamp>,
}

pub(crate) fn signers(request: &signature::SignatureRequest) -> Signers {
    let signers = request.signers.iter().map(|signer| Signer {
        email: signer.email.clone(),
        name: signer.name.clone(),
        status: signer.status,
        viewed_at: signer.viewed_at,
        signed_at: signer.signed_at,
        declined_at: signer.declined_at,
    });
    Signers {
        signature_request_id: request.id,
        status: request.status,
        unreadable: request.unreadable,
        provider: request.provider.clone(),
        expires_at: request.expires_at,
        all_signed: request.all_signed(),
        signers: signers.collect(),
    }
}

/// The answer to a webhook that was accepted.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum WebhookTaken {
    /// The webhook was received for the first time.
    First {
        /// Always true.
        received: bool,
    },
    /// The webhook had been received before, and changes nothing.
    Again {
        /// Always true.
        duplicate: bool,
    },
}

/// A token for one stream.
#[derive(Serialize, ToSchema)]
pub(crate) struct StreamToken {
    /// The token, for the query parameter `token` of the stream.
    pub(crate) token: String,
    /// The time by which the token must have been used for a first connection.
    #[schema(value_type = names::Timestamp)]
    pub(crate) expires_at: Timestamp,
}
