use docg_core::{
    engine::OpenApproval,
    i18n::Locale,
    observe::{AuditEvent, ChainReport, LogEntry},
    signature::SignatureRequest,
};
use serde_json::{Value, json};

pub(crate) fn log_entry(entry: &LogEntry, locale: Locale, technical: bool) -> Value {
    json!({
        "id": entry.id,
        "execution_id": entry.execution_id,
        "step_id": entry.step_id,
        "timestamp": entry.timestamp,
        "level": entry.level,
        "domain": entry.domain,
        "message_human": entry.message_human.render(locale),
        "details_tech": entry.details_tech.as_ref().filter(|_| technical),
        "message_tech": entry.message_tech.as_ref().filter(|_| technical),
        "correlation_id": entry.correlation_id,
    })
}

pub(crate) fn audit_event(row: &AuditEvent) -> Value {
    json!({
        "id": row.id,
        "seq": row.seq,
        "organization_id": row.organization_id,
        "timestamp": row.timestamp,
        "actor_type": row.actor.actor_type,
        "actor_id": row.actor.actor_id,
        "action": row.action,
        "target_type": row.target.kind,
        "target_id": row.target.id,
        "metadata": row.metadata,
        "prev_hash": hex::encode(row.prev_hash),
        "hash": hex::encode(row.hash),
    })
}

pub(crate) fn audit_report(report: &ChainReport) -> Value {
    json!({
        "valid": report.fault.is_none(),
        "count": report.count,
        "head_hash": hex::encode(report.head_hash),
        "first_invalid_seq": report.fault.map(|fault| fault.seq),
    })
}

/// What a page for a decision needs.
pub(crate) fn approval(open: &OpenApproval) -> Value {
    let approval = &open.approval;
    let approvers: Vec<_> = approval
        .approvers
        .iter()
        .map(|approver| {
            json!({
                "email": approver.email,
                "decision": approver.vote,
                "comment": approver.comment,
                "decided_at": approver.voted_at,
            })
        })
        .collect();
    json!({
        "approval_id": approval.id,
        "execution_id": approval.execution_id,
        "workflow_name": open.workflow_name,
        "status": open.status,
        "message": approval.message,
        "approver": open.approver,
        "approvers": approvers,
        "quorum": approval.quorum,
        "created_at": approval.created_at,
        "expires_at": approval.expires_at,
        "decision": approval.decision,
        "decided_by": approval.decided_by,
        "comment": approval.comment(),
        "decided_at": approval.decided_at,
    })
}

pub(crate) fn signers(request: &SignatureRequest) -> Value {
    let signers: Vec<_> = request
        .signers
        .iter()
        .map(|signer| {
            json!({
                "email": signer.email,
                "name": signer.name,
                "status": signer.status,
                "viewed_at": signer.viewed_at,
                "signed_at": signer.signed_at,
                "declined_at": signer.declined_at,
            })
        })
        .collect();
    json!({
        "signature_request_id": request.id,
        "status": request.status,
        "provider": request.provider,
        "expires_at": request.expires_at,
        "all_signed": request.all_signed(),
        "signers": signers,
    })
}
