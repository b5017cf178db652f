use std::borrow::Cow;

use async_trait::async_trait;

use crate::{i18n::Text, ids::OrganizationId};

/// Lets preflight reach the resources at an application's providers. The application implements this trait.
/// Preflight limits the duration of calls and how many run at once, and asks about each resource once.
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait ResourceProbe: Send + Sync + 'static {
    /// Checks that the template exists and can be read.
    ///
    /// # Errors
    ///
    /// [`ProbeFailure`] tells why the template cannot be used.
    async fn template(
        &self,
        organization: OrganizationId,
        name: &str,
    ) -> Result<TemplateFacts, ProbeFailure>;
    /// Checks that the folder exists and can be written to.
    ///
    /// # Errors
    ///
    /// [`ProbeFailure`] tells why the folder cannot be used.
    async fn folder(&self, organization: OrganizationId, folder: &str) -> Result<(), ProbeFailure>;
    /// Checks that the connection is active and authorized.
    ///
    /// # Errors
    ///
    /// [`ProbeFailure`] tells why the connection cannot be used.
    async fn connection(
        &self,
        organization: OrganizationId,
        connection: &str,
    ) -> Result<(), ProbeFailure>;
}

/// Facts about a template.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TemplateFacts {
    /// The template's size in bytes, including all files that come with it.
    pub bytes: u64,
}

/// The reason why a resource cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProbeFailure {
    /// The provider answered that the resource cannot be used. Preflight reports a blocking issue.
    Refused {
        /// The code, such as `drive.folder_not_found` or `template_not_found`.
        code: Cow<'static, str>,
        /// The text for people; if `None`, people read docg's own text for the code.
        human: Option<Text>,
        /// The text for technicians.
        tech: Option<String>,
    },
    /// The provider did not answer, for this reason. Preflight reports a warning `<domain>.check_failed`.
    Unreachable(String),
}

impl ProbeFailure {
    /// A provider's refusal with this code, and without texts.
    #[must_use]
    pub fn refused(code: impl Into<Cow<'static, str>>) -> Self {
        Self::Refused {
            code: code.into(),
            human: None,
            tech: None,
        }
    }
}

/// A probe that accepts everything, for applications whose workflows name no templates, folders or
/// connections.
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
