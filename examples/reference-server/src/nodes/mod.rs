//! The node types for this server's workflows, one file each.
//!
//! [`Services`] holds everything that node types need from outside. Each node type declares its parameters in
//! its `NodeSpec`, so that preflight checks them. [`handlers`] lists all node types.

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
    i18n::Text,
    signature::SignatureProvider,
    workflow::{Handler, StepContext, waits},
};

use crate::{
    approvals::Approvals,
    files::{Files, Origin},
    mail::Mailer,
    renders::Renderer,
};

/// The services that node types use.
#[derive(Clone)]
pub struct Services {
    /// Documents and notes.
    pub files: Files,
    /// Outgoing mail.
    pub mailer: Mailer,
    /// Renders documents.
    pub renderer: Renderer,
    /// Sends approvers their links.
    pub approvals: Approvals,
    /// The signature providers.
    pub providers: Vec<Arc<dyn SignatureProvider>>,
    /// True if `http-request` may reach addresses that are not public.
    pub allow_private_http: bool,
    /// The folder for the ledgers of the node types for tests. `None` leaves these node types out.
    pub test_nodes: Option<PathBuf>,
}

/// The handlers of all node types.
#[must_use]
pub fn handlers(services: &Services) -> Vec<Handler> {
    let mut handlers = vec![
        extract::handler(),
        render_pdf::handler(services.files.clone(), services.renderer.clone()),
        save_file::handler(services.files.clone()),
        send_email::handler(services.files.clone(), services.mailer.clone()),
        request_signatures::handler(services.providers.clone()),
        approval::handler(services.approvals.clone()),
        waits::until(),
        waits::event(),
        http_request::handler(services.allow_private_http),
    ];
    if let Some(folder) = &services.test_nodes {
        handlers.extend(testing::handlers(folder));
    }
    handlers
}

/// The step that is running, as the owner of the documents that it makes.
fn origin(context: &StepContext) -> Origin {
    Origin {
        organization_id: context.organization_id,
        execution_id: context.execution_id,
        node_id: context.node_id.clone(),
    }
}

/// A text of docg's catalogue about a problem of a step.
fn text(key: &'static str, context: &StepContext, field: &str) -> Text {
    Text::key(key)
        .with("label", &context.label)
        .with("field", field)
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs, path::Path};

    use docg_core::i18n::{Locale, message};

    /// Collects the keys of docg's catalogues that the sources in a folder use.
    fn keys(folder: &Path, found: &mut BTreeSet<String>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                keys(&path, found);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                let source = fs::read_to_string(&path).unwrap();
                let literals = source.split('"').filter(|literal| {
                    let begins = ["issue-", "error-"]
                        .iter()
                        .any(|it| literal.starts_with(it));
                    let fits = |c: char| c.is_ascii_lowercase() || c == '-';
                    begins && literal.len() > 6 && literal.chars().all(fits)
                });
                found.extend(literals.map(str::to_owned));
            }
        }
    }

    #[test]
    fn whatever_a_step_says_is_there_in_both_languages() {
        let mut found = BTreeSet::new();
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        keys(&sources, &mut found);
        assert!(found.contains("error-render-failed"), "{found:?}");
        for key in found {
            for locale in Locale::ALL {
                assert!(message(locale, &key, &[]).is_some(), "{key}: {locale:?}");
            }
        }
    }
}
