//! Authentication of callers, and their scopes.

use std::{fmt, str::FromStr};

use async_trait::async_trait;
use axum::http::{HeaderMap, header};
use docg_core::ids::OrganizationId;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// Authenticates callers. Implement it for your own tokens or sessions.
#[async_trait]
pub trait Authenticator: Send + Sync + 'static {
    /// Identifies the principal that sent a request with these headers.
    ///
    /// # Errors
    ///
    /// [`AuthError`] if the headers hold no valid credentials.
    async fn authenticate(&self, headers: &HeaderMap) -> Result<Principal, AuthError>;

    /// Returns a text by which [`recognize`](Self::recognize) recognizes these credentials later, in any
    /// process. The receipt is stored, so it must not be usable as credentials itself. Use a hash, or the
    /// claims of a signed token.
    ///
    /// # Errors
    ///
    /// [`AuthError`] if the headers hold no valid credentials.
    async fn receipt(&self, headers: &HeaderMap) -> Result<String, AuthError>;

    /// Identifies the principal of the credentials behind a receipt, if the credentials are still valid. A
    /// reader with a stream token connects without credentials in headers. Each connection then calls this.
    ///
    /// # Errors
    ///
    /// [`AuthError`] if the credentials have expired or were withdrawn.
    async fn recognize(&self, receipt: &str) -> Result<Principal, AuthError>;
}

/// The request has no valid credentials.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no valid credentials")]
pub struct AuthError;

/// An authenticated caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// The name under which the audit trail records this principal as the actor; any text.
    pub actor: String,
    /// The organizations for which the principal may act.
    pub organizations: Vec<OrganizationId>,
    /// The scopes that the principal has.
    pub scopes: Vec<Scope>,
}

/// A permission of a caller.
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
    /// All scopes.
    pub const ALL: [Self; 5] = [
        Self::ExecutionsRead,
        Self::ExecutionsWrite,
        Self::ExecutionsDebug,
        Self::AuditRead,
        Self::WorkflowsWrite,
    ];

    /// The scope's name in tokens.
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

/// A fixed list of bearer tokens (RFC 6750). The list holds only their SHA-256 hashes.
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
        // Compare with all tokens, so that the time does not reveal which one matched.
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

/// The bearer token, if there is exactly one `Authorization` header.
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
