//! The provider's interface to docg.

use async_trait::async_trait;
use docg_core::{
    i18n::Text,
    ids::ExecutionId,
    observe::LogLevel,
    signature::{
        Envelope as TakenEnvelope, EnvelopeRequest, ProviderError, ProviderUpdate,
        SignatureProvider, SignatureRequest, SignerFact, SignerFactKind, WebhookError,
        WebhookRequest,
    },
    time::Timestamp,
    workflow::StepContext,
};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::{
    Desk, NAME,
    envelope::{DecisionKind, Envelope},
    invitation::{Occasion, language_of},
    link::SignerRef,
    webhook,
};
use crate::{
    files::{Document, FilesError, Origin},
    mail::MailError,
    pdf::{SignaturePage, SignedBy},
    renders::{RenderFailure, Renderer},
};

/// The built-in provider, behind the interface that docg calls.
#[derive(Clone)]
pub struct Provider {
    desk: Desk,
    renderer: Renderer,
}

impl Provider {
    /// Creates the provider. `desk` is its shared state; `renderer` appends the signature page to signed
    /// documents.
    #[must_use]
    pub fn new(desk: Desk, renderer: Renderer) -> Self {
        Self { desk, renderer }
    }
}

#[async_trait]
impl SignatureProvider for Provider {
    fn name(&self) -> &str {
        NAME
    }

    async fn create(&self, request: EnvelopeRequest) -> Result<TakenEnvelope, ProviderError> {
        let desk = &self.desk;
        let document = Document::from_value(&request.file).map_err(refused)?;
        // Check that the document can be read: nobody can sign a document that cannot be shown.
        desk.0
            .files
            .read_document(request.organization_id, &document)
            .await
            .map_err(FilesError::provider_error)?;
        let mut envelope = Envelope {
            id: envelope_id(&request),
            organization_id: request.organization_id,
            execution_id: execution_of(&request),
            document,
            signers: request.signers,
            message: request.message,
            expires_at: request.expires_at,
            remind_every_ms: request.remind_every_ms,
            created_at: Timestamp::now(),
            invited: false,
        };
        if let Some(known) = desk
            .envelope(&envelope.id)
            .await
            .map_err(FilesError::provider_error)?
        {
            let same_document = known.document == envelope.document;
            let same = same_document && known.signers == envelope.signers;
            let decisions = desk
                .decisions(&known)
                .await
                .map_err(FilesError::provider_error)?;
            // Once a signer has decided, the envelope keeps the document that they decided on.
            if known.invited && (same || !decisions.is_empty()) {
                return Ok(taken(known.id));
            }
            envelope.created_at = known.created_at;
            if !same_document && !decisions.is_empty() {
                envelope = known;
            }
        }
        desk.put_envelope(&envelope)
            .await
            .map_err(FilesError::provider_error)?;
        let decisions = desk
            .decisions(&envelope)
            .await
            .map_err(FilesError::provider_error)?;
        let mut failed = Vec::new();
        for signer in envelope.due(&decisions) {
            let invited = desk.write_to(&envelope, signer, Occasion::Invitation).await;
            match invited {
                Ok(is_known) => {
                    if let (false, Some(step)) = (is_known, StepContext::current()) {
                        let text = Text::key("log-invitation-unclear");
                        step.log(LogLevel::Warn, text.with("email", &signer.email));
                    }
                    desk.plan_reminder(&envelope, signer)
                        .await
                        .map_err(FilesError::provider_error)?;
                }
                Err(error) => failed.push(error),
            }
        }
        // Fail only after every signer was tried. A retry invites the signers whose mail failed.
        if let Some(error) = joined(failed) {
            return Err(error);
        }
        envelope.invited = true;
        desk.put_envelope(&envelope)
            .await
            .map_err(FilesError::provider_error)?;
        Ok(taken(envelope.id))
    }

    async fn find(
        &self,
        request: &EnvelopeRequest,
    ) -> Result<Option<TakenEnvelope>, ProviderError> {
        let found = self.desk.envelope(&envelope_id(request)).await;
        let found = found.map_err(FilesError::provider_error)?;
        Ok(found
            .filter(|envelope| envelope.invited)
            .map(|envelope| taken(envelope.id)))
    }

    async fn signed_document(&self, request: &SignatureRequest) -> Result<Value, ProviderError> {
        let desk = &self.desk;
        let found = desk.envelope(&request.envelope_id).await;
        let envelope = found
            .map_err(FilesError::provider_error)?
            .filter(|envelope| envelope.organization_id == request.organization_id)
            .ok_or_else(|| refused(format!("there is no envelope {}", request.envelope_id)))?;
        let original = desk
            .0
            .files
            .read_document(request.organization_id, &envelope.document)
            .await
            .map_err(FilesError::provider_error)?;
        let decisions = desk
            .decisions(&envelope)
            .await
            .map_err(FilesError::provider_error)?;
        let mut signers = Vec::with_capacity(request.signers.len());
        for signer in &request.signers {
            let decision = decisions.of(&envelope, &signer.email);
            let signed_at = decision.map(|decision| decision.at).or(signer.signed_at);
            let signed_at =
                signed_at.ok_or_else(|| refused(format!("{} has not signed", signer.email)))?;
            let typed = decision.and_then(|decision| decision.name.clone());
            let name = typed.or_else(|| signer.name.clone());
            signers.push(SignedBy {
                name: name.unwrap_or_else(|| signer.email.clone()),
                email: signer.email.clone(),
                signed_at: signed_at.into(),
                // Behind a proxy, the server sees only the proxy's address.
                ip: None,
            });
        }
        let last = signers.iter().map(|signer| signer.signed_at).max();
        let page = SignaturePage {
            title: envelope.document.title().to_owned(),
            document_sha256: envelope.document.sha256.clone(),
            completed_at: last.unwrap_or_else(|| request.created_at.into()),
            signers,
            envelope_id: envelope.id.clone(),
        };
        let language = language_of(&envelope).tag();
        let appended =
            self.renderer
                .append_signature_page(request.organization_id, &original, page, language);
        let signed = appended.await.map_err(|error| match error {
            RenderFailure::Document(error) => refused(error),
            RenderFailure::Unavailable(_) | RenderFailure::TimedOut(_) => unavailable(error),
        })?;
        let origin = Origin {
            organization_id: request.organization_id,
            execution_id: request.execution_id,
            node_id: request.node_id.clone(),
        };
        let document = desk
            .0
            .files
            .put_signed(&origin, &envelope.document, signed.bytes.into())
            .await
            .map_err(FilesError::provider_error)?;
        serde_json::to_value(document).map_err(refused)
    }

    async fn status(&self, request: &SignatureRequest) -> Result<Vec<SignerFact>, ProviderError> {
        let desk = &self.desk;
        let found = desk.envelope(&request.envelope_id).await;
        let envelope = found
            .map_err(FilesError::provider_error)?
            .ok_or_else(|| refused(format!("there is no envelope {}", request.envelope_id)))?;
        let decisions = desk
            .decisions(&envelope)
            .await
            .map_err(FilesError::provider_error)?;
        let mut facts = Vec::new();
        for signer in &envelope.signers {
            let reference = SignerRef::new(&envelope.id, &signer.email);
            let viewed = desk
                .viewed_at(&reference)
                .await
                .map_err(FilesError::provider_error)?;
            if let Some(at) = viewed {
                facts.push(SignerFact::new(&signer.email, SignerFactKind::Viewed, at));
            }
            if let Some(decision) = decisions.of(&envelope, &signer.email) {
                let kind = match decision.kind {
                    DecisionKind::Signed => SignerFactKind::Signed,
                    DecisionKind::Declined => SignerFactKind::Declined,
                };
                let fact = SignerFact::new(&signer.email, kind, decision.at);
                facts.push(fact.because(decision.reason.clone()));
            }
        }
        Ok(facts)
    }

    /// Does nothing: the outbox sends reminders.
    async fn remind(&self, _: &SignatureRequest) -> Result<(), ProviderError> {
        Ok(())
    }

    /// Does nothing: the pages ask docg whether a request is still open.
    async fn cancel(&self, _: &SignatureRequest) -> Result<(), ProviderError> {
        Ok(())
    }

    fn reminds_itself(&self) -> bool {
        true
    }

    fn read_webhook(&self, request: &WebhookRequest) -> Result<ProviderUpdate, WebhookError> {
        webhook::read(&self.desk.0.secret, request)
    }
}

/// The execution that makes a request. The request's idempotency key begins with the execution's id.
fn execution_of(request: &EnvelopeRequest) -> Option<ExecutionId> {
    let (execution, _) = request.idempotency_key.split_once('/')?;
    execution.parse().ok()
}

/// The id of a request's envelope. It is derived from the request, so that a retry finds the envelope.
pub(super) fn envelope_id(request: &EnvelopeRequest) -> String {
    let mut hasher = Sha256::new();
    hasher.update(b"docg.builtin.envelope.v1\0");
    hasher.update(request.organization_id.0.as_bytes());
    hasher.update(&request.idempotency_key);
    hex::encode(&hasher.finalize()[..16])
}

fn taken(envelope_id: String) -> TakenEnvelope {
    TakenEnvelope::new(envelope_id)
}

fn refused(error: impl ToString) -> ProviderError {
    ProviderError::Refused(error.to_string())
}

fn unavailable(error: impl ToString) -> ProviderError {
    ProviderError::Unavailable(error.to_string())
}

/// Joins the errors of several mails into one error with all texts. It is retryable if any mail's error is.
fn joined(errors: Vec<MailError>) -> Option<ProviderError> {
    let texts: Vec<_> = errors.iter().map(ToString::to_string).collect();
    let errors: Vec<_> = errors.into_iter().map(from_mail).collect();
    match errors.as_slice() {
        [] => None,
        [_] => errors.into_iter().next(),
        several if several.iter().any(ProviderError::may_pass) => {
            Some(unavailable(texts.join("; ")))
        }
        _ => Some(refused(texts.join("; "))),
    }
}

fn from_mail(error: MailError) -> ProviderError {
    match error {
        MailError::Files(error) => error.provider_error(),
        MailError::Unreachable(_)
        | MailError::Later(_)
        | MailError::Stopped
        | MailError::Unknown(_) => unavailable(error),
        MailError::Recipients(_)
        | MailError::Sender { .. }
        | MailError::TooLarge(_)
        | MailError::Quota(_)
        | MailError::Refused(_)
        | MailError::SignIn(_)
        | MailError::Unwritable(_) => refused(error),
    }
}
