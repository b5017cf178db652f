//! The rows that belong to a new execution or a commit, and the SQL that inserts them.

use std::sync::Arc;

use docg_core::{
    approval::Approval,
    event::Event,
    ids::ExecutionId,
    observe::{AuditEvent, LogEntry},
    run::{Execution, Step},
    signature::SignatureRequest,
};
use sqlx::postgres::PgArguments;

use crate::{
    codec::{ApprovalRow, AuditRow, Encoder, JournalRow, SignatureRow, StepRow},
    error::Error,
};

/// The rows of a new execution, or of a commit.
#[derive(Debug)]
pub(super) struct Children {
    pub(super) steps: Vec<StepRow>,
    journal: Option<JournalRow>,
    audit: Vec<AuditRow>,
    signature: Option<SignatureRow>,
    approval: Option<ApprovalRow>,
}

/// An execution with its new records, before they are encoded.
pub(super) struct Records<'a> {
    pub(super) execution: &'a Execution,
    pub(super) steps: &'a [Step],
    pub(super) events: &'a [Arc<Event>],
    pub(super) logs: &'a [Arc<LogEntry>],
    pub(super) audit: &'a [Arc<AuditEvent>],
    pub(super) signature: Option<&'a SignatureRequest>,
    pub(super) approval: Option<&'a Approval>,
}

impl Children {
    pub(super) fn of(records: &Records<'_>, encoder: Encoder) -> Result<Self, Error> {
        let execution = records.execution;
        let steps = records.steps.iter();
        let audit = records.audit.iter();
        let signature = records.signature;
        let approval = records.approval;
        Ok(Self {
            steps: steps
                .map(|step| StepRow::of(step, execution, encoder))
                .collect::<Result<_, _>>()?,
            journal: JournalRow::of(execution, records.events, records.logs, encoder)?,
            audit: audit
                .map(|row| AuditRow::of(row, execution, encoder))
                .collect::<Result<_, _>>()?,
            signature: signature
                .map(|request| SignatureRow::of(request, execution, encoder))
                .transpose()?,
            approval: approval
                .map(|approval| ApprovalRow::of(approval, execution, encoder))
                .transpose()?,
        })
    }

    /// The approximate size in bytes.
    pub(super) fn size(&self) -> usize {
        let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        let step =
            |row: &StepRow| 200 + text(&row.data_in) + text(&row.data_out) + text(&row.output);
        let steps: usize = self.steps.iter().map(step).sum();
        let audit: usize = self.audit.iter().map(|row| 400 + text(&row.metadata)).sum();
        steps + audit + self.journal.as_ref().map_or(0, JournalRow::size)
    }

    /// True if there is a signature request or an approval, which most commits do not have.
    pub(super) fn has_requests(&self) -> bool {
        self.signature.is_some() || self.approval.is_some()
    }

    /// Binds the parameters of the rows, and those of the requests for a statement that has them.
    pub(super) fn bind<'r>(
        all: impl Iterator<Item = &'r Self> + Clone,
        arguments: &mut PgArguments,
        has_requests: bool,
    ) -> Result<(), Error> {
        StepRow::bind(all.clone().flat_map(|it| &it.steps), arguments)?;
        JournalRow::bind(all.clone().filter_map(|it| it.journal.as_ref()), arguments)?;
        AuditRow::bind(all.clone().flat_map(|it| &it.audit), arguments)?;
        if has_requests {
            SignatureRow::bind(
                all.clone().filter_map(|it| it.signature.as_ref()),
                arguments,
            )?;
            ApprovalRow::bind(all.filter_map(|it| it.approval.as_ref()), arguments)?;
        }
        Ok(())
    }
}

/// The number of parameters of the rows without requests.
pub(super) const ROWS_COUNT: usize = StepRow::COUNT + JournalRow::COUNT + AuditRow::COUNT;

/// The number of parameters of the requests.
pub(super) const REQUESTS_COUNT: usize = SignatureRow::COUNT + ApprovalRow::COUNT;

/// The SQL that inserts rows of the executions in table `allowed`; its parameters start at number `first`.
/// It leaves the steps to the caller, because a new execution inserts them and a commit updates them.
pub(super) fn insert_children(first: usize, allowed: &str, has_requests: bool) -> String {
    let rows = insert_rows(first, allowed);
    if !has_requests {
        return rows;
    }
    format!("{rows}, {}", insert_requests(first + ROWS_COUNT, allowed))
}

fn insert_rows(first: usize, allowed: &str) -> String {
    let journal_at = first + StepRow::COUNT;
    let journal = JournalRow::unnest(journal_at, "r");
    let audit = AuditRow::unnest(journal_at + JournalRow::COUNT, "r");
    format!(
        "journal AS (
            INSERT INTO docg.journal (execution_id, last_event, last_log, events, logs)
            SELECT r.execution_id, r.last_event, r.last_log, r.events, r.logs
            FROM {journal} JOIN {allowed} m ON m.id = r.execution_id),
        audit AS (
            INSERT INTO docg.audit_events (execution_id, seq, id, organization_id, timestamp,
                actor_type, actor_id, metadata, salt, action, target_type, target_id, commitment,
                prev_hash, hash)
            SELECT r.execution_id, r.seq, r.id, r.organization_id, r.timestamp, r.actor_type,
                r.actor_id, r.metadata, r.salt, r.action, r.target_type, r.target_id,
                r.commitment, r.prev_hash, r.hash
            FROM {audit} JOIN {allowed} m ON m.id = r.execution_id)"
    )
}

fn insert_requests(first: usize, allowed: &str) -> String {
    let signatures = SignatureRow::unnest(first, "r");
    let approvals = ApprovalRow::unnest(first + SignatureRow::COUNT, "r");
    format!(
        "signatures AS (
            INSERT INTO docg.signature_requests (id, execution_id, organization_id, node_id,
                provider, envelope_id, status, signers, file, created_at, expires_at, completed_at,
                details, follow_up)
            SELECT r.id, r.execution_id, r.organization_id, r.node_id, r.provider, r.envelope_id,
                r.status, r.signers, r.file, r.created_at, r.expires_at, r.completed_at,
                r.details, r.follow_up
            FROM {signatures} JOIN {allowed} m ON m.id = r.execution_id
            ON CONFLICT (id) DO UPDATE
            SET provider = excluded.provider, envelope_id = excluded.envelope_id,
                status = excluded.status, signers = excluded.signers, file = excluded.file,
                expires_at = excluded.expires_at, completed_at = excluded.completed_at,
                details = excluded.details, follow_up = excluded.follow_up),
        approvals AS (
            INSERT INTO docg.approvals (id, execution_id, organization_id, node_id, message, approvers,
                token_hashes, quorum, decision, decided_by, created_at, decided_at, expires_at,
                on_expiry)
            SELECT r.id, r.execution_id, r.organization_id, r.node_id, r.message, r.approvers,
                ARRAY(SELECT substring(r.token_hashes FROM 32 * n + 1 FOR 32)
                    FROM generate_series(0, length(r.token_hashes) / 32 - 1) n),
                r.quorum, r.decision, r.decided_by, r.created_at, r.decided_at, r.expires_at,
                r.on_expiry
            FROM {approvals} JOIN {allowed} m ON m.id = r.execution_id
            ON CONFLICT (id) DO UPDATE
            SET message = excluded.message, approvers = excluded.approvers, token_hashes = excluded.token_hashes,
                quorum = excluded.quorum, decision = excluded.decision,
                decided_by = excluded.decided_by, decided_at = excluded.decided_at,
                expires_at = excluded.expires_at, on_expiry = excluded.on_expiry)"
    )
}

/// The lengths of an execution's sequences.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Lengths {
    pub(super) events: u64,
    pub(super) logs: u64,
    pub(super) audit: u64,
}

impl Lengths {
    /// The lengths that these records must follow: the execution's heads, less the records.
    pub(super) fn before(records: &Records<'_>) -> Self {
        let heads = &records.execution.heads;
        Self {
            events: heads.event_seq.saturating_sub(records.events.len() as u64),
            logs: heads.log_seq.saturating_sub(records.logs.len() as u64),
            audit: heads.audit_seq.saturating_sub(records.audit.len() as u64),
        }
    }

    /// Checks that new records follow the stored ones without a gap, and that the heads count them.
    pub(super) fn check(self, records: &Records<'_>) -> Result<(), Error> {
        let (id, heads) = (records.execution.id, &records.execution.heads);
        let events = records.events.iter().map(|event| event.seq);
        contiguous(id, "event", self.events, heads.event_seq, events)?;
        let logs = records.logs.iter().map(|entry| entry.seq);
        contiguous(id, "log entry", self.logs, heads.log_seq, logs)?;
        let audit = records.audit.iter().map(|row| row.seq);
        contiguous(id, "audit row", self.audit, heads.audit_seq, audit)
    }
}

fn contiguous(
    id: ExecutionId,
    what: &str,
    length: u64,
    head: u64,
    seqs: impl Iterator<Item = u64>,
) -> Result<(), Error> {
    let mut last = length;
    for seq in seqs {
        if seq != last + 1 {
            return Err(Error::Invalid(format!("{what} {seq} of {id} after {last}")));
        }
        last = seq;
    }
    if last == head {
        return Ok(());
    }
    Err(Error::Invalid(format!(
        "the last {what} of {id} is {last}, its head says {head}"
    )))
}
