//! Approvals by mail and browser: each approver gets a link of their own, and decides on the page that the
//! link opens. docg stores the decisions; this module stores nothing.

mod pages;
mod texts;

use std::sync::{Arc, OnceLock};

use docg_core::{
    approval::Invitation,
    engine::{Engine, EngineError},
    i18n::{Locale, Text},
    ids::{ExecutionId, NodeId, OrganizationId},
    observe::{LogDraft, LogLevel},
    workflow::EffectContext,
};
use url::Url;

pub use pages::routes;

use crate::{
    downloads::document_of,
    files::{Document, Files},
    mail::{Mail, MailError, Mailer},
};

/// The shared state of mails and pages. Cheap to clone.
#[derive(Clone)]
pub struct Approvals(Arc<Inner>);

struct Inner {
    files: Files,
    mailer: Mailer,
    key: [u8; 32],
    /// The URL that links in mails begin with.
    public_url: Url,
    /// Set after the engine is built, because building the engine requires the node type `approval`.
    engine: OnceLock<Engine>,
}

impl Approvals {
    /// Creates approvals. Tokens are derived from `key`, mails go through `mailer`, links begin with
    /// `public_url`, and pages show documents from `files`.
    #[must_use]
    pub fn new(files: Files, mailer: Mailer, key: [u8; 32], public_url: Url) -> Self {
        Self(Arc::new(Inner {
            files,
            mailer,
            key,
            public_url,
            engine: OnceLock::new(),
        }))
    }

    /// Gives the pages access to the engine's approvals. Before this call no link opens.
    pub fn attach(&self, engine: Engine) {
        // A second call would be a bug; the engine of the first call stays.
        let _ = self.0.engine.set(engine);
    }

    pub(crate) fn key(&self) -> [u8; 32] {
        self.0.key
    }

    fn engine(&self) -> Result<&Engine, EngineError> {
        let engine = self.0.engine.get();
        engine.ok_or(EngineError::NotFound("approval"))
    }

    /// Sends an approver their link, once. If the outcome of the mail is unknown, the mail counts as sent,
    /// and the execution's log reports that.
    pub(crate) async fn write_to(
        &self,
        context: &EffectContext,
        invitation: Invitation,
    ) -> Result<(), MailError> {
        let Invitation { email, token, .. } = &invitation;
        let address = email
            .parse()
            .map_err(|e| MailError::Unwritable(format!("{email:?}: {e}")))?;
        let base = self.0.public_url.as_str().trim_end_matches('/');
        let link = format!("{base}/approvals/{token}");
        let (organization, execution) = (context.organization_id, context.execution_id);
        let document = self
            .document(organization, execution, &context.node_id)
            .await;
        let workflow = match self.0.engine.get() {
            Some(engine) => engine
                .workflow(organization, context.workflow_id)
                .await
                .ok(),
            None => None,
        };
        let about = texts::About {
            workflow: workflow.as_deref().map(|workflow| &*workflow.name),
            document: document.as_ref().map(Document::title),
            locale: language_of(document.as_ref()),
        };
        let (subject, body) = texts::invitation(&about, &invitation, &link);
        let mail = Mail {
            key: invitation.idempotency_key.clone(),
            to: vec![address],
            cc: Vec::new(),
            subject,
            body,
            attachments: Vec::new(),
        };
        let mailer = &self.0.mailer;
        let is_known = mailer
            .deliver_at_most_once(&mail, &context.cancellation)
            .await?;
        if !is_known {
            let text = Text::key("log-invitation-unclear").with("email", email);
            context.log_entry(LogDraft::new(LogLevel::Warn, text));
        }
        Ok(())
    }

    /// The document to approve: the last document that a step before the node made.
    async fn document(
        &self,
        organization: OrganizationId,
        execution: ExecutionId,
        node: &NodeId,
    ) -> Option<Document> {
        let steps = self.engine().ok()?.steps(organization, execution).await;
        let steps = steps
            .inspect_err(|e| tracing::warn!("the document of an approval was not found: {e}"))
            .ok()?;
        let before = steps.iter().take_while(|step| step.node_id != *node);
        before.filter_map(document_of).last()
    }
}

/// The language of mails to the approvers of a document.
fn language_of(document: Option<&Document>) -> Locale {
    document
        .and_then(|document| document.language.as_deref())
        .and_then(|tag| tag.parse().ok())
        .unwrap_or_default()
}
