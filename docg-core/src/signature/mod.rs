//! Signature requests: their signers, each signer's status, and how providers' reports are merged.
//!
//! The engine and its webhooks call a [`SignatureProvider`]. Two implementations are features: `clicksign`
//! and `zapsign`. Both use the application's [`HttpClient`](http::HttpClient) and [`Documents`].

mod documents;
mod error;
#[cfg(feature = "signature-http")]
pub mod http;
mod merge;
#[cfg(any(feature = "clicksign", feature = "zapsign"))]
mod moment;
mod provider;
mod request;
mod secret;
mod signers;

#[cfg(feature = "clicksign")]
pub mod clicksign;
#[cfg(feature = "zapsign")]
pub mod zapsign;

pub use documents::{Document, Documents};
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
