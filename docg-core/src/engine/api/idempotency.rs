//! Idempotency keys of the calls that create an execution.

use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::{observe::JsonText, ports::Idempotency};

/// Makes a call that creates an execution repeatable: the same request with the same key returns the first
/// execution. Another request with the same key is [`KeyReused`](crate::engine::EngineError::KeyReused). Keys are
/// separate for each organization, and live as long as the execution.
///
/// The engine compares requests by what they ask for. The caller, the correlation id and the trace context may
/// differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyKey {
    key: String,
    /// SHA-256 of the content that is compared in place of the request.
    content: Option<[u8; 32]>,
}

impl IdempotencyKey {
    /// A key that may be repeated only with the same request.
    #[must_use]
    pub fn new(key: impl Into<String>) -> Self {
        Self {
            key: key.into(),
            content: None,
        }
    }

    /// A key that may be repeated only with the same content. It is for callers that received the request in
    /// a form of their own, such as the body of an HTTP call.
    #[must_use]
    pub fn of_content(key: impl Into<String>, content: impl AsRef<[u8]>) -> Self {
        Self {
            key: key.into(),
            content: Some(Sha256::digest(content).into()),
        }
    }

    /// The key as the caller gave it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.key
    }

    /// The form in which stores keep the key. `request` returns what the call asks for, as JSON. If that JSON
    /// changes with a version of docg, repeats of the keys stored before are refused.
    pub(in crate::engine) fn into_stored(self, request: impl FnOnce() -> Value) -> Idempotency {
        let of_request = || Sha256::digest(JsonText::from(request()).as_str()).into();
        Idempotency {
            fingerprint: self.content.unwrap_or_else(of_request),
            key: self.key,
        }
    }
}

impl From<&str> for IdempotencyKey {
    fn from(key: &str) -> Self {
        Self::new(key)
    }
}

impl From<String> for IdempotencyKey {
    fn from(key: String) -> Self {
        Self::new(key)
    }
}
