//! The signature provider that comes with the server: people sign in the browser, on a page that a
//! link in a mail opens.
//!
//! It is built as a provider outside would be: it keeps its own records, and tells docg what
//! happened by an HMAC-signed webhook over HTTP. [`Provider`] is the side that docg calls, `pages`
//! what signers see, `outbox` the deliveries that are still to be made, `link` the tokens in mails,
//! `webhook` the signed reports, `envelope` the records that all of them share.

mod envelope;
mod invitation;
mod link;
mod outbox;
mod pages;
mod provider;
mod secret;
mod texts;
mod webhook;

use std::sync::{Arc, OnceLock};

use docg_core::{
    engine::{Engine, EngineError},
    observe::Actor,
    run::{Execution, WaitKind},
    signature::{NewSigner, RequestStatus, SignerFact, SignerFactKind},
    time::Timestamp,
};
use url::Url;

pub use outbox::Outbox;
pub use pages::{routes, with_error_pages};
pub use provider::Provider;
pub use secret::{Secret, SecretError};

use self::envelope::Envelope;
use crate::{files::Files, mail::Mailer};

/// The provider's name in workflows, URLs and stored requests.
pub const NAME: &str = "builtin";

/// What all parts of the provider share. Cheap to clone.
#[derive(Clone)]
pub struct Desk(Arc<Inner>);

struct Inner {
    files: Files,
    mailer: Mailer,
    secret: Secret,
    /// What links in mails begin with.
    public_url: Url,
    /// Wakes the outbox.
    posted: tokio::sync::Notify,
    /// There once the engine is built, which needs the provider first.
    engine: OnceLock<Engine>,
}

impl Desk {
    /// A provider that keeps its records in `files`, writes through `mailer`, and whose links begin
    /// with `public_url`.
    #[must_use]
    pub fn new(files: Files, mailer: Mailer, secret: Secret, public_url: Url) -> Self {
        Self(Arc::new(Inner {
            files,
            mailer,
            secret,
            public_url,
            posted: tokio::sync::Notify::new(),
            engine: OnceLock::new(),
        }))
    }

    /// Lets the pages know what docg has made of a request: that a run was canceled, for one.
    pub fn attach(&self, engine: Engine) {
        // A second engine would be a mistake of the program; the first one stays.
        let _ = self.0.engine.set(engine);
    }

    /// Where docg sees a request. `None` while its execution still makes it: docg knows a request once
    /// all invitations are out. An execution that has ended, is lost, or awaits the signatures of another
    /// request makes it no more.
    async fn request_status(
        &self,
        envelope: &Envelope,
    ) -> Result<Option<RequestStatus>, EngineError> {
        let Some(engine) = self.0.engine.get() else {
            return Ok(None);
        };
        // The execution first: its request is stored in one commit with its wait.
        let is_withdrawn = match envelope.execution_id {
            Some(id) => found(engine.execution(envelope.organization_id, id).await)?
                .is_none_or(|record| has_moved_on(&record.execution)),
            None => false,
        };
        let request = found(engine.signature_by_envelope(NAME, &envelope.id).await)?;
        let withdrawn = is_withdrawn.then_some(RequestStatus::Canceled);
        Ok(request.map(|request| request.status).or(withdrawn))
    }
}

impl Desk {
    /// Has the log of the execution say that nobody can tell whether a mail to a signer arrived.
    async fn report_unconfirmed(
        &self,
        envelope: &Envelope,
        signer: &NewSigner,
    ) -> Result<(), EngineError> {
        let Some(engine) = self.0.engine.get() else {
            return Ok(());
        };
        let request = found(engine.signature_by_envelope(NAME, &envelope.id).await)?;
        let Some(request) = request else {
            return Ok(());
        };
        let kind = SignerFactKind::Unconfirmed;
        let fact = SignerFact::new(&signer.email, kind, Timestamp::now());
        let organization = envelope.organization_id;
        let reported = engine.report_signers(organization, request.id, vec![fact], Actor::system());
        reported.await
    }
}

/// Whether an execution makes no request any more.
fn has_moved_on(execution: &Execution) -> bool {
    let waiting = execution.waiting_for.as_ref();
    execution.status.is_terminal() || waiting.is_some_and(|it| it.kind == WaitKind::Signature)
}

fn found<T>(answer: Result<T, EngineError>) -> Result<Option<T>, EngineError> {
    match answer {
        Ok(found) => Ok(Some(found)),
        Err(EngineError::NotFound(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests;
