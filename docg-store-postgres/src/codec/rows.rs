//! The rows that belong to an execution: steps, audit rows, signature requests, approvals.

use docg_core::{
    approval::Approval,
    ids::ExecutionId,
    observe::AuditEvent,
    run::{Execution, Step},
    signature::SignatureRequest,
};
use uuid::Uuid;

use super::{Encoder, Time, execution::name, int, row, time_column};
use crate::error::Error;

row! {
    StepRow {
        execution_id: Uuid = "uuid[]",
        position: i32 = "int4[]",
        id: Uuid = "uuid[]",
        node_id: String = "text[]",
        node_type: String = "text[]",
        label: String = "text[]",
        phase: &'static str = "text[]",
        status: &'static str = "text[]",
        activity: String = "text[]",
        attempt: i64 = "int8[]",
        attempts_before: i64 = "int8[]",
        takeovers: i64 = "int8[]",
        started_at: Option<Time> = "timestamptz[]",
        completed_at: Option<Time> = "timestamptz[]",
        waiting_ms: i64 = "int8[]",
        awaits: Option<String> = "text[]::json[]",
        error_code: Option<String> = "text[]",
        error_human: Option<String> = "text[]::json[]",
        error_tech: Option<String> = "text[]",
        outcome: String = "text[]",
        data_in: Option<String> = "text[]::json[]",
        data_out: Option<String> = "text[]::json[]",
        output: Option<String> = "text[]::json[]",
        reused_from: Option<Uuid> = "uuid[]",
    }
}

row! {
    AuditRow {
        execution_id: Uuid = "uuid[]",
        seq: i64 = "int8[]",
        id: Uuid = "uuid[]",
        organization_id: Uuid = "uuid[]",
        timestamp: Time = "timestamptz[]",
        actor_type: &'static str = "text[]",
        actor_id: String = "text[]",
        metadata: Option<String> = "text[]::json[]",
        salt: Option<Uuid> = "uuid[]",
        action: String = "text[]",
        target_type: String = "text[]",
        target_id: String = "text[]",
        commitment: [u8; 32] = "bytea[]",
        prev_hash: [u8; 32] = "bytea[]",
        hash: [u8; 32] = "bytea[]",
    }
}

row! {
    SignatureRow {
        id: Uuid = "uuid[]",
        execution_id: Uuid = "uuid[]",
        organization_id: Uuid = "uuid[]",
        node_id: String = "text[]",
        provider: String = "text[]",
        envelope_id: String = "text[]",
        status: String = "text[]",
        signers: String = "text[]::json[]",
        file: String = "text[]::json[]",
        created_at: Time = "timestamptz[]",
        expires_at: Option<Time> = "timestamptz[]",
        completed_at: Option<Time> = "timestamptz[]",
        details: String = "text[]::json[]",
        follow_up: String = "text[]::json[]",
    }
}

row! {
    /// The columns of an approval. PostgreSQL needs arrays of arrays to be rectangular, so token hashes are
    /// joined, 32 bytes each.
    ApprovalRow {
        id: Uuid = "uuid[]",
        execution_id: Uuid = "uuid[]",
        organization_id: Uuid = "uuid[]",
        node_id: String = "text[]",
        message: Option<String> = "text[]",
        approvers: String = "text[]::json[]",
        token_hashes: Vec<u8> = "bytea[]",
        quorum: i64 = "int8[]",
        decision: Option<String> = "text[]",
        decided_by: Option<String> = "text[]",
        created_at: Time = "timestamptz[]",
        decided_at: Option<Time> = "timestamptz[]",
        expires_at: Option<Time> = "timestamptz[]",
        on_expiry: String = "text[]",
    }
}

pub(super) fn of_execution(
    what: &str,
    found: ExecutionId,
    execution: &Execution,
) -> Result<(), Error> {
    if found == execution.id {
        return Ok(());
    }
    Err(Error::Invalid(format!(
        "a {what} of execution {found} comes with execution {}",
        execution.id
    )))
}

impl StepRow {
    pub(crate) fn of(step: &Step, execution: &Execution, encoder: Encoder) -> Result<Self, Error> {
        of_execution("step", step.execution_id, execution)?;
        let position = i32::try_from(step.position)
            .map_err(|_| Error::Invalid(format!("{} is no position of a step", step.position)))?;
        let error = step.error.as_ref();
        let tech = error.and_then(|it| it.tech.as_deref());
        let (status, activity, outcome) = step.state.stored();
        Ok(Self {
            execution_id: step.execution_id.0,
            position,
            id: step.id.0,
            node_id: encoder.text("node_id", step.node_id.as_str())?,
            node_type: encoder.text("node_type", &step.node_type)?,
            label: encoder.text("label", &step.label)?,
            phase: step.phase.as_str(),
            status: status.as_str(),
            activity: name(activity)?,
            attempt: step.attempt.into(),
            attempts_before: step.attempts_before.into(),
            takeovers: step.takeovers.into(),
            started_at: time_column(step.started_at),
            completed_at: time_column(step.completed_at),
            waiting_ms: int(step.waiting_ms),
            awaits: encoder.optional_json("awaits", step.awaits.as_ref())?,
            error_code: encoder.optional_text("error_code", error.map(|it| &*it.code))?,
            error_human: encoder.optional_json("error_human", error.map(|it| &it.human))?,
            error_tech: encoder.optional_text("error_tech", tech)?,
            outcome: name(outcome)?,
            data_in: encoder.json_text("data_in", step.data_in.as_ref())?,
            data_out: encoder.json_text("data_out", step.data_out.as_ref())?,
            output: encoder.optional_json("output", step.output.as_ref())?,
            reused_from: step.reused_from.map(|it| it.0),
        })
    }
}

impl AuditRow {
    pub(crate) fn of(
        row: &AuditEvent,
        execution: &Execution,
        encoder: Encoder,
    ) -> Result<Self, Error> {
        of_execution("audit row", row.execution_id, execution)?;
        Ok(Self {
            execution_id: row.execution_id.0,
            seq: int(row.seq),
            id: row.id.0,
            organization_id: row.organization_id.0,
            timestamp: row.timestamp.into(),
            actor_type: row.actor.actor_type.as_str(),
            actor_id: encoder.text("actor_id", &row.actor.actor_id)?,
            metadata: encoder.json_text("metadata", Some(&row.metadata))?,
            salt: row.salt,
            action: encoder.text("action", &row.action)?,
            target_type: encoder.text("target_type", &row.target.kind)?,
            target_id: encoder.text("target_id", &row.target.id)?,
            commitment: row.commitment,
            prev_hash: row.prev_hash,
            hash: row.hash,
        })
    }
}

impl SignatureRow {
    pub(crate) fn of(
        request: &SignatureRequest,
        execution: &Execution,
        encoder: Encoder,
    ) -> Result<Self, Error> {
        of_execution("signature request", request.execution_id, execution)?;
        Ok(Self {
            id: request.id.0,
            execution_id: request.execution_id.0,
            organization_id: request.organization_id.0,
            node_id: encoder.text("node_id", request.node_id.as_str())?,
            provider: encoder.text("provider", &request.provider)?,
            envelope_id: encoder.text("envelope_id", &request.envelope_id)?,
            status: name(request.status)?,
            signers: encoder.json("signers", &request.signers)?,
            file: encoder.json("file", &request.file)?,
            created_at: request.created_at.into(),
            expires_at: time_column(request.expires_at),
            completed_at: time_column(request.completed_at),
            details: encoder.json("details", &request.details)?,
            follow_up: encoder.json("follow_up", &request.follow_up)?,
        })
    }
}

impl ApprovalRow {
    pub(crate) fn of(
        approval: &Approval,
        execution: &Execution,
        encoder: Encoder,
    ) -> Result<Self, Error> {
        of_execution("approval", approval.execution_id, execution)?;
        let hashes = approval.approvers.iter().flat_map(|it| it.token_hash);
        Ok(Self {
            id: approval.id.0,
            execution_id: approval.execution_id.0,
            organization_id: approval.organization_id.0,
            node_id: encoder.text("node_id", approval.node_id.as_str())?,
            message: encoder.optional_text("message", approval.message.as_deref())?,
            approvers: encoder.json("approvers", &approval.approvers)?,
            token_hashes: hashes.collect(),
            quorum: approval.quorum.into(),
            decision: approval.decision.map(name).transpose()?,
            decided_by: encoder.optional_text("decided_by", approval.decided_by.as_deref())?,
            created_at: approval.created_at.into(),
            decided_at: time_column(approval.decided_at),
            expires_at: time_column(approval.expires_at),
            on_expiry: name(approval.on_expiry)?,
        })
    }
}
