//! Signature requests: who must sign, what each has done, and how providers' reports are merged.

mod merge;
mod provider;
mod request;

pub use merge::{SignerChange, merge};
#[cfg(feature = "mock")]
pub use provider::MockSignatureProvider;
pub use provider::{
    Envelope, EnvelopeRequest, ProviderError, ProviderUpdate, SignatureProvider, SignerFact,
    SignerFactKind, WebhookError, WebhookRequest,
};
pub use request::{
    NewSignatureRequest, NewSigner, RequestStatus, SignatureRequest, Signer, SignerStatus,
};
