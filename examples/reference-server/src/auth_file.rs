//! Who may call: a file of tokens.

use std::{collections::HashSet, path::Path};

use docg_core::ids::OrganizationId;
use docg_http::{Principal, Scope, StaticTokens};
use serde::Deserialize;

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AuthFileError {
    /// It cannot be read.
    #[error("the auth file {path} cannot be read: {source}")]
    Unreadable {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// A field is wrong.
    #[error("the auth file {path}: {field}: {why}")]
    Field {
        /// The file.
        path: String,
        /// Which field, as `tokens[0].scopes[1]`.
        field: String,
        /// What is wrong with it.
        why: String,
    },
}

/// Who may call.
#[derive(Debug)]
pub struct Identities {
    /// The tokens, hashed.
    pub tokens: StaticTokens,
    /// All organizations that any of them may act for.
    pub organizations: Vec<OrganizationId>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    tokens: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    token: String,
    actor: String,
    organizations: Vec<OrganizationId>,
    scopes: Vec<String>,
}

/// Shorter ones can be guessed.
const MIN_TOKEN: usize = 16;

/// Reads a file of tokens.
///
/// # Errors
///
/// [`AuthFileError`] names the field that is wrong, and never a token.
pub fn read(path: &Path) -> Result<Identities, AuthFileError> {
    let name = path.display().to_string();
    let text = std::fs::read(path).map_err(|source| AuthFileError::Unreadable {
        path: name.clone(),
        source,
    })?;
    parse(&text).map_err(|(field, why)| AuthFileError::Field {
        path: name,
        field,
        why,
    })
}

fn parse(text: &[u8]) -> Result<Identities, (String, String)> {
    let mut json = serde_json::Deserializer::from_slice(text);
    let file: File = serde_path_to_error::deserialize(&mut json)
        .map_err(|e| (e.path().to_string(), e.inner().to_string()))?;
    json.end().map_err(|e| (".".to_owned(), e.to_string()))?;
    if file.tokens.is_empty() {
        return Err(("tokens".to_owned(), "at least one is needed".to_owned()));
    }
    let mut tokens = StaticTokens::default();
    let mut known = HashSet::new();
    let mut organizations: Vec<OrganizationId> = Vec::new();
    for (index, entry) in file.tokens.into_iter().enumerate() {
        let field = |name: &str| format!("tokens[{index}].{name}");
        if entry.token.len() < MIN_TOKEN || !entry.token.bytes().all(|b| b.is_ascii_graphic()) {
            let why = format!("at least {MIN_TOKEN} visible ASCII characters are needed");
            return Err((field("token"), why));
        }
        if !known.insert(entry.token.clone()) {
            return Err((field("token"), "it stands here twice".to_owned()));
        }
        if entry.actor.trim().is_empty() {
            return Err((field("actor"), "the audit trail needs a name".to_owned()));
        }
        if entry.organizations.is_empty() {
            return Err((field("organizations"), "at least one is needed".to_owned()));
        }
        let mut scopes = Vec::with_capacity(entry.scopes.len());
        for (at, scope) in entry.scopes.iter().enumerate() {
            let names = Scope::ALL.map(Scope::as_str).join(", ");
            let why = |e: String| {
                (
                    field(&format!("scopes[{at}]")),
                    format!("{e}; there are {names}"),
                )
            };
            scopes.push(scope.parse::<Scope>().map_err(why)?);
        }
        for organization in &entry.organizations {
            if !organizations.contains(organization) {
                organizations.push(*organization);
            }
        }
        let principal = Principal {
            actor: entry.actor,
            organizations: entry.organizations,
            scopes,
        };
        tokens = tokens.token(&entry.token, principal);
    }
    Ok(Identities {
        tokens,
        organizations,
    })
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderMap, HeaderValue, header};
    use docg_http::Authenticator;
    use serde_json::{Value, json};

    use super::*;

    const ORGANIZATION: &str = "0197a000-0000-7000-8000-000000000001";
    const TOKEN: &str = "a-token-that-is-long-enough";

    fn entry() -> Value {
        json!({"token": TOKEN, "actor": "someone", "organizations": [ORGANIZATION],
            "scopes": ["executions:read", "audit:read"]})
    }

    fn fault(file: &Value) -> (String, String) {
        match parse(file.to_string().as_bytes()) {
            Ok(_) => panic!("{file} was taken"),
            Err(fault) => fault,
        }
    }

    #[tokio::test]
    async fn a_token_proves_its_actor_with_organizations_and_scopes() {
        let file = json!({"tokens": [entry()]});
        let identities = parse(file.to_string().as_bytes()).unwrap();
        assert_eq!(identities.organizations, [ORGANIZATION.parse().unwrap()]);
        let mut headers = HeaderMap::new();
        assert!(identities.tokens.authenticate(&headers).await.is_err());
        let value = HeaderValue::from_str(&format!("Bearer {TOKEN}")).unwrap();
        headers.insert(header::AUTHORIZATION, value);
        let principal = identities.tokens.authenticate(&headers).await.unwrap();
        assert_eq!(principal.actor, "someone");
        assert_eq!(principal.scopes, [Scope::ExecutionsRead, Scope::AuditRead]);
    }

    #[test]
    fn every_mistake_is_told_by_its_field() {
        for (key, value, field) in [
            ("token", json!("short"), "tokens[0].token"),
            ("token", json!("with spaces in between"), "tokens[0].token"),
            ("actor", json!(" "), "tokens[0].actor"),
            ("organizations", json!([]), "tokens[0].organizations"),
            ("organizations", json!(["x"]), "tokens[0].organizations[0]"),
            (
                "scopes",
                json!(["executions:read", "all"]),
                "tokens[0].scopes[1]",
            ),
            ("scope", json!([]), "tokens[0].scope"),
        ] {
            let mut entry = entry();
            entry[key] = value.clone();
            let (named, why) = fault(&json!({"tokens": [entry]}));
            assert_eq!(named, field, "{key} = {value}: {why}");
        }
        assert_eq!(fault(&json!({"tokens": []})).0, "tokens");
        assert_eq!(
            fault(&json!({"tokens": [entry(), entry()]})).0,
            "tokens[1].token"
        );
    }

    #[test]
    fn no_message_holds_a_token() {
        let (_, why) = fault(&json!({"tokens": [entry(), entry()]}));
        assert!(!why.contains(TOKEN));
    }
}
