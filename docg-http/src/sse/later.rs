//! Answers that make a refused `EventSource` reconnect later.

use axum::{
    body::Body,
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header},
    response::Response,
};

use super::open::jitter;

/// The least number of seconds before a refused reader reconnects.
const AT_LEAST_SECONDS: u64 = 5;

/// The status of a refusal before [`come_back`] replaced it. Attached to the new answer, for the metrics.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RefusedWith(pub(crate) StatusCode);

/// True if the client asks for `text/event-stream`, as an `EventSource` does.
pub(crate) fn is_event_source(method: &Method, headers: &HeaderMap) -> bool {
    let accept = headers.get_all(header::ACCEPT).iter();
    let mut types = accept
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','));
    method == Method::GET
        && types.any(|range| {
            let essence = range.split(';').next().unwrap_or_default().trim();
            essence.eq_ignore_ascii_case("text/event-stream")
        })
}

/// Replaces a temporary refusal (429 or 503) by a stream that only says when to reconnect, and ends. An
/// `EventSource` gives up for good on every status but 200 (HTML standard, section 9.2.3). `None` for any
/// other refusal.
pub(crate) fn come_back(refusal: &Response) -> Option<Response> {
    if !matches!(
        refusal.status(),
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE
    ) {
        return None;
    }
    let asked = refusal.headers().get(header::RETRY_AFTER);
    let asked = asked.and_then(|value| value.to_str().ok()?.parse().ok());
    let millis = asked.unwrap_or(0).max(AT_LEAST_SECONDS) * 1_000;
    // Spread the reconnects of readers that were refused together.
    let retry = millis + jitter(millis);
    let mut response = Response::new(Body::from(format!(
        "retry: {retry}\n: refused for now ({})\n\n",
        refusal.status().as_u16()
    )));
    for (name, value) in [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-cache"),
        (HeaderName::from_static("x-accel-buffering"), "no"),
    ] {
        response
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    }
    response
        .extensions_mut()
        .insert(RefusedWith(refusal.status()));
    Some(response)
}

#[cfg(test)]
mod tests {
    use axum::response::IntoResponse;
    use futures::FutureExt;

    use super::*;
    use crate::problem::Problem;

    #[test]
    fn only_what_passes_is_worth_coming_back_for() {
        let refused = |status| Problem::new(status, "service_unavailable");
        let later = HeaderValue::from_static("30");
        for (refusal, least) in [
            (
                refused(StatusCode::TOO_MANY_REQUESTS).header(header::RETRY_AFTER, later),
                30_000,
            ),
            (refused(StatusCode::SERVICE_UNAVAILABLE), 5_000),
        ] {
            let answer = come_back(&refusal.into_response()).expect("it passes");
            assert_eq!(answer.status(), StatusCode::OK);
            let body = axum::body::to_bytes(answer.into_body(), 1_000);
            let body = body.now_or_never().expect("it is there").expect("bytes");
            let body = std::str::from_utf8(&body).expect("a text");
            let millis = body
                .strip_prefix("retry: ")
                .and_then(|rest| rest.lines().next());
            let millis: u64 = millis
                .and_then(|millis| millis.parse().ok())
                .expect("a time");
            assert!((least..2 * least).contains(&millis), "{body}");
        }
        for status in [
            StatusCode::UNAUTHORIZED,
            StatusCode::NOT_FOUND,
            StatusCode::NO_CONTENT,
        ] {
            assert!(
                come_back(&refused(status).into_response()).is_none(),
                "{status}"
            );
        }
    }

    #[test]
    fn who_asks_for_an_event_stream_is_an_event_source() {
        for (accept, yes) in [
            ("text/event-stream", true),
            ("application/json, Text/Event-Stream;q=0.5", true),
            ("*/*", false),
            ("application/json", false),
        ] {
            let headers =
                HeaderMap::from_iter([(header::ACCEPT, HeaderValue::from_static(accept))]);
            assert_eq!(is_event_source(&Method::GET, &headers), yes, "{accept}");
            assert!(!is_event_source(&Method::POST, &headers));
        }
        assert!(!is_event_source(&Method::GET, &HeaderMap::new()));
    }
}
