//! Facts about signers from outside: the webhooks of signature providers, and reports of applications.

use std::time::Duration;

use serde_json::{Value, json};

use crate::{
    engine::{Engine, EngineError, Fact, OTHER, WebhookEnd, driver::provider_calls::printable},
    ids::{OrganizationId, SignalId, SignatureRequestId},
    json,
    observe::Actor,
    ports::{Signal, SignalKind, TtlEntry, TtlKey},
    signature::{RequestStatus, SignatureProvider, SignerFact, WebhookError, WebhookRequest},
    storable,
};

/// The result of a webhook.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WebhookAnswer {
    /// True if the webhook had arrived before.
    pub duplicate: bool,
}

/// How long a repeated webhook is recognized. Providers repeat webhooks for days.
const REMEMBERED: Duration = Duration::from_secs(30 * 24 * 3600);

impl Engine {
    /// The registered signature provider of this name.
    #[must_use]
    pub fn signature_provider(&self, name: &str) -> Option<&std::sync::Arc<dyn SignatureProvider>> {
        self.inner
            .providers
            .iter()
            .find(|provider| provider.name() == name)
    }

    /// Receives a signature provider's webhook: authenticates it, recognizes repeats, and signals the waiting
    /// execution. An event without facts about a signer, such as one of an unknown kind, changes nothing.
    /// Every webhook is remembered for 30 days to recognize repeats, as a [`TtlEntry`] of
    /// kind `webhook` with key `<provider>/<dedupe key>`. For an event without facts, the entry keeps the event.
    ///
    /// # Errors
    ///
    /// `NotFound` for an unknown provider, and for an envelope that the store does not know, or not yet: the
    /// provider should deliver the webhook again. `UnauthenticatedWebhook`, `MalformedWebhook`.
    pub async fn receive_webhook(
        &self,
        provider: &str,
        webhook: WebhookRequest,
    ) -> Result<WebhookAnswer, EngineError> {
        let taken = self.take_webhook(provider, webhook).await;
        let is_registered = self.signature_provider(provider).is_some();
        self.inner.tell(&Fact::WebhookReceived {
            provider: if is_registered { provider } else { OTHER },
            outcome: match &taken {
                Ok(WebhookAnswer { duplicate: false }) => WebhookEnd::Accepted,
                Ok(WebhookAnswer { duplicate: true }) => WebhookEnd::Duplicate,
                Err(EngineError::UnauthenticatedWebhook) => WebhookEnd::Unauthenticated,
                Err(EngineError::MalformedWebhook(_)) => WebhookEnd::Malformed,
                Err(EngineError::NotFound(_)) => WebhookEnd::NotFound,
                Err(_) => WebhookEnd::Failed,
            },
        });
        taken
    }

    async fn take_webhook(
        &self,
        provider: &str,
        webhook: WebhookRequest,
    ) -> Result<WebhookAnswer, EngineError> {
        let Some(reader) = self.signature_provider(provider) else {
            return Err(EngineError::NotFound("signature provider"));
        };
        let update = reader.read_webhook(&webhook).map_err(|error| match error {
            WebhookError::Unauthenticated => EngineError::UnauthenticatedWebhook,
            WebhookError::Malformed(why) => EngineError::MalformedWebhook(why),
        })?;
        let request = match &update.envelope_id {
            Some(envelope) => Some(self.signature_by_envelope(provider, envelope).await?),
            None => None,
        };
        let request = request.filter(|_| !update.facts.is_empty());
        let now = self.inner.now();
        let key = TtlKey {
            organization_id: None,
            kind: "webhook",
            key: format!("{provider}/{}", update.dedupe_key),
        };
        // The signal's id is stored with the webhook. If this process crashes before it sends the signal, the
        // repeated webhook sends the signal with that id. A second signal with the same id changes nothing.
        let id = SignalId::new();
        let entry = TtlEntry {
            key,
            value: match &request {
                Some(_) => Value::String(id.to_string()),
                None => json!({"event": self.kept(&webhook.body)}),
            },
            expires_at: now + REMEMBERED,
        };
        let known = self.inner.store.remember(entry, now).await?;
        let duplicate = known.is_some();
        let id = known
            .and_then(|entry| entry.value.as_str()?.parse().ok())
            .unwrap_or(id);
        let Some(request) = request else {
            return Ok(WebhookAnswer { duplicate });
        };
        let organization = request.organization_id;
        if duplicate && request.status != RequestStatus::Signing {
            return Ok(WebhookAnswer { duplicate });
        }
        let signal = Signal {
            id,
            execution_id: request.execution_id,
            organization_id: organization,
            actor: Actor::webhook(provider),
            received_at: now,
            if_version: None,
            kind: SignalKind::SignatureFacts {
                signature_request_id: request.id,
                facts: printable(update.facts),
            },
        };
        let sent = match duplicate {
            true => self.send_again(signal).await,
            false => self.send(signal).await,
        };
        sent.map(|_| WebhookAnswer { duplicate })
    }

    /// A webhook's body as the TTL store keeps it: redacted, limited in size, and as text, because JSON may
    /// hold values that a store cannot.
    fn kept(&self, body: &[u8]) -> String {
        let body =
            json::read_message(body).unwrap_or_else(|_| Value::String(storable::legible(body)));
        self.redaction().snapshot(&body).as_str().to_owned()
    }

    /// Reports facts about signers that an application learned without a webhook. If the engine does not know
    /// the request's provider, there is no other way to report them. Facts may be repeated and come in any
    /// order.
    ///
    /// # Errors
    ///
    /// `NotFound`.
    pub async fn report_signers(
        &self,
        organization: OrganizationId,
        request: SignatureRequestId,
        facts: Vec<SignerFact>,
        actor: Actor,
    ) -> Result<(), EngineError> {
        let request = self.signature_request(organization, request).await?;
        let signal = Signal {
            id: SignalId::new(),
            execution_id: request.execution_id,
            organization_id: organization,
            actor,
            received_at: self.inner.now(),
            if_version: None,
            kind: SignalKind::SignatureFacts {
                signature_request_id: request.id,
                facts: printable(facts),
            },
        };
        self.send(signal).await.map(|_| ())
    }
}
