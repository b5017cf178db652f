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

use docg_core::{engine::Engine, signature::RequestStatus};
use url::Url;

pub use outbox::Outbox;
pub use pages::{routes, with_error_pages};
pub use provider::Provider;
pub use secret::{Secret, SecretError};

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

    /// Where docg sees a request. `None` where it does not know it, which is so for a moment after
    /// the mails have gone out, and for ever after a restart without a database.
    async fn request_status(&self, envelope: &str) -> Option<RequestStatus> {
        let engine = self.0.engine.get()?;
        let request = engine.signature_by_envelope(NAME, envelope).await.ok()?;
        Some(request.status)
    }
}

#[cfg(test)]
mod tests;
