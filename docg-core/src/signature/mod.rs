//! Signature requests: their signers, each signer's status, and how providers' reports are merged.
//!
//! The engine and its webhooks call a [`SignatureProvider`]. Providers live in other crates: they read an
//! answer or a webhook with [`read_message`](crate::json::read_message), keep their keys in a [`Secret`], and
//! report a failed call as a [`ProviderError`].

mod error;
mod merge;
mod provider;
mod request;
mod secret;
mod signers;

pub use error::ProviderError;
pub use merge::{SignerChange, merge};
#[cfg(feature = "mock")]
pub use provider::MockSignatureProvider;
pub use provider::{
    Envelope, EnvelopeRequest, ProviderUpdate, SignatureProvider, SignerFact, SignerFactKind,
    WebhookError, WebhookRequest,
};
pub use request::{
    FollowUp, NewSignatureRequest, NewSigner, RequestStatus, SHORTEST_REMINDING_MS,
    SignatureRequest, Signer, SignerStatus,
};
pub use secret::Secret;
pub use signers::{MAX_ORDER, MAX_SIGNERS, Signers};
