use async_trait::async_trait;
use docg_core::{
    ids::OrganizationId,
    signature::{ProviderError, SignatureRequest},
};
use docg_signature_vendors::{Document as Content, Documents};
use serde_json::Value;

use crate::files::{Document, Files, FilesError, Origin};

/// Gives external signature providers access to the documents of this server's steps.
pub(super) struct FileDocuments(Files);

impl FileDocuments {
    pub(super) fn new(files: Files) -> Self {
        Self(files)
    }
}

#[async_trait]
impl Documents for FileDocuments {
    async fn read(
        &self,
        organization: OrganizationId,
        file: &Value,
    ) -> Result<Content, ProviderError> {
        let document = Document::from_value(file).map_err(FilesError::provider_error)?;
        let bytes = self.0.read_document(organization, &document).await;
        Ok(Content {
            bytes: bytes.map_err(FilesError::provider_error)?.to_vec(),
            filename: document.filename,
            content_type: document.content_type,
        })
    }

    async fn keep_signed(
        &self,
        request: &SignatureRequest,
        signed: Content,
    ) -> Result<Value, ProviderError> {
        let original = Document::from_value(&request.file).map_err(FilesError::provider_error)?;
        let origin = Origin {
            organization_id: request.organization_id,
            execution_id: request.execution_id,
            node_id: request.node_id.clone(),
        };
        let kept = self
            .0
            .put_signed(&origin, &original, signed.bytes.into())
            .await
            .map_err(FilesError::provider_error)?;
        serde_json::to_value(kept).map_err(|e| ProviderError::Refused(e.to_string()))
    }
}
