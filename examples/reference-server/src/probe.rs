//! Tells preflight whether templates, folders and connections can be used.

use async_trait::async_trait;
use docg_core::{
    ids::OrganizationId,
    preflight::{ProbeFailure, ResourceProbe, TemplateFacts},
};

use crate::{files::Files, pdf::Templates};

/// A probe of the bundled templates, the storage, and the list of signature providers.
#[derive(Debug, Clone)]
pub struct Probe {
    files: Files,
    templates: Templates,
    connections: Vec<String>,
}

impl Probe {
    /// Creates a probe. `connections` are the names of the signature providers.
    #[must_use]
    pub fn new(files: Files, templates: Templates, connections: Vec<String>) -> Self {
        Self {
            files,
            templates,
            connections,
        }
    }
}

#[async_trait]
impl ResourceProbe for Probe {
    async fn template(&self, _: OrganizationId, name: &str) -> Result<TemplateFacts, ProbeFailure> {
        match self.templates.size(name) {
            Some(bytes) => Ok(TemplateFacts {
                bytes: bytes as u64,
            }),
            None => Err(ProbeFailure::Refused {
                code: "template_not_found".into(),
                human: None,
                tech: Some(format!(
                    "there are: {}",
                    self.templates.names().collect::<Vec<_>>().join(", ")
                )),
            }),
        }
    }

    async fn folder(&self, organization: OrganizationId, folder: &str) -> Result<(), ProbeFailure> {
        let probed = self.files.probe_folder(organization, folder).await;
        probed.map_err(crate::files::FilesError::probe_failure)
    }

    async fn connection(&self, _: OrganizationId, name: &str) -> Result<(), ProbeFailure> {
        if self.connections.iter().any(|known| known == name) {
            return Ok(());
        }
        Err(ProbeFailure::Refused {
            code: "connection_error".into(),
            human: None,
            tech: Some(format!("there are: {}", self.connections.join(", "))),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(failure: ProbeFailure) -> String {
        match failure {
            ProbeFailure::Refused { code, .. } => code.into_owned(),
            ProbeFailure::Unreachable(why) => format!("unreachable: {why}"),
        }
    }

    #[tokio::test]
    async fn what_is_there_can_be_used_and_what_is_not_has_a_code() {
        let folder = tempfile::tempdir().unwrap();
        let files = Files::in_folder(folder.path()).unwrap();
        let probe = Probe::new(files, Templates::bundled(), vec!["builtin".to_owned()]);
        let organization = OrganizationId::new();
        assert!(
            probe
                .template(organization, "contract.typ")
                .await
                .unwrap()
                .bytes
                > 0
        );
        probe.folder(organization, "contracts").await.unwrap();
        probe.connection(organization, "builtin").await.unwrap();

        let missing = probe
            .template(organization, "../contract.typ")
            .await
            .unwrap_err();
        assert_eq!(code(missing), "template_not_found");
        let outside = probe.folder(organization, "../..").await.unwrap_err();
        assert_eq!(code(outside), "local.folder_not_found");
        let unknown = probe.connection(organization, "other").await.unwrap_err();
        assert_eq!(code(unknown), "connection_error");
    }
}
