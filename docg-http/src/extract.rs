//! Extractors of bodies, queries and ids. They refuse a wrong request with 400, 404, 413, 415 or 422.

use std::panic::resume_unwind;

use axum::{
    extract::{FromRequest, FromRequestParts, RawPathParams, Request},
    http::{HeaderMap, StatusCode, header, request::Parts},
};
use bytes::{Bytes, BytesMut};
use docg_core::{
    i18n::Text,
    json::{self, ReadError},
};
use futures::StreamExt;
use percent_encoding::percent_decode_str;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Map, Value};
use tokio::{sync::Semaphore, task::spawn_blocking};
use uuid::{Uuid, fmt::Hyphenated};

use crate::{
    load::BodyRoom,
    problem::Problem,
    router::AppState,
    serve::BodyTimedOut,
    shape::{escaped, find_nul, typed},
};

/// An id in the path. Only the hyphenated form is accepted; any other form is answered as not found.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Id(pub(crate) Uuid);

impl FromRequestParts<AppState> for Id {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Problem> {
        let id = path_parameter("id", parts, state).await?;
        // Accepting braces, `urn:uuid:` or no hyphens would give a resource several addresses.
        let id = Some(id).filter(|id| id.len() == Hyphenated::LENGTH);
        id.and_then(|id| Uuid::parse_str(&id).ok())
            .map(Self)
            .ok_or_else(Problem::not_found)
    }
}

/// The token in an approver's link, which is the approver's only credential.
pub(crate) struct Token(pub(crate) String);

impl FromRequestParts<AppState> for Token {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Problem> {
        path_parameter("token", parts, state).await.map(Self)
    }
}

/// The name of the signature provider in the path.
pub(crate) struct Provider(pub(crate) String);

impl FromRequestParts<AppState> for Provider {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Problem> {
        path_parameter("provider", parts, state).await.map(Self)
    }
}

/// The name of an event in the path.
pub(crate) struct Name(pub(crate) String);

impl FromRequestParts<AppState> for Name {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Problem> {
        path_parameter("name", parts, state).await.map(Self)
    }
}

/// The path parameter `name`. It is found by name, not by position, because an application may nest the
/// API under a path with parameters of its own.
async fn path_parameter(
    name: &str,
    parts: &mut Parts,
    state: &AppState,
) -> Result<String, Problem> {
    let parameters = RawPathParams::from_request_parts(parts, state).await;
    // No resource has a name that is not UTF-8, so none is found.
    let parameters = parameters.map_err(|_| Problem::not_found())?;
    let parameter = parameters.iter().find(|(known, _)| *known == name);
    parameter
        .map(|(_, value)| value.to_owned())
        .ok_or_else(Problem::not_found)
}

/// The raw body, of limited size.
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
        // The server decodes chunks, but no other transfer coding.
        let mut transfer = request.headers().get_all(header::TRANSFER_ENCODING).iter();
        if !transfer.all(|coding| coding.as_bytes().eq_ignore_ascii_case(b"chunked")) {
            return Err(unsupported());
        }
        let room = request.extensions().get::<BodyRoom>().cloned();
        let mut parts = request.into_body().into_data_stream();
        let mut body = BytesMut::new();
        while let Some(part) = parts.next().await {
            let part = part.map_err(|error| unread(&error))?;
            if body.len() + part.len() > state.options.max_body {
                return Err(too_large());
            }
            if let Some(room) = &room {
                room.take(part.len())?;
            }
            body.extend_from_slice(&part);
        }
        Ok(Self(body.freeze()))
    }
}

/// The problem for a body that could not be read: it took too long, or broke off.
fn unread(error: &(dyn std::error::Error + 'static)) -> Problem {
    let mut causes = std::iter::successors(Some(error), |error| error.source());
    Problem::of_status(if causes.any(|cause| cause.is::<BodyTimedOut>()) {
        StatusCode::REQUEST_TIMEOUT
    } else {
        StatusCode::BAD_REQUEST
    })
}

/// A JSON body as a type. An empty body gives the type's default.
pub(crate) struct Json<T> {
    pub(crate) value: T,
    /// The body in a normalized form, for the fingerprint of an idempotent call.
    pub(crate) sent: String,
}

impl<T: DeserializeOwned + Default + Send + 'static> FromRequest<AppState> for Json<T> {
    type Rejection = Problem;
    async fn from_request(request: Request, state: &AppState) -> Result<Self, Problem> {
        let headers = request.headers().clone();
        let RawBody(bytes) = RawBody::from_request(request, state).await?;
        if bytes.is_empty() {
            return Ok(Self {
                value: T::default(),
                sent: Value::Null.to_string(),
            });
        }
        checked(bytes, move |bytes| {
            let sent = parsed(&headers, bytes)?;
            without_nul(&sent)?;
            Ok(Self {
                value: typed(&sent)?,
                sent: sent.to_string(),
            })
        })
        .await
    }
}

/// The size in bytes from which a body is checked on a blocking thread, so that the check does not hold up
/// the runtime's threads.
const LARGE: usize = 64 * 1024;
/// Limits how many large bodies are checked at once, so that some processors are left for small bodies.
static LARGE_AT_ONCE: Semaphore = Semaphore::const_new(2);

/// Runs a check of a body, on a blocking thread if the body is large.
async fn checked<T: Send + 'static>(
    bytes: Bytes,
    check: impl FnOnce(&[u8]) -> Result<T, Problem> + Send + 'static,
) -> Result<T, Problem> {
    if bytes.len() < LARGE {
        return check(&bytes);
    }
    // The semaphore is never closed, so a permit always comes.
    let permit = LARGE_AT_ONCE.acquire().await.ok();
    let checked = spawn_blocking(move || {
        // Hold the permit in the thread: if the client disconnects, the check still runs and has to count.
        let _permit = permit;
        check(&bytes)
    });
    checked
        .await
        .unwrap_or_else(|error| resume_unwind(error.into_panic()))
}

/// A required JSON body of any shape.
pub(crate) struct Sent(pub(crate) Value);

impl FromRequest<AppState> for Sent {
    type Rejection = Problem;
    async fn from_request(request: Request, state: &AppState) -> Result<Self, Problem> {
        let headers = request.headers().clone();
        let RawBody(bytes) = RawBody::from_request(request, state).await?;
        checked(bytes, move |bytes| parsed(&headers, bytes).map(Self)).await
    }
}

fn parsed(headers: &HeaderMap, bytes: &[u8]) -> Result<Value, Problem> {
    if !is_plain_json(headers) {
        return Err(unsupported());
    }
    json::read(bytes).map_err(|error| match error {
        ReadError::Malformed { line, column } => {
            let detail = Text::key("problem-malformed-json")
                .with("line", line)
                .with("column", column);
            Problem::new(StatusCode::BAD_REQUEST, "malformed_json").detail(detail)
        }
        ReadError::Faults(faults) => Problem::invalid(faults),
    })
}

fn unsupported() -> Problem {
    Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type")
}

/// True if the headers declare JSON in UTF-8 (RFC 8259 allows no other) without compression.
fn is_plain_json(headers: &HeaderMap) -> bool {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let mut parts = text(header::CONTENT_TYPE).unwrap_or_default().split(';');
    let essence = parts.next().unwrap_or_default().trim().to_ascii_lowercase();
    // Refuse types such as `application/json-patch+json`: they are JSON too, but mean something else.
    let is_json = essence == "application/json";
    let is_utf_8 = parts
        .filter_map(|parameter| parameter.split_once('='))
        .filter(|(name, _)| name.trim().eq_ignore_ascii_case("charset"))
        .all(|(_, charset)| {
            charset
                .trim()
                .trim_matches('"')
                .eq_ignore_ascii_case("utf-8")
        });
    let is_compressed = headers
        .get_all(header::CONTENT_ENCODING)
        .iter()
        .any(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity"));
    is_json && is_utf_8 && !is_compressed
}

fn without_nul(value: &Value) -> Result<(), Problem> {
    match find_nul(value, &mut String::new()) {
        Some(pointer) => Err(Problem::invalid_field(
            pointer,
            "invalid_text",
            Text::key("fault-nul"),
        )),
        None => Ok(()),
    }
}

/// The query. Unknown parameters are refused, and the problem names them.
pub(crate) struct Query<T>(pub(crate) T);

impl<T: DeserializeOwned> FromRequestParts<AppState> for Query<T> {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, _: &AppState) -> Result<Self, Problem> {
        let query = parts.uri.query().unwrap_or_default();
        // Refuse bytes that are not UTF-8: a lossy decoder would turn different values into the same one.
        if percent_decode_str(query).decode_utf8().is_err() {
            let detail = Text::key("problem-query-not-utf-8");
            return Err(Problem::new(StatusCode::BAD_REQUEST, "bad_request").detail(detail));
        }
        let parameters = parameters(query)?;
        without_nul(&parameters)?;
        typed(&parameters).map(Self)
    }
}

/// The query of a stream. Its event id may be any text: an unknown id leads to a `gap` frame.
pub(crate) struct PositionQuery<T>(pub(crate) T);

impl<T: DeserializeOwned> FromRequestParts<AppState> for PositionQuery<T> {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, _: &AppState) -> Result<Self, Problem> {
        let query = parts.uri.query().unwrap_or_default();
        typed(&parameters(query)?).map(Self)
    }
}

/// The parameters of a query as a JSON object. A parameter that occurs twice is refused. Bytes that are
/// not UTF-8 are replaced.
fn parameters(query: &str) -> Result<Value, Problem> {
    let mut parameters = Map::new();
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        let value = Value::String(value.into_owned());
        if parameters
            .insert(name.clone().into_owned(), value)
            .is_some()
        {
            let detail = Text::key("fault-once");
            let pointer = format!("/{}", escaped(&name));
            return Err(Problem::invalid_field(
                pointer,
                "duplicate_parameter",
                detail,
            ));
        }
    }
    Ok(Value::Object(parameters))
}

/// The parameters of a route that takes no query.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NoParameters {}

/// Refuses any query parameter.
pub(crate) type NoQuery = Query<NoParameters>;

/// The condition in `If-Match` (RFC 9110, section 13.1.1). The RFC allows a list of tags; only a single tag
/// is accepted here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum IfMatch {
    /// The header is missing.
    Absent,
    /// `*`: the resource must exist, in any version.
    Any,
    /// The resource must have this version.
    Version(u64),
}

impl IfMatch {
    pub(crate) fn of(headers: &HeaderMap) -> Result<Self, Problem> {
        let Some(value) = headers.get(header::IF_MATCH) else {
            return Ok(Self::Absent);
        };
        let text = value.to_str().unwrap_or_default().trim();
        if text == "*" {
            return Ok(Self::Any);
        }
        if text.contains(',') {
            let detail = Text::key("problem-one-version");
            return Err(Problem::new(StatusCode::BAD_REQUEST, "bad_request").detail(detail));
        }
        let tag = text
            .strip_prefix('"')
            .and_then(|rest| rest.strip_suffix('"'));
        let version = tag.and_then(|tag| {
            let version: u64 = tag.parse().ok()?;
            (version.to_string() == tag).then_some(version)
        });
        // No resource has this version, so a tag that docg never gave matches none.
        Ok(Self::Version(version.unwrap_or(u64::MAX)))
    }

    /// The version that the resource must have, if the header names one.
    pub(crate) fn version(self) -> Option<u64> {
        match self {
            Self::Absent | Self::Any => None,
            Self::Version(version) => Some(version),
        }
    }
}

/// The `Idempotency-Key`, if there is one.
pub(crate) fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let Some(value) = headers.get("idempotency-key") else {
        return Ok(None);
    };
    let key = value.to_str().unwrap_or_default().trim();
    // A client may send the key as a structured-field string, which is quoted.
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
