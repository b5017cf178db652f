use std::borrow::Cow;

use async_trait::async_trait;

use crate::{i18n::Text, ids::OrganizationId};

/// How preflight reaches what an application's providers hold. Implement it for yours; preflight
/// limits time and parallelism, and asks about the same resource once per run.
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait ResourceProbe: Send + Sync + 'static {
    /// Whether the template exists and can be read.
    ///
    /// # Errors
    ///
    /// [`ProbeFailure`] says what stands in the way.
    async fn template(
        &self,
        organization: OrganizationId,
        name: &str,
    ) -> Result<TemplateFacts, ProbeFailure>;
    /// Whether the folder exists and can be written.
    ///
    /// # Errors
    ///
    /// [`ProbeFailure`] says what stands in the way.
    async fn folder(&self, organization: OrganizationId, folder: &str) -> Result<(), ProbeFailure>;
    /// Whether the connection is active and authorized.
    ///
    /// # Errors
    ///
    /// [`ProbeFailure`] says what stands in the way.
    async fn connection(
        &self,
        organization: OrganizationId,
        connection: &str,
    ) -> Result<(), ProbeFailure>;
}

/// What is known of a template.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TemplateFacts {
    /// Its size in bytes, with what comes with it.
    pub bytes: u64,
}

/// What stands in the way of using a resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProbeFailure {
    /// The provider answered: it cannot be used. Blocks.
    Refused {
        /// Such as `drive.folder_not_found` or `template_not_found`.
        code: Cow<'static, str>,
        /// For people; `None` takes docg's own words for the code.
        human: Option<Text>,
        /// For technicians.
        tech: Option<String>,
    },
    /// No answer was to be had. A warning `<domain>.check_failed`.
    Unreachable(String),
}

impl ProbeFailure {
    /// The provider answered: it cannot be used.
    #[must_use]
    pub fn refused(code: impl Into<Cow<'static, str>>) -> Self {
        Self::Refused {
            code: code.into(),
            human: None,
            tech: None,
        }
    }
}

/// Finds nothing wrong: for applications whose workflows name no templates, folders or connections.
#[derive(Debug, Clone, Copy, Default)]
pub struct AllowAll;

#[async_trait]
impl ResourceProbe for AllowAll {
    async fn template(&self, _: OrganizationId, _: &str) -> Result<TemplateFacts, ProbeFailure> {
        Ok(TemplateFacts { bytes: 0 })
    }
    async fn folder(&self, _: OrganizationId, _: &str) -> Result<(), ProbeFailure> {
        Ok(())
    }
    async fn connection(&self, _: OrganizationId, _: &str) -> Result<(), ProbeFailure> {
        Ok(())
    }
}
