//! The rows that belong to an execution: steps, events, logs, audit rows, signature requests, approvals.

use docg_core::{
    approval::Approval,
    event::Event,
    ids::ExecutionId,
    observe::{AuditEvent, LogEntry},
    run::{Execution, Step},
    signature::SignatureRequest,
};
use serde_json::Value;
use uuid::Uuid;

use super::{Encoder, Time, columns, execution::name, int, time_column};
use crate::error::Error;

columns! {
    StepColumns {
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

columns! {
    EventColumns {
        execution_id: Uuid = "uuid[]",
        seq: i64 = "int8[]",
        event_id: Uuid = "uuid[]",
        event_type: &'static str = "text[]",
        timestamp: Time = "timestamptz[]",
        status: &'static str = "text[]",
        progress: i16 = "int2[]",
        current_step: Option<String> = "text[]::json[]",
        data: String = "text[]::json[]",
    }
}

columns! {
    LogColumns {
        execution_id: Uuid = "uuid[]",
        seq: i64 = "int8[]",
        id: Uuid = "uuid[]",
        step_id: Option<String> = "text[]",
        timestamp: Time = "timestamptz[]",
        level: &'static str = "text[]",
        domain: &'static str = "text[]",
        message_human: String = "text[]::json[]",
        message_tech: Option<String> = "text[]",
        details_tech: Option<String> = "text[]::json[]",
        correlation_id: String = "text[]",
    }
}

columns! {
    AuditColumns {
        execution_id: Uuid = "uuid[]",
        seq: i64 = "int8[]",
        id: Uuid = "uuid[]",
        organization_id: Uuid = "uuid[]",
        timestamp: Time = "timestamptz[]",
        actor_type: &'static str = "text[]",
        actor_id: String = "text[]",
        metadata: String = "text[]::json[]",
        salt: Option<Uuid> = "uuid[]",
        action: String = "text[]",
        target_type: String = "text[]",
        target_id: String = "text[]",
        commitment: Vec<u8> = "bytea[]",
        prev_hash: Vec<u8> = "bytea[]",
        hash: Vec<u8> = "bytea[]",
    }
}

columns! {
    SignatureColumns {
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

columns! {
    /// The columns of an approval. PostgreSQL needs arrays of arrays to be rectangular, so token hashes are
    /// joined, 32 bytes each.
    ApprovalColumns {
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

fn of_execution(what: &str, found: ExecutionId, execution: &Execution) -> Result<(), Error> {
    if found == execution.id {
        return Ok(());
    }
    Err(Error::Invalid(format!(
        "a {what} of execution {found} comes with execution {}",
        execution.id
    )))
}

impl StepColumns {
    pub(crate) fn add(
        &mut self,
        step: &Step,
        execution: &Execution,
        encoder: Encoder,
    ) -> Result<(), Error> {
        of_execution("step", step.execution_id, execution)?;
        let position = i32::try_from(step.position)
            .map_err(|_| Error::Invalid(format!("{} is no position of a step", step.position)))?;
        let error = step.error.as_ref();
        let (status, activity, outcome) = step.state.stored();
        self.execution_id.push(step.execution_id.0);
        self.position.push(position);
        self.id.push(step.id.0);
        self.node_id
            .push(encoder.text("node_id", step.node_id.as_str())?);
        self.node_type
            .push(encoder.text("node_type", &step.node_type)?);
        self.label.push(encoder.text("label", &step.label)?);
        self.phase.push(step.phase.as_str());
        self.status.push(status.as_str());
        self.activity.push(name(activity)?);
        self.attempt.push(step.attempt.into());
        self.attempts_before.push(step.attempts_before.into());
        self.takeovers.push(step.takeovers.into());
        self.started_at.push(time_column(step.started_at));
        self.completed_at.push(time_column(step.completed_at));
        self.waiting_ms.push(int(step.waiting_ms));
        self.error_code
            .push(encoder.optional_text("error_code", error.map(|it| &*it.code))?);
        self.error_human
            .push(encoder.optional_json("error_human", error.map(|it| &it.human))?);
        let tech = error.and_then(|it| it.tech.as_deref());
        self.error_tech
            .push(encoder.optional_text("error_tech", tech)?);
        self.outcome.push(name(outcome)?);
        self.data_in
            .push(encoder.json_text("data_in", step.data_in.as_ref())?);
        self.data_out
            .push(encoder.json_text("data_out", step.data_out.as_ref())?);
        self.output
            .push(encoder.optional_json("output", step.output.as_ref())?);
        self.reused_from.push(step.reused_from.map(|it| it.0));
        Ok(())
    }
}

impl EventColumns {
    /// Adds an event. Values that an event shares with its execution are stored only with the execution, so
    /// both must be equal.
    pub(crate) fn add(
        &mut self,
        event: &Event,
        execution: &Execution,
        encoder: Encoder,
    ) -> Result<(), Error> {
        of_execution("event", event.execution_id, execution)?;
        if event.workflow_id != execution.workflow_id
            || event.organization_id != execution.organization_id
            || event.correlation_id != execution.correlation_id
        {
            return Err(Error::Invalid(format!(
                "event {} of {} names another workflow, organization or correlation",
                event.seq, event.execution_id
            )));
        }
        let data = match serde_json::to_value(&event.data) {
            Ok(Value::Object(mut tagged)) => tagged.remove("data").unwrap_or(Value::Null),
            other => return Err(Error::Invalid(format!("{other:?} is no event"))),
        };
        self.execution_id.push(event.execution_id.0);
        self.seq.push(int(event.seq));
        self.event_id.push(event.event_id.0);
        self.event_type.push(event.event_type());
        self.timestamp.push(event.timestamp.into());
        self.status.push(event.status.as_str());
        self.progress.push(event.progress.into());
        self.current_step
            .push(encoder.optional_json("current_step", event.current_step.as_ref())?);
        self.data.push(encoder.json("data", &data)?);
        Ok(())
    }
}

impl LogColumns {
    pub(crate) fn add(
        &mut self,
        entry: &LogEntry,
        execution: &Execution,
        encoder: Encoder,
    ) -> Result<(), Error> {
        of_execution("log entry", entry.execution_id, execution)?;
        self.execution_id.push(entry.execution_id.0);
        self.seq.push(int(entry.seq));
        self.id.push(entry.id.0);
        let step_id = entry.step_id.as_ref().map(|node| node.as_str());
        self.step_id
            .push(encoder.optional_text("step_id", step_id)?);
        self.timestamp.push(entry.timestamp.into());
        self.level.push(entry.level.as_str());
        self.domain.push(entry.domain.as_str());
        self.message_human
            .push(encoder.json("message_human", &entry.message_human)?);
        self.message_tech
            .push(encoder.optional_text("message_tech", entry.message_tech.as_deref())?);
        self.details_tech
            .push(encoder.json_text("details_tech", entry.details_tech.as_ref())?);
        self.correlation_id
            .push(encoder.text("correlation_id", &entry.correlation_id)?);
        Ok(())
    }
}

impl AuditColumns {
    pub(crate) fn add(
        &mut self,
        row: &AuditEvent,
        execution: &Execution,
        encoder: Encoder,
    ) -> Result<(), Error> {
        of_execution("audit row", row.execution_id, execution)?;
        self.execution_id.push(row.execution_id.0);
        self.seq.push(int(row.seq));
        self.id.push(row.id.0);
        self.organization_id.push(row.organization_id.0);
        self.timestamp.push(row.timestamp.into());
        self.actor_type.push(row.actor.actor_type.as_str());
        self.actor_id
            .push(encoder.text("actor_id", &row.actor.actor_id)?);
        self.metadata
            .extend(encoder.json_text("metadata", Some(&row.metadata))?);
        self.salt.push(row.salt);
        self.action.push(encoder.text("action", &row.action)?);
        self.target_type
            .push(encoder.text("target_type", &row.target.kind)?);
        self.target_id
            .push(encoder.text("target_id", &row.target.id)?);
        self.commitment.push(row.commitment.to_vec());
        self.prev_hash.push(row.prev_hash.to_vec());
        self.hash.push(row.hash.to_vec());
        Ok(())
    }
}

impl SignatureColumns {
    pub(crate) fn add(
        &mut self,
        request: &SignatureRequest,
        execution: &Execution,
        encoder: Encoder,
    ) -> Result<(), Error> {
        of_execution("signature request", request.execution_id, execution)?;
        self.id.push(request.id.0);
        self.execution_id.push(request.execution_id.0);
        self.organization_id.push(request.organization_id.0);
        self.node_id
            .push(encoder.text("node_id", request.node_id.as_str())?);
        self.provider
            .push(encoder.text("provider", &request.provider)?);
        self.envelope_id
            .push(encoder.text("envelope_id", &request.envelope_id)?);
        self.status.push(name(request.status)?);
        self.signers
            .push(encoder.json("signers", &request.signers)?);
        self.file.push(encoder.json("file", &request.file)?);
        self.created_at.push(request.created_at.into());
        self.expires_at.push(time_column(request.expires_at));
        self.completed_at.push(time_column(request.completed_at));
        self.details
            .push(encoder.json("details", &request.details)?);
        self.follow_up
            .push(encoder.json("follow_up", &request.follow_up)?);
        Ok(())
    }
}

impl ApprovalColumns {
    pub(crate) fn add(
        &mut self,
        approval: &Approval,
        execution: &Execution,
        encoder: Encoder,
    ) -> Result<(), Error> {
        of_execution("approval", approval.execution_id, execution)?;
        self.id.push(approval.id.0);
        self.execution_id.push(approval.execution_id.0);
        self.organization_id.push(approval.organization_id.0);
        self.node_id
            .push(encoder.text("node_id", approval.node_id.as_str())?);
        self.message
            .push(encoder.optional_text("message", approval.message.as_deref())?);
        self.approvers
            .push(encoder.json("approvers", &approval.approvers)?);
        let hashes = approval.approvers.iter().flat_map(|it| it.token_hash);
        self.token_hashes.push(hashes.collect());
        self.quorum.push(approval.quorum.into());
        self.decision.push(approval.decision.map(name).transpose()?);
        self.decided_by
            .push(encoder.optional_text("decided_by", approval.decided_by.as_deref())?);
        self.created_at.push(approval.created_at.into());
        self.decided_at.push(time_column(approval.decided_at));
        self.expires_at.push(time_column(approval.expires_at));
        self.on_expiry.push(name(approval.on_expiry)?);
        Ok(())
    }
}
