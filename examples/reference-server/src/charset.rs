//! Decodes bytes from outside as text without losing a character.

use axum::{
    extract::{FromRequest, Request},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use encoding_rs::{Encoding, UTF_8};
use serde::de::{DeserializeOwned, value::MapDeserializer};

/// The reason why bytes are not text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotText {
    /// The declared charset is unknown.
    #[error("the charset {0:?} is unknown")]
    UnknownCharset(String),
    /// The bytes are invalid in the charset.
    #[error("it is not {0} as {1}")]
    Malformed(&'static str, &'static str),
}

/// Decodes bytes as text: by a byte order mark, else by the charset of `content_type`, else as UTF-8. The
/// byte order mark is removed.
///
/// ```
/// use reference_server::charset::decode;
///
/// assert_eq!(decode(Some("text/plain; charset=ISO-8859-1"), b"caf\xE9").unwrap(), "café");
/// assert!(decode(Some("text/plain"), b"caf\xE9").is_err());
/// ```
///
/// # Errors
///
/// [`NotText`] if a character would be lost.
pub fn decode(content_type: Option<&str>, bytes: &[u8]) -> Result<String, NotText> {
    let declared = content_type.and_then(charset);
    let (encoding, why) = match (Encoding::for_bom(bytes), declared) {
        (Some((encoding, _)), _) => (encoding, "its byte order mark says"),
        (None, Some(name)) => {
            let known = Encoding::for_label(name.as_bytes());
            let known = known.ok_or_else(|| NotText::UnknownCharset(name.to_owned()))?;
            (known, "it declares")
        }
        (None, None) => (UTF_8, "text without a charset has to be"),
    };
    let malformed = NotText::Malformed(encoding.name(), why);
    let decoded = encoding.decode_with_bom_removal(bytes);
    match decoded {
        (text, false) => Ok(text.into_owned()),
        (_, true) => Err(malformed),
    }
}

/// The `charset` parameter of a content type, without quotes.
fn charset(content_type: &str) -> Option<&str> {
    let mut parameters = content_type.split(';').skip(1);
    parameters.find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        let value = value.trim().trim_matches('"');
        (name.trim().eq_ignore_ascii_case("charset") && !value.is_empty()).then_some(value)
    })
}

/// The fields of a form (`application/x-www-form-urlencoded`), decoded to the text that was typed.
#[derive(Debug)]
pub(crate) struct Form<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Form<T> {
    type Rejection = Unreadable;

    async fn from_request(request: Request, state: &S) -> Result<Self, Unreadable> {
        let content_type = request.headers().get(header::CONTENT_TYPE);
        let content_type = content_type
            .map(|value| value.to_str().map(str::to_owned))
            .transpose()
            .map_err(|_| Unreadable(StatusCode::UNSUPPORTED_MEDIA_TYPE))?
            .unwrap_or_default();
        let essence = content_type.split(';').next().unwrap_or(&content_type);
        let is_form = essence
            .trim()
            .eq_ignore_ascii_case("application/x-www-form-urlencoded");
        if !is_form {
            return Err(Unreadable(StatusCode::UNSUPPORTED_MEDIA_TYPE));
        }
        let body = Bytes::from_request(request, state)
            .await
            .map_err(|e| Unreadable(e.status()))?;
        let fields = fields(&content_type, &body)
            .map_err(|_| Unreadable(StatusCode::UNPROCESSABLE_ENTITY))?;
        let fields = MapDeserializer::new(fields.into_iter());
        // A repeated field is rejected too: either value may be the intended one.
        T::deserialize(fields)
            .map(Self)
            .map_err(|_: serde::de::value::Error| Unreadable(StatusCode::UNPROCESSABLE_ENTITY))
    }
}

/// The rejection of a form that cannot be read, with the HTTP status of the response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unreadable(pub(crate) StatusCode);

impl IntoResponse for Unreadable {
    fn into_response(self) -> Response {
        self.0.into_response()
    }
}

fn fields(content_type: &str, body: &[u8]) -> Result<Vec<(String, String)>, NotText> {
    let text = |part: &[u8]| {
        let spaced: Vec<u8> = part
            .iter()
            .map(|byte| if *byte == b'+' { b' ' } else { *byte })
            .collect();
        let bytes: Vec<u8> = percent_encoding::percent_decode(&spaced).collect();
        decode(Some(content_type), &bytes)
    };
    let pairs = body.split(|byte| *byte == b'&').filter(|it| !it.is_empty());
    let field = |pair: &[u8]| {
        let (name, value) = match pair.iter().position(|byte| *byte == b'=') {
            Some(at) => (&pair[..at], &pair[at + 1..]),
            None => (pair, &[][..]),
        };
        Ok((text(name)?, text(value)?))
    };
    pairs.map(field).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_read_by_its_charset_or_refused() {
        for (content_type, bytes, expected) in [
            (None, &b"caf\xC3\xA9"[..], Some("café")),
            (None, b"caf\xE9", None),
            (Some("text/plain"), b"caf\xE9", None),
            (Some("text/plain; charset=utf-8"), b"caf\xE9", None),
            (
                Some("text/plain; charset=ISO-8859-1"),
                b"caf\xE9",
                Some("café"),
            ),
            (
                Some("text/plain;Charset=\"latin1\""),
                b"caf\xE9",
                Some("café"),
            ),
            (
                Some("text/plain; charset=windows-1252"),
                b"\x80 5",
                Some("€ 5"),
            ),
            (
                Some("text/plain; charset=shift_jis"),
                b"\x83e\x83X\x83g",
                Some("テスト"),
            ),
            (Some("text/plain; charset=shift_jis"), b"\x83", None),
            (Some("text/plain; charset=big5"), b"\xA4\xA4", Some("中")),
            (Some("text/plain; charset=klingon"), b"a", None),
            // A byte order mark wins over the content type, and is removed.
            (None, b"\xEF\xBB\xBFa", Some("a")),
            (
                Some("text/plain; charset=latin1"),
                b"\xEF\xBB\xBF\xC3\xA9",
                Some("é"),
            ),
            (None, b"\xFF\xFEa\0\xE9\0", Some("aé")),
            (None, b"\xFE\xFF\0a\0\xE9", Some("aé")),
            (None, b"\xFE\xFF\xD8\x00", None),
            (
                Some("application/json; charset=utf-16le"),
                b"1\0",
                Some("1"),
            ),
            (None, b"", Some("")),
            // The replacement character U+FFFD is kept if the sender sent it.
            (None, b"\xEF\xBF\xBD", Some("\u{FFFD}")),
        ] {
            let decoded = decode(content_type, bytes);
            assert_eq!(
                decoded.as_deref().ok(),
                expected,
                "{content_type:?} {bytes:?}: {decoded:?}"
            );
        }
    }

    #[test]
    fn a_form_s_fields_are_what_was_typed() {
        let form = "application/x-www-form-urlencoded";
        let read = |content_type: &str, body: &[u8]| {
            let fields = fields(content_type, body).ok()?;
            fields.into_iter().next().map(|(_, value)| value)
        };
        assert_eq!(
            read(form, b"name=Jos%C3%A9+%2B+1").as_deref(),
            Some("José + 1")
        );
        assert_eq!(read(form, b"&name").as_deref(), Some(""));
        assert_eq!(read(form, b"name=Jos%E9"), None);
        assert_eq!(read(form, b"name=Jos\xE9"), None);
        let latin1 = format!("{form}; charset=ISO-8859-1");
        assert_eq!(read(&latin1, b"name=Jos%E9").as_deref(), Some("José"));
    }
}
