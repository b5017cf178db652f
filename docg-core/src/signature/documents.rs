use async_trait::async_trait;
use serde_json::Value;

use super::{error::ProviderError, request::SignatureRequest};
use crate::ids::OrganizationId;

/// How a provider that lives elsewhere gets at the application's documents. What a document's
/// description looks like is the application's own; steps pass it on as `file`.
#[async_trait]
pub trait Documents: Send + Sync + 'static {
    /// The document that an earlier step described.
    ///
    /// # Errors
    ///
    /// [`ProviderError::Refused`] where it is none of this organization, or none at all;
    /// [`ProviderError::Unavailable`] where it cannot be read at the moment.
    async fn read(
        &self,
        organization: OrganizationId,
        file: &Value,
    ) -> Result<Document, ProviderError>;
    /// Keeps the signed document of a request, and describes it.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read).
    async fn keep_signed(
        &self,
        request: &SignatureRequest,
        document: Document,
    ) -> Result<Value, ProviderError>;
}

/// A document's content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// Its name, such as `contract.pdf`.
    pub filename: String,
    /// Its media type, such as `application/pdf`.
    pub content_type: String,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

impl Document {
    /// Its name without the ending.
    #[must_use]
    pub fn title(&self) -> &str {
        self.filename
            .rsplit_once('.')
            .map_or(self.filename.as_str(), |(title, _)| title)
    }
}
