//! The node types that workflows of this server are made of, one file each.
//!
//! What a node type needs from outside is in [`Services`]; what it may be given is declared in its
//! `NodeSpec`, so that preflight checks it. [`handlers`] is the whole list.

mod approval;
mod extract;
mod http_request;
mod render_pdf;
mod request_signatures;
mod save_file;
mod send_email;
mod testing;

pub use request_signatures::REQUEST_SIGNATURES;

use std::{path::PathBuf, sync::Arc};

use docg_core::{
    error::{StepFailure, codes},
    i18n::Text,
    signature::SignatureProvider,
    workflow::{Handler, StepContext},
};

use crate::{
    approvals::Approvals,
    files::{Files, Origin},
    mail::Mailer,
    pdf::Templates,
};

/// What node types work with.
#[derive(Clone)]
pub struct Services {
    /// Documents and notes.
    pub files: Files,
    /// Outgoing mail.
    pub mailer: Mailer,
    /// What can be rendered.
    pub templates: Templates,
    /// Who brings approvers their links.
    pub approvals: Approvals,
    /// Who collects signatures.
    pub providers: Vec<Arc<dyn SignatureProvider>>,
    /// Whether `http-request` may reach addresses that are not public.
    pub allow_private_http: bool,
    /// Adds the node types for tests; their ledgers lie in this folder unless they say where.
    pub test_nodes: Option<PathBuf>,
}

/// All node types.
#[must_use]
pub fn handlers(services: &Services) -> Vec<Handler> {
    let mut handlers = vec![
        extract::handler(),
        render_pdf::handler(services.files.clone(), services.templates.clone()),
        save_file::handler(services.files.clone()),
        send_email::handler(services.files.clone(), services.mailer.clone()),
        request_signatures::handler(services.providers.clone()),
        approval::handler(services.approvals.clone()),
        http_request::handler(services.allow_private_http),
    ];
    if let Some(folder) = &services.test_nodes {
        handlers.extend(testing::handlers(folder));
    }
    handlers
}

/// Where the documents of the step that runs belong.
fn origin(context: &StepContext) -> Origin {
    Origin {
        organization_id: context.organization_id,
        execution_id: context.execution_id,
        node_id: context.node_id.clone(),
    }
}

/// docg's own words for a problem of a step.
fn text(key: &'static str, context: &StepContext, field: &str) -> Text {
    Text::key(key)
        .with("label", &context.node_id)
        .with("field", field)
}

/// The step was told to stop before it had begun anything.
fn stopped() -> StepFailure {
    StepFailure::retryable(codes::CANCELED, Text::key("error-canceled"))
}
