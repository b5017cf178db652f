use docg_core::{i18n::Locale, json};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{FilesError, names::clean_stem};

/// A document that a step made. It appears in the step's output, and later steps refer to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Document {
    /// The path in the file storage.
    pub path: String,
    /// The file name.
    pub filename: String,
    /// The title for people: the original name, in one line. Documents of older versions have no title.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// The media type, as in the HTTP header `Content-Type`.
    pub content_type: String,
    /// The size, in bytes.
    pub bytes: u64,
    /// The SHA-256 of the content, in hexadecimal digits.
    pub sha256: String,
    /// The language of the document, if known.
    #[serde(default)]
    pub language: Option<String>,
}

impl Document {
    /// Reads a document from the output of an earlier step.
    ///
    /// # Errors
    ///
    /// [`FilesError::NotADocument`].
    pub fn from_value(value: &Value) -> Result<Self, FilesError> {
        Self::deserialize(value)
            .map_err(|e| FilesError::NotADocument(json::misfit(&e).render(Locale::En)))
    }

    /// Reads one document or a list of them.
    ///
    /// # Errors
    ///
    /// [`FilesError::NotADocument`].
    pub fn list_from_value(value: &Value) -> Result<Vec<Self>, FilesError> {
        match value {
            Value::Null => Ok(Vec::new()),
            Value::Array(items) => items.iter().map(Self::from_value).collect(),
            one => Ok(vec![Self::from_value(one)?]),
        }
    }

    /// The file name of the signed document.
    #[must_use]
    pub fn signed_filename(&self) -> String {
        clean_stem(self.stem(), "-signed.pdf")
    }

    /// The title for people. For a document without a title, the file name without its extension.
    #[must_use]
    pub fn title(&self) -> &str {
        self.title.as_deref().unwrap_or_else(|| self.stem())
    }

    fn stem(&self) -> &str {
        let stem = self.filename.rsplit_once('.').map(|(stem, _)| stem);
        stem.unwrap_or(&self.filename)
    }
}
