use std::fmt;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    error::ProviderError,
    request::{NewSigner, SignatureRequest},
};
use crate::{ids::OrganizationId, limits, storable, time::Timestamp};

/// A service that collects signatures.
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait SignatureProvider: Send + Sync + 'static {
    /// The provider's name in parameters, URLs and stored requests.
    fn name(&self) -> &str;
    /// Sends a document to its signers. After a crash the call is repeated with the same idempotency key, and
    /// must not create a second envelope.
    ///
    /// # Errors
    ///
    /// [`ProviderError`] tells whether a retry may succeed.
    async fn create(&self, request: EnvelopeRequest) -> Result<Envelope, ProviderError>;
    /// Finds the envelope that an earlier [`create`](Self::create) with this idempotency key made.
    ///
    /// # Errors
    ///
    /// [`ProviderError`] if the provider cannot tell whether there is such an envelope.
    async fn find(&self, request: &EnvelopeRequest) -> Result<Option<Envelope>, ProviderError>;
    /// Fetches the document with all signatures. Returns its description, in the form in which the
    /// application's handlers describe files.
    ///
    /// # Errors
    ///
    /// [`ProviderError`] tells whether a retry may succeed.
    async fn signed_document(&self, request: &SignatureRequest) -> Result<Value, ProviderError>;
    /// Asks the provider for the facts about the signers so far, in case webhooks were lost. Returns all
    /// facts that webhooks report, or as many as the provider can still tell.
    ///
    /// # Errors
    ///
    /// [`ProviderError`] if the provider does not report the facts; the engine asks again later.
    async fn status(&self, request: &SignatureRequest) -> Result<Vec<SignerFact>, ProviderError>;
    /// Reminds the signers whose turn it is and who have not signed. The engine calls this method once per
    /// reminder, unless [`reminds_itself`](Self::reminds_itself) is true.
    ///
    /// # Errors
    ///
    /// [`ProviderError`] if no reminder was sent; the execution is not affected, and the next reminder comes
    /// at its usual time.
    async fn remind(&self, request: &SignatureRequest) -> Result<(), ProviderError>;
    /// Withdraws a request that has ended in docg: the execution was canceled, a signer refused, or the
    /// request expired. The engine tries a few times, then gives up. Signatures given after the end have no
    /// effect in docg.
    ///
    /// # Errors
    ///
    /// [`ProviderError`] tells whether a retry may succeed.
    async fn cancel(&self, request: &SignatureRequest) -> Result<(), ProviderError>;
    /// True if the provider itself sends reminders by [`EnvelopeRequest::remind_every_ms`].
    fn reminds_itself(&self) -> bool;
    /// Verifies over a webhook's raw bytes and in constant time that it comes from the provider, and parses
    /// the webhook.
    ///
    /// # Errors
    ///
    /// [`WebhookError`] tells whether the proof or the parsing failed.
    fn read_webhook(&self, request: &WebhookRequest) -> Result<ProviderUpdate, WebhookError>;
}

/// A handler's request to a provider to send a document to its signers.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct EnvelopeRequest {
    /// The tenant.
    pub organization_id: OrganizationId,
    /// The idempotency key, the same in every attempt.
    pub idempotency_key: String,
    /// The document, as an earlier step described it.
    pub file: Value,
    /// The signers.
    pub signers: Vec<NewSigner>,
    /// The message to the signers.
    pub message: Option<String>,
    /// When the request expires; `None` for never.
    pub expires_at: Option<Timestamp>,
    /// The interval of reminders to signers who have not signed, in milliseconds; `None` for no reminders.
    /// Only providers that send reminders themselves need it.
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

/// A request that a provider has accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// The provider's id of the envelope, as in its webhooks.
    pub envelope_id: String,
    /// Further data that the provider needs to find the envelope; `null` for none.
    pub details: Value,
}

impl Envelope {
    /// An envelope that the provider finds by its id alone.
    pub fn new(envelope_id: impl Into<String>) -> Self {
        Self {
            envelope_id: envelope_id.into(),
            details: Value::Null,
        }
    }

    /// Sets the further data needed to find the envelope.
    #[must_use]
    pub fn details(mut self, details: Value) -> Self {
        self.details = details;
        self
    }
}

/// A webhook as received.
#[derive(Clone)]
pub struct WebhookRequest {
    /// Header names in lower case, with their values.
    pub headers: Vec<(String, String)>,
    /// The raw body.
    pub body: Vec<u8>,
}

/// Prints no values: a header may be the secret itself, and the body names people.
impl fmt::Debug for WebhookRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.headers.iter().map(|(name, _)| name).collect();
        f.debug_struct("WebhookRequest")
            .field("headers", &names)
            .field("body_bytes", &self.body.len())
            .finish()
    }
}

impl WebhookRequest {
    /// The value of a header that occurs exactly once; else `None`.
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

/// Why a webhook was refused.
#[derive(Debug, thiserror::Error)]
pub enum WebhookError {
    /// The webhook has no valid proof that the provider sent it.
    #[error("the webhook's signature is missing or wrong")]
    Unauthenticated,
    /// The webhook comes from the provider but cannot be parsed.
    #[error("the webhook cannot be read: {0}")]
    Malformed(String),
}

/// A provider's report about one envelope.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProviderUpdate {
    /// The envelope's id; `None` if the event concerns no envelope or is of an unknown kind.
    pub envelope_id: Option<String>,
    /// The key of this delivery, by which a repeat is recognized.
    pub dedupe_key: String,
    /// The facts about signers; empty if the event has none.
    pub facts: Vec<SignerFact>,
}

/// The length in characters to which a refusal's reason is cut.
const MAX_REASON: usize = 1_000;

/// A reported fact about a signer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignerFact {
    /// The signer's address; `None` for all signers of the envelope.
    pub email: Option<String>,
    /// The kind of fact.
    pub kind: SignerFactKind,
    /// When the reported event happened, by the provider's clock.
    pub at: Timestamp,
    /// The reason for a refusal, if given.
    pub reason: Option<String>,
}

impl SignerFact {
    /// A fact about one signer.
    pub fn new(email: impl Into<String>, kind: SignerFactKind, at: Timestamp) -> Self {
        Self {
            email: Some(email.into()),
            kind,
            at,
            reason: None,
        }
    }

    /// A fact about all signers who have not decided.
    #[must_use]
    pub fn of_all(kind: SignerFactKind, at: Timestamp) -> Self {
        Self {
            email: None,
            kind,
            at,
            reason: None,
        }
    }

    /// The fact that this signer has signed.
    pub fn signed(email: impl Into<String>, at: Timestamp) -> Self {
        Self::new(email, SignerFactKind::Signed, at)
    }

    /// Sets the reason.
    #[must_use]
    pub fn because(mut self, reason: Option<String>) -> Self {
        self.reason = reason;
        self.printable()
    }

    /// Reduces the reason, which a stranger has typed, to one line of bounded length, and cuts the address.
    pub(crate) fn printable(mut self) -> Self {
        let reason = self.reason.map(|it| storable::one_line(&it, MAX_REASON));
        self.reason = reason.filter(|reason| !reason.is_empty());
        self.email = self
            .email
            .map(|email| storable::cut(storable::printable(email), limits::EMAIL.max));
        self
    }
}

/// The kind of a fact about a signer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SignerFactKind {
    /// The signer saw the document.
    Viewed,
    /// The signer signed.
    Signed,
    /// The signer refused.
    Declined,
    /// The signer did not sign in time.
    Expired,
    /// The mail to the signer could not be delivered.
    Bounced,
    /// The request was withdrawn at the provider before this signer decided.
    Canceled,
    /// A mail to the signer went out, but its arrival cannot be confirmed. This is logged and changes nothing
    /// else.
    Unconfirmed,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusals_reason_is_one_line_that_is_not_endless() {
        let because = |reason: &str| {
            let fact = SignerFact::of_all(SignerFactKind::Declined, Timestamp::from_millis(0));
            fact.because(Some(reason.to_owned())).reason
        };
        let told = because("too\0 high,\r\n\u{202e}by far ");
        assert_eq!(told.as_deref(), Some("too high, by far"));
        assert_eq!(because(" \u{200f}\n"), None);
        let long = because(&"é".repeat(5_000)).expect("a reason");
        assert_eq!(long.chars().count(), MAX_REASON);
    }
}
