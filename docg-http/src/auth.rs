//! Who calls, and what they may do.

use std::{fmt, str::FromStr};

use async_trait::async_trait;
use axum::http::{HeaderMap, header};
use docg_core::ids::OrganizationId;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// Proves who calls. Implement it for your own tokens or sessions.
#[async_trait]
pub trait Authenticator: Send + Sync + 'static {
    /// Who sent a request with these headers.
    ///
    /// # Errors
    ///
    /// [`AuthError`] where they prove nobody.
    async fn authenticate(&self, headers: &HeaderMap) -> Result<Principal, AuthError>;

    /// A text by which [`recognize`](Self::recognize) knows these credentials again, in any
    /// process. It is stored, so it must not be good as credentials itself: a hash, or what a
    /// signed token claims.
    ///
    /// # Errors
    ///
    /// [`AuthError`] where they prove nobody.
    async fn receipt(&self, headers: &HeaderMap) -> Result<String, AuthError>;

    /// Who the credentials behind a receipt prove now. An event stream that was opened with a
    /// token of its own comes back without headers; it is let in for as long as this says so.
    ///
    /// # Errors
    ///
    /// [`AuthError`] where they have expired or were withdrawn.
    async fn recognize(&self, receipt: &str) -> Result<Principal, AuthError>;
}

/// The request proves nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no valid credentials")]
pub struct AuthError;

/// Who calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// Free text for the audit trail.
    pub actor: String,
    /// The organizations that they may act for.
    pub organizations: Vec<OrganizationId>,
    /// What they may do.
    pub scopes: Vec<Scope>,
}

/// What a caller may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scope {
    /// Read executions, workflows, signers, preflight and streams.
    ExecutionsRead,
    /// Create and control executions.
    ExecutionsWrite,
    /// See texts for technicians.
    ExecutionsDebug,
    /// Read the audit trail.
    AuditRead,
    /// Change workflows.
    WorkflowsWrite,
}

impl Scope {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::ExecutionsRead,
        Self::ExecutionsWrite,
        Self::ExecutionsDebug,
        Self::AuditRead,
        Self::WorkflowsWrite,
    ];

    /// The name in tokens.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ExecutionsRead => "executions:read",
            Self::ExecutionsWrite => "executions:write",
            Self::ExecutionsDebug => "executions:debug",
            Self::AuditRead => "audit:read",
            Self::WorkflowsWrite => "workflows:write",
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Scope {
    type Err = String;
    fn from_str(name: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|scope| scope.as_str() == name)
            .ok_or_else(|| format!("unknown scope {name:?}"))
    }
}

/// A fixed list of bearer tokens (RFC 6750). Only their SHA-256 is kept.
#[derive(Default)]
pub struct StaticTokens {
    tokens: Vec<([u8; 32], Principal)>,
}

impl StaticTokens {
    /// Adds a token.
    #[must_use]
    pub fn token(mut self, token: &str, principal: Principal) -> Self {
        self.tokens
            .push((Sha256::digest(token.as_bytes()).into(), principal));
        self
    }
}

impl fmt::Debug for StaticTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StaticTokens")
            .field("count", &self.tokens.len())
            .finish()
    }
}

impl StaticTokens {
    fn find(&self, hash: &[u8]) -> Result<Principal, AuthError> {
        // All are compared, so that the time tells nothing of which one it was.
        let mut found = None;
        for (known, principal) in &self.tokens {
            if bool::from(known.ct_eq(hash)) {
                found = Some(principal);
            }
        }
        found.cloned().ok_or(AuthError)
    }
}

fn bearer_hash(headers: &HeaderMap) -> Result<[u8; 32], AuthError> {
    let token = bearer(headers).ok_or(AuthError)?;
    Ok(Sha256::digest(token.as_bytes()).into())
}

#[async_trait]
impl Authenticator for StaticTokens {
    async fn authenticate(&self, headers: &HeaderMap) -> Result<Principal, AuthError> {
        self.find(&bearer_hash(headers)?)
    }

    async fn receipt(&self, headers: &HeaderMap) -> Result<String, AuthError> {
        Ok(hex::encode(bearer_hash(headers)?))
    }

    async fn recognize(&self, receipt: &str) -> Result<Principal, AuthError> {
        self.find(&hex::decode(receipt).map_err(|_| AuthError)?)
    }
}

/// The bearer token, where there is exactly one `Authorization` header.
pub(crate) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let value = values.next()?.to_str().ok()?;
    if values.next().is_some() {
        return None;
    }
    let (scheme, token) = value.split_once(' ')?;
    scheme
        .eq_ignore_ascii_case("bearer")
        .then_some(token.trim())
        .filter(|token| !token.is_empty())
}
