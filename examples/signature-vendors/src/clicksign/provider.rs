use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use docg_core::signature::{
    Envelope, EnvelopeRequest, NewSigner, ProviderError, ProviderUpdate, Secret, SignatureProvider,
    SignatureRequest, SignerFact, WebhookError, WebhookRequest,
};
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;

use super::{
    api::{Calls, EnvelopeResource, EnvelopeStatus, NewEnvelope},
    events::{self, Event},
};
use crate::{
    ConfigError, Document, Documents, HttpClient,
    api::Api,
    config::ApiConfig,
    request::{mark_of, turns},
};

/// The provider's name in parameters, URLs and stored requests.
pub const NAME: &str = "clicksign";
/// The webhook header that holds `sha256=` and the HMAC-SHA256 of the raw body in hexadecimal digits.
const HEADER: &str = "content-hmac";
/// The hosts from which ClickSign serves documents, in addition to the API's host.
const DOWNLOADS: [&str; 2] = ["clicksign.com", "amazonaws.com"];
/// The longest mail subject that ClickSign accepts, in characters.
const LONGEST_SUBJECT: usize = 100;
/// The length in characters to which a document's title is cut in the envelope's name.
const LONGEST_TITLE: usize = 200;
/// The pause between two requests for the signed document.
const PAUSE: Duration = Duration::from_secs(3);

/// An account at ClickSign.
#[derive(Debug, Clone)]
pub struct ClickSignConfig {
    api: ApiConfig,
    locale: String,
    patience: Duration,
}

impl ClickSignConfig {
    /// An account at `base_url`, with its access token and the HMAC secret of its webhook. The base URL is
    /// `https://app.clicksign.com`, or `https://sandbox.clicksign.com` for trials.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] names the invalid value.
    pub fn new(base_url: &str, token: Secret, webhook_secret: Secret) -> Result<Self, ConfigError> {
        let example = "https://app.clicksign.com";
        Ok(Self {
            api: ApiConfig::new(base_url, example, token, webhook_secret, &DOWNLOADS)?,
            locale: "pt-BR".to_owned(),
            patience: Duration::from_secs(60),
        })
    }

    /// Also accepts webhooks signed with another secret. While the secret is being changed at ClickSign, some
    /// webhooks use the old secret and some the new one.
    ///
    /// # Errors
    ///
    /// [`ConfigError::WebhookSecret`] if the secret is empty.
    pub fn also_webhook_secret(mut self, secret: Secret) -> Result<Self, ConfigError> {
        self.api.accept_webhooks_of(secret)?;
        Ok(self)
    }

    /// Sets the language of mails and pages: `pt-BR` (the default) or `en-US`.
    #[must_use]
    pub fn locale(mut self, locale: impl Into<String>) -> Self {
        self.locale = locale.into();
        self
    }

    /// Sets how long one attempt waits for the signed document before it fails and is retried later. The
    /// default is a minute.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Also allows downloads of signed documents from this host and its subdomains.
    #[must_use]
    pub fn download_host(mut self, host: &str) -> Self {
        self.api.allow_downloads_from(host);
        self
    }
}

/// Collects signatures through ClickSign.
pub struct ClickSign {
    calls: Calls,
    documents: Arc<dyn Documents>,
    locale: String,
    patience: Duration,
}

impl ClickSign {
    /// A provider for this account, with the application's HTTP client and documents.
    #[must_use]
    pub fn new(
        config: ClickSignConfig,
        client: Arc<dyn HttpClient>,
        documents: Arc<dyn Documents>,
    ) -> Self {
        let api = Api {
            authorization: config.api.token.clone(),
            config: config.api,
            client,
            media_type: "application/vnd.api+json",
        };
        Self {
            calls: Calls(api),
            documents,
            locale: config.locale,
            patience: config.patience,
        }
    }

    /// Returns the envelope of this name that an earlier attempt activated. If `clear` is true, has its
    /// signers notified again, and deletes drafts of this name.
    async fn earlier(&self, name: &str, clear: bool) -> Result<Option<Envelope>, ProviderError> {
        for found in self.calls.envelopes(name).await? {
            match found.status() {
                EnvelopeStatus::Running => {
                    // The earlier attempt may have broken off before it notified the signers.
                    if clear {
                        self.announce(&found.id).await.map_err(in_doubt)?;
                    }
                    return self.taken(&found).await.map(Some).map_err(in_doubt);
                }
                // The envelope ended before this attempt began. Do not send it again: a query of its status
                // will report the end.
                EnvelopeStatus::Closed | EnvelopeStatus::Canceled => {
                    return self.taken(&found).await.map(Some);
                }
                EnvelopeStatus::Draft if clear => match self.calls.delete_envelope(&found.id).await
                {
                    Ok(()) => {}
                    Err(failed) if failed.status == Some(404) => {}
                    // The draft may have been activated at this moment. The next attempt then finds the
                    // active envelope.
                    Err(failed) => {
                        return Err(ProviderError::Unavailable(failed.error.to_string()));
                    }
                },
                EnvelopeStatus::Draft | EnvelopeStatus::Unknown => {}
            }
        }
        Ok(None)
    }

    /// Makes the result for an existing envelope, with the id of its document.
    async fn taken(&self, found: &EnvelopeResource) -> Result<Envelope, ProviderError> {
        let document = self.calls.document_of(&found.id).await?;
        Ok(envelope(&found.id, document))
    }

    /// Has ClickSign notify the signers whose turn it is. ClickSign rejects a second notification within a
    /// minute; that counts as a success, because the signers were notified.
    async fn announce(&self, envelope: &str) -> Result<(), ProviderError> {
        match self.calls.notify(envelope).await {
            Ok(()) => Ok(()),
            Err(failed) if failed.status == Some(429) => Ok(()),
            Err(failed) => Err(failed.error),
        }
    }
}

/// Turns an error after the request to activate an envelope into an unknown outcome: the signers may have
/// received the envelope.
fn in_doubt(error: ProviderError) -> ProviderError {
    match error {
        ProviderError::Unavailable(tech) | ProviderError::TimedOut(tech) => {
            ProviderError::Unknown(tech)
        }
        known => known,
    }
}

/// The name of the request's envelope, by which a later attempt finds it.
fn name_of(request: &EnvelopeRequest, document: &Document) -> String {
    let title: String = document.title().chars().take(LONGEST_TITLE).collect();
    format!("{title} [{}]", mark_of(request))
}

/// The result for an envelope. It is identified by the id of its document, which webhooks name. API calls
/// also need the envelope's own id, so the details hold it.
fn envelope(id: &str, document: String) -> Envelope {
    Envelope::new(document).details(json!({"envelope": id}))
}

/// The id that ClickSign gave the request's envelope.
fn envelope_of(request: &SignatureRequest) -> Result<&str, ProviderError> {
    let envelope = request.details.get("envelope").and_then(Value::as_str);
    envelope.ok_or_else(|| ProviderError::Refused("the request names no envelope".to_owned()))
}

#[async_trait]
impl SignatureProvider for ClickSign {
    fn name(&self) -> &str {
        NAME
    }

    async fn create(&self, request: EnvelopeRequest) -> Result<Envelope, ProviderError> {
        let organization = request.organization_id;
        let document = self.documents.read(organization, &request.file).await?;
        let name = name_of(&request, &document);
        if let Some(earlier) = self.earlier(&name, true).await? {
            return Ok(earlier);
        }
        let subject: String = document.title().chars().take(LONGEST_SUBJECT).collect();
        let new = NewEnvelope {
            name: &name,
            subject: &subject,
            message: request.message.as_deref(),
            deadline_at: request.expires_at,
            locale: &self.locale,
        };
        let id = self.calls.create_envelope(new).await?;
        let document = self.calls.add_document(&id, &document).await?;
        for (signer, turn) in turns(&request.signers) {
            let signer: &NewSigner = signer;
            let signer = self.calls.add_signer(&id, signer, turn).await?;
            self.calls.require(&id, &document, &signer).await?;
        }
        let activated = self.calls.set_status(&id, "running").await;
        activated.map_err(|failed| in_doubt(failed.error))?;
        self.announce(&id).await.map_err(in_doubt)?;
        Ok(envelope(&id, document))
    }

    async fn find(&self, request: &EnvelopeRequest) -> Result<Option<Envelope>, ProviderError> {
        let organization = request.organization_id;
        let document = self.documents.read(organization, &request.file).await?;
        let name = name_of(request, &document);
        self.earlier(&name, false).await
    }

    async fn signed_document(&self, request: &SignatureRequest) -> Result<Value, ProviderError> {
        let envelope = envelope_of(request)?;
        let give_up_at = tokio::time::Instant::now() + self.patience;
        let link = loop {
            let link = self
                .calls
                .signed_file(envelope, &request.envelope_id)
                .await?;
            // Until the envelope is closed, the file lacks the last signatures.
            if let Some(link) = link {
                let status = self.calls.envelope(envelope).await?.status();
                if status == EnvelopeStatus::Closed {
                    break link;
                }
            }
            if tokio::time::Instant::now() + PAUSE > give_up_at {
                return Err(ProviderError::NotReady(format!(
                    "envelope {envelope} is not closed yet"
                )));
            }
            tokio::time::sleep(PAUSE).await;
        };
        let document = Document {
            filename: "signed.pdf".to_owned(),
            content_type: "application/pdf".to_owned(),
            bytes: self.calls.0.download(&link).await?,
        };
        self.documents.keep_signed(request, document).await
    }

    async fn status(&self, request: &SignatureRequest) -> Result<Vec<SignerFact>, ProviderError> {
        let events = self.calls.events(envelope_of(request)?).await?;
        Ok(events.iter().flat_map(Event::facts).collect())
    }

    async fn remind(&self, request: &SignatureRequest) -> Result<(), ProviderError> {
        self.announce(envelope_of(request)?).await
    }

    async fn cancel(&self, request: &SignatureRequest) -> Result<(), ProviderError> {
        let envelope = envelope_of(request)?;
        let Err(failed) = self.calls.set_status(envelope, "canceled").await else {
            return Ok(());
        };
        if !failed.is_refusal() {
            return Err(failed.error);
        }
        // ClickSign rejects a cancel of an envelope that has ended. Such an envelope needs no cancel.
        match self.calls.envelope(envelope).await?.status() {
            EnvelopeStatus::Running | EnvelopeStatus::Unknown => Err(failed.error),
            EnvelopeStatus::Draft | EnvelopeStatus::Closed | EnvelopeStatus::Canceled => Ok(()),
        }
    }

    fn reminds_itself(&self) -> bool {
        false
    }

    fn read_webhook(&self, request: &WebhookRequest) -> Result<ProviderUpdate, WebhookError> {
        let given = request
            .header(HEADER)
            .and_then(|value| value.strip_prefix("sha256="))
            .and_then(|digits| hex::decode(digits).ok())
            .ok_or(WebhookError::Unauthenticated)?;
        let proves = |secret: &Secret| {
            let mac = Hmac::<Sha256>::new_from_slice(secret.expose().as_bytes());
            // `verify_slice` compares in constant time.
            mac.is_ok_and(|mac| mac.chain_update(&request.body).verify_slice(&given).is_ok())
        };
        if !self.calls.0.config.webhook_secrets.iter().any(proves) {
            return Err(WebhookError::Unauthenticated);
        }
        events::read(&request.body)
    }
}
