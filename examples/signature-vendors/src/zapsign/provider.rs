use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use docg_core::signature::{
    Envelope, EnvelopeRequest, ProviderError, ProviderUpdate, Secret, SignatureProvider,
    SignatureRequest, SignerFact, WebhookError, WebhookRequest,
};
use serde_json::Value;

use super::{
    api::Calls,
    document::{self, DocumentState, Status},
};
use crate::{ConfigError, Document, Documents, HttpClient, api::Api, config::ApiConfig};

/// The provider's name in parameters, URLs and stored requests.
pub const NAME: &str = "zapsign";
/// The hosts from which ZapSign serves documents, in addition to the API's host.
const DOWNLOADS: [&str; 3] = ["zapsign.com.br", "zapsign.co", "amazonaws.com"];
/// The pause between two requests for the signed document.
const PAUSE: Duration = Duration::from_secs(3);

/// An account at ZapSign.
#[derive(Debug, Clone)]
pub struct ZapSignConfig {
    api: ApiConfig,
    header: String,
    lang: String,
    sandbox: bool,
    patience: Duration,
}

impl ZapSignConfig {
    /// An account at `base_url`, with its API token and the secret in its webhooks' header. The base URL is
    /// `https://api.zapsign.com.br`, or `https://sandbox.api.zapsign.com.br` for trials.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] names the invalid value.
    pub fn new(base_url: &str, token: Secret, webhook_secret: Secret) -> Result<Self, ConfigError> {
        let example = "https://api.zapsign.com.br";
        let api = ApiConfig::new(base_url, example, token, webhook_secret, &DOWNLOADS)?;
        let host = api.base_url.host_str().unwrap_or_default();
        let sandbox = host.starts_with("sandbox.");
        Ok(Self {
            api,
            header: "x-webhook-secret".to_owned(),
            lang: "pt-br".to_owned(),
            sandbox,
            patience: Duration::from_secs(60),
        })
    }

    /// Also accepts webhooks with another secret. While the secret is being changed at ZapSign, some webhooks
    /// have the old secret and some the new one.
    ///
    /// # Errors
    ///
    /// [`ConfigError::WebhookSecret`] if the secret is empty.
    pub fn also_webhook_secret(mut self, secret: Secret) -> Result<Self, ConfigError> {
        self.api.accept_webhooks_of(secret)?;
        Ok(self)
    }

    /// Sets the webhook header that holds the secret, in place of `X-Webhook-Secret`.
    #[must_use]
    pub fn webhook_header(mut self, name: impl Into<String>) -> Self {
        self.header = name.into();
        self
    }

    /// Sets the language of mails and pages: `pt-br` (the default), `en` or `es`.
    #[must_use]
    pub fn lang(mut self, lang: impl Into<String>) -> Self {
        self.lang = lang.into();
        self
    }

    /// Sets whether documents are created in ZapSign's sandbox. Webhooks about documents of the other
    /// environment have no effect. The default is true if the host begins with `sandbox.`.
    #[must_use]
    pub fn sandbox(mut self, sandbox: bool) -> Self {
        self.sandbox = sandbox;
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

/// Collects signatures through ZapSign.
pub struct ZapSign {
    calls: Calls,
    documents: Arc<dyn Documents>,
    header: String,
    patience: Duration,
}

impl ZapSign {
    /// A provider for this account, with the application's HTTP client and documents.
    #[must_use]
    pub fn new(
        config: ZapSignConfig,
        client: Arc<dyn HttpClient>,
        documents: Arc<dyn Documents>,
    ) -> Self {
        let api = Api {
            authorization: Secret::new(format!("Bearer {}", config.api.token.expose())),
            config: config.api,
            client,
            media_type: "application/json",
        };
        Self {
            calls: Calls {
                api,
                lang: config.lang,
                sandbox: config.sandbox,
            },
            documents,
            header: config.header,
            patience: config.patience,
        }
    }

    /// Finds the document that an earlier attempt sent to its signers.
    async fn earlier(
        &self,
        request: &EnvelopeRequest,
        document: &Document,
    ) -> Result<Option<Envelope>, ProviderError> {
        let found = self.calls.find(request, document).await?;
        Ok(found.map(|found| Envelope::new(found.token)))
    }

    /// Waits for the link to the signed document. The link is valid for an hour, so it is not stored.
    async fn signed_file(&self, token: &str) -> Result<String, ProviderError> {
        let give_up_at = tokio::time::Instant::now() + self.patience;
        loop {
            let DocumentState {
                status,
                signed_file,
                ..
            } = self.calls.document(token).await?;
            match (status, signed_file) {
                (Status::Signed, Some(link)) => return Ok(link),
                (Status::Refused | Status::Expired, _) => {
                    return Err(ProviderError::Refused(format!(
                        "document {token} is not signed, but {status:?}"
                    )));
                }
                _ => {}
            }
            if tokio::time::Instant::now() + PAUSE > give_up_at {
                return Err(ProviderError::NotReady(format!(
                    "document {token} is not finished yet"
                )));
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

#[async_trait]
impl SignatureProvider for ZapSign {
    fn name(&self) -> &str {
        NAME
    }

    async fn create(&self, request: EnvelopeRequest) -> Result<Envelope, ProviderError> {
        let organization = request.organization_id;
        let document = self.documents.read(organization, &request.file).await?;
        if let Some(earlier) = self.earlier(&request, &document).await? {
            return Ok(earlier);
        }
        let made = self.calls.create(&request, &document).await?;
        Ok(Envelope::new(made.token))
    }

    async fn find(&self, request: &EnvelopeRequest) -> Result<Option<Envelope>, ProviderError> {
        let organization = request.organization_id;
        let document = self.documents.read(organization, &request.file).await?;
        self.earlier(request, &document).await
    }

    async fn signed_document(&self, request: &SignatureRequest) -> Result<Value, ProviderError> {
        let link = self.signed_file(&request.envelope_id).await?;
        let document = Document {
            filename: "signed.pdf".to_owned(),
            content_type: "application/pdf".to_owned(),
            bytes: self.calls.api.download(&link).await?,
        };
        self.documents.keep_signed(request, document).await
    }

    async fn status(&self, request: &SignatureRequest) -> Result<Vec<SignerFact>, ProviderError> {
        Ok(self.calls.document(&request.envelope_id).await?.facts())
    }

    async fn remind(&self, request: &SignatureRequest) -> Result<(), ProviderError> {
        self.calls.remind(&request.envelope_id).await
    }

    async fn cancel(&self, request: &SignatureRequest) -> Result<(), ProviderError> {
        self.calls.withdraw(&request.envelope_id).await
    }

    fn reminds_itself(&self) -> bool {
        false
    }

    fn read_webhook(&self, request: &WebhookRequest) -> Result<ProviderUpdate, WebhookError> {
        let given = request
            .header(&self.header)
            .ok_or(WebhookError::Unauthenticated)?;
        let secrets = &self.calls.api.config.webhook_secrets;
        if !secrets.iter().any(|secret| secret.matches(given)) {
            return Err(WebhookError::Unauthenticated);
        }
        document::read(&request.body, self.calls.sandbox)
    }
}
