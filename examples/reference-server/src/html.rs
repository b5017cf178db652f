//! The common parts of all HTML pages: no scripts, no outside resources, no caching.

use std::convert::Infallible;

use axum::{
    extract::{FromRequestParts, Path},
    http::{HeaderMap, HeaderName, StatusCode, header, request::Parts},
    response::{Html, IntoResponse, Response},
};
use docg_core::i18n::Locale;
use minijinja::{AutoEscape, Environment, Value};
use url::Url;

/// Renders a page from a template. Every value is escaped.
pub(crate) fn page(
    status: StatusCode,
    policy: &'static str,
    template: &str,
    values: Value,
) -> Response {
    let mut environment = Environment::empty();
    environment.set_auto_escape_callback(|_| AutoEscape::Html);
    let rendered = environment.render_named_str("page.html", template, values);
    let policy = [(header::CONTENT_SECURITY_POLICY, policy)];
    match rendered {
        Ok(page) => (status, common_headers(), policy, Html(page)).into_response(),
        Err(error) => {
            tracing::error!("a page cannot be rendered: {error}");
            (StatusCode::INTERNAL_SERVER_ERROR, common_headers(), policy).into_response()
        }
    }
}

/// True if a response is an HTML page.
pub(crate) fn is_page(response: &Response) -> bool {
    let content_type = response.headers().get(header::CONTENT_TYPE);
    content_type.is_some_and(|value| value.as_bytes().starts_with(b"text/html"))
}

/// True if a client explicitly accepts HTML, as browsers do.
pub(crate) fn is_asked_for(headers: &HeaderMap) -> bool {
    let mut accepted = headers.get_all(header::ACCEPT).iter();
    accepted.any(|value| {
        value
            .to_str()
            .is_ok_and(|value| value.contains("text/html"))
    })
}

/// The token in a page's path. A path that is not UTF-8 gives an empty token, which is never valid.
pub(crate) struct Token(pub(crate) String);

impl<S: Send + Sync> FromRequestParts<S> for Token {
    type Rejection = Infallible;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Infallible> {
        let token = Path::<String>::from_request_parts(parts, state).await;
        Ok(Self(
            token.map_or_else(|_| String::new(), |Path(token)| token),
        ))
    }
}

/// The headers of all pages. A page's address contains its token, so no cache, search engine or linked site
/// may learn the address.
pub(crate) fn common_headers() -> [(HeaderName, &'static str); 4] {
    [
        (header::CACHE_CONTROL, "no-store"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (HeaderName::from_static("x-robots-tag"), "noindex"),
    ]
}

/// The path prefix of the public URL. It needs no escaping: a URL's path has no quotes or angle brackets.
pub(crate) fn base(public_url: &Url) -> Value {
    let path = public_url.path().trim_end_matches('/');
    Value::from_safe_string(path.to_owned())
}

/// The language that the browser prefers.
pub(crate) fn locale(headers: &HeaderMap) -> Locale {
    let languages = headers
        .get(header::ACCEPT_LANGUAGE)
        .and_then(|value| value.to_str().ok());
    languages.map_or(Locale::En, Locale::negotiate)
}

/// Formats a time for people.
pub(crate) fn moment(time: docg_core::time::Timestamp) -> String {
    let time: chrono::DateTime<chrono::Utc> = time.into();
    time.format("%Y-%m-%d %H:%M UTC").to_string()
}
