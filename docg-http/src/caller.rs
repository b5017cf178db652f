//! The caller of a request: the actor, the organization, the language.

use axum::{
    extract::FromRequestParts,
    http::{HeaderValue, StatusCode, header, request::Parts},
};
use docg_core::{i18n::Locale, ids::OrganizationId, observe::Actor};
use serde_json::json;

use crate::{
    auth::{Principal, Scope},
    middleware::RequestFacts,
    problem::Problem,
    router::AppState,
};

/// The caller of a request, and the organization that the caller acts for. A route whose handler takes
/// this as an argument requires credentials.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The actor, for the audit trail.
    pub actor: Actor,
    /// The organization that the request is for.
    pub organization: OrganizationId,
    /// The scopes of the caller's credentials.
    pub scopes: Vec<Scope>,
    /// The language of the answer's texts.
    pub locale: Locale,
    /// The id of the chain of calls, for logs and records.
    pub correlation_id: String,
    /// The W3C trace context, if the request has a valid one.
    pub traceparent: Option<String>,
}

impl Caller {
    /// Checks that the caller has a scope.
    ///
    /// # Errors
    ///
    /// 403 `missing_scope` if the caller does not have the scope.
    pub fn need(&self, scope: Scope) -> Result<(), Problem> {
        if self.scopes.contains(&scope) {
            return Ok(());
        }
        Err(Problem::new(StatusCode::FORBIDDEN, "missing_scope")
            .member("scope", json!(scope.as_str())))
    }

    /// True if the caller sees texts for technicians.
    #[must_use]
    pub fn is_technician(&self) -> bool {
        self.scopes.contains(&Scope::ExecutionsDebug)
    }

    pub(crate) fn new(
        principal: Principal,
        organization: OrganizationId,
        facts: &RequestFacts,
    ) -> Self {
        Self {
            actor: Actor::user(principal.actor),
            organization,
            scopes: principal.scopes,
            locale: facts.locale,
            correlation_id: facts.correlation_id.clone(),
            traceparent: facts.traceparent.clone(),
        }
    }
}

impl FromRequestParts<AppState> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Problem> {
        let principal = state
            .options
            .authenticator
            .authenticate(&parts.headers)
            .await
            .map_err(|_| unauthorized())?;
        let organization = organization(parts, &principal)?;
        let facts = parts
            .extensions
            .get::<RequestFacts>()
            .cloned()
            .unwrap_or_default();
        Ok(Self::new(principal, organization, &facts))
    }
}

pub(crate) fn unauthorized() -> Problem {
    Problem::new(StatusCode::UNAUTHORIZED, "unauthorized")
        .header(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))
}

/// The organization that the request is for. The header `X-Organization-ID` only chooses among the
/// organizations of the principal.
fn organization(parts: &Parts, principal: &Principal) -> Result<OrganizationId, Problem> {
    let chosen = parts.headers.get("x-organization-id");
    match (chosen, principal.organizations.as_slice()) {
        (Some(value), own) => {
            let id = value
                .to_str()
                .ok()
                .and_then(|text| text.trim().parse().ok());
            id.filter(|id| own.contains(id))
                .ok_or_else(|| Problem::new(StatusCode::FORBIDDEN, "organization_not_allowed"))
        }
        (None, [only]) => Ok(*only),
        (None, _) => Err(Problem::new(
            StatusCode::BAD_REQUEST,
            "organization_required",
        )),
    }
}
