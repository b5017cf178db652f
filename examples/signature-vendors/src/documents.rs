use async_trait::async_trait;
use docg_core::{
    ids::OrganizationId,
    signature::{ProviderError, SignatureRequest},
};
use serde_json::Value;

/// Gives a provider access to the application's documents. The application chooses the JSON that describes a
/// document; steps pass this description on as `file`.
#[async_trait]
pub trait Documents: Send + Sync + 'static {
    /// Reads the document that an earlier step described.
    ///
    /// # Errors
    ///
    /// [`ProviderError::Refused`] if this organization has no such document; [`ProviderError::Unavailable`]
    /// if it cannot be read at the moment.
    async fn read(
        &self,
        organization: OrganizationId,
        file: &Value,
    ) -> Result<Document, ProviderError>;
    /// Stores a request's signed document and returns its description.
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
    /// The file name, such as `contract.pdf`.
    pub filename: String,
    /// The media type, such as `application/pdf`.
    pub content_type: String,
    /// The content in bytes.
    pub bytes: Vec<u8>,
}

impl Document {
    /// The file name without its extension.
    #[must_use]
    pub fn title(&self) -> &str {
        self.filename
            .rsplit_once('.')
            .map_or(self.filename.as_str(), |(title, _)| title)
    }
}
