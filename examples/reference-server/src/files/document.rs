use docg_core::{i18n::Locale, json};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{FilesError, names::clean_stem};

/// A document that a step made, as its output describes it and later steps name it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Document {
    /// Where it is kept.
    pub path: String,
    /// What it is called.
    pub filename: String,
    /// What people read: the name as it was given, in one line. Older documents have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// What it is, as HTTP says it.
    pub content_type: String,
    /// Its size.
    pub bytes: u64,
    /// Its SHA-256, in hexadecimal digits.
    pub sha256: String,
    /// The language it is written in, where that is known.
    #[serde(default)]
    pub language: Option<String>,
}

impl Document {
    /// Reads what an earlier step gave.
    ///
    /// # Errors
    ///
    /// [`FilesError::NotADocument`].
    pub fn from_value(value: &Value) -> Result<Self, FilesError> {
        Self::deserialize(value)
            .map_err(|e| FilesError::NotADocument(json::misfit(&e).render(Locale::En)))
    }

    /// One document or a list of them.
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

    /// What the signed document is called.
    #[must_use]
    pub fn signed_filename(&self) -> String {
        clean_stem(self.stem(), "-signed.pdf")
    }

    /// What people read. Documents without a title show their file's name without its ending.
    #[must_use]
    pub fn title(&self) -> &str {
        self.title.as_deref().unwrap_or_else(|| self.stem())
    }

    fn stem(&self) -> &str {
        let stem = self.filename.rsplit_once('.').map(|(stem, _)| stem);
        stem.unwrap_or(&self.filename)
    }
}
