//! What counts as a secret: by the name that it goes by, and by its place in a URL.

use std::{borrow::Cow, ops::Range};

/// What stands in place of a secret.
pub const REDACTED: &str = "[redacted]";

/// The keys of the contract, and `bearer`, which is a token by another name.
const SECRET_NAMES: [&str; 11] = [
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

/// Parameters of URLs that hold secrets, and that are ordinary words elsewhere.
const SECRET_PARAMETERS: [&str; 12] = [
    "key",
    "accesskey",
    "auth",
    "code",
    "pass",
    "pwd",
    "sig",
    "signature",
    "xamzsignature",
    "xgoogsignature",
    "jwt",
    "session",
];

/// A longer name of a parameter is none.
const LONGEST_NAME: usize = 128;

/// Whether values of this name are secret: the name is, or ends in, a secret's. Case, `-` and `_` do not matter.
pub(crate) fn is_secret(name: &str) -> bool {
    SECRET_NAMES.iter().any(|secret| ends_in(name, secret))
}

/// Whether a name ends in a secret's, which is [`normalized`].
pub(crate) fn ends_in(name: &str, secret: &str) -> bool {
    let mut letters = letters(name).rev();
    let mut wanted = secret.chars().rev();
    wanted.all(|c| letters.next() == Some(c))
}

pub(crate) fn normalized(name: &str) -> String {
    letters(name).collect()
}

fn letters(name: &str) -> impl DoubleEndedIterator<Item = char> {
    let letters = name.chars().filter(|c| !matches!(c, '-' | '_'));
    letters.flat_map(char::to_lowercase)
}

/// A text without the secrets in its URLs: user and password before a host, and the values of parameters with
/// a secret's name. The rest stays as it is. URLs need not be whole: `Location: /a?token=b` is found as well,
/// and `password=b` as connection strings have it.
///
/// ```
/// use docg_core::observe::redact_text;
///
/// let text = redact_text("GET https://me:pass@host/a?id=1&api_key=k failed");
/// assert_eq!(text, "GET https://[redacted]@host/a?id=1&api_key=[redacted] failed");
/// ```
#[must_use]
pub fn redact_text(text: &str) -> Cow<'_, str> {
    redact_text_with(text, &is_secret)
}

/// As [`redact_text`], with other names.
pub(crate) fn redact_text_with<'t>(
    text: &'t str,
    is_secret: &dyn Fn(&str) -> bool,
) -> Cow<'t, str> {
    let found = secrets(text, is_secret);
    if found.is_empty() {
        return Cow::Borrowed(text);
    }
    let mut redacted = String::with_capacity(text.len());
    let mut done = 0;
    for secret in found {
        // A parameter in a password is part of it.
        if secret.end <= done {
            continue;
        }
        redacted.push_str(&text[done..secret.start.max(done)]);
        redacted.push_str(REDACTED);
        done = secret.end;
    }
    redacted.push_str(&text[done..]);
    Cow::Owned(redacted)
}

/// Whether a secret in the text has been replaced: whoever keeps the text has lost the secret.
pub(crate) fn holds_redacted(text: &str, is_secret: &dyn Fn(&str) -> bool) -> bool {
    let replaced = |secret: &Range<usize>| {
        let value = &text[secret.clone()];
        value == REDACTED || value.eq_ignore_ascii_case("%5Bredacted%5D")
    };
    secrets(text, is_secret).iter().any(replaced)
}

/// Where the secrets of a text are, in order.
fn secrets(text: &str, is_secret: &dyn Fn(&str) -> bool) -> Vec<Range<usize>> {
    let users = text
        .match_indices("://")
        .filter_map(|(at, separator)| user(text, at, at + separator.len()));
    let values = text
        .match_indices('=')
        .filter_map(|(at, _)| parameter(text, at, is_secret));
    let mut found: Vec<_> = users.chain(values).collect();
    found.sort_unstable_by_key(|secret| (secret.start, std::cmp::Reverse(secret.end)));
    found
}

/// The user and password before the host of a URL whose scheme ends at `scheme_end`.
fn user(text: &str, scheme_end: usize, start: usize) -> Option<Range<usize>> {
    let scheme = text[..scheme_end]
        .rsplit(|c: char| !c.is_ascii_alphanumeric() && !matches!(c, '+' | '-' | '.'))
        .next()?;
    let is_web = ["http", "https", "ws", "wss"]
        .iter()
        .any(|web| scheme.eq_ignore_ascii_case(web));
    let rest = &text[start..];
    let url = &rest[..rest.find(is_outside).unwrap_or(rest.len())];
    let authority = &url[..url.find(['/', '?', '#', '\\']).unwrap_or(url.len())];
    let at = match authority.rfind('@') {
        Some(at) => at,
        // Passwords in connection strings often stand there as they are.
        None if !is_web && authority.contains(':') => url.rfind('@')?,
        None => return None,
    };
    (at > 0).then_some(start..start + at)
}

/// The value of the parameter whose `=` is at `equals`, if it is secret.
fn parameter(text: &str, equals: usize, is_secret: &dyn Fn(&str) -> bool) -> Option<Range<usize>> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || "_-.%[]~$:".contains(c);
    let before = &text[..equals];
    let name_start = before
        .char_indices()
        .rev()
        .take(LONGEST_NAME)
        .take_while(|(_, c)| is_name(*c))
        .last()
        .map_or(equals, |(at, _)| at);
    let name = decoded(&before[name_start..]);
    let is_in_url = before[..name_start].ends_with(['?', '&', '#']);
    let is_parameter = is_in_url && SECRET_PARAMETERS.contains(&normalized(&name).as_str());
    if !is_parameter && !is_secret(name.trim_end_matches("[]")) {
        return None;
    }
    let rest = &text[equals + 1..];
    let end = match rest.strip_prefix('"') {
        Some(quoted) => quoted.find('"').map_or(rest.len(), |end| end + 2),
        None => rest
            // Connection strings have `;` between their parameters.
            .find(|c| is_outside(c) || matches!(c, '&' | '#') || (c == ';' && !is_in_url))
            .unwrap_or(rest.len()),
    };
    (end > 0).then_some(equals + 1..equals + 1 + end)
}

/// Whether a character ends a URL that stands in a text.
fn is_outside(c: char) -> bool {
    c.is_whitespace() || c.is_control() || matches!(c, '"' | '\'' | '<' | '>' | '`')
}

/// A name of a parameter without percent-encoding; names that are secret are ASCII.
fn decoded(name: &str) -> Cow<'_, str> {
    if !name.contains('%') {
        return Cow::Borrowed(name);
    }
    let mut decoded = String::with_capacity(name.len());
    let mut rest = name;
    while let Some(at) = rest.find('%') {
        decoded.push_str(&rest[..at]);
        let digits = rest.get(at + 1..at + 3);
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                decoded.push(char::from(byte));
                rest = &rest[at + 3..];
            }
            None => {
                decoded.push('%');
                rest = &rest[at + 1..];
            }
        }
    }
    decoded.push_str(rest);
    Cow::Owned(decoded)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn secrets_of_urls_are_hidden_wherever_a_url_stands() {
        for (text, expected) in [
            ("https://h/?token=SECRET", "https://h/?token=[redacted]"),
            (
                "https://h/a?id=1&api_key=SECRET&x=2#top",
                "https://h/a?id=1&api_key=[redacted]&x=2#top",
            ),
            (
                "https://user:SECRET@h:8080/p",
                "https://[redacted]@h:8080/p",
            ),
            ("https://SECRET@h", "https://[redacted]@h"),
            ("https://a@SECRET@h/", "https://[redacted]@h/"),
            ("postgres://docg:SEC/RET@db/x", "postgres://[redacted]@db/x"),
            (
                "redis://:SECRET@cache:6379/0",
                "redis://[redacted]@cache:6379/0",
            ),
            (
                "host=db user=docg password=SECRET",
                "host=db user=docg password=[redacted]",
            ),
            (
                "Password=\"SECRET WORD\";Database=x",
                "Password=[redacted];Database=x",
            ),
            (
                "see \"https://h/?access_token=SECRET\", then <https://h/?sig=SECRET>",
                "see \"https://h/?access_token=[redacted]\", then <https://h/?sig=[redacted]>",
            ),
            (
                "/next?X-Amz-Signature=SECRET&a=b",
                "/next?X-Amz-Signature=[redacted]&a=b",
            ),
            (
                "/cb#access_token=SECRET&state=s",
                "/cb#access_token=[redacted]&state=s",
            ),
            ("/?t%6Fken=SECRET", "/?t%6Fken=[redacted]"),
            (
                "/?tokens[]=SECRET&token[]=SECRET",
                "/?tokens[]=SECRET&token[]=[redacted]",
            ),
            (
                "client_id=a&client_secret=SECRET",
                "client_id=a&client_secret=[redacted]",
            ),
            ("/?KEY=SECRET", "/?KEY=[redacted]"),
        ] {
            assert_eq!(redact_text(text), expected);
            assert_eq!(redact_text(expected), expected, "once is enough");
            assert!(holds_redacted(expected, &is_secret), "{expected}");
            assert!(!holds_redacted(text, &is_secret), "{text}");
        }
    }

    #[test]
    fn what_only_looks_like_a_secret_stays() {
        for text in [
            "",
            "a = b",
            "https://host/@somebody/page",
            "https://host/?q=token&page=2",
            "mailto:ana@example.com",
            "the code=5 of the key=value store",
            "tokens_used=5",
            "https://host/a?b=c@d",
            "://",
            "=",
        ] {
            assert!(matches!(redact_text(text), Cow::Borrowed(_)), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_redacted_once_and_no_canary_is_left(
            before in "\\PC{0,20}",
            value in "[A-Za-z0-9+/%._~-]{1,20}",
            after in "\\PC{0,20}",
        ) {
            let text = format!("{before} https://h/?token=CANARY{value} {after}");
            let redacted = redact_text(&text).into_owned();
            prop_assert!(!redacted.contains("CANARY"), "{redacted}");
            prop_assert_eq!(redact_text(&redacted), redacted.as_str());
        }
    }
}
