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
const ENOUGH: usize = 16;
/// Shorter ones are guessed at once.
const LEAST: usize = 8;

/// Reads a file of tokens.
///
/// # Errors
///
/// [`AuthFileError`] names the field that is wrong, and never a token.
pub fn read(path: &Path) -> Result<Identities, AuthFileError> {
    callers(path).map(Identities::of)
}

/// A warning for each token of a file that can be guessed.
///
/// # Errors
///
/// As [`read`].
pub fn short_tokens(path: &Path) -> Result<Vec<String>, AuthFileError> {
    let callers = callers(path)?.into_iter().enumerate();
    let short = callers.filter(|(_, caller)| caller.token.len() < ENOUGH);
    let warning = |(index, _)| {
        format!(
            "the auth file {}: tokens[{index}].token: it has fewer than {ENOUGH} characters, and can be \
             guessed: openssl rand -hex 32 makes a good one",
            path.display()
        )
    };
    Ok(short.map(warning).collect())
}

/// Somebody who may call, as a client needs it. `Debug` is left out: it holds a token.
#[derive(Clone)]
pub struct Caller {
    /// The bearer token.
    pub token: String,
    /// Who that is.
    pub principal: Principal,
}

/// The first of a file who may do all this.
///
/// # Errors
///
/// As [`read`], and where there is none.
pub fn first_with(path: &Path, scopes: &[Scope]) -> Result<Caller, AuthFileError> {
    let may = |caller: &Caller| {
        let granted = &caller.principal.scopes;
        scopes.iter().all(|scope| granted.contains(scope))
    };
    let found = callers(path)?.into_iter().find(may);
    found.ok_or_else(|| AuthFileError::Field {
        path: path.display().to_string(),
        field: "tokens".to_owned(),
        why: format!(
            "none of them has {}",
            scopes
                .iter()
                .map(|scope| scope.as_str())
                .collect::<Vec<_>>()
                .join(" and ")
        ),
    })
}

impl Identities {
    fn of(callers: Vec<Caller>) -> Self {
        let mut tokens = StaticTokens::default();
        let mut organizations: Vec<OrganizationId> = Vec::new();
        for Caller { token, principal } in callers {
            for organization in &principal.organizations {
                if !organizations.contains(organization) {
                    organizations.push(*organization);
                }
            }
            tokens = tokens.token(&token, principal);
        }
        Self {
            tokens,
            organizations,
        }
    }
}

fn callers(path: &Path) -> Result<Vec<Caller>, AuthFileError> {
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

fn parse(text: &[u8]) -> Result<Vec<Caller>, (String, String)> {
    let mut json = serde_json::Deserializer::from_slice(text);
    let file: File = serde_path_to_error::deserialize(&mut json)
        .map_err(|e| (e.path().to_string(), e.inner().to_string()))?;
    json.end().map_err(|e| (".".to_owned(), e.to_string()))?;
    if file.tokens.is_empty() {
        return Err(("tokens".to_owned(), "at least one is needed".to_owned()));
    }
    let mut callers = Vec::with_capacity(file.tokens.len());
    let mut known = HashSet::new();
    for (index, entry) in file.tokens.into_iter().enumerate() {
        let field = |name: &str| format!("tokens[{index}].{name}");
        if entry.token.is_empty() || !entry.token.bytes().all(|b| b.is_ascii_graphic()) {
            let why = "visible ASCII characters are needed".to_owned();
            return Err((field("token"), why));
        }
        if entry.token.len() < LEAST {
            let why = format!(
                "it has fewer than {LEAST} characters, and is guessed at once: openssl rand -hex 32 makes a \
                 good one"
            );
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
        callers.push(Caller {
            token: entry.token,
            principal: Principal {
                actor: entry.actor,
                organizations: entry.organizations,
                scopes,
            },
        });
    }
    Ok(callers)
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
        let identities = Identities::of(parse(file.to_string().as_bytes()).unwrap());
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
            ("token", json!(""), "tokens[0].token"),
            ("token", json!("with spaces in between"), "tokens[0].token"),
            ("token", json!("x"), "tokens[0].token"),
            ("token", json!("seven.."), "tokens[0].token"),
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
    fn a_short_token_is_a_token_that_is_warned_of() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokens.json");
        let mut short = entry();
        short["token"] = json!("too-short");
        let file = json!({"tokens": [entry(), short]});
        std::fs::write(&path, file.to_string()).unwrap();
        let warnings = short_tokens(&path).unwrap();
        assert_eq!(warnings.len(), 1);
        assert!(warnings[0].contains("tokens[1].token"), "{warnings:?}");
        assert!(!warnings[0].contains("too-short"), "{warnings:?}");
        read(&path).unwrap();
    }

    #[test]
    fn a_command_calls_as_the_first_who_may() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokens.json");
        let mut writer = entry();
        writer["token"] = json!("a-token-that-may-write");
        writer["scopes"] = json!(["executions:read", "executions:write"]);
        let file = json!({"tokens": [entry(), writer]});
        std::fs::write(&path, file.to_string()).unwrap();
        let token = |scopes: &[Scope]| first_with(&path, scopes).map(|caller| caller.token);
        assert_eq!(token(&[Scope::ExecutionsRead]).unwrap(), TOKEN);
        let both = [Scope::ExecutionsRead, Scope::ExecutionsWrite];
        assert_eq!(token(&both).unwrap(), "a-token-that-may-write");
        let none = token(&[Scope::WorkflowsWrite]).unwrap_err().to_string();
        assert!(none.contains("workflows:write"), "{none}");
    }

    #[test]
    fn no_message_holds_a_token() {
        let (_, why) = fault(&json!({"tokens": [entry(), entry()]}));
        assert!(!why.contains(TOKEN));
    }
}
