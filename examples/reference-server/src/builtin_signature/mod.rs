//! The built-in signature provider: people sign in the browser, on a page that a link in a mail opens.
//!
//! The provider works like an external one: it keeps its own records, and reports events to docg by an
//! HMAC-signed webhook over HTTP. [`Provider`] is the interface that docg calls. `pages` serves the pages.
//! `outbox` delivers pending mails and reports. `link` makes the tokens in mails, `webhook` signs the
//! reports, and `envelope` holds the records that all of them share.

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

/// The shared state of all parts of the provider. Cheap to clone.
#[derive(Clone)]
pub struct Desk(Arc<Inner>);

struct Inner {
    files: Files,
    mailer: Mailer,
    secret: Secret,
    /// The URL that links in mails begin with.
    public_url: Url,
    /// Wakes the outbox.
    posted: tokio::sync::Notify,
    /// Set after the engine is built, because building the engine requires the provider.
    engine: OnceLock<Engine>,
}

impl Desk {
    /// Creates a provider that stores its records in `files` and sends mails through `mailer`. Its links
    /// begin with `public_url`.
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

    /// Gives the pages access to docg's state of a request, for example that its execution was canceled.
    pub fn attach(&self, engine: Engine) {
        // A second call would be a bug; the engine of the first call stays.
        let _ = self.0.engine.set(engine);
    }

    /// The status of a request in docg. docg stores a request once all invitations are sent; before that, the
    /// status is `None`. But if the execution has ended, is lost, or waits for another request's signatures,
    /// it will never create the request, and the status is canceled.
    async fn request_status(
        &self,
        envelope: &Envelope,
    ) -> Result<Option<RequestStatus>, EngineError> {
        let Some(engine) = self.0.engine.get() else {
            return Ok(None);
        };
        // Read the execution first. One commit stores the wait and the request, so if the execution waits,
        // its request can be read.
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
    /// Writes to the execution's log that a mail to a signer may or may not have arrived.
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

/// True if an execution will not create a request any more: it has ended, or waits for signatures.
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
