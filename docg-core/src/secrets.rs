//! Recognizes secrets by their name, and by their place in a URL.

use std::{borrow::Cow, ops::Range};

/// The text that replaces a secret.
pub const REDACTED: &str = "[redacted]";

/// The names that docg promises to hide, and `bearer`, which is another name for a token.
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

/// Names that mean a secret as a URL parameter, but are ordinary words elsewhere.
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

/// The number of bytes at the end of a name that are compared with the secret names.
const LONGEST_NAME: usize = 128;

/// True if values of this name are secret: the name is, or ends in, a secret's name. Ignores case, `-` and
/// `_`.
pub(crate) fn is_secret(name: &str) -> bool {
    SECRET_NAMES.iter().any(|secret| ends_in(name, secret))
}

/// True if a name ends in the secret's name, which is [`normalized`].
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

/// Replaces the secrets in a text: user and password before the host of a URL, and the values of secret
/// names.
///
/// Names are recognized in `key=value`, `key: value` and `"key": "value"`: in URLs, headers, connection
/// strings and JSON, whole or cut off, also with escaped quotes. Of the headers `Authorization` and `Cookie`
/// the whole line is secret. Takes time in proportion to the length of the text.
///
/// ```
/// use docg_core::observe::redact_text;
///
/// let text = redact_text("GET https://me:pass@host/a?id=1&api_key=k failed");
/// assert_eq!(text, "GET https://[redacted]@host/a?id=1&api_key=[redacted] failed");
/// let text = redact_text(r#"sent {"user": "ana", "password": "p"}"#);
/// assert_eq!(text, r#"sent {"user": "ana", "password": "[redacted]"}"#);
/// ```
#[must_use]
pub fn redact_text(text: &str) -> Cow<'_, str> {
    redact_text_with(text, &is_secret)
}

/// As [`redact_text`], with another test for secret names.
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
        redacted.push_str(&text[done..secret.start]);
        redacted.push_str(REDACTED);
        done = secret.end;
    }
    redacted.push_str(&text[done..]);
    Cow::Owned(redacted)
}

/// True if the text holds [`REDACTED`] instead of a secret: a caller that stored this text would lose the
/// secret.
pub(crate) fn holds_redacted(text: &str, is_secret: &dyn Fn(&str) -> bool) -> bool {
    let replaced = |secret: &Range<usize>| {
        let value = &text[secret.clone()];
        value == REDACTED || value.eq_ignore_ascii_case("%5Bredacted%5D")
    };
    secrets(text, is_secret).iter().any(replaced)
}

/// The ranges of a text's secrets, in order and without overlap. The search continues after each secret, so
/// that it looks at each character only a few times.
fn secrets(text: &str, is_secret: &dyn Fn(&str) -> bool) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut url = Url::default();
    let mut from = 0;
    while let Some(at) = text[from..].find(['=', ':']) {
        let at = from + at;
        let secret = match text[at..].starts_with("://") {
            true => user(text, at, &mut url),
            false => value(text, at, is_secret),
        };
        from = secret.as_ref().map_or(at + 1, |secret| secret.end);
        found.extend(secret);
    }
    found
}

/// The word in which a URL was last found: its end, and the position of its last `@`. Remembered so that a
/// word with many URLs is scanned only once.
#[derive(Default)]
struct Url {
    end: usize,
    last_at: Option<usize>,
}

/// The range of user and password before the host of a URL whose scheme ends at `scheme_end`.
fn user(text: &str, scheme_end: usize, url: &mut Url) -> Option<Range<usize>> {
    let start = scheme_end + "://".len();
    let scheme = text[..scheme_end]
        .rsplit(|c: char| !c.is_ascii_alphanumeric() && !matches!(c, '+' | '-' | '.'))
        .next()?;
    let is_web = ["http", "https", "ws", "wss"]
        .iter()
        .any(|web| scheme.eq_ignore_ascii_case(web));
    if url.end < start {
        url.end = end_of(text, start, is_outside);
        url.last_at = text[start..url.end].rfind('@').map(|at| start + at);
    }
    let ends_authority = |c| is_outside(c) || matches!(c, '/' | '?' | '#' | '\\');
    let authority = &text[start..end_of(text, start, ends_authority)];
    let at = match authority.rfind('@') {
        Some(at) => start + at,
        // Connection strings often contain unescaped passwords, so the password ends at the last `@` of the
        // word.
        None if !is_web && authority.contains(':') => url.last_at?,
        None => return None,
    };
    (at > start).then_some(start..at)
}

/// The range of the value after the `=` or `:` at `separator`, if its name is secret.
fn value(text: &str, separator: usize, is_secret: &dyn Fn(&str) -> bool) -> Option<Range<usize>> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || "_-.%[]~$".contains(c);
    let before = text[..separator].trim_end_matches([' ', '\t']);
    let unquoted = before.trim_end_matches(is_quote).trim_end_matches('\\');
    let start = unquoted.trim_end_matches(is_name).len();
    let (rest, name) = unquoted.split_at(start);
    let name = decoded(&name[name.len().saturating_sub(LONGEST_NAME)..]);
    let name = name.trim_end_matches("[]");
    let is_assigned = text[separator..].starts_with('=');
    let is_in_url = is_assigned && rest.ends_with(['?', '&', '#']);
    let is_parameter = is_in_url && SECRET_PARAMETERS.contains(&normalized(name).as_str());
    if !is_parameter && !is_secret(name) {
        return None;
    }
    let start = separator + 1;
    // Not a secret, but a path in source code, such as `auth::token::read`.
    if !is_assigned && (text[start..].starts_with(':') || before.ends_with(':')) {
        return None;
    }
    if is_in_url && !text[start..].starts_with(is_quote) {
        let end = end_of(text, start, |c| is_outside(c) || matches!(c, '&' | '#'));
        return (end > start).then_some(start..end);
    }
    let is_quoted = unquoted.len() < before.len();
    let is_spaced = before.len() < separator;
    let start = match () {
        () if is_quoted => end_of(text, start, |c| !c.is_whitespace()),
        () if is_spaced || !is_assigned => end_of(text, start, |c| !matches!(c, ' ' | '\t')),
        () => start,
    };
    // Also accept a quoted value in a wrapper, such as `Some("x")`.
    let opening = end_of(text, start, |c| !c.is_ascii_alphanumeric() && c != '(');
    let opening = match text[start..opening].ends_with('(') {
        true => opening,
        false => start,
    };
    if let Some(quoted) = quoted(text, opening) {
        return (!quoted.is_empty()).then_some(quoted);
    }
    let name = normalized(name);
    let is_header = ["authorization", "cookie"]
        .iter()
        .any(|it| name.ends_with(it));
    let end = if is_header && !is_quoted {
        let quote = rest.chars().next_back().filter(|c| is_quote(*c));
        end_of(text, start, |c| {
            matches!(c, '\n' | '\r') || Some(c) == quote
        })
    } else if text[start..].starts_with(['{', '[']) {
        let end = end_of_brackets(text, start);
        end_of(text, end, |c| ends_value(c, is_quoted))
    } else {
        let end = end_of(text, start, |c| ends_value(c, is_quoted));
        let is_scheme = |scheme: &&str| text[start..end].eq_ignore_ascii_case(scheme);
        match text[end..].strip_prefix(' ') {
            Some(_) if SCHEMES.iter().any(is_scheme) => {
                end_of(text, end + 1, |c| ends_value(c, is_quoted))
            }
            _ => end,
        }
    };
    (end > start).then_some(start..end)
}

/// Schemes that precede a credential and are not secret themselves.
const SCHEMES: [&str; 4] = ["bearer", "basic", "digest", "token"];

/// The position of the first character from `start` on for which `ends` is true, or the text's end.
fn end_of(text: &str, start: usize, ends: impl Fn(char) -> bool) -> usize {
    text[start..]
        .find(ends)
        .map_or(text.len(), |end| start + end)
}

/// True if a character ends an unquoted value. Connection strings have `;` between their parameters.
fn ends_value(c: char, is_json: bool) -> bool {
    is_outside(c) || matches!(c, '&' | '#' | ';') || is_json && matches!(c, ',' | '}' | ']')
}

/// The range of the quoted text that begins at `start`. Each level of JSON within JSON doubles the
/// backslashes before a quote and adds one, so the number of backslashes before the opening quote tells which
/// later quote is the closing one.
fn quoted(text: &str, start: usize) -> Option<Range<usize>> {
    let level = end_of(text, start, |c| c != '\\') - start;
    let first = start + level;
    let quote = text[first..].chars().next().filter(|c| is_quote(*c))?;
    let start = first + 1;
    let mut from = start;
    while let Some(at) = text[from..].find(quote) {
        let at = from + at;
        let inner = &text[from..at];
        let escapes = inner.len() - inner.trim_end_matches('\\').len();
        if escapes < level || escapes % (2 * (level + 1)) == level {
            return Some(start..at - escapes.min(level));
        }
        from = at + 1;
    }
    Some(start..text.len())
}

/// The position after the bracket that closes the bracket at `start`.
fn end_of_brackets(text: &str, start: usize) -> usize {
    let mut depth = 0_usize;
    let closes = |c: char| {
        match c {
            '{' | '[' => depth += 1,
            '}' | ']' => depth -= 1,
            _ => {}
        }
        depth == 0
    };
    text[start..]
        .find(closes)
        .map_or(text.len(), |end| start + end + 1)
}

fn is_quote(c: char) -> bool {
    matches!(c, '"' | '\'')
}

/// True if a character ends a URL within a text.
fn is_outside(c: char) -> bool {
    c.is_whitespace() || c.is_control() || matches!(c, '"' | '\'' | '<' | '>' | '`')
}

/// Percent-decodes a parameter's name; decoding to ASCII is enough, because secret names are ASCII.
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
                "Password=\"[redacted]\";Database=x",
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
    fn secrets_are_hidden_in_headers_json_and_debug_output() {
        for (text, expected) in [
            (
                "Authorization: Bearer SECRET.a-b\nHost: h",
                "Authorization: [redacted]\nHost: h",
            ),
            (
                "Set-Cookie: sid=SECRET; Path=/\r\nx",
                "Set-Cookie: [redacted]\r\nx",
            ),
            ("cookie:a=SECRET; b=SECRET", "cookie:[redacted]"),
            (
                "curl -H 'Authorization: Basic SECRET' https://h",
                "curl -H 'Authorization: [redacted]' https://h",
            ),
            ("token: SECRET (401)", "token: [redacted] (401)"),
            ("token : SECRET", "token : [redacted]"),
            ("X-Api-Key:SECRET", "X-Api-Key:[redacted]"),
            ("token: Bearer SECRET x", "token: [redacted] x"),
            ("password = SECRET x", "password = [redacted] x"),
            (r#"{"password":"SECRET"}"#, r#"{"password":"[redacted]"}"#),
            (
                "{\"password\" :\n  \"SECRET WORD, SECRET\", \"a\": 1}",
                "{\"password\" :\n  \"[redacted]\", \"a\": 1}",
            ),
            (
                r#"{"password":"a\"SECRET\\","b":"c"}"#,
                r#"{"password":"[redacted]","b":"c"}"#,
            ),
            (
                r#""{\"password\":\"a\\\"SECRET\",\"b\":1}""#,
                r#""{\"password\":\"[redacted]\",\"b\":1}""#,
            ),
            (
                r#"{\\\"token\\\": \\\"SECRET\\\"}"#,
                r#"{\\\"token\\\": \\\"[redacted]\\\"}"#,
            ),
            (
                r#"{"token": 123456, "id": 1}"#,
                r#"{"token": [redacted], "id": 1}"#,
            ),
            (
                r#"{"credentials": {"a": ["SECRET"], "b": {}}, "id": 1}"#,
                r#"{"credentials": [redacted], "id": 1}"#,
            ),
            (r#"{"password": "SECRET"#, r#"{"password": "[redacted]"#),
            ("{'password': 'SECRET'}", "{'password': '[redacted]'}"),
            (
                r#"Login { password: Some("SECRET"), user: 1 }"#,
                r#"Login { password: Some("[redacted]"), user: 1 }"#,
            ),
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
            ":",
            "password:",
            "unexpected token",
            "docg::token::read failed",
            r#"{"password": ""}"#,
            "the form has: a name, a date",
        ] {
            assert!(matches!(redact_text(text), Cow::Borrowed(_)), "{text}");
        }
    }

    #[test]
    fn the_longest_texts_are_read_in_one_go() {
        for part in [
            "=",
            ":",
            "a:",
            "a://",
            "x://a:b",
            "token",
            "token=",
            "token: ",
            "\"token\":",
            "token:\"",
            "token:\\\"",
            "token: [",
            "token: Some(",
            "authorization: ",
            "token:\n",
            "\\",
            " ",
        ] {
            let text = part.repeat(100_000 / part.len());
            assert!(redact_text(&text).len() <= text.len() * REDACTED.len());
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
