use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::request::{NewSigner, SignatureRequest};
use crate::{ids::OrganizationId, time::Timestamp};

/// A service that collects signatures.
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait SignatureProvider: Send + Sync + 'static {
    /// The name in parameters, URLs and stored requests.
    fn name(&self) -> &str;
    /// Sends a document to its signers. Called again with the same idempotency key after a crash:
    /// it must not make a second envelope.
    ///
    /// # Errors
    ///
    /// [`ProviderError`] says whether it may be tried again.
    async fn create(&self, request: EnvelopeRequest) -> Result<Envelope, ProviderError>;
    /// Finds the envelope that an earlier call with this idempotency key made.
    ///
    /// # Errors
    ///
    /// [`ProviderError`] where the provider cannot tell.
    async fn find(&self, request: &EnvelopeRequest) -> Result<Option<Envelope>, ProviderError>;
    /// The finished document with all signatures, as the application stores it.
    ///
    /// # Errors
    ///
    /// [`ProviderError`] says whether it may be tried again.
    async fn signed_document(&self, request: &SignatureRequest) -> Result<Value, ProviderError>;
    /// Proves that a webhook comes from the provider, over its raw bytes and in constant time, and
    /// reads it.
    ///
    /// # Errors
    ///
    /// [`WebhookError`] says which of the two failed.
    fn read_webhook(&self, request: &WebhookRequest) -> Result<ProviderUpdate, WebhookError>;
}

/// What a provider is asked to send out.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct EnvelopeRequest {
    /// The tenant.
    pub organization_id: OrganizationId,
    /// The same in every attempt.
    pub idempotency_key: String,
    /// The document, as an earlier step described it.
    pub file: Value,
    /// Who must sign.
    pub signers: Vec<NewSigner>,
    /// What the signers read with the request.
    pub message: Option<String>,
    /// When it is given up.
    pub expires_at: Option<Timestamp>,
    /// How often those who have not signed are reminded, in milliseconds; `None` for never.
    pub remind_every_ms: Option<u64>,
}

impl EnvelopeRequest {
    /// A request to send `file` to `signers`.
    #[must_use]
    pub fn new(
        organization_id: OrganizationId,
        idempotency_key: String,
        file: Value,
        signers: Vec<NewSigner>,
    ) -> Self {
        Self {
            organization_id,
            idempotency_key,
            file,
            signers,
            message: None,
            expires_at: None,
            remind_every_ms: None,
        }
    }
}

/// What a provider has taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// The provider's name for it.
    pub envelope_id: String,
}

/// Why a provider did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProviderError {
    /// Not reachable, or not able at the moment; nothing has happened.
    #[error("the signature provider is unavailable: {0}")]
    Unavailable(String),
    /// Refused; asking again changes nothing.
    #[error("the signature provider refused: {0}")]
    Refused(String),
    /// It broke off after the request had gone out.
    #[error("whether the signature provider took the request is unknown: {0}")]
    Unknown(String),
}

/// A webhook as it came in.
#[derive(Debug, Clone)]
pub struct WebhookRequest {
    /// Header names in lower case, with their values.
    pub headers: Vec<(String, String)>,
    /// The raw body.
    pub body: Vec<u8>,
}

impl WebhookRequest {
    /// The value of a header that is there exactly once.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut values = self
            .headers
            .iter()
            .filter(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, v)| v.as_str());
        let value = values.next()?;
        values.next().is_none().then_some(value)
    }
}

/// Why a webhook was not taken.
#[derive(Debug, thiserror::Error)]
pub enum WebhookError {
    /// It does not prove that the provider sent it.
    #[error("the webhook's signature is missing or wrong")]
    Unauthenticated,
    /// It proves it and cannot be read.
    #[error("the webhook cannot be read: {0}")]
    Malformed(String),
}

/// What a provider reports about one envelope.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProviderUpdate {
    /// The envelope; `None` where the event is about none, or of an unknown kind.
    pub envelope_id: Option<String>,
    /// Names this delivery, so that a repeat is recognized.
    pub dedupe_key: String,
    /// What became of signers; empty where the event says nothing of them.
    pub facts: Vec<SignerFact>,
}

/// One thing that became of a signer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignerFact {
    /// Who; `None` for all signers of the envelope.
    pub email: Option<String>,
    /// What.
    pub kind: SignerFactKind,
    /// When, by the provider's clock.
    pub at: Timestamp,
    /// Why, where a refusal gives a reason.
    pub reason: Option<String>,
}

impl SignerFact {
    /// This signer has signed.
    pub fn signed(email: impl Into<String>, at: Timestamp) -> Self {
        Self {
            email: Some(email.into()),
            kind: SignerFactKind::Signed,
            at,
            reason: None,
        }
    }
}

/// What can become of a signer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SignerFactKind {
    /// Saw the document.
    Viewed,
    /// Signed.
    Signed,
    /// Refused.
    Declined,
    /// Did not sign in time.
    Expired,
    /// The mail did not arrive.
    Bounced,
}
