use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    ids::{ExecutionId, NodeId, OrganizationId, SignatureRequestId},
    time::Timestamp,
};

/// A request to people to sign a document.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SignatureRequest {
    /// The request's id.
    pub id: SignatureRequestId,
    /// The execution that waits for the signatures.
    pub execution_id: ExecutionId,
    /// The tenant.
    pub organization_id: OrganizationId,
    /// The node that made the request.
    pub node_id: NodeId,
    /// The provider's name, such as `builtin`.
    pub provider: String,
    /// The provider's id of the envelope.
    pub envelope_id: String,
    /// The status, derived from the signers and the clock.
    pub status: RequestStatus,
    /// The signers, in the order in which they were given.
    pub signers: Vec<Signer>,
    /// The document, as described by the handler.
    pub file: Value,
    /// When the request was created.
    pub created_at: Timestamp,
    /// When the request expires; `None` for never.
    pub expires_at: Option<Timestamp>,
    /// When the last signature arrived, or when the request ended without all signatures.
    pub completed_at: Option<Timestamp>,
    /// Further data that the provider needs to find the envelope.
    #[serde(default)]
    pub details: Value,
    /// While the request is open: when the engine next sends reminders and asks the provider for reports.
    #[serde(default)]
    pub follow_up: FollowUp,
    /// True if some stored data of the request cannot be read. The fields concerned are empty.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unreadable: bool,
}

/// The shortest interval of reminders, in milliseconds; shorter intervals are raised to it.
pub const SHORTEST_REMINDING_MS: u64 = 60_000;

/// The engine's own actions on an open request: to have the signers reminded who have not signed, and to ask
/// the provider for reports that webhooks may have lost.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct FollowUp {
    /// The interval of reminders in milliseconds; `None` if the engine sends none.
    pub remind_every_ms: Option<u64>,
    /// When the next reminder is due.
    pub remind_at: Option<Timestamp>,
    /// When the engine next asks the provider for reports; `None` if the engine has no provider of this name.
    pub check_at: Option<Timestamp>,
    /// When the provider last answered the engine's question for reports.
    pub checked_at: Option<Timestamp>,
    /// How many of the engine's questions have failed since the provider last answered.
    pub failed_checks: u32,
}

impl SignatureRequest {
    /// True if every signer has signed.
    #[must_use]
    pub fn all_signed(&self) -> bool {
        self.signers
            .iter()
            .all(|signer| signer.status == SignerStatus::Signed)
    }
}

/// The status of a signature request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RequestStatus {
    /// Signatures are awaited.
    Signing,
    /// All signers have signed.
    Signed,
    /// A signer refused.
    Declined,
    /// Not all signers signed in time.
    Expired,
    /// The execution ended, or the request was withdrawn at the provider.
    Canceled,
}

impl RequestStatus {
    /// All variants.
    pub const ALL: [Self; 5] = [
        Self::Signing,
        Self::Signed,
        Self::Declined,
        Self::Expired,
        Self::Canceled,
    ];
}

/// A signer of a request, with their status.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Signer {
    /// The signer's address as given; unique within the request by its [key](crate::address::AddressKey).
    pub email: String,
    /// The signer's name, for people.
    pub name: Option<String>,
    /// The signer's turn, if the signers sign in order.
    pub order: Option<u32>,
    /// The signer's status.
    pub status: SignerStatus,
    /// When the signer first saw the document.
    pub viewed_at: Option<Timestamp>,
    /// When the signer signed.
    pub signed_at: Option<Timestamp>,
    /// When the signer refused.
    pub declined_at: Option<Timestamp>,
    /// The signer's reason for refusing.
    pub reason: Option<String>,
}

/// The status of a signer. Ordered: a report can only move a signer forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SignerStatus {
    /// The signer was asked.
    Pending,
    /// The mail to the signer could not be delivered.
    Bounced,
    /// The signer has seen the document.
    Viewed,
    /// The signer has not signed in time.
    Expired,
    /// The signer has refused.
    Declined,
    /// The signer has signed.
    Signed,
}

impl SignerStatus {
    /// All variants.
    pub const ALL: [Self; 6] = [
        Self::Pending,
        Self::Bounced,
        Self::Viewed,
        Self::Expired,
        Self::Declined,
        Self::Signed,
    ];
}

/// A handler's new signature request, which the provider has already accepted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NewSignatureRequest {
    /// The provider's name. If the engine has no provider of this name, the engine asks for no reports, sends
    /// no reminders, and logs a warning with the execution. The application then reports what the signers do
    /// with [`Engine::report_signers`](crate::engine::Engine::report_signers).
    pub provider: String,
    /// The provider's id of the envelope.
    pub envelope_id: String,
    /// The signers.
    pub signers: Vec<NewSigner>,
    /// The document, for readers and later steps.
    pub file: Value,
    /// Further data that the provider needs to find the envelope; `null` for none.
    #[serde(default)]
    pub details: Value,
    /// When the request expires; `None` for never. The engine rejects a time that is not after the step's
    /// [`started_at`](crate::workflow::context::StepFacts::started_at), or more than ten years after it.
    pub expires_at: Option<Timestamp>,
    /// The interval, in milliseconds, at which the engine has the provider remind signers who have not
    /// signed. `None` if the engine sends no reminders, for example because the provider sends its own.
    #[serde(default)]
    pub remind_every_ms: Option<u64>,
}

impl NewSignatureRequest {
    /// A request that the provider has accepted as `envelope_id`.
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

    /// Sets the further data that the provider needs to find the envelope.
    #[must_use]
    pub fn details(mut self, details: Value) -> Self {
        self.details = details;
        self
    }

    /// Sets when the request expires.
    #[must_use]
    pub fn expires_at(mut self, expires_at: Timestamp) -> Self {
        self.expires_at = Some(expires_at);
        self
    }

    /// Sets the interval of the engine's reminders to signers who have not signed, in milliseconds; at least
    /// [`SHORTEST_REMINDING_MS`].
    #[must_use]
    pub fn remind_every_ms(mut self, millis: u64) -> Self {
        self.remind_every_ms = Some(millis).filter(|millis| *millis > 0);
        self
    }
}

/// A person to be asked to sign.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewSigner {
    /// The address that the request goes to.
    pub email: String,
    /// The signer's name, for people.
    #[serde(default)]
    pub name: Option<String>,
    /// The signer's turn, if the signers sign in order.
    #[serde(default)]
    pub order: Option<u32>,
}

impl NewSigner {
    /// A signer with only an address.
    pub fn new(email: impl Into<String>) -> Self {
        Self {
            email: email.into(),
            name: None,
            order: None,
        }
    }
}
