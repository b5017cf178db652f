//! Verifies audit records.

use std::{
    collections::{HashMap, HashSet},
    io::{self, BufRead},
};

use docg_core::{
    ids::{ExecutionId, OrganizationId},
    observe::{AuditEvent, status_told, verify_chain},
};

use super::{
    record::{Chain, Checkpoint, Head, Record},
    report::{AuditFault, AuditReport, AuditTrust},
};

/// Checks the records of an audit trail in their order. It holds the rows of one chain at a time in memory,
/// and the heads in all checkpoints.
#[derive(Default)]
pub(super) struct Verifier {
    trusted: Vec<[u8; 32]>,
    /// For each organization, the number and hash of a checkpoint that the caller keeps outside the database
    /// ([`AuditTrust`]) and that must be found. Removed once it is found.
    expected: HashMap<OrganizationId, (u64, [u8; 32])>,
    /// The execution whose chain is verified; `None` for all executions.
    only: Option<ExecutionId>,
    report: AuditReport,
    last: HashMap<OrganizationId, (u64, [u8; 32])>,
    /// The heads of each chain that checkpoints signed, each with its checkpoint's number.
    signed: HashMap<ExecutionId, Vec<(Head, u64)>>,
    /// The purged chains, with the number of the checkpoint that signed the purge.
    purges: HashMap<ExecutionId, u64>,
    chain: Option<(Chain, Vec<AuditEvent>)>,
    seen: HashSet<ExecutionId>,
}

impl Verifier {
    /// Makes a verifier that trusts `keys` and requires the `expected` checkpoints.
    pub(super) fn new(
        keys: &[[u8; 32]],
        expected: HashMap<OrganizationId, (u64, [u8; 32])>,
        only: Option<ExecutionId>,
    ) -> Self {
        Self {
            trusted: keys.to_vec(),
            expected,
            only,
            ..Self::default()
        }
    }

    /// Makes a verifier for one organization's trail.
    pub(super) fn of(
        organization: OrganizationId,
        trust: &AuditTrust,
        only: Option<ExecutionId>,
    ) -> Self {
        let expected = trust.checkpoints.get(&organization);
        let expected = expected.map(|checkpoint| (organization, *checkpoint));
        Self::new(&trust.keys, expected.into_iter().collect(), only)
    }

    pub(super) fn take(&mut self, record: Record) {
        match record {
            Record::Checkpoint(checkpoint) => self.checkpoint(&checkpoint),
            Record::Chain(chain) => {
                self.end_chain();
                self.chain = Some((chain, Vec::new()));
            }
            Record::Event(event) => {
                let event = AuditEvent::from(event);
                if !self.asks_for(event.execution_id) {
                    return;
                }
                let rows = self.chain.as_mut().filter(|(chain, _)| {
                    chain.head.execution_id == event.execution_id
                        && chain.organization_id == event.organization_id
                });
                match rows {
                    Some((_, rows)) => rows.push(event),
                    None => self.report.faults.push(AuditFault::Chain {
                        execution_id: event.execution_id,
                        seq: event.seq,
                    }),
                }
            }
        }
    }

    /// Verifies the last chain, adds faults for chains and checkpoints that did not come, and returns the
    /// report.
    pub(super) fn end(mut self) -> AuditReport {
        self.end_chain();
        let mut missing: Vec<_> = self
            .signed
            .iter()
            .filter(|(id, _)| !self.seen.contains(id) && !self.purges.contains_key(id))
            .collect();
        missing.sort_unstable_by_key(|(id, _)| **id);
        for (execution_id, heads) in missing {
            let gone = heads
                .iter()
                .map(|(head, checkpoint)| AuditFault::Rewritten {
                    execution_id: *execution_id,
                    seq: head.audit_seq,
                    checkpoint: *checkpoint,
                });
            self.report.faults.extend(gone);
        }
        let mut unseen: Vec<_> = self.expected.into_iter().collect();
        unseen.sort_unstable();
        let unseen = unseen
            .into_iter()
            .map(|(organization_id, (seq, _))| AuditFault::Missing {
                organization_id,
                seq,
            });
        self.report.faults.extend(unseen);
        self.report
    }

    fn checkpoint(&mut self, checkpoint: &Checkpoint) {
        let (organization_id, seq) = (checkpoint.organization_id, checkpoint.seq);
        self.report.checkpoints += 1;
        let before = self.last.insert(organization_id, (seq, checkpoint.hash));
        let (last, hash) = before.unwrap_or((0, [0; 32]));
        // A chain is compared with the checkpoints read before it, so a checkpoint after a chain is a
        // fault.
        let is_late = self.chain.is_some();
        if seq != last + 1 || checkpoint.prev_hash != hash || is_late {
            self.report.faults.push(AuditFault::Checkpoints {
                organization_id,
                seq,
            });
        }
        if self.expected.get(&organization_id) == Some(&(seq, checkpoint.hash)) {
            self.expected.remove(&organization_id);
        }
        if !checkpoint.is_signed_by(&self.trusted) {
            self.report.faults.push(AuditFault::Signature {
                organization_id,
                seq,
            });
            return;
        }
        for head in &checkpoint.heads {
            let execution_id = head.execution_id;
            if !self.asks_for(execution_id) {
                continue;
            }
            if head.is_purge() {
                self.purges.entry(execution_id).or_insert(seq);
                continue;
            }
            if let Some(&checkpoint) = self.purges.get(&execution_id) {
                self.report.faults.push(AuditFault::NotPurged {
                    execution_id,
                    checkpoint,
                });
            }
            let signed = self.signed.entry(execution_id).or_default();
            signed.push((head.clone(), seq));
        }
    }

    fn asks_for(&self, execution: ExecutionId) -> bool {
        self.only.is_none_or(|only| only == execution)
    }

    fn end_chain(&mut self) {
        let Some((chain, rows)) = self.chain.take() else {
            return;
        };
        let execution_id = chain.head.execution_id;
        if !self.asks_for(execution_id) {
            return;
        }
        self.seen.insert(execution_id);
        self.report.head = Some((chain.head.audit_seq, chain.head.audit_hash));
        // An orphaned chain is a fault and belongs to no execution, so it does not count as a chain.
        self.report.chains += u64::from(!chain.is_orphaned);
        self.report.rows += rows.len() as u64;
        let purge = self.purges.get(&execution_id).copied();
        if rows.is_empty() && (chain.is_purged || purge.is_some()) {
            self.report.purged += 1;
            // A role that could remove the rows could also record a purge, so the purge must be signed. If
            // no key is trusted, no signature can be checked, so none is required.
            let is_signed = purge.is_some() || self.trusted.is_empty();
            if self.last.contains_key(&chain.organization_id) && !is_signed {
                let fault = AuditFault::NotSigned { execution_id };
                self.report.faults.push(fault);
            }
            return;
        }
        if let Some(checkpoint) = purge {
            self.report.faults.push(AuditFault::NotPurged {
                execution_id,
                checkpoint,
            });
        }
        let shown = verify_chain(&rows, chain.head.audit_seq, chain.head.audit_hash);
        if let Some(fault) = shown.fault {
            let seq = fault.seq;
            self.report
                .faults
                .push(AuditFault::Chain { execution_id, seq });
        }
        if chain.is_orphaned {
            let fault = AuditFault::Orphaned { execution_id };
            self.report.faults.push(fault);
        }
        // Compare the execution's status with the chain only if the chain is valid.
        if let (None, Some(status), Some((seq, told))) =
            (shown.fault, &chain.status, status_told(&rows))
            && status != told.as_str()
        {
            let fault = AuditFault::Status { execution_id, seq };
            self.report.faults.push(fault);
        }
        let mut signed_rows = 0;
        for (head, checkpoint) in self.signed.get(&execution_id).into_iter().flatten() {
            signed_rows = signed_rows.max(head.audit_seq);
            if !head.is_of(&rows) {
                self.report.faults.push(AuditFault::Rewritten {
                    execution_id,
                    seq: head.audit_seq,
                    checkpoint: *checkpoint,
                });
            }
        }
        self.report.unsigned += (rows.len() as u64).saturating_sub(signed_rows);
    }
}

/// Verifies an export of [`PgStore::export_audit`](crate::PgStore::export_audit), or several exports
/// in a row, without a database.
///
/// # Errors
///
/// Fails if the export cannot be read, or is of one execution, which needs
/// [`verify_audit_export_of`]. An error says nothing about the trail.
pub fn verify_audit_export(
    export: impl BufRead,
    trust: &AuditTrust,
) -> Result<AuditReport, io::Error> {
    verify(export, None, trust)
}

/// Verifies one execution's chain in an export, and the checkpoints that name it, as
/// [`verify_audit_export`] does for all chains. If the export lacks the chain, [`AuditReport::chains`] is
/// 0.
///
/// # Errors
///
/// Fails if the export cannot be read. An error says nothing about the trail.
pub fn verify_audit_export_of(
    execution: ExecutionId,
    export: impl BufRead,
    trust: &AuditTrust,
) -> Result<AuditReport, io::Error> {
    verify(export, Some(execution), trust)
}

fn verify(
    export: impl BufRead,
    only: Option<ExecutionId>,
    trust: &AuditTrust,
) -> Result<AuditReport, io::Error> {
    let mut report = AuditReport::default();
    let mut verifier = Verifier::new(&trust.keys, trust.checkpoints.clone(), only);
    for (number, line) in (1..).zip(export.lines()) {
        let line = line?;
        let invalid = |why: String| {
            io::Error::new(io::ErrorKind::InvalidData, format!("line {number}: {why}"))
        };
        // Each organization's part begins with a heading. It has its own checkpoints, so it gets a new
        // verifier.
        if let Ok(Heading { docg_audit_export }) = serde_json::from_str(&line) {
            // A heading is not signed, so the word `execution` in it must not excuse missing chains.
            if only.is_none() && docg_audit_export != WHOLE {
                return Err(invalid("an export of one execution: of which?".to_owned()));
            }
            let expected = std::mem::take(&mut verifier.expected);
            let next = Verifier::new(&trust.keys, expected, only);
            report.merge(std::mem::replace(&mut verifier, next).end());
            continue;
        }
        let record: Record = serde_json::from_str(&line).map_err(|e| invalid(e.to_string()))?;
        verifier.take(record);
    }
    report.merge(verifier.end());
    Ok(report)
}

/// The value in the heading of an organization's whole trail.
pub(super) const WHOLE: &str = "organization";

/// The first line of an export. It tells whether the export covers an `organization` or one `execution`.
#[derive(serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Heading {
    pub(super) docg_audit_export: String,
}
