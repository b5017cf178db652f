use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    ids::{ExecutionId, NodeId, OrganizationId, SignatureRequestId},
    time::Timestamp,
};

/// A document that people are asked to sign.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SignatureRequest {
    /// Unique.
    pub id: SignatureRequestId,
    /// The run that waits for it.
    pub execution_id: ExecutionId,
    /// The tenant.
    pub organization_id: OrganizationId,
    /// The node that asked.
    pub node_id: NodeId,
    /// The provider's name, such as `builtin`.
    pub provider: String,
    /// The provider's name for it.
    pub envelope_id: String,
    /// Where it stands, derived from the signers and the clock.
    pub status: RequestStatus,
    /// The signers, in the order in which they were asked.
    pub signers: Vec<Signer>,
    /// The document, as the handler described it.
    pub file: Value,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it is given up.
    pub expires_at: Option<Timestamp>,
    /// When the last signature came, or it ended otherwise.
    pub completed_at: Option<Timestamp>,
    /// What the provider needs to find it again, besides the envelope's name.
    #[serde(default)]
    pub details: Value,
    /// What the engine does about it by itself while it waits.
    #[serde(default)]
    pub follow_up: FollowUp,
    /// Some of what is stored of it cannot be read, and is left empty.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unreadable: bool,
}

/// Nobody wants a reminder every second: a shorter interval counts as this one, in milliseconds.
pub const SHORTEST_REMINDING_MS: u64 = 60_000;

/// What the engine does about an open request by itself: it reminds those who have not signed, and
/// asks the provider for what its webhooks may have lost.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct FollowUp {
    /// How often to remind, in milliseconds; `None` where the engine does not.
    pub remind_every_ms: Option<u64>,
    /// When the next reminder is due.
    pub remind_at: Option<Timestamp>,
    /// When the provider is to be asked next; `None` where it cannot be.
    pub check_at: Option<Timestamp>,
    /// When it last answered.
    pub checked_at: Option<Timestamp>,
    /// How often it has not answered since.
    pub failed_checks: u32,
}

impl SignatureRequest {
    /// Whether every signer has signed.
    #[must_use]
    pub fn all_signed(&self) -> bool {
        self.signers
            .iter()
            .all(|signer| signer.status == SignerStatus::Signed)
    }
}

/// Where a signature request stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RequestStatus {
    /// Signatures are awaited.
    Signing,
    /// All are in.
    Signed,
    /// A signer refused.
    Declined,
    /// Not all came in time.
    Expired,
    /// The execution ended, or the request was withdrawn at the provider.
    Canceled,
}

impl RequestStatus {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Signing,
        Self::Signed,
        Self::Declined,
        Self::Expired,
        Self::Canceled,
    ];
}

/// One who is asked to sign, and what is known of them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Signer {
    /// As it was given; unique within the request by its [key](crate::address::AddressKey).
    pub email: String,
    /// For people.
    pub name: Option<String>,
    /// The turn in which they sign, where there is an order.
    pub order: Option<u32>,
    /// How far they have come.
    pub status: SignerStatus,
    /// When they first saw the document.
    pub viewed_at: Option<Timestamp>,
    /// When they signed.
    pub signed_at: Option<Timestamp>,
    /// When they refused.
    pub declined_at: Option<Timestamp>,
    /// Why they refused, in their words.
    pub reason: Option<String>,
}

/// How far a signer has come. Ordered: a report can only move a signer forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SignerStatus {
    /// Asked.
    Pending,
    /// The mail could not be delivered.
    Bounced,
    /// Has seen the document.
    Viewed,
    /// Has not signed in time.
    Expired,
    /// Has refused.
    Declined,
    /// Has signed.
    Signed,
}

impl SignerStatus {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Pending,
        Self::Bounced,
        Self::Viewed,
        Self::Expired,
        Self::Declined,
        Self::Signed,
    ];
}

/// A signature request as a handler makes it, after the provider has taken it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NewSignatureRequest {
    /// The provider's name. If the engine has no provider of this name, it asks nobody what became of the
    /// request and reminds nobody: the application reports it with
    /// [`Engine::report_signers`](crate::engine::Engine::report_signers). The execution's log warns of that.
    pub provider: String,
    /// The provider's name for the request.
    pub envelope_id: String,
    /// Who must sign.
    pub signers: Vec<NewSigner>,
    /// The document, for whoever shows or finishes it.
    pub file: Value,
    /// What the provider needs to find it again, besides the envelope's name; `null` for nothing.
    #[serde(default)]
    pub details: Value,
    /// When it is given up: after the step's
    /// [`started_at`](crate::workflow::context::StepFacts::started_at), and within ten years. `None` for never.
    pub expires_at: Option<Timestamp>,
    /// How often the engine has the provider remind those who have not signed, in milliseconds;
    /// `None` where it does not, for one because the provider does so by itself.
    #[serde(default)]
    pub remind_every_ms: Option<u64>,
}

impl NewSignatureRequest {
    /// A request that the provider has taken under the name `envelope_id`.
    pub fn new(
        provider: impl Into<String>,
        envelope_id: impl Into<String>,
        signers: impl IntoIterator<Item = NewSigner>,
    ) -> Self {
        Self {
            provider: provider.into(),
            envelope_id: envelope_id.into(),
            signers: signers.into_iter().collect(),
            file: Value::Null,
            details: Value::Null,
            expires_at: None,
            remind_every_ms: None,
        }
    }

    /// Sets the document.
    #[must_use]
    pub fn file(mut self, file: Value) -> Self {
        self.file = file;
        self
    }

    /// Sets what the provider needs to find it again.
    #[must_use]
    pub fn details(mut self, details: Value) -> Self {
        self.details = details;
        self
    }

    /// Sets when it is given up.
    #[must_use]
    pub fn expires_at(mut self, expires_at: Timestamp) -> Self {
        self.expires_at = Some(expires_at);
        self
    }

    /// Sets how often the engine has those reminded who have not signed, in milliseconds; at least
    /// [`SHORTEST_REMINDING_MS`].
    #[must_use]
    pub fn remind_every_ms(mut self, millis: u64) -> Self {
        self.remind_every_ms = Some(millis).filter(|millis| *millis > 0);
        self
    }
}

/// One who is to be asked to sign.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewSigner {
    /// Where the request goes.
    pub email: String,
    /// For people.
    #[serde(default)]
    pub name: Option<String>,
    /// The turn in which they sign, where there is an order.
    #[serde(default)]
    pub order: Option<u32>,
}

impl NewSigner {
    /// A signer known by address alone.
    pub fn new(email: impl Into<String>) -> Self {
        Self {
            email: email.into(),
            name: None,
            order: None,
        }
    }
}
