//! The outermost layers: they read the facts of every request, set the headers of every answer, and
//! render every error as a problem.

use std::{any::Any, borrow::Cow, time::Duration};

use axum::{
    body::Body,
    extract::{MatchedPath, Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use docg_core::i18n::{Locale, Text};
use tracing::Instrument;
use uuid::Uuid;

use crate::{problem::Problem, router::AppState, sse::later};

/// Facts about a request that are known before routing.
#[derive(Debug, Clone, Default)]
pub(crate) struct RequestFacts {
    pub(crate) locale: Locale,
    pub(crate) correlation_id: String,
    pub(crate) traceparent: Option<String>,
}

impl RequestFacts {
    fn of(request: &Request) -> Self {
        let header = |name: &str| {
            request
                .headers()
                .get(name)
                .and_then(|value| value.to_str().ok())
        };
        let given = header("x-correlation-id")
            .filter(|id| is_correlation_id(id))
            .map(str::to_owned);
        Self {
            locale: Locale::negotiate(header("accept-language").unwrap_or_default()),
            correlation_id: given.unwrap_or_else(|| Uuid::now_v7().to_string()),
            traceparent: header("traceparent")
                .filter(|value| is_traceparent(value))
                .map(str::to_owned),
        }
    }
}

fn is_correlation_id(id: &str) -> bool {
    (1..=128).contains(&id.len())
        && id
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

/// True for a valid `traceparent` (W3C Trace Context, section 3.2): version, trace id, parent id and
/// flags in lower-case hex. Later versions may add fields after the flags; `ff` is not a version.
fn is_traceparent(value: &str) -> bool {
    let parts: Vec<&str> = value.splitn(5, '-').collect();
    let hex = |part: &str, len| {
        part.len() == len && part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    };
    match parts.as_slice() {
        [version, trace, parent, flags, more @ ..] => {
            hex(version, 2)
                && *version != "ff"
                && (*version != "00" || more.is_empty())
                && hex(trace, 32)
                && hex(parent, 16)
                && hex(flags, 2)
                && trace.bytes().any(|b| b != b'0')
                && parent.bytes().any(|b| b != b'0')
        }
        _ => false,
    }
}

/// Headers that a request may have only once: of two values, it would be unclear which one is meant.
const SINGLE: [&str; 6] = [
    "content-type",
    "idempotency-key",
    "if-match",
    "traceparent",
    "x-correlation-id",
    "x-organization-id",
];

/// The name of a header of [`SINGLE`] that the request has more than once, if any.
fn given_twice(headers: &HeaderMap) -> Option<&'static str> {
    let mut names = SINGLE.into_iter();
    names.find(|name| headers.get_all(*name).iter().nth(1).is_some())
}

/// Adds the facts to the request and the headers to the answer, and renders errors.
pub(crate) async fn facts(mut request: Request, next: Next) -> Response {
    let facts = RequestFacts::of(&request);
    let head = request.method() == axum::http::Method::HEAD;
    let route = request.extensions().get::<MatchedPath>().cloned();
    let is_stream = route
        .as_ref()
        .is_some_and(|route| route.as_str().ends_with("/stream"));
    let event_source = is_stream && later::is_event_source(request.method(), request.headers());
    request.extensions_mut().insert(facts.clone());
    // Log the path with tokens replaced, and no query, which may hold a token too.
    let span = tracing::info_span!(
        "request",
        correlation_id = facts.correlation_id,
        method = %request.method(),
        path = %without_token(request.uri().path(), route.as_ref().map(MatchedPath::as_str)),
    );
    let answer = match given_twice(request.headers()) {
        Some(name) => {
            let detail = Text::key("problem-header-once").with("name", name);
            let problem = Problem::new(StatusCode::BAD_REQUEST, "bad_request");
            problem.detail(detail).into_response()
        }
        None => next.run(request).instrument(span).await,
    };
    let mut response = rendered(answer, &facts, head);
    if event_source {
        response = later::come_back(&response).unwrap_or(response);
    }
    let headers = response.headers_mut();
    let mut set = |name: &'static str, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    };
    set("x-correlation-id", &facts.correlation_id);
    if let Some(traceparent) = &facts.traceparent {
        set("traceparent", traceparent);
    }
    let language = facts.locale.tag();
    headers
        .entry(header::CONTENT_LANGUAGE)
        .or_insert(HeaderValue::from_static(language));
    headers.append(header::VARY, HeaderValue::from_static("Accept-Language"));
    headers
        .entry(header::CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
    response
}

/// Adds security headers for browsers to every answer, the answers of the CORS layer included.
pub(crate) async fn secured(mut response: Response) -> Response {
    let headers = response.headers_mut();
    for (name, value) in [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (
            HeaderName::from_static("cross-origin-resource-policy"),
            "same-origin",
        ),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    // Keep a policy that an application's own page has set.
    headers
        .entry(header::CONTENT_SECURITY_POLICY)
        .or_insert(HeaderValue::from_static(
            "default-src 'none'; frame-ancestors 'none'",
        ));
    response
}

/// A path for the log. Tokens are replaced, because they are credentials.
fn without_token<'p>(path: &'p str, route: Option<&str>) -> Cow<'p, str> {
    let mut segments: Vec<&str> = path.rsplit('/').collect();
    // Count segments from the end: if the API is nested in another router, the path may lack its beginning.
    let at = match route {
        Some(route) => route.rsplit('/').position(|name| name == "{token}"),
        // A path that matches no route may be a mistyped link with a token.
        None => segments
            .iter()
            .skip(1)
            .position(|name| *name == "approvals"),
    };
    let Some(token) = at.and_then(|at| segments.get_mut(at)) else {
        return Cow::Borrowed(path);
    };
    *token = "[token]";
    segments.reverse();
    Cow::Owned(segments.join("/"))
}

/// Renders an error as a problem, whether a handler returned it or the web framework refused the request.
fn rendered(mut response: Response, facts: &RequestFacts, head: bool) -> Response {
    let status = response.status();
    let problem = match response.extensions_mut().remove::<Problem>() {
        Some(problem) => problem,
        // Leave successes as they are, and error pages of an application's own routes.
        None if !(status.is_client_error() || status.is_server_error())
            || has_own_body(&response) =>
        {
            return response;
        }
        None => Problem::of_status(status),
    };
    let mut rendered = problem.render(facts.locale, &facts.correlation_id);
    if let Some(allow) = response.headers().get(header::ALLOW) {
        rendered.headers_mut().insert(header::ALLOW, allow.clone());
    }
    if head {
        *rendered.body_mut() = Body::empty();
    }
    rendered
}

fn has_own_body(response: &Response) -> bool {
    let content_type = response
        .headers()
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    content_type
        .is_some_and(|value| value.starts_with("application/") || value.starts_with("text/html"))
}

/// Limits the time until an answer begins. After that time, answers 503 `timeout`.
pub(crate) async fn time_limit(
    State(state): State<AppState>,
    request: Request,
    next: Next,
) -> Response {
    let limit: Duration = state.options.request_timeout;
    match tokio::time::timeout(limit, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Problem::new(StatusCode::SERVICE_UNAVAILABLE, "timeout")
            .header(header::RETRY_AFTER, HeaderValue::from_static("1"))
            .into_response(),
    }
}

/// Answers 500 if a route panicked. The cause is logged and not shown to the caller.
#[allow(clippy::needless_pass_by_value, reason = "the layer hands it over")]
pub(crate) fn panicked(payload: Box<dyn Any + Send + 'static>) -> Response {
    let text = payload.downcast_ref::<&str>().map(|s| (*s).to_owned());
    let text = text
        .or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_default();
    Problem::internal(format!("a route panicked: {text}")).into_response()
}

#[cfg(test)]
mod tests {
    use super::{is_traceparent, without_token};

    #[test]
    fn a_logged_path_holds_no_token() {
        let approve = Some("/host/api/v1/approvals/{token}/approve");
        for (path, route, logged) in [
            (
                "/api/v1/executions/1",
                Some("/api/v1/executions/{id}"),
                "/api/v1/executions/1",
            ),
            (
                "/host/api/v1/approvals/abc/approve",
                approve,
                "/host/api/v1/approvals/[token]/approve",
            ),
            (
                "/api/v1/approvals/abc/approve",
                approve,
                "/api/v1/approvals/[token]/approve",
            ),
            ("/sign/abc", Some("/sign/{token}"), "/sign/[token]"),
            (
                "/api/v1/approvals/abc/x/y",
                None,
                "/api/v1/approvals/[token]/x/y",
            ),
            ("/api/v1/approvals", None, "/api/v1/approvals"),
        ] {
            assert_eq!(without_token(path, route), logged);
        }
    }

    #[test]
    fn a_trace_context_is_taken_in_whatever_its_version() {
        let (trace, parent) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");
        let taken = |text: String| is_traceparent(&text);
        assert!(taken(format!("00-{trace}-{parent}-01")));
        assert!(taken(format!("01-{trace}-{parent}-01")));
        assert!(taken(format!("cc-{trace}-{parent}-01-what-comes")));
        for wrong in [
            format!("00-{trace}-{parent}-01-more"),
            format!("ff-{trace}-{parent}-01"),
            format!("0-{trace}-{parent}-01"),
            format!("cc-{trace}-{parent}-01.more"),
            format!("00-{}-{parent}-01", "0".repeat(32)),
            format!("00-{trace}-{}-01", "0".repeat(16)),
            format!("00-{}-{parent}-01", trace.to_uppercase()),
            format!("00-{trace}-{parent}"),
        ] {
            assert!(!taken(wrong.clone()), "{wrong}");
        }
    }
}
