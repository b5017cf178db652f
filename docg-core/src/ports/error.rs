use std::error::Error;

/// The kind of a store's failure. The engine decides by the kind alone how to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StoreErrorKind {
    /// The record does not exist, or belongs to another organization.
    NotFound,
    /// The version is not the expected one, or the lease is lost. Nothing was written.
    Conflict,
    /// The commit would end the execution, but does not settle every signal in the inbox. Nothing was
    /// written.
    Signaled,
    /// The idempotency key was used before with another body. Nothing was written.
    KeyReused,
    /// A new request to people has a name that is taken: its provider and envelope, or an approver's token,
    /// lead to another execution; or two of its approvers have the same token. Nothing was written.
    NameTaken,
    /// The store cannot keep this value: see [`storable`](crate::storable). Nothing was written.
    Invalid,
    /// The store is full. Nothing was written.
    Full,
    /// The store did not answer. It may or may not have written.
    Unavailable,
    /// The stored data cannot be read.
    Corrupt,
}

impl StoreErrorKind {
    /// The kind's name, as in a metric's label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotFound => "not_found",
            Self::Conflict => "conflict",
            Self::Signaled => "signaled",
            Self::KeyReused => "key_reused",
            Self::NameTaken => "name_taken",
            Self::Invalid => "invalid",
            Self::Full => "full",
            Self::Unavailable => "unavailable",
            Self::Corrupt => "corrupt",
        }
    }

    /// True if the same call may succeed later.
    #[must_use]
    pub const fn may_pass(self) -> bool {
        match self {
            Self::Unavailable | Self::Full => true,
            Self::NotFound
            | Self::Conflict
            | Self::Signaled
            | Self::KeyReused
            | Self::NameTaken
            | Self::Invalid
            | Self::Corrupt => false,
        }
    }
}

/// A failed call of a store.
#[derive(Debug, thiserror::Error)]
#[error("{operation}: {message}")]
pub struct StoreError {
    /// The kind of failure.
    pub kind: StoreErrorKind,
    /// The store's method that failed.
    pub operation: &'static str,
    /// The error text for technicians.
    pub message: String,
    /// The cause.
    #[source]
    pub source: Option<Box<dyn Error + Send + Sync>>,
}

impl StoreError {
    /// An error without a cause.
    pub fn new(kind: StoreErrorKind, operation: &'static str, message: impl Into<String>) -> Self {
        Self {
            kind,
            operation,
            message: message.into(),
            source: None,
        }
    }

    /// Adds the cause.
    #[must_use]
    pub fn caused_by(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }
}
