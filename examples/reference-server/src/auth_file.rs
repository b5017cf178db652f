//! Reads the auth file: the tokens of all callers.

use std::{
    collections::HashSet,
    fs::File,
    io::{self, Read},
    path::Path,
};

use docg_core::{
    i18n::Locale,
    ids::OrganizationId,
    json::{self, ReadError},
    limits,
};
use docg_http::{Principal, Scope, StaticTokens};
use serde_json::{Map, Value};

/// The reason why the auth file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AuthFileError {
    /// The file cannot be read.
    #[error("the auth file {path} cannot be read: {source}")]
    Unreadable {
        /// The file.
        path: String,
        /// The error of the operating system.
        source: std::io::Error,
    },
    /// A field is wrong.
    #[error("the auth file {path}: {field}: {why}")]
    Field {
        /// The file.
        path: String,
        /// The field, as `tokens[0].scopes[1]`.
        field: String,
        /// The fault.
        why: String,
    },
}

/// The callers that an auth file lists.
#[derive(Debug)]
pub struct Identities {
    /// The tokens, hashed.
    pub tokens: StaticTokens,
    /// All organizations that the tokens may act for.
    pub organizations: Vec<OrganizationId>,
}

/// The size of the largest file that is read, in bytes: enough for a hundred thousand tokens.
const LARGEST: u64 = 32 << 20;
/// The length, in characters, below which a token causes a warning, because it can be guessed.
const ENOUGH: usize = 16;
/// The length, in characters, below which a token is rejected.
const LEAST: usize = 8;

/// Reads an auth file.
///
/// # Errors
///
/// [`AuthFileError`] names the wrong field, and never contains a token.
pub fn read(path: &Path) -> Result<Identities, AuthFileError> {
    callers(path).map(Identities::of)
}

/// Returns a warning for each token in the file that is short enough to guess.
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

/// A caller with its token, for commands that act as a client. It has no `Debug`, because it holds a token.
#[derive(Clone)]
pub struct Caller {
    /// The bearer token.
    pub token: String,
    /// The identity and rights of the caller.
    pub principal: Principal,
}

/// Returns the first caller in the file that has all of `scopes`.
///
/// # Errors
///
/// As [`read`], and if no caller has all of `scopes`.
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
    let text = contents(path).map_err(|source| AuthFileError::Unreadable {
        path: name.clone(),
        source,
    })?;
    parse(&text).map_err(|(field, why)| AuthFileError::Field {
        path: name,
        field,
        why,
    })
}

fn contents(path: &Path) -> io::Result<Vec<u8>> {
    let mut contents = Vec::new();
    File::open(path)?
        .take(LARGEST + 1)
        .read_to_end(&mut contents)?;
    if contents.len() as u64 > LARGEST {
        let why = format!("it is larger than {} MiB", LARGEST >> 20);
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, why));
    }
    Ok(contents)
}

/// A field and its fault. Neither quotes a value of the file, because a text in a wrong place may be a token.
/// A field's name is quoted only if it is known, resembles a known name, or is shorter than any token.
type Fault = (String, String);

/// The bytes that some editors put at the start of a file.
const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";
/// The similarity from which an unknown field name counts as a misspelt known name. A token is less similar.
const ALIKE: f64 = 0.8;

fn parse(text: &[u8]) -> Result<Vec<Caller>, Fault> {
    let text = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text);
    let whole = json::read(text).map_err(|error| {
        let why = match error {
            ReadError::Malformed { .. } => error.to_string(),
            ReadError::Faults(_) => "a field stands in one object twice, or a number or text is \
                                     none that can be kept"
                .to_owned(),
        };
        ("the file".to_owned(), why)
    })?;
    let file = Fields::of(&whole, "", &["tokens"])?;
    let entries = file.list("tokens")?;
    let mut callers = Vec::with_capacity(entries.len());
    let mut known = HashSet::new();
    for (index, entry) in entries.iter().enumerate() {
        let at = format!("tokens[{index}]");
        let caller = caller(&Fields::of(
            entry,
            &at,
            &["token", "actor", "organizations", "scopes"],
        )?)?;
        if !known.insert(caller.token.clone()) {
            return Err((format!("{at}.token"), "it stands here twice".to_owned()));
        }
        callers.push(caller);
    }
    Ok(callers)
}

fn caller(entry: &Fields<'_>) -> Result<Caller, Fault> {
    let token = entry.text("token")?;
    if token.is_empty() || !token.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(entry.fault("token", "visible ASCII characters are needed"));
    }
    if token.len() < LEAST {
        let why = format!(
            "it has fewer than {LEAST} characters, and is guessed at once: openssl rand -hex 32 makes a \
             good one"
        );
        return Err(entry.fault("token", &why));
    }
    let actor = entry.text("actor")?;
    if actor.trim().is_empty() {
        return Err(entry.fault("actor", "the audit trail needs a name"));
    }
    if let Some(fault) = limits::ACTOR.fault("/actor", actor) {
        return Err(entry.fault("actor", &fault.detail.render(Locale::En)));
    }
    let organizations = entry.each("organizations", "a UUID", |text| text.parse().ok())?;
    let scopes = Scope::ALL.map(Scope::as_str).join(", ");
    let scopes = entry.each("scopes", &format!("one of {scopes}"), |text| {
        text.parse().ok()
    })?;
    Ok(Caller {
        token: token.to_owned(),
        principal: Principal {
            actor: actor.to_owned(),
            organizations,
            scopes,
        },
    })
}

/// A JSON object of the file.
struct Fields<'a> {
    /// The path of the object. Empty for the file itself.
    at: String,
    members: &'a Map<String, Value>,
}

impl<'a> Fields<'a> {
    fn of(value: &'a Value, at: &str, known: &[&str]) -> Result<Self, Fault> {
        let names = known.join(", ");
        let whole = || if at.is_empty() { "the file" } else { at }.to_owned();
        let Some(members) = value.as_object() else {
            return Err((whole(), format!("an object is needed, with {names}")));
        };
        let fields = Self {
            at: at.to_owned(),
            members,
        };
        let is_known = |name: &&String| known.contains(&name.as_str());
        let Some(name) = members.keys().find(|name| !is_known(name)) else {
            return Ok(fields);
        };
        let is_alike = |other: &&&str| strsim::normalized_levenshtein(name, other) >= ALIKE;
        Err(match known.iter().find(is_alike) {
            Some(other) => fields.fault(name, &format!("it is not known: {other} may be meant")),
            // A name this short is safe to show: it is shorter than any token.
            None if name.len() < LEAST => {
                fields.fault(name, &format!("it is not known: there are {names}"))
            }
            None => {
                let why = format!("one of its fields is not known: there are {names}");
                (whole(), why)
            }
        })
    }

    fn fault(&self, name: &str, why: &str) -> Fault {
        let dot = if self.at.is_empty() { "" } else { "." };
        (format!("{}{dot}{name}", self.at), why.to_owned())
    }

    fn text(&self, name: &str) -> Result<&'a str, Fault> {
        let value = self.members.get(name).and_then(Value::as_str);
        value.ok_or_else(|| self.fault(name, "a text is needed"))
    }

    fn list(&self, name: &str) -> Result<&'a [Value], Fault> {
        match self.members.get(name).and_then(Value::as_array) {
            Some(values) if values.is_empty() && name != "scopes" => {
                Err(self.fault(name, "at least one is needed"))
            }
            Some(values) => Ok(values),
            None => Err(self.fault(name, "a list is needed")),
        }
    }

    /// Reads a list of texts, and converts each text with `read`.
    fn each<T>(
        &self,
        name: &str,
        needed: &str,
        read: impl Fn(&str) -> Option<T>,
    ) -> Result<Vec<T>, Fault> {
        let values = self.list(name)?.iter().enumerate();
        let read = |(index, value): (usize, &Value)| {
            let read = value.as_str().and_then(&read);
            read.ok_or_else(|| {
                self.fault(&format!("{name}[{index}]"), &format!("{needed} is needed"))
            })
        };
        values.map(read).collect()
    }
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
            ("role", json!("admin"), "tokens[0].role"),
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
    fn no_message_repeats_anything_of_a_file_however_it_is_shaped() {
        const CANARY: &str = "S3CRETTOK1";
        let with = |key: &str, value: Value| {
            let mut entry = entry();
            entry[key] = value;
            json!({"tokens": [entry]})
        };
        let mut doubled = entry();
        doubled["token"] = json!(CANARY);
        for (file, field) in [
            (json!(CANARY), "the file"),
            (json!([CANARY]), "the file"),
            (json!({CANARY: {"actor": "someone"}}), "the file"),
            (json!({"tokens": CANARY}), "tokens"),
            (json!({"tokens": {CANARY: entry()}}), "tokens"),
            (json!({"tokens": [CANARY]}), "tokens[0]"),
            (json!({"tokens": [{CANARY: "someone"}]}), "tokens[0]"),
            (with(CANARY, json!(1)), "tokens[0]"),
            (with("token", json!(7_777_777)), "tokens[0].token"),
            (with("token", json!([CANARY])), "tokens[0].token"),
            (
                with("token", json!(format!("{CANARY} "))),
                "tokens[0].token",
            ),
            (with("actor", json!([CANARY])), "tokens[0].actor"),
            (
                with("organizations", json!(CANARY)),
                "tokens[0].organizations",
            ),
            (
                with("organizations", json!([CANARY])),
                "tokens[0].organizations[0]",
            ),
            (with("scopes", json!([CANARY])), "tokens[0].scopes[0]"),
            (json!({"tokens": [doubled, doubled]}), "tokens[1].token"),
        ] {
            let (named, why) = fault(&file);
            assert_eq!(named, field, "{file}: {why}");
            for hidden in [CANARY, "7777777", "struct", "string", "sequence", "map"] {
                assert!(!why.contains(hidden), "{file}: {why}");
            }
        }
        for broken in [
            "S3CRETTOK1",
            "{\"S3CRETTOK1\": 1, \"S3CRETTOK1\": 2}",
            "\"S3CRETTOK1",
        ] {
            let (_, why) = parse(broken.as_bytes()).map(drop).unwrap_err();
            assert!(!why.contains(CANARY), "{broken}: {why}");
        }
    }

    #[test]
    fn a_byte_order_mark_is_passed_over() {
        let file = json!({"tokens": [entry()]}).to_string();
        parse(format!("\u{feff}{file}").as_bytes())
            .map(drop)
            .unwrap();
    }
}
