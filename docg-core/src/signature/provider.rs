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
    /// What has become of the signers so far, for reports that were lost: the same facts that
    /// webhooks give, all of them or as many as the provider can still tell.
    ///
    /// # Errors
    ///
    /// [`ProviderError`]; the engine asks again later.
    async fn status(&self, request: &SignatureRequest) -> Result<Vec<SignerFact>, ProviderError>;
    /// Reminds those whose turn it is and who have not signed. The engine calls it where
    /// [`reminds_itself`](Self::reminds_itself) is false, once for each reminder.
    ///
    /// # Errors
    ///
    /// [`ProviderError`]; the run goes on, and the next reminder comes at its time.
    async fn remind(&self, request: &SignatureRequest) -> Result<(), ProviderError>;
    /// Withdraws a request that has ended here: the run was canceled, somebody refused, or time is
    /// up. Tried a few times and then left: those who sign later sign for nothing.
    ///
    /// # Errors
    ///
    /// [`ProviderError`] says whether it may be tried again.
    async fn cancel(&self, request: &SignatureRequest) -> Result<(), ProviderError>;
    /// Whether it keeps [`EnvelopeRequest::remind_every_ms`] by itself.
    fn reminds_itself(&self) -> bool;
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
    /// How often those who have not signed are to be reminded, in milliseconds; `None` for never. For
    /// providers that remind by themselves.
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
    /// The provider's name for it: the one that its webhooks give.
    pub envelope_id: String,
    /// What else the provider needs to find it again; `null` for nothing.
    pub details: Value,
}

impl Envelope {
    /// An envelope that is found by its name alone.
    pub fn new(envelope_id: impl Into<String>) -> Self {
        Self {
            envelope_id: envelope_id.into(),
            details: Value::Null,
        }
    }

    /// Sets what else is needed to find it again.
    #[must_use]
    pub fn details(mut self, details: Value) -> Self {
        self.details = details;
        self
    }
}

/// A webhook as it came in.
#[derive(Clone)]
pub struct WebhookRequest {
    /// Header names in lower case, with their values.
    pub headers: Vec<(String, String)>,
    /// The raw body.
    pub body: Vec<u8>,
}

/// Without values: a header may be the secret itself, and the body names people.
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

/// How many characters of a refusal's reason are kept.
const MAX_REASON: usize = 1_000;

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
    /// This became of a signer.
    pub fn new(email: impl Into<String>, kind: SignerFactKind, at: Timestamp) -> Self {
        Self {
            email: Some(email.into()),
            kind,
            at,
            reason: None,
        }
    }

    /// This became of all who have not decided.
    #[must_use]
    pub fn of_all(kind: SignerFactKind, at: Timestamp) -> Self {
        Self {
            email: None,
            kind,
            at,
            reason: None,
        }
    }

    /// This signer has signed.
    pub fn signed(email: impl Into<String>, at: Timestamp) -> Self {
        Self::new(email, SignerFactKind::Signed, at)
    }

    /// Adds why.
    #[must_use]
    pub fn because(mut self, reason: Option<String>) -> Self {
        self.reason = reason;
        self.printable()
    }

    /// With its reason, which a stranger has typed, in one line that is not endless.
    pub(crate) fn printable(mut self) -> Self {
        let reason = self.reason.map(|it| storable::one_line(&it, MAX_REASON));
        self.reason = reason.filter(|reason| !reason.is_empty());
        self.email = self
            .email
            .map(|email| storable::cut(storable::printable(email), limits::EMAIL.max));
        self
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
    /// The request was withdrawn at the provider before this signer had decided.
    Canceled,
    /// A mail to them went out, and nobody can tell whether it arrived. The log says so, and nothing else
    /// changes.
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
