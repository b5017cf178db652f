//! Adds a body to the empty answers with which the HTTP library refuses invalid requests.

use axum::http::StatusCode;
use docg_core::i18n::Locale;

use crate::problem::Problem;

/// The answer with a body that replaces an empty refusal. `None` unless the bytes are the head, without a
/// body, of a 4xx answer after which the connection is closed.
pub(super) fn in_words(bytes: &[u8]) -> Option<Vec<u8>> {
    let head = std::str::from_utf8(bytes).ok()?;
    let mut lines = head.strip_suffix("\r\n\r\n")?.split("\r\n");
    let status = lines.next()?.strip_prefix("HTTP/1.")?.get(2..5)?;
    let status = StatusCode::from_bytes(status.as_bytes()).ok()?;
    let fields: Vec<&str> = lines.collect();
    let is_bare = status.is_client_error()
        && fields.contains(&"content-length: 0")
        && fields.contains(&"connection: close")
        && !fields
            .iter()
            .any(|field| field.starts_with("content-type:"));
    if !is_bare {
        return None;
    }
    let problem = Problem::of_status(status).body(Locale::En, "").to_string();
    Some(
        format!(
            "HTTP/1.1 {status}\r\ncontent-type: application/problem+json\r\nconnection: close\r\n\
             content-length: {}\r\n\r\n{problem}",
            problem.len()
        )
        .into_bytes(),
    )
}

#[cfg(test)]
mod tests {
    use super::in_words;

    #[test]
    fn only_a_bare_refusal_gets_a_body() {
        let bare = "HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\n\
                    content-length: 0\r\ndate: x\r\n\r\n";
        let answer = in_words(bare.as_bytes()).expect("it is bare");
        let answer = String::from_utf8(answer).expect("text");
        assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
        assert!(answer.contains("\"status\":431"), "{answer}");
        for other in [
            "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 404 Not Found\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{}",
            "HTTP/1.1 404 Not Found\r\nconnection: close\r\ncontent-length: 0\r\n\
             content-type: text/html\r\n\r\n",
            "",
        ] {
            assert!(in_words(other.as_bytes()).is_none(), "{other}");
        }
    }
}
