use std::{borrow::Cow, collections::BTreeSet, sync::Arc};

use serde_json::{Value, json};

use super::canonical::JsonText;
use crate::{
    secrets::{self, REDACTED, normalized},
    storable,
};

/// Makes snapshots safe to show: replaces secrets and bounds the size.
#[derive(Debug, Clone)]
pub struct Redaction {
    extra: Arc<BTreeSet<String>>,
    max_bytes: usize,
}

impl Default for Redaction {
    fn default() -> Self {
        Self {
            extra: Arc::default(),
            max_bytes: 64 * 1024,
        }
    }
}

impl Redaction {
    /// Adds a key whose values are secret. Case, `-` and `_` do not matter when keys are compared.
    #[must_use]
    pub fn key(mut self, key: &str) -> Self {
        Arc::make_mut(&mut self.extra).insert(normalized(key));
        self
    }

    /// Sets the size of a snapshot, in bytes of JSON, above which it is cut.
    #[must_use]
    pub fn max_bytes(mut self, bytes: usize) -> Self {
        self.max_bytes = bytes;
        self
    }

    /// True if values under this key are secret: the key is, or ends in, a secret's name, such as `token`.
    #[must_use]
    pub fn is_secret(&self, key: &str) -> bool {
        let mut extra = self.extra.iter();
        secrets::is_secret(key) || extra.any(|secret| secrets::ends_in(key, secret))
    }

    /// Replaces the secrets in a text; see [`redact_text`](super::redact_text).
    #[must_use]
    pub fn text<'t>(&self, text: &'t str) -> Cow<'t, str> {
        secrets::redact_text_with(text, &|name| self.is_secret(name))
    }

    /// True if the text contains a replaced secret.
    #[must_use]
    pub fn holds_redacted(&self, text: &str) -> bool {
        secrets::holds_redacted(text, &|name| self.is_secret(name))
    }

    /// Copies a value with its secrets replaced and its size bounded.
    #[must_use]
    pub fn snapshot(&self, value: &Value) -> JsonText {
        // Bound the depth first, because the calls below recurse into the value.
        let value = storable::fit(value);
        let text = if self.has_secret(&value) {
            JsonText::from(self.redacted(&value))
        } else {
            JsonText::from(&*value)
        };
        bounded(text, self.max_bytes)
    }

    fn has_secret(&self, value: &Value) -> bool {
        match value {
            Value::Object(map) => map
                .iter()
                .any(|(key, value)| self.is_secret(key) || self.has_secret(value)),
            Value::Array(items) => items.iter().any(|item| self.has_secret(item)),
            Value::String(text) => matches!(self.text(text), Cow::Owned(_)),
            Value::Null | Value::Bool(_) | Value::Number(_) => false,
        }
    }

    /// Copies a value with its secrets replaced, whatever its size.
    #[must_use]
    pub fn redacted(&self, value: &Value) -> Value {
        match value {
            Value::Object(map) => map
                .iter()
                .map(|(key, value)| {
                    let value = if self.is_secret(key) {
                        REDACTED.into()
                    } else {
                        self.redacted(value)
                    };
                    (key.clone(), value)
                })
                .collect(),
            Value::Array(items) => items.iter().map(|item| self.redacted(item)).collect(),
            Value::String(text) => self.text(text).into(),
            scalar => scalar.clone(),
        }
    }

    /// Cuts a snapshot to 4 KiB for an event, which many readers receive.
    #[must_use]
    pub fn preview(snapshot: &JsonText) -> JsonText {
        bounded(snapshot.clone(), 4 * 1024)
    }
}

fn bounded(text: JsonText, max_bytes: usize) -> JsonText {
    let whole = text.as_str();
    if whole.len() <= max_bytes {
        return text;
    }
    let end = whole.floor_char_boundary(max_bytes.min(1024));
    JsonText::from(json!({"truncated": true, "bytes": whole.len(), "preview": &whole[..end]}))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(redaction: &Redaction, value: Value) -> Value {
        redaction.snapshot(&value).to_value()
    }

    #[test]
    fn secrets_are_hidden_at_any_depth_whatever_the_case_of_their_key() {
        let redaction = Redaction::default().key("cpf");
        let value = json!({
            "smtp": [{"Db-Password": "x", "user": "u"}], "access_token": 1, "X-API-Key": "k",
            "client_cpf": "1", "credentials": {"a": 1}, "tokens_used": 5,
        });
        let expected = json!({
            "smtp": [{"Db-Password": REDACTED, "user": "u"}], "access_token": REDACTED,
            "X-API-Key": REDACTED, "client_cpf": REDACTED, "credentials": REDACTED, "tokens_used": 5,
        });
        assert_eq!(snapshot(&redaction, value), expected);
    }

    #[test]
    fn every_key_that_is_promised_to_be_hidden_is() {
        let promised = [
            "password",
            "passwd",
            "token",
            "secret",
            "api_key",
            "apikey",
            "authorization",
            "credential",
            "credentials",
            "private_key",
            "cookie",
        ];
        for key in promised {
            let spellings = [
                key.to_owned(),
                key.to_uppercase(),
                key.replace('_', "-"),
                key.replace('_', ""),
                format!("my_{key}"),
                format!("My-{key}"),
                format!("my{key}"),
            ];
            for spelling in spellings {
                let value = json!({"deep": [{&spelling: {"any": "value"}}]});
                let hidden = json!({"deep": [{&spelling: REDACTED}]});
                assert_eq!(snapshot(&Redaction::default(), value), hidden, "{spelling}");
            }
            let url = json!([format!("https://h/?a=1&{key}=CANARY")]);
            let hidden = json!([format!("https://h/?a=1&{key}={REDACTED}")]);
            assert_eq!(snapshot(&Redaction::default(), url), hidden);
            let other = json!({format!("{key}_count"): 1});
            assert_eq!(snapshot(&Redaction::default(), other.clone()), other);
        }
    }

    #[test]
    fn what_is_too_large_is_cut_and_says_so() {
        let redaction = Redaction::default().max_bytes(100);
        let cut = snapshot(&redaction, json!({"text": "é".repeat(200)}));
        assert_eq!(cut["truncated"], true);
        assert!(
            cut["preview"]
                .as_str()
                .is_some_and(|preview| preview.len() <= 100)
        );
        // JSON escapes make this value longer than its text, but it still fits, so it is not cut.
        let fits = json!({"t": "\n".repeat(40)});
        assert_eq!(snapshot(&redaction, fits.clone()), fits);
    }
}
