use crate::{
    error::{StepFailure, codes},
    i18n::Text,
};

/// Why a provider did not do what it was asked. The texts are for technicians; they never hold a
/// secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProviderError {
    /// Not reachable, or not able at the moment; nothing has happened.
    #[error("the signature provider is unavailable: {0}")]
    Unavailable(String),
    /// No answer in time, to a call that changes nothing or may be repeated.
    #[error("the signature provider did not answer in time: {0}")]
    TimedOut(String),
    /// It asks to slow down; nothing has happened.
    #[error("the signature provider asks to slow down: {tech}")]
    RateLimited {
        /// How long to wait at least, in milliseconds, where it says so.
        retry_after_ms: Option<u64>,
        /// For technicians.
        tech: String,
    },
    /// It does not accept the key or token.
    #[error("the signature provider does not accept the API key: {0}")]
    Unauthorized(String),
    /// It does not allow this to whom the key or token belongs.
    #[error("the signature provider does not allow this: {0}")]
    Forbidden(String),
    /// The account has no credits or no valid plan.
    #[error("the signature provider wants to be paid first: {0}")]
    Unpaid(String),
    /// It has nothing at this address.
    #[error("the signature provider has nothing at this address: {0}")]
    NotFound(String),
    /// What is asked for does not exist yet, and will.
    #[error("the signature provider is not ready yet: {0}")]
    NotReady(String),
    /// Refused; asking again changes nothing.
    #[error("the signature provider refused: {0}")]
    Refused(String),
    /// It broke off after the request had gone out.
    #[error("whether the signature provider took the request is unknown: {0}")]
    Unknown(String),
}

impl ProviderError {
    /// How long to wait at least before asking again, in milliseconds, where the provider said so.
    #[must_use]
    pub fn retry_after_ms(&self) -> Option<u64> {
        match self {
            Self::RateLimited { retry_after_ms, .. } => *retry_after_ms,
            Self::Unavailable(_)
            | Self::TimedOut(_)
            | Self::Unauthorized(_)
            | Self::Forbidden(_)
            | Self::Unpaid(_)
            | Self::NotFound(_)
            | Self::NotReady(_)
            | Self::Refused(_)
            | Self::Unknown(_) => None,
        }
    }

    /// Whether asking again later may help.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Unavailable(_)
            | Self::TimedOut(_)
            | Self::RateLimited { .. }
            | Self::NotReady(_)
            | Self::Unknown(_) => true,
            Self::Unauthorized(_)
            | Self::Forbidden(_)
            | Self::Unpaid(_)
            | Self::NotFound(_)
            | Self::Refused(_) => false,
        }
    }

    /// What it means for the step that had asked. Codes begin with the provider's name, such as
    /// `clicksign.rate_limit`; actions are found by what follows it. `label` names the node.
    #[must_use]
    pub fn into_failure(self, provider: &str, label: &str) -> StepFailure {
        let code = |code: &str| format!("{provider}.{code}");
        let text = |key: &'static str| {
            Text::key(key)
                .with("label", label)
                .with("provider", provider)
        };
        let failure = match &self {
            Self::Unavailable(_) => StepFailure::retryable(
                code(codes::SERVICE_UNAVAILABLE),
                text("issue-service-unavailable"),
            ),
            Self::TimedOut(_) => {
                StepFailure::retryable(code(codes::TIMEOUT), text("issue-timeout"))
            }
            Self::RateLimited { .. } => {
                StepFailure::retryable(code(codes::RATE_LIMIT), text("issue-rate-limit"))
            }
            Self::Unauthorized(_) => {
                StepFailure::review(code(codes::API_KEY_INVALID), text("issue-api-key-invalid"))
            }
            Self::Forbidden(_) => StepFailure::review(
                code(codes::API_KEY_INVALID),
                text("error-provider-forbidden"),
            ),
            Self::Unpaid(_) => {
                StepFailure::review(code(codes::PAYMENT_REQUIRED), text("error-provider-unpaid"))
            }
            Self::NotFound(_) => {
                StepFailure::review(code(codes::API_NOT_FOUND), text("error-provider-not-found"))
            }
            Self::NotReady(_) => StepFailure::retryable(
                code(codes::DOCUMENT_NOT_READY),
                text("error-document-not-ready"),
            ),
            Self::Refused(_) => StepFailure::review(
                code(codes::SIGNATURE_REFUSED),
                text("error-signature-refused"),
            ),
            // The handler is asked; where it cannot tell either, the engine says so.
            Self::Unknown(_) => StepFailure::outcome_unknown(
                code(codes::SERVICE_UNAVAILABLE),
                text("issue-service-unavailable"),
            ),
        };
        let failure = match self.retry_after_ms() {
            Some(millis) => failure.retry_after_ms(millis),
            None => failure,
        };
        failure.tech(&self)
    }
}
