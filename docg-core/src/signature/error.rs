use crate::{
    error::{StepFailure, codes},
    i18n::Text,
};

/// Why a call of a signature provider failed. The texts are for technicians and never contain a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProviderError {
    /// The provider is unreachable or unable to work at the moment; the call had no effect.
    #[error("the signature provider is unavailable: {0}")]
    Unavailable(String),
    /// The provider did not answer in time. Only for calls that change nothing there or are safe to repeat.
    #[error("the signature provider did not answer in time: {0}")]
    TimedOut(String),
    /// The provider asks to slow down; the call had no effect.
    #[error("the signature provider asks to slow down: {tech}")]
    RateLimited {
        /// The shortest wait in milliseconds, if the provider gave one.
        retry_after_ms: Option<u64>,
        /// The text for technicians.
        tech: String,
    },
    /// The provider rejected the key or token.
    #[error("the signature provider does not accept the API key: {0}")]
    Unauthorized(String),
    /// The key or token is valid, but its owner may not make this call.
    #[error("the signature provider does not allow this: {0}")]
    Forbidden(String),
    /// The provider account has no credits or no valid plan.
    #[error("the signature provider wants to be paid first: {0}")]
    Unpaid(String),
    /// The provider has nothing at this address.
    #[error("the signature provider has nothing at this address: {0}")]
    NotFound(String),
    /// The requested document or envelope does not exist yet. The same call may succeed later.
    #[error("the signature provider is not ready yet: {0}")]
    NotReady(String),
    /// The provider refused the call, and would refuse it again.
    #[error("the signature provider refused: {0}")]
    Refused(String),
    /// The connection broke after the request was sent: the outcome is unknown.
    #[error("whether the signature provider took the request is unknown: {0}")]
    Unknown(String),
}

impl ProviderError {
    /// The shortest wait before the next call, in milliseconds, if the provider gave one.
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

    /// True if the same call may succeed later.
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

    /// Turns the error into a failure of the step that called the provider. The failure's code begins with
    /// the provider's name, such as `clicksign.rate_limit`; actions are found by the part after that name.
    /// `label` is the label of the step's node.
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
            // The engine then asks the handler's `probe`. If the outcome stays unknown, people see the
            // engine's own text instead of this one.
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
