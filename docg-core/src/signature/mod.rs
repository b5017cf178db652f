//! Signature requests: who must sign, what each has done, and how providers' reports are merged.
//!
//! [`SignatureProvider`] is what the engine and its webhooks talk to. Two are given as features:
//! `clicksign` and `zapsign`, both over an [`HttpClient`](http::HttpClient) of the application and
//! its [`Documents`].

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
