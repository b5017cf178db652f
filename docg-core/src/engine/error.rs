use crate::{
    engine::{Call, VoteRefusal},
    error::{FieldFault, told},
    ports::{StoreError, StoreErrorKind},
    run::Status,
};

/// Why the engine did not do what it was asked. Nothing was changed, unless the store did not
/// answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// The organization has no such thing.
    #[error("{0} not found")]
    NotFound(&'static str),
    /// The execution's status does not allow the call.
    #[error(
        "an execution that is {from} does not allow this; allowed: {}",
        names(allowed)
    )]
    InvalidTransition {
        /// The status it has.
        from: Status,
        /// What may be called instead.
        allowed: Vec<Call>,
    },
    /// A part of what is stored of the execution cannot be read.
    #[error(
        "a part of an execution that is {from} cannot be read; allowed: {}",
        names(allowed)
    )]
    Unreadable {
        /// The status it has.
        from: Status,
        /// What may be called all the same.
        allowed: Vec<Call>,
    },
    /// The vote does not count.
    #[error("the vote does not count: {}", .0.reason)]
    VoteRefused(Box<VoteRefusal>),
    /// It has changed since the caller looked.
    #[error("the version is {actual}, not {expected}")]
    VersionMismatch {
        /// What the caller expected.
        expected: u64,
        /// What it is.
        actual: u64,
    },
    /// The idempotency key came with another body before.
    #[error("the idempotency key was used with another body")]
    KeyReused,
    /// The definition cannot run.
    #[error("the workflow cannot run: {}", told(.0))]
    InvalidWorkflow(Vec<FieldFault>),
    /// A value is well formed and wrong.
    #[error("values are wrong: {}", told(.0))]
    InvalidInput(Vec<FieldFault>),
    /// It has no document that could be signed.
    #[error("the execution has no document")]
    NoDocument,
    /// The engine was built without a way to ask for signatures.
    #[error("this engine has no node type that asks for signatures")]
    SignaturesNotConfigured,
    /// The webhook does not prove where it comes from.
    #[error("the webhook's signature is missing or wrong")]
    UnauthenticatedWebhook,
    /// The webhook proves where it comes from and cannot be read.
    #[error("the webhook cannot be read: {0}")]
    MalformedWebhook(String),
    /// The store failed.
    #[error(transparent)]
    Store(StoreError),
}

fn names(allowed: &[Call]) -> String {
    match allowed {
        [] => "nothing".to_owned(),
        calls => calls
            .iter()
            .map(|call| call.as_str())
            .collect::<Vec<_>>()
            .join(", "),
    }
}

impl From<StoreError> for EngineError {
    fn from(error: StoreError) -> Self {
        match error.kind {
            StoreErrorKind::KeyReused => Self::KeyReused,
            _ => Self::Store(error),
        }
    }
}
