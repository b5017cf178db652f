//! Bodies, queries and ids, each refused in its own way: 400, 404, 413, 415 or 422.

use axum::{
    extract::{FromRequest, FromRequestParts, Path, Request},
    http::{HeaderMap, StatusCode, header, request::Parts},
};
use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde_json::Value;
use uuid::Uuid;

use crate::{
    problem::{FieldError, Problem},
    router::AppState,
};

/// An id of the path; one that is no UUID names nothing.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Id(pub(crate) Uuid);

impl FromRequestParts<AppState> for Id {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Problem> {
        let Path(id) = Path::<String>::from_request_parts(parts, state)
            .await
            .map_err(|_| Problem::not_found())?;
        Uuid::parse_str(&id)
            .map(Self)
            .map_err(|_| Problem::not_found())
    }
}

/// The raw body, bounded.
pub(crate) struct RawBody(pub(crate) Bytes);

impl FromRequest<AppState> for RawBody {
    type Rejection = Problem;
    async fn from_request(request: Request, state: &AppState) -> Result<Self, Problem> {
        let too_large = || Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "payload_too_large");
        let declared = request
            .headers()
            .get(header::CONTENT_LENGTH)
            .and_then(|v| v.to_str().ok()?.parse().ok());
        if declared.is_some_and(|length: usize| length > state.options.max_body) {
            return Err(too_large());
        }
        let body = axum::body::to_bytes(request.into_body(), state.options.max_body).await;
        body.map(Self).map_err(|_| too_large())
    }
}

/// A JSON body; without one, the type's default. Keeps what was sent for fingerprints.
pub(crate) struct Json<T> {
    pub(crate) value: T,
    pub(crate) sent: Value,
}

impl<T: DeserializeOwned + Default> FromRequest<AppState> for Json<T> {
    type Rejection = Problem;
    async fn from_request(request: Request, state: &AppState) -> Result<Self, Problem> {
        let headers = request.headers().clone();
        let RawBody(bytes) = RawBody::from_request(request, state).await?;
        if bytes.is_empty() {
            return Ok(Self {
                value: T::default(),
                sent: Value::Null,
            });
        }
        let sent = parsed(&headers, &bytes)?;
        Ok(Self {
            value: typed(sent.clone())?,
            sent,
        })
    }
}

/// A JSON body that must be there.
pub(crate) struct RequiredJson<T>(pub(crate) T);

impl<T: DeserializeOwned> FromRequest<AppState> for RequiredJson<T> {
    type Rejection = Problem;
    async fn from_request(request: Request, state: &AppState) -> Result<Self, Problem> {
        let headers = request.headers().clone();
        let RawBody(bytes) = RawBody::from_request(request, state).await?;
        typed(parsed(&headers, &bytes)?).map(Self)
    }
}

fn parsed(headers: &HeaderMap, bytes: &[u8]) -> Result<Value, Problem> {
    let content_type = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let essence = content_type
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase();
    if essence != "application/json"
        && !(essence.starts_with("application/") && essence.ends_with("+json"))
    {
        return Err(Problem::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "unsupported_media_type",
        ));
    }
    let value: Value = serde_json::from_slice(bytes).map_err(|e| {
        let place = format!(
            "The body is not valid JSON: line {}, column {}.",
            e.line(),
            e.column()
        );
        Problem::new(StatusCode::BAD_REQUEST, "malformed_json").detail(place)
    })?;
    match find_nul(&value, String::new()) {
        Some(pointer) => Err(Problem::invalid_field(
            pointer,
            "invalid_text",
            "a text may not hold the character U+0000",
        )),
        None => Ok(value),
    }
}

fn typed<T: DeserializeOwned>(value: Value) -> Result<T, Problem> {
    serde_path_to_error::deserialize(value).map_err(|e| Problem::invalid(vec![field_error(&e)]))
}

fn field_error<E: std::fmt::Display>(error: &serde_path_to_error::Error<E>) -> FieldError {
    let detail = error.inner().to_string();
    let mut pointer = String::new();
    for segment in error.path() {
        let name = match segment {
            serde_path_to_error::Segment::Seq { index } => index.to_string(),
            serde_path_to_error::Segment::Map { key } => key.clone(),
            serde_path_to_error::Segment::Enum { variant } => variant.clone(),
            serde_path_to_error::Segment::Unknown => continue,
        };
        pointer.push('/');
        pointer.push_str(&escaped(&name));
    }
    let named = |prefix: &str| {
        detail
            .strip_prefix(prefix)
            .and_then(|rest| rest.split('`').next())
            .map(escaped)
    };
    let code = if let Some(field) = named("unknown field `") {
        if !pointer.ends_with(&format!("/{field}")) {
            pointer = format!("{pointer}/{field}");
        }
        "unknown_field"
    } else if let Some(field) = named("missing field `") {
        pointer = format!("{pointer}/{field}");
        "missing_field"
    } else if detail.starts_with("unknown variant") {
        "invalid_value"
    } else {
        "invalid_type"
    };
    FieldError::new(pointer, code, detail)
}

fn escaped(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

/// The place of the first text with a NUL: not every store can keep one.
fn find_nul(value: &Value, at: String) -> Option<String> {
    match value {
        Value::String(text) => text.contains('\0').then_some(at),
        Value::Array(items) => items
            .iter()
            .enumerate()
            .find_map(|(index, item)| find_nul(item, format!("{at}/{index}"))),
        Value::Object(map) => map.iter().find_map(|(key, item)| {
            let at = format!("{at}/{}", escaped(key));
            if key.contains('\0') {
                Some(at)
            } else {
                find_nul(item, at)
            }
        }),
        _ => None,
    }
}

/// The query; parameters that the route does not know are refused and named.
pub(crate) struct Query<T>(pub(crate) T);

impl<T: DeserializeOwned> FromRequestParts<AppState> for Query<T> {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, _: &AppState) -> Result<Self, Problem> {
        let query = parts.uri.query().unwrap_or_default();
        let reader = serde_urlencoded::Deserializer::new(form(query));
        serde_path_to_error::deserialize(reader)
            .map(Self)
            .map_err(|e| Problem::invalid(vec![field_error(&e)]))
    }
}

fn form(query: &str) -> form_urlencoded::Parse<'_> {
    form_urlencoded::parse(query.as_bytes())
}

/// The version of `If-Match` (RFC 9110, section 13.1.1); `*` asks for nothing.
pub(crate) fn if_match(headers: &HeaderMap) -> Result<Option<u64>, Problem> {
    let Some(value) = headers.get(header::IF_MATCH) else {
        return Ok(None);
    };
    let text = value.to_str().unwrap_or_default().trim();
    if text == "*" {
        return Ok(None);
    }
    let version = text
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'))
        .and_then(|v| v.parse().ok());
    // A tag that we have never given matches nothing.
    Ok(Some(version.unwrap_or(u64::MAX)))
}

/// The `Idempotency-Key`, where there is one.
pub(crate) fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let Some(value) = headers.get("idempotency-key") else {
        return Ok(None);
    };
    let key = value.to_str().unwrap_or_default().trim();
    // A structured-field string comes quoted.
    let key = key
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'))
        .unwrap_or(key);
    if key.is_empty() || key.len() > 255 {
        let detail = "Idempotency-Key is a text of 1 to 255 printable ASCII characters.";
        return Err(Problem::new(StatusCode::BAD_REQUEST, "bad_request").detail(detail));
    }
    Ok(Some(key.to_owned()))
}
