//! Checks that a value is of a parameter's declared kind: its type, not its content.

use serde_json::Value;

use crate::{
    time::{MAX_DURATION_MS, Millis},
    workflow::ParamKind,
};

/// True for `null` and for a text of white space.
pub(crate) fn is_blank(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.trim().is_empty(),
        _ => false,
    }
}

/// True if the value is blank for this kind: a list of addresses or signers is blank if all its entries are.
pub(crate) fn is_blank_as(value: &Value, kind: &ParamKind) -> bool {
    match (kind, value) {
        (ParamKind::EmailList | ParamKind::Signers, Value::Array(items)) => {
            items.iter().all(is_blank)
        }
        _ => is_blank(value),
    }
}

/// Describes the expected value for technicians; `None` if the value fits.
pub(crate) fn misfit(value: &Value, kind: &ParamKind) -> Option<String> {
    let (fits, expected) = match kind {
        ParamKind::Json => (true, ""),
        ParamKind::Text
        | ParamKind::Email
        | ParamKind::Template
        | ParamKind::Folder
        | ParamKind::Connection => (value.is_string(), "text"),
        ParamKind::Url => (
            value.as_str().is_some_and(is_http_url),
            "an http or https URL",
        ),
        ParamKind::OneOf(words) => {
            let fits = value.as_str().is_some_and(|word| words.contains(&word));
            return (!fits).then(|| format!("one of {}", words.join(", ")));
        }
        ParamKind::Integer => (value.is_u64(), "a whole number, zero or more"),
        ParamKind::Duration => {
            let fits = value
                .as_u64()
                .is_some_and(|millis| Millis::try_from(millis).is_ok());
            return (!fits).then(|| {
                format!("a duration in whole milliseconds, 1 to {MAX_DURATION_MS} (ten years)")
            });
        }
        ParamKind::Boolean => (value.is_boolean(), "true or false"),
        ParamKind::Object => (value.is_object(), "an object"),
        ParamKind::EmailList => (
            value.is_string() || value.is_array(),
            "an address or a list of addresses",
        ),
        ParamKind::File => (
            value.is_object() || value.is_string(),
            "a document that an earlier step made",
        ),
        ParamKind::Signers => (value.is_array(), "a list of signers"),
    };
    (!fits).then(|| expected.to_owned())
}

/// Checks just enough of RFC 3986 to catch mistakes in typing. The handler decides which URLs it may call.
fn is_http_url(text: &str) -> bool {
    let Some((scheme, rest)) = text.split_once("://") else {
        return false;
    };
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    (scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https"))
        && !host
            .rsplit('@')
            .next()
            .unwrap_or_default()
            .trim_start_matches(':')
            .is_empty()
        && !text.contains(|c: char| c.is_whitespace() || c.is_control())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_kind_takes_its_own_type_only() {
        let fit = |value: Value, kind: ParamKind| misfit(&value, &kind).is_none();
        assert!(fit(json!(null), ParamKind::Json));
        assert!(fit(json!("x"), ParamKind::Text) && !fit(json!(1), ParamKind::Text));
        assert!(fit(json!(3), ParamKind::Integer) && !fit(json!(-3), ParamKind::Integer));
        assert!(!fit(json!(3.5), ParamKind::Integer) && !fit(json!("3"), ParamKind::Integer));
        for (millis, fits) in [
            (json!(0), false),
            (json!(1), true),
            (json!(315_360_000_000_u64), true),
            (json!(315_360_000_001_u64), false),
            (json!(u64::MAX), false),
            (json!(-1), false),
            (json!(0.5), false),
            (json!(1e300), false),
            (json!("1000"), false),
        ] {
            assert_eq!(fit(millis.clone(), ParamKind::Duration), fits, "{millis}");
        }
        assert!(fit(json!(true), ParamKind::Boolean) && !fit(json!("true"), ParamKind::Boolean));
        assert!(fit(json!({}), ParamKind::Object) && !fit(json!([]), ParamKind::Object));
        assert!(
            fit(json!("a"), ParamKind::OneOf(vec!["a", "b"]))
                && !fit(json!("c"), ParamKind::OneOf(vec!["a", "b"]))
        );
        assert!(fit(json!([]), ParamKind::Signers) && !fit(json!("a@b"), ParamKind::Signers));
        assert!(fit(json!("a@b"), ParamKind::EmailList) && !fit(json!({}), ParamKind::EmailList));
    }

    #[test]
    fn only_http_urls_are_urls() {
        for good in [
            "http://a",
            "https://a.example/b?c#d",
            "HTTPS://user@a:8080/",
        ] {
            assert!(is_http_url(good), "{good}");
        }
        for bad in [
            "",
            "a",
            "ftp://a",
            "http://",
            "https:///path",
            "http://a b",
            "file:///etc/passwd",
            "javascript://a",
            "http://?",
        ] {
            assert!(!is_http_url(bad), "{bad}");
        }
    }

    #[test]
    fn blank_is_nothing_or_white_space_but_not_zero_or_false() {
        for blank in [json!(null), json!(""), json!(" \n\t\u{a0}")] {
            assert!(is_blank(&blank), "{blank}");
        }
        for full in [json!(0), json!(false), json!({}), json!([]), json!("x")] {
            assert!(!is_blank(&full), "{full}");
        }
        assert!(is_blank_as(&json!([]), &ParamKind::Signers));
        assert!(is_blank_as(&json!(["", null]), &ParamKind::EmailList));
        assert!(!is_blank_as(&json!([]), &ParamKind::Json));
    }
}
