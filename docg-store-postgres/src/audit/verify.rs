//! Going over audit records.

use std::{
    collections::{HashMap, HashSet},
    io::{self, BufRead},
};

use docg_core::{
    ids::{ExecutionId, OrganizationId},
    observe::{AuditEvent, verify_chain},
};

use super::record::{Chain, Checkpoint, Record};

/// What verifying an audit trail has shown.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuditReport {
    /// How many executions' chains there are.
    pub chains: u64,
    /// How many rows they have.
    pub rows: u64,
    /// How many checkpoints there are.
    pub checkpoints: u64,
    /// How many chains have no rows any more, because their time was over.
    pub purged: u64,
    /// Where the last chain ends: its last row's number and hash.
    pub head: Option<(u64, [u8; 32])>,
    /// All that does not hold.
    pub faults: Vec<AuditFault>,
}

impl AuditReport {
    /// Whether all of it holds.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        self.faults.is_empty()
    }

    /// Adds what verifying another organization's trail has shown.
    pub fn merge(&mut self, other: Self) {
        self.chains += other.chains;
        self.rows += other.rows;
        self.checkpoints += other.checkpoints;
        self.purged += other.purged;
        self.head = other.head.or(self.head);
        self.faults.extend(other.faults);
    }
}

/// A place where an audit trail does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AuditFault {
    /// A row was changed, removed, moved or added.
    #[error("the chain of execution {execution_id} breaks at {seq}")]
    Chain {
        /// Whose chain.
        execution_id: ExecutionId,
        /// Where it shows; of a cut tail, the first that is missing.
        seq: u64,
    },
    /// A chain is not what it was when a checkpoint was signed.
    #[error(
        "the chain of execution {execution_id} is not as checkpoint {checkpoint} has it at {seq}"
    )]
    Rewritten {
        /// Whose chain.
        execution_id: ExecutionId,
        /// The row that the checkpoint names.
        seq: u64,
        /// Which checkpoint.
        checkpoint: u64,
    },
    /// A chain was let go, and no checkpoint has signed that yet: the next one will, or somebody has
    /// removed what must stay.
    #[error("the rows of execution {execution_id} are gone, and no checkpoint has signed that yet")]
    NotSigned {
        /// Whose chain.
        execution_id: ExecutionId,
    },
    /// A checkpoint was changed, or signed with another key.
    #[error("checkpoint {seq} of organization {organization_id} is not signed by a trusted key")]
    Signature {
        /// Whose.
        organization_id: OrganizationId,
        /// Which.
        seq: u64,
    },
    /// A checkpoint does not follow the one before.
    #[error("checkpoint {seq} of organization {organization_id} does not follow the one before")]
    Checkpoints {
        /// Whose.
        organization_id: OrganizationId,
        /// Which.
        seq: u64,
    },
}

impl AuditFault {
    /// Whether it only says that no trusted key has signed something: without a key everything that
    /// was signed has this fault, which then says nothing about the trail.
    #[must_use]
    pub fn is_of_signature(&self) -> bool {
        match self {
            Self::Signature { .. } => true,
            Self::Chain { .. }
            | Self::Rewritten { .. }
            | Self::NotSigned { .. }
            | Self::Checkpoints { .. } => false,
        }
    }
}

/// Takes records in their order, and keeps in memory one chain and what checkpoints say.
#[derive(Default)]
pub(super) struct Verifier {
    trusted: Vec<[u8; 32]>,
    /// Whose chain is asked for; without it everybody's.
    only: Option<ExecutionId>,
    report: AuditReport,
    last: HashMap<OrganizationId, (u64, [u8; 32])>,
    /// What checkpoints say of each chain: a row's number, its hash, the checkpoint.
    signed: HashMap<ExecutionId, Vec<(u64, [u8; 32], u64)>>,
    /// The chains that were let go, as checkpoints say.
    let_go: HashSet<ExecutionId>,
    chain: Option<(Chain, Vec<AuditEvent>)>,
    seen: HashSet<ExecutionId>,
}

impl Verifier {
    pub(super) fn new(trusted: &[[u8; 32]], only: Option<ExecutionId>) -> Self {
        Self {
            trusted: trusted.to_vec(),
            only,
            ..Self::default()
        }
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

    /// The report; `is_whole` says that all chains of the organizations have been seen.
    pub(super) fn end(mut self, is_whole: bool) -> AuditReport {
        self.end_chain();
        if is_whole {
            let mut missing: Vec<_> = self
                .signed
                .iter()
                .filter(|(id, _)| !self.seen.contains(id) && !self.let_go.contains(id))
                .collect();
            missing.sort_unstable_by_key(|(id, _)| **id);
            for (execution_id, heads) in missing {
                self.report
                    .faults
                    .extend(
                        heads
                            .iter()
                            .map(|(seq, _, checkpoint)| AuditFault::Rewritten {
                                execution_id: *execution_id,
                                seq: *seq,
                                checkpoint: *checkpoint,
                            }),
                    );
            }
        }
        self.report
    }

    fn checkpoint(&mut self, checkpoint: &Checkpoint) {
        let (organization_id, seq) = (checkpoint.organization_id, checkpoint.seq);
        self.report.checkpoints += 1;
        let before = self.last.insert(organization_id, (seq, checkpoint.hash));
        let (last, hash) = before.unwrap_or((0, [0; 32]));
        // Chains are held against the checkpoints that came before them.
        let is_late = self.chain.is_some();
        if seq != last + 1 || checkpoint.prev_hash != hash || is_late {
            self.report.faults.push(AuditFault::Checkpoints {
                organization_id,
                seq,
            });
        }
        if !checkpoint.is_signed_by(&self.trusted) {
            self.report.faults.push(AuditFault::Signature {
                organization_id,
                seq,
            });
            return;
        }
        let heads = checkpoint.heads.iter();
        for head in heads.filter(|head| self.only.is_none_or(|id| id == head.execution_id)) {
            if head.is_let_go() {
                self.let_go.insert(head.execution_id);
                continue;
            }
            let signed = self.signed.entry(head.execution_id).or_default();
            signed.push((head.audit_seq, head.audit_hash, seq));
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
        self.report.chains += 1;
        self.report.rows += rows.len() as u64;
        let is_let_go = self.let_go.contains(&execution_id);
        if rows.is_empty() && (chain.is_purged || is_let_go) {
            self.report.purged += 1;
            // Whoever could remove the rows could also note that their time was over.
            if self.last.contains_key(&chain.organization_id) && !is_let_go {
                let fault = AuditFault::NotSigned { execution_id };
                self.report.faults.push(fault);
            }
            return;
        }
        let shown = verify_chain(&rows, chain.head.audit_seq, chain.head.audit_hash);
        if let Some(fault) = shown.fault {
            let seq = fault.seq;
            self.report
                .faults
                .push(AuditFault::Chain { execution_id, seq });
        }
        for (seq, hash, checkpoint) in self.signed.get(&execution_id).into_iter().flatten() {
            let row = seq
                .checked_sub(1)
                .and_then(|at| rows.get(usize::try_from(at).ok()?));
            if row.is_none_or(|row| row.hash != *hash) {
                self.report.faults.push(AuditFault::Rewritten {
                    execution_id,
                    seq: *seq,
                    checkpoint: *checkpoint,
                });
            }
        }
    }
}

/// Verifies an export of [`PgStore::export_audit`](crate::PgStore::export_audit), or several of them
/// one after the other, without a database. `trusted` are the public keys that checkpoints may be
/// signed with.
///
/// # Errors
///
/// Where the export cannot be read: that says nothing about the trail.
pub fn verify_audit_export(
    export: impl BufRead,
    trusted: &[[u8; 32]],
) -> Result<AuditReport, io::Error> {
    verify(export, None, trusted)
}

/// As [`verify_audit_export`], of one execution's chain and of the checkpoints that speak of it. The
/// report counts no chain where the export has none of it.
///
/// # Errors
///
/// Where the export cannot be read: that says nothing about the trail.
pub fn verify_audit_export_of(
    execution: ExecutionId,
    export: impl BufRead,
    trusted: &[[u8; 32]],
) -> Result<AuditReport, io::Error> {
    verify(export, Some(execution), trusted)
}

fn verify(
    export: impl BufRead,
    only: Option<ExecutionId>,
    trusted: &[[u8; 32]],
) -> Result<AuditReport, io::Error> {
    let mut report = AuditReport::default();
    let mut verifier = Verifier::new(trusted, only);
    let mut is_whole = true;
    for (number, line) in (1..).zip(export.lines()) {
        let line = line?;
        // Each organization begins with a heading, and has checkpoints of its own.
        if let Ok(Heading { docg_audit_export }) = serde_json::from_str(&line) {
            let before = std::mem::replace(&mut verifier, Verifier::new(trusted, only));
            report.merge(before.end(is_whole));
            is_whole = docg_audit_export == "organization";
            continue;
        }
        let record: Record = serde_json::from_str(&line).map_err(|e| {
            io::Error::new(io::ErrorKind::InvalidData, format!("line {number}: {e}"))
        })?;
        verifier.take(record);
    }
    report.merge(verifier.end(is_whole));
    Ok(report)
}

/// The first line of an organization's export: what it is of, an `organization` or an `execution`.
#[derive(serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Heading {
    pub(super) docg_audit_export: String,
}
