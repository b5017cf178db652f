use std::{error::Error, io};

use docg_core::{
    error::{StepFailure, codes},
    i18n::Text,
    preflight::ProbeFailure,
    signature::ProviderError,
};

/// The reason why a file was not written or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FilesError {
    /// The file does not exist, or belongs to another organization.
    #[error("there is no file {0:?}")]
    NotFound(String),
    /// The disk is full, or the quota is used up.
    #[error("no space is left: {0}")]
    Full(String),
    /// The server's user lacks the permission.
    #[error("not permitted: {0}")]
    Denied(String),
    /// A file stands where a folder is needed, or the folder is gone.
    #[error("not a folder: {0}")]
    NotAFolder(String),
    /// The folder name is invalid, or would leave the organization's folder.
    #[error("{0:?} is no folder name")]
    BadFolder(String),
    /// The storage rejects the path; a retry does not help.
    #[error("the storage takes no such name: {0}")]
    BadName(String),
    /// The storage does not match its settings: a wrong bucket, region or credentials.
    #[error("the storage's settings are wrong: {0}")]
    Misconfigured(String),
    /// The value does not describe a document.
    #[error("not a document that an earlier step made: {0}")]
    NotADocument(String),
    /// The content has changed since it was stored.
    #[error("{0:?} is not what was kept there: its SHA-256 differs")]
    Changed(String),
    /// The file is too large. The number is its size, in bytes.
    #[error("{0} bytes are too many")]
    TooLarge(u64),
    /// This program was built without support for the URL's scheme.
    #[error(
        "files at {0:?} URLs are not for this build; it has file:///absolute/path{more}",
        more = if cfg!(feature = "s3") { " and s3://bucket/prefix" } else { "" }
    )]
    Unsupported(String),
    /// Any other error of the storage. A retry may help.
    #[error("the storage failed: {0}")]
    Other(String),
}

impl FilesError {
    /// Converts to the error of a signature provider.
    pub(crate) fn provider_error(self) -> ProviderError {
        match self {
            Self::NotFound(_)
            | Self::NotADocument(_)
            | Self::Changed(_)
            | Self::TooLarge(_)
            | Self::BadFolder(_)
            | Self::BadName(_)
            | Self::Unsupported(_) => ProviderError::Refused(self.to_string()),
            Self::Full(_)
            | Self::Denied(_)
            | Self::NotAFolder(_)
            | Self::Misconfigured(_)
            | Self::Other(_) => ProviderError::Unavailable(self.to_string()),
        }
    }

    pub(crate) fn from_io(error: &io::Error) -> Self {
        Self::by_kind(error.kind(), error.to_string())
    }

    /// Classifies an error by the bucket's answer, which `object_store` passes on only as text.
    /// `object_store` has already retried where a retry may help.
    fn by_answer(text: String) -> Self {
        let says = |words: &[&str]| words.iter().any(|word| text.contains(word));
        if says(&[
            "NoSuchBucket",
            "PermanentRedirect",
            "InvalidAccessKeyId",
            "SignatureDoesNotMatch",
        ]) {
            Self::Misconfigured(text)
        } else if says(&["KeyTooLong", "InvalidURI"]) {
            Self::BadName(text)
        } else if says(&["EntityTooLarge"]) {
            Self::Full(text)
        } else {
            Self::Other(text)
        }
    }

    fn by_kind(kind: io::ErrorKind, text: String) -> Self {
        use io::ErrorKind as Kind;
        match kind {
            Kind::StorageFull | Kind::QuotaExceeded | Kind::FileTooLarge => Self::Full(text),
            Kind::PermissionDenied | Kind::ReadOnlyFilesystem => Self::Denied(text),
            Kind::NotADirectory | Kind::AlreadyExists | Kind::IsADirectory => {
                Self::NotAFolder(text)
            }
            Kind::InvalidFilename | Kind::InvalidInput => Self::BadName(text),
            Kind::NotFound => Self::NotFound(text),
            // After any other error, a retry may succeed.
            _ => Self::Other(text),
        }
    }

    /// True if the storage is at fault and not the document, so that an operator has to mend the storage.
    fn is_of_storage(&self) -> bool {
        match self {
            Self::Full(_) | Self::Denied(_) | Self::Misconfigured(_) | Self::Other(_) => true,
            Self::NotFound(_)
            | Self::NotAFolder(_)
            | Self::BadFolder(_)
            | Self::BadName(_)
            | Self::NotADocument(_)
            | Self::Changed(_)
            | Self::TooLarge(_)
            | Self::Unsupported(_) => false,
        }
    }

    /// Converts to the failure of a step. `label` is the step's name for people, `field` the parameter.
    #[must_use]
    pub fn failure(self, label: &impl ToString, field: &str) -> StepFailure {
        let text = |key| {
            Text::key(key)
                .with("label", label.to_string())
                .with("field", field)
        };
        if self.is_of_storage() {
            tracing::warn!("documents cannot be kept: {self}");
        }
        let failure = match &self {
            Self::Full(_) => StepFailure::review("storage_full", text("issue-storage-full")),
            Self::Denied(_) => StepFailure::review(
                "local.insufficient_permissions",
                text("issue-storage-denied"),
            ),
            Self::NotAFolder(_) | Self::BadFolder(_) => {
                StepFailure::review("local.folder_not_found", text("issue-folder-not-found"))
            }
            Self::NotFound(_) | Self::NotADocument(_) | Self::Changed(_) | Self::TooLarge(_) => {
                StepFailure::review(codes::INVALID_FIELD_FORMAT, text("issue-file-unusable"))
            }
            Self::BadName(_) => StepFailure::review(
                codes::INVALID_FIELD_FORMAT,
                text("issue-file-name-unusable"),
            ),
            Self::Unsupported(_) | Self::Misconfigured(_) => {
                StepFailure::review("storage_misconfigured", text("issue-storage-misconfigured"))
            }
            Self::Other(_) => StepFailure::retryable("storage_error", text("issue-storage-error")),
        };
        failure.tech(self)
    }

    /// Converts to the failure of a preflight check of a folder.
    #[must_use]
    pub fn probe_failure(self) -> ProbeFailure {
        let code = match &self {
            Self::Full(_) => "storage_full",
            Self::Denied(_) => "local.insufficient_permissions",
            Self::NotAFolder(_) | Self::BadFolder(_) | Self::BadName(_) | Self::NotFound(_) => {
                "local.folder_not_found"
            }
            Self::Misconfigured(_) | Self::Unsupported(_) => "storage_misconfigured",
            Self::NotADocument(_) | Self::Changed(_) | Self::TooLarge(_) | Self::Other(_) => {
                return ProbeFailure::Unreachable(self.to_string());
            }
        };
        ProbeFailure::Refused {
            code: code.into(),
            human: None,
            tech: Some(self.to_string()),
        }
    }
}

impl From<object_store::Error> for FilesError {
    fn from(error: object_store::Error) -> Self {
        if let object_store::Error::NotFound { path, source } = &error {
            // `object_store` reports a file in a folder's place as a path that is not found.
            return match io_kind(source.as_ref()) {
                Some(io::ErrorKind::NotADirectory) => Self::NotAFolder(error.to_string()),
                None if source.to_string().contains("NoSuchBucket") => {
                    Self::Misconfigured(error.to_string())
                }
                _ => Self::NotFound(path.clone()),
            };
        }
        if let object_store::Error::PermissionDenied { .. }
        | object_store::Error::Unauthenticated { .. } = &error
        {
            return Self::Denied(error.to_string());
        }
        let text = match error.source() {
            Some(source) => source.to_string(),
            None => error.to_string(),
        };
        match io_kind(&error) {
            Some(kind) => Self::by_kind(kind, text),
            None => Self::by_answer(text),
        }
    }
}

impl From<object_store::path::Error> for FilesError {
    fn from(error: object_store::path::Error) -> Self {
        Self::BadFolder(error.to_string())
    }
}

/// The kind of the I/O error that caused an error, if any.
fn io_kind(error: &(dyn Error + 'static)) -> Option<io::ErrorKind> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(io) = error.downcast_ref::<io::Error>() {
            return Some(io.kind());
        }
        next = error.source();
    }
    None
}
