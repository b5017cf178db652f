//! What all pages of the server have in common: no scripts, nothing from elsewhere, nothing kept.

use std::convert::Infallible;

use axum::{
    extract::{FromRequestParts, Path},
    http::{HeaderMap, HeaderName, StatusCode, header, request::Parts},
    response::{Html, IntoResponse, Response},
};
use docg_core::i18n::Locale;
use minijinja::{AutoEscape, Environment, Value};
use url::Url;

/// A page from a template; every value is escaped.
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

/// Whether an answer is a page.
pub(crate) fn is_page(response: &Response) -> bool {
    let content_type = response.headers().get(header::CONTENT_TYPE);
    content_type.is_some_and(|value| value.as_bytes().starts_with(b"text/html"))
}

/// Whether a client asks for pages by name, as browsers do.
pub(crate) fn is_asked_for(headers: &HeaderMap) -> bool {
    let mut accepted = headers.get_all(header::ACCEPT).iter();
    accepted.any(|value| {
        value
            .to_str()
            .is_ok_and(|value| value.contains("text/html"))
    })
}

/// The token in a page's path. What is not UTF-8 is read as the empty text, which is no token either.
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

/// The address bar holds the token: nothing may keep it or pass it on.
pub(crate) fn common_headers() -> [(HeaderName, &'static str); 4] {
    [
        (header::CACHE_CONTROL, "no-store"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (HeaderName::from_static("x-robots-tag"), "noindex"),
    ]
}

/// The path of the public URL, where it has one. A URL's path holds no quotes and no angle brackets.
pub(crate) fn base(public_url: &Url) -> Value {
    let path = public_url.path().trim_end_matches('/');
    Value::from_safe_string(path.to_owned())
}

/// The language that a browser asks for.
pub(crate) fn locale(headers: &HeaderMap) -> Locale {
    let languages = headers
        .get(header::ACCEPT_LANGUAGE)
        .and_then(|value| value.to_str().ok());
    languages.map_or(Locale::En, Locale::negotiate)
}

/// A moment for people.
pub(crate) fn moment(time: docg_core::time::Timestamp) -> String {
    let time: chrono::DateTime<chrono::Utc> = time.into();
    time.format("%Y-%m-%d %H:%M UTC").to_string()
}
