use std::{
    borrow::{Borrow, Cow},
    sync::Arc,
};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use super::{
    canonical::{CanonicalHasher, JsonText},
    redact::Redaction,
};
use crate::{
    ids::{AuditId, ExecutionId, OrganizationId},
    limits,
    run::Status,
    storable,
    time::Timestamp,
};

/// The audit actions that docg records. Applications add their own.
pub mod actions {
    #![allow(missing_docs, reason = "the names say it")]
    pub const STARTED: &str = "execution.started";
    pub const COMPLETED: &str = "execution.completed";
    pub const FAILED: &str = "execution.failed";
    pub const CANCELED: &str = "execution.canceled";
    pub const RETRIED: &str = "execution.retried";
    pub const RESUMED: &str = "execution.resumed";
    pub const PAUSED: &str = "execution.paused";
    pub const STATUS_CHANGED: &str = "execution.status_changed";
    pub const SIGNAL_IGNORED: &str = "execution.signal_ignored";
    pub const EVENT_RECEIVED: &str = "event.received";
    pub const DOCUMENT_GENERATED: &str = "document.generated";
    pub const DOCUMENT_SAVED: &str = "document.saved";
    pub const DOCUMENT_SENT: &str = "document.sent";
    pub const SIGNATURE_REQUESTED: &str = "signature.requested";
    pub const SIGNATURE_VIEWED: &str = "signature.viewed";
    pub const SIGNATURE_SIGNED: &str = "signature.signed";
    pub const SIGNATURE_DECLINED: &str = "signature.declined";
    pub const SIGNATURE_EXPIRED: &str = "signature.expired";
    pub const APPROVAL_REQUESTED: &str = "approval.requested";
    pub const APPROVAL_DECIDED: &str = "approval.decided";
    /// Recorded by handlers that render: the template has changed since it was last used.
    pub const TEMPLATE_VERSION_UPDATED: &str = "template.version_updated";
}

/// Receives audit rows. The engine's implementation adds them to the execution's hash chain.
pub trait AuditSink: Send + Sync {
    /// Receives a row. Must neither block nor panic.
    fn record(&self, row: AuditDraft);
}

/// The kind of an actor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ActorType {
    /// A person, or a client acting for one.
    User,
    /// docg itself.
    System,
    /// A provider's webhook.
    Webhook,
}

impl ActorType {
    /// All variants.
    pub const ALL: [Self; 3] = [Self::User, Self::System, Self::Webhook];

    /// The name on the wire and in the database.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::System => "system",
            Self::Webhook => "webhook",
        }
    }
}

/// The person, system or webhook that did an action.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Actor {
    /// The kind of actor.
    pub actor_type: ActorType,
    /// The actor's name, in free text.
    pub actor_id: Arc<str>,
}

impl Actor {
    /// A person, or a client acting for one.
    pub fn user(id: impl Into<Arc<str>>) -> Self {
        Self {
            actor_type: ActorType::User,
            actor_id: id.into(),
        }
    }

    /// docg itself.
    #[must_use]
    pub fn system() -> Self {
        Self {
            actor_type: ActorType::System,
            actor_id: Arc::from("docg"),
        }
    }

    /// A provider's webhook.
    pub fn webhook(provider: impl Into<Arc<str>>) -> Self {
        Self {
            actor_type: ActorType::Webhook,
            actor_id: provider.into(),
        }
    }
}

/// The thing that an action was done to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// The kind of thing, such as `execution`, `document`, `signature_request`.
    #[serde(rename = "target_type")]
    pub kind: Cow<'static, str>,
    /// The thing's id.
    #[serde(rename = "target_id")]
    pub id: String,
}

/// An audit row before it is placed in the chain.
#[derive(Debug, Clone, PartialEq)]
pub struct AuditDraft {
    /// The actor; `None` for docg itself.
    pub actor: Option<Actor>,
    /// The action, such as `document.sent`.
    pub action: Cow<'static, str>,
    /// The target of the action; `None` for the execution.
    pub target: Option<Target>,
    /// The facts of the action; redacted and bounded before they are stored.
    pub metadata: Value,
}

impl AuditDraft {
    /// A row about the execution, with docg as the actor.
    #[must_use]
    pub fn new(action: impl Into<Cow<'static, str>>, metadata: Value) -> Self {
        Self {
            actor: None,
            action: action.into(),
            target: None,
            metadata,
        }
    }

    /// Sets the actor.
    #[must_use]
    pub fn by(mut self, actor: Actor) -> Self {
        self.actor = Some(actor);
        self
    }

    /// Removes characters that no store keeps and bounds all values.
    pub(crate) fn storable(self) -> Self {
        Self {
            actor: self.actor.map(|actor| Actor {
                actor_id: storable::cut(
                    storable::printable(actor.actor_id.to_string()),
                    limits::ACTOR.max,
                )
                .into(),
                ..actor
            }),
            action: storable::printable_cow(self.action, limits::NAME.max),
            target: self.target.map(|target| Target {
                kind: storable::printable_cow(target.kind, limits::CODE),
                id: storable::cut(storable::printable(target.id), limits::HUMAN),
            }),
            metadata: storable::fit_owned(self.metadata),
        }
    }

    /// Sets the target.
    #[must_use]
    pub fn on(mut self, kind: impl Into<Cow<'static, str>>, id: impl ToString) -> Self {
        self.target = Some(Target {
            kind: kind.into(),
            id: id.to_string(),
        });
        self
    }
}

/// A row of an execution's audit trail.
///
/// Each row carries the hash of the previous row. A person may ask that actor and facts be erased, so the
/// hash covers only a salted commitment to both. If actor and facts are erased together with the salt, the
/// chain still verifies.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AuditEvent {
    /// The row's id.
    pub id: AuditId,
    /// The row's number within its execution: 1, 2, 3 ….
    pub seq: u64,
    /// The tenant.
    pub organization_id: OrganizationId,
    /// The execution.
    pub execution_id: ExecutionId,
    /// When the action happened.
    pub timestamp: Timestamp,
    /// The action, such as `document.sent`.
    pub action: Cow<'static, str>,
    /// The target of the action.
    #[serde(flatten)]
    pub target: Target,
    /// The actor.
    #[serde(flatten)]
    pub actor: Actor,
    /// The facts of the action, redacted and bounded.
    pub metadata: JsonText,
    /// A random value that makes [`commitment`](Self::commitment) unguessable; `None` once the row's personal
    /// data is erased.
    pub salt: Option<Uuid>,
    /// SHA-256 over the salt, the actor and the facts.
    pub commitment: [u8; 32],
    /// The hash of the previous row; all zeros in the first row.
    pub prev_hash: [u8; 32],
    /// The hash of this row.
    pub hash: [u8; 32],
}

/// The part of a new row that places it in the chain.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ChainLink {
    pub(crate) id: AuditId,
    pub(crate) seq: u64,
    pub(crate) organization_id: OrganizationId,
    pub(crate) execution_id: ExecutionId,
    pub(crate) timestamp: Timestamp,
    pub(crate) salt: Uuid,
    pub(crate) prev_hash: [u8; 32],
}

impl AuditEvent {
    pub(crate) fn chained(draft: AuditDraft, link: ChainLink, redaction: &Redaction) -> Self {
        let mut row = Self {
            id: link.id,
            seq: link.seq,
            organization_id: link.organization_id,
            execution_id: link.execution_id,
            timestamp: link.timestamp,
            action: draft.action,
            target: draft.target.unwrap_or_else(|| Target {
                kind: Cow::Borrowed("execution"),
                id: link.execution_id.to_string(),
            }),
            actor: draft.actor.unwrap_or_else(Actor::system),
            metadata: redaction.snapshot(&draft.metadata),
            salt: Some(link.salt),
            commitment: [0; 32],
            prev_hash: link.prev_hash,
            hash: [0; 32],
        };
        row.commitment = row.computed_commitment(link.salt);
        row.hash = row.computed_hash();
        row
    }

    fn computed_commitment(&self, salt: Uuid) -> [u8; 32] {
        let mut hasher = CanonicalHasher::new("docg.audit.commitment.v1");
        hasher.field(salt.as_bytes());
        hasher.field(self.actor.actor_id.as_bytes());
        hasher.field(self.metadata.as_str().as_bytes());
        hasher.finish()
    }

    /// True if actor and facts match the commitment. An erased row has no salt to check them with, so it must
    /// show neither actor nor facts.
    fn shows_what_it_commits_to(&self) -> bool {
        match self.salt {
            Some(salt) => self.commitment == self.computed_commitment(salt),
            None => self.actor.actor_id.is_empty() && self.metadata == JsonText::default(),
        }
    }

    /// The execution's status after this row, as far as the row tells it.
    fn told(&self) -> Told {
        let by_action = match &*self.action {
            actions::STARTED => Some(Status::Running),
            actions::COMPLETED => Some(Status::Completed),
            actions::FAILED => Some(Status::Failed),
            actions::CANCELED => Some(Status::Canceled),
            actions::PAUSED => Some(Status::Paused),
            actions::RESUMED | actions::STATUS_CHANGED => None,
            _ => return Told::Nothing,
        };
        // Applications may record the same actions, so only a `to` in the facts proves a change of status.
        let status = if self.salt.is_none() {
            by_action
        } else {
            let facts = self.metadata.to_value();
            facts.get("to").and_then(|to| Status::deserialize(to).ok())
        };
        match status {
            Some(status) => Told::Status(status),
            None if self.salt.is_none() => Told::Erased,
            None => Told::Unclear,
        }
    }

    fn computed_hash(&self) -> [u8; 32] {
        let mut hasher = CanonicalHasher::new("docg.audit.v1");
        hasher.field(&self.prev_hash);
        hasher.field(self.id.0.as_bytes());
        hasher.field(&self.seq.to_be_bytes());
        hasher.field(self.organization_id.0.as_bytes());
        hasher.field(self.execution_id.0.as_bytes());
        hasher.field(&self.timestamp.as_millis().to_be_bytes());
        hasher.field(self.actor.actor_type.as_str().as_bytes());
        hasher.field(self.action.as_bytes());
        hasher.field(self.target.kind.as_bytes());
        hasher.field(self.target.id.as_bytes());
        hasher.field(&self.commitment);
        hasher.finish()
    }
}

/// An audit row's statement about its execution's status.
enum Told {
    /// The row is about something else.
    Nothing,
    /// The row's action is a status change, but the facts name no status.
    Unclear,
    /// The row records a status change, but its facts were erased.
    Erased,
    /// The status after the change.
    Status(Status),
}

/// The execution's latest status according to its audit trail, and the `seq` of the row that shows the
/// status. `None` if the rows do not tell the status, for example because their facts were erased.
#[must_use]
pub fn status_told(rows: &[impl Borrow<AuditEvent>]) -> Option<(u64, Status)> {
    let mut is_unclear = false;
    for row in rows.iter().rev().map(Borrow::borrow) {
        match row.told() {
            Told::Status(status) => return Some((row.seq, status)),
            Told::Erased => return None,
            Told::Unclear => is_unclear = true,
            Told::Nothing => {}
        }
    }
    // Every status change is recorded, so an execution without such a row is still queued.
    (!is_unclear).then_some((1, Status::Queued))
}

/// The result of verifying an audit chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChainReport {
    /// The number of rows.
    pub count: u64,
    /// The last row's hash; all zeros if there is no row.
    pub head_hash: [u8; 32],
    /// The first fault; `None` if the chain is intact.
    pub fault: Option<ChainFault>,
}

/// A place where an audit chain is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChainFault {
    /// The `seq` at which the fault shows; for a cut tail, the first missing `seq`.
    pub seq: u64,
}

/// Verifies an execution's whole audit chain against the number and hash of the last row, which are stored
/// with the execution. Detects edits, gaps, swaps, insertions and a cut tail.
#[must_use]
pub fn verify_chain(
    rows: &[impl Borrow<AuditEvent>],
    head_seq: u64,
    head_hash: [u8; 32],
) -> ChainReport {
    let mut previous = [0; 32];
    let mut fault = None;
    for (expected_seq, row) in (1u64..).zip(rows.iter().map(Borrow::borrow)) {
        let holds = row.seq == expected_seq
            && row.prev_hash == previous
            && row.shows_what_it_commits_to()
            && row.hash == row.computed_hash()
            && (row.seq != head_seq || row.hash == head_hash)
            && row.seq <= head_seq;
        if !holds {
            fault = Some(ChainFault { seq: expected_seq });
            break;
        }
        previous = row.hash;
    }
    let count = rows.len() as u64;
    if fault.is_none() && count < head_seq {
        fault = Some(ChainFault { seq: count + 1 });
    }
    ChainReport {
        count,
        head_hash: rows.last().map_or([0; 32], |row| row.borrow().hash),
        fault,
    }
}
