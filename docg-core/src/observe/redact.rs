use std::{collections::BTreeSet, sync::Arc};

use serde_json::{Value, json};

/// What stands in place of a secret.
pub const REDACTED: &str = "[redacted]";

const SECRET_KEYS: [&str; 11] = [
    "password",
    "passwd",
    "token",
    "secret",
    "apikey",
    "authorization",
    "credential",
    "credentials",
    "privatekey",
    "cookie",
    "bearer",
];

/// Makes snapshots safe to show: secrets replaced, size bounded.
#[derive(Debug, Clone)]
pub struct Redaction {
    extra: BTreeSet<String>,
    max_bytes: usize,
}

impl Default for Redaction {
    fn default() -> Self {
        Self {
            extra: BTreeSet::new(),
            max_bytes: 64 * 1024,
        }
    }
}

impl Redaction {
    /// Adds a key whose values are secret; case, `-` and `_` do not matter.
    #[must_use]
    pub fn key(mut self, key: &str) -> Self {
        self.extra.insert(normalized(key));
        self
    }

    /// Sets the size in bytes of JSON beyond which a snapshot is cut.
    #[must_use]
    pub fn max_bytes(mut self, bytes: usize) -> Self {
        self.max_bytes = bytes;
        self
    }

    /// Whether values under this key are secret: the key is, or ends in, a secret's name.
    #[must_use]
    pub fn is_secret(&self, key: &str) -> bool {
        let key = normalized(key);
        SECRET_KEYS.iter().any(|secret| key.ends_with(secret))
            || self.extra.iter().any(|secret| key.ends_with(secret))
    }

    /// A copy that is safe to store and show. Where nothing has to change it is the same value.
    #[must_use]
    pub fn snapshot(&self, value: &Arc<Value>) -> Arc<Value> {
        let redacted = if self.has_secret(value) {
            Arc::new(self.redacted(value))
        } else {
            Arc::clone(value)
        };
        self.bounded(redacted)
    }

    fn has_secret(&self, value: &Value) -> bool {
        match value {
            Value::Object(map) => map
                .iter()
                .any(|(key, value)| self.is_secret(key) || self.has_secret(value)),
            Value::Array(items) => items.iter().any(|item| self.has_secret(item)),
            _ => false,
        }
    }

    fn redacted(&self, value: &Value) -> Value {
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
            scalar => scalar.clone(),
        }
    }

    /// A snapshot short enough for an event, which many readers get: 4 KiB.
    #[must_use]
    pub fn preview(snapshot: &Arc<Value>) -> Arc<Value> {
        Self::default()
            .max_bytes(4 * 1024)
            .bounded(Arc::clone(snapshot))
    }

    fn bounded(&self, value: Arc<Value>) -> Arc<Value> {
        // A cheap bound first: most snapshots are small, and measuring means writing them out.
        if at_most(&value, self.max_bytes).is_some() {
            return value;
        }
        let text = value.to_string();
        if text.len() <= self.max_bytes {
            return value;
        }
        let mut end = self.max_bytes.min(1024);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        Arc::new(json!({"truncated": true, "bytes": text.len(), "preview": &text[..end]}))
    }
}

fn normalized(key: &str) -> String {
    key.chars()
        .filter(|c| !matches!(c, '-' | '_'))
        .flat_map(char::to_lowercase)
        .collect()
}

/// What is left of `budget` after an upper bound of the value's size in JSON; `None` where the
/// bound exceeds it.
fn at_most(value: &Value, budget: usize) -> Option<usize> {
    // Six bytes for a character that JSON has to escape.
    let text = |s: &str, budget: usize| budget.checked_sub(s.len() * 6 + 3);
    match value {
        Value::Object(map) => map
            .iter()
            .try_fold(budget.checked_sub(2)?, |budget, (key, value)| {
                at_most(value, text(key, budget)?)
            }),
        Value::Array(items) => items
            .iter()
            .try_fold(budget.checked_sub(2)?, |budget, item| {
                at_most(item, budget)?.checked_sub(1)
            }),
        Value::String(s) => text(s, budget),
        _ => budget.checked_sub(32),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(redaction: &Redaction, value: Value) -> Value {
        (*redaction.snapshot(&Arc::new(value))).clone()
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
    fn what_needs_no_change_is_the_same_value() {
        let value = Arc::new(json!({"a": [1, "b"]}));
        assert!(Arc::ptr_eq(&Redaction::default().snapshot(&value), &value));
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
        // Escapes make JSON longer than its texts; what still fits stays.
        let fits = json!({"t": "\n".repeat(40)});
        assert_eq!(snapshot(&redaction, fits.clone()), fits);
    }
}
