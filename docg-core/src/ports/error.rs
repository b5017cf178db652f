use std::error::Error;

/// What went wrong in a store. The engine reads only the kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StoreErrorKind {
    /// The thing is not there, or belongs to another organization.
    NotFound,
    /// The version is not the expected one, or the lease is lost. Nothing was written.
    Conflict,
    /// A signal is in the inbox that the commit does not settle and was not to pass over. Nothing was
    /// written.
    Signaled,
    /// The idempotency key was used with another body. Nothing was written.
    KeyReused,
    /// A request has a name that leads to another execution: its provider and envelope, or the token of an
    /// approver. Or two approvers have the same token. Nothing was written.
    NameTaken,
    /// The store cannot keep this value: see [`storable`](crate::storable). Nothing was written.
    Invalid,
    /// The store is full. Nothing was written.
    Full,
    /// The store did not answer. Whether something was written is not known.
    Unavailable,
    /// What is stored cannot be read.
    Corrupt,
}

impl StoreErrorKind {
    /// Its name, as in a metric's label.
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

    /// Whether the same call may succeed later.
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
    /// What went wrong.
    pub kind: StoreErrorKind,
    /// The call.
    pub operation: &'static str,
    /// For technicians.
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
