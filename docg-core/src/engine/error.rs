use crate::{
    engine::{Command, VoteRefusal},
    error::{FieldFault, told},
    ports::{StoreError, StoreErrorKind},
    run::Status,
};

/// Why the engine rejected a call, or failed. The call changed nothing, unless the store did not answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// The organization has no such workflow, execution or other thing.
    #[error("{0} not found")]
    NotFound(&'static str),
    /// The execution's status does not allow the call.
    #[error(
        "an execution that is {from} does not allow this; allowed: {}",
        names(allowed)
    )]
    InvalidTransition {
        /// The execution's status.
        from: Status,
        /// The commands that the status allows.
        allowed: Vec<Command>,
    },
    /// A part of the stored execution cannot be read.
    #[error(
        "a part of an execution that is {from} cannot be read; allowed: {}",
        names(allowed)
    )]
    Unreadable {
        /// The execution's status.
        from: Status,
        /// The commands that are still allowed.
        allowed: Vec<Command>,
    },
    /// The vote does not count.
    #[error("the vote does not count: {}", .0.reason)]
    VoteRefused(Box<VoteRefusal>),
    /// The execution or workflow has changed since the caller read it.
    #[error("the version is {actual}, not {expected}")]
    VersionMismatch {
        /// The version that the caller expected.
        expected: u64,
        /// The present version.
        actual: u64,
    },
    /// The idempotency key was used before, with another body.
    #[error("the idempotency key was used with another body")]
    KeyReused,
    /// The workflow has faults and cannot run.
    #[error("the workflow cannot run: {}", told(.0))]
    InvalidWorkflow(Vec<FieldFault>),
    /// The call has values that are well-formed but wrong.
    #[error("values are wrong: {}", told(.0))]
    InvalidInput(Vec<FieldFault>),
    /// The execution has no document that could be signed.
    #[error("the execution has no document")]
    NoDocument,
    /// The engine was built without a way to ask for signatures.
    #[error("this engine has no node type that asks for signatures")]
    SignaturesNotConfigured,
    /// The webhook's signature is missing or wrong.
    #[error("the webhook's signature is missing or wrong")]
    UnauthenticatedWebhook,
    /// The webhook is authentic but cannot be read.
    #[error("the webhook cannot be read: {0}")]
    MalformedWebhook(String),
    /// The store failed.
    #[error(transparent)]
    Store(StoreError),
}

fn names(allowed: &[Command]) -> String {
    match allowed {
        [] => "nothing".to_owned(),
        commands => commands
            .iter()
            .map(|command| command.as_str())
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
