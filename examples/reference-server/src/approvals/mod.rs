//! Approvals by mail and browser: each approver gets a link of their own, and decides on the page
//! that it opens. What is decided, docg keeps; nothing is stored here.

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

/// What mails and pages share. Cheap to clone.
#[derive(Clone)]
pub struct Approvals(Arc<Inner>);

struct Inner {
    files: Files,
    mailer: Mailer,
    key: [u8; 32],
    /// What links in mails begin with.
    public_url: Url,
    /// There once the engine is built, which needs the node type first.
    engine: OnceLock<Engine>,
}

impl Approvals {
    /// Approvals whose tokens are derived from `key`, whose mails go through `mailer`, and whose
    /// links begin with `public_url`. Pages show documents out of `files`.
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

    /// Lets the pages reach what is to be decided. Without it no link opens.
    pub fn attach(&self, engine: Engine) {
        // A second engine would be a mistake of the program; the first one stays.
        let _ = self.0.engine.set(engine);
    }

    pub(crate) fn key(&self) -> [u8; 32] {
        self.0.key
    }

    fn engine(&self) -> Result<&Engine, EngineError> {
        let engine = self.0.engine.get();
        engine.ok_or(EngineError::NotFound("approval"))
    }

    /// Sends an approver their link, once. If it is not known whether the mail server took it, it counts
    /// as sent, and the execution's log says so.
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

    /// What is to be approved: the last document that was made before the node was reached.
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

/// The language that the approvers of a document are written to in.
fn language_of(document: Option<&Document>) -> Locale {
    document
        .and_then(|document| document.language.as_deref())
        .and_then(|tag| tag.parse().ok())
        .unwrap_or_default()
}
