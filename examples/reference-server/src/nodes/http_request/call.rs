//! One HTTP call with its limits.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use docg_core::{
    error::{StepFailure, codes},
    i18n::Text,
    preflight::{Domain, Issue},
    workflow::{StepContext, handler::CheckRequest},
};
use reqwest::{
    Method, StatusCode,
    header::{HeaderMap, HeaderName, HeaderValue, RETRY_AFTER},
    redirect::Policy,
};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use url::{Host, Url};

use super::guard;
use crate::nodes::{stopped, text};

/// An answer is part of a step's output, which may have 1 MiB.
const MAX_BODY: usize = 512 * 1024;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const TIMEOUT: Duration = Duration::from_secs(30);
/// Set by the client itself, or able to change where a request goes.
const OWN_HEADERS: [&str; 7] = [
    "host",
    "content-length",
    "transfer-encoding",
    "connection",
    "upgrade",
    "te",
    "proxy-authorization",
];

#[derive(Deserialize)]
pub(super) struct Params {
    method: String,
    pub(super) url: String,
    #[serde(default)]
    headers: Map<String, Value>,
    #[serde(default)]
    body: Value,
}

impl Params {
    pub(super) fn method(&self) -> String {
        self.method.to_ascii_uppercase()
    }

    /// Whether a repeat changes nothing (RFC 9110, section 9.2.2).
    pub(super) fn is_idempotent(&self) -> bool {
        matches!(
            self.method().as_str(),
            "GET" | "HEAD" | "OPTIONS" | "PUT" | "DELETE"
        )
    }

    /// Whether it only reads.
    pub(super) fn is_safe(&self) -> bool {
        matches!(self.method().as_str(), "GET" | "HEAD" | "OPTIONS")
    }
}

/// Calls, and gives status, headers and body.
pub(super) async fn call(
    context: &StepContext,
    params: Params,
    key: Option<String>,
    allow_private: bool,
) -> Result<Value, StepFailure> {
    let work = exchange(context, &params, key, allow_private);
    tokio::select! {
        result = work => result,
        // What the other side has made of it is not known; a repeat of a safe call does no harm.
        () = context.cancellation.cancelled() => Err(if params.is_idempotent() {
            stopped()
        } else {
            unknown(context, "stopped while the call was under way")
        }),
    }
}

async fn exchange(
    context: &StepContext,
    params: &Params,
    key: Option<String>,
    allow_private: bool,
) -> Result<Value, StepFailure> {
    let url = target(&params.url, allow_private).map_err(|why| not_allowed(context, &why))?;
    let addresses = resolve(context, &url, allow_private).await?;
    let method = Method::from_bytes(params.method().as_bytes())
        .map_err(|e| invalid(context, "method", &e.to_string()))?;
    let headers = headers(context, params, key).map_err(|why| invalid(context, "headers", &why))?;
    let host = url.host_str().unwrap_or_default();
    // The name is not looked up a second time: what was checked is what is called.
    let client = reqwest::Client::builder()
        .resolve_to_addrs(host, &addresses)
        .redirect(Policy::none())
        .no_proxy()
        .connect_timeout(CONNECT_TIMEOUT)
        .timeout(TIMEOUT)
        .build()
        .map_err(|e| invalid(context, "url", &e.to_string()))?;
    let mut request = client.request(method, url).headers(headers);
    match &params.body {
        Value::Null => {}
        Value::String(body) => request = request.body(body.clone()),
        body => request = request.json(body),
    }
    let mut response = request.send().await.map_err(|e| {
        if e.is_connect() || params.is_idempotent() {
            unreachable(context, &chain(&e))
        } else {
            unknown(context, &chain(&e))
        }
    })?;
    let (status, headers) = (response.status(), response.headers().clone());
    let mut body = Vec::new();
    let read = async {
        while let Some(chunk) = response.chunk().await? {
            body.extend_from_slice(&chunk);
            if body.len() > MAX_BODY {
                break;
            }
        }
        Ok::<_, reqwest::Error>(())
    };
    let read = read.await;
    judge(context, params, status, &headers)?;
    read.map_err(|e| unreachable_or_unknown(context, params, &chain(&e)))?;
    if body.len() > MAX_BODY {
        let tech = format!("the answer exceeds {MAX_BODY} bytes");
        return Err(StepFailure::fatal(
            codes::OUTPUT_TOO_LARGE,
            text("error-output-too-large", context, "url"),
        )
        .tech(tech));
    }
    Ok(json!({
        "status": status.as_u16(),
        "headers": shown(&headers),
        "body": content(&headers, &body),
    }))
}

/// Where a call goes, or why that cannot be.
fn target(text: &str, allow_private: bool) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|e| e.to_string())?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err("only http and https are called".to_owned());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("a URL carries no user and no password: use headers".to_owned());
    }
    let ip: Option<IpAddr> = match url.host() {
        Some(Host::Ipv4(ip)) => Some(ip.into()),
        Some(Host::Ipv6(ip)) => Some(ip.into()),
        Some(Host::Domain(_)) => None,
        None => return Err("there is no host".to_owned()),
    };
    match ip.filter(|ip| !allow_private && !guard::is_public(*ip)) {
        Some(ip) => Err(format!("{ip} is not a public address")),
        None => Ok(url),
    }
}

/// What the call would be refused for before anything is sent, as far as it is known.
pub(super) fn issues(request: &CheckRequest, allow_private: bool) -> Vec<Issue> {
    let mut issues = request.misfits::<Params>();
    let params = request.sound_params();
    let issue = |field: &'static str, code, key, why: String| {
        let text = Text::key(key).with("label", &request.label);
        Issue::blocking(Domain::Data, code, text.with("field", field))
            .at(request.node_id.clone())
            .field(field)
            .tech(why)
    };
    let url = params.get("url").and_then(Value::as_str);
    if let Some(Err(why)) = url.map(|url| target(url, allow_private)) {
        issues.push(issue(
            "url",
            "url_not_allowed",
            "issue-resource-refused",
            why,
        ));
    }
    let headers = params.get("headers").and_then(Value::as_object);
    if let Some(Err(why)) = headers.map(given_headers) {
        let key = "issue-invalid-parameter-format";
        issues.push(issue("headers", codes::INVALID_FIELD_FORMAT, key, why));
    }
    issues
}

/// All addresses of the host, each of which must be allowed: which one is called is not for the
/// owner of the name to choose.
async fn resolve(
    context: &StepContext,
    url: &Url,
    allow_private: bool,
) -> Result<Vec<SocketAddr>, StepFailure> {
    let port = url.port_or_known_default().unwrap_or(80);
    let ips: Vec<IpAddr> = match url.host() {
        Some(Host::Ipv4(ip)) => vec![ip.into()],
        Some(Host::Ipv6(ip)) => vec![ip.into()],
        Some(Host::Domain(name)) => {
            let looked_up = tokio::net::lookup_host((name, port)).await;
            let found = looked_up.map_err(|e| unreachable(context, &format!("{name}: {e}")))?;
            found.map(|address| address.ip()).collect()
        }
        None => return Err(not_allowed(context, "there is no host")),
    };
    if ips.is_empty() {
        return Err(unreachable(context, "the host has no address"));
    }
    let refused = ips.iter().find(|ip| !guard::is_public(**ip));
    if let Some(refused) = refused.filter(|_| !allow_private) {
        return Err(not_allowed(
            context,
            &format!("{refused} is not a public address"),
        ));
    }
    Ok(ips
        .into_iter()
        .map(|ip| SocketAddr::new(ip, port))
        .collect())
}

/// The headers that a workflow sets, or why it cannot.
fn given_headers(given: &Map<String, Value>) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    for (name, value) in given {
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|e| e.to_string())?;
        if OWN_HEADERS.contains(&name.as_str()) {
            return Err(format!("{name} is not for a workflow to set"));
        }
        let value = match value {
            Value::String(value) => value.clone(),
            other => other.to_string(),
        };
        let value = HeaderValue::from_str(&value).map_err(|e| e.to_string())?;
        headers.insert(name, value);
    }
    Ok(headers)
}

fn headers(
    context: &StepContext,
    params: &Params,
    key: Option<String>,
) -> Result<HeaderMap, String> {
    let mut headers = given_headers(&params.headers)?;
    let mut pass_on = |name: &'static str, value: Option<&str>| {
        if let Some(value) = value.and_then(|value| HeaderValue::from_str(value).ok()) {
            headers
                .entry(HeaderName::from_static(name))
                .or_insert(value);
        }
    };
    pass_on("idempotency-key", key.as_deref());
    pass_on("x-correlation-id", Some(&context.correlation_id));
    pass_on("traceparent", context.traceparent.as_deref());
    Ok(headers)
}

/// What a status means for the step. Redirects are not followed, they are an answer.
fn judge(
    context: &StepContext,
    params: &Params,
    status: StatusCode,
    headers: &HeaderMap,
) -> Result<(), StepFailure> {
    if !status.is_client_error() && !status.is_server_error() {
        return Ok(());
    }
    let tech = format!("the answer is {status}");
    let failure = match status {
        StatusCode::TOO_MANY_REQUESTS => {
            StepFailure::retryable(codes::RATE_LIMIT, text("issue-rate-limit", context, "url"))
        }
        // Said before anything was done.
        StatusCode::SERVICE_UNAVAILABLE => StepFailure::retryable(
            codes::SERVICE_UNAVAILABLE,
            text("issue-service-unavailable", context, "url"),
        ),
        status if status.is_server_error() && !params.is_idempotent() => {
            return Err(unknown(context, &tech));
        }
        status if status.is_server_error() || status == StatusCode::REQUEST_TIMEOUT => {
            StepFailure::retryable(
                codes::SERVICE_UNAVAILABLE,
                text("issue-service-unavailable", context, "url"),
            )
        }
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => StepFailure::review(
            codes::API_KEY_INVALID,
            text("issue-api-key-invalid", context, "headers"),
        ),
        _ => StepFailure::review(
            codes::INVALID_FIELD_FORMAT,
            text("issue-resource-refused", context, "url"),
        ),
    };
    let failure = failure.tech(tech);
    let seconds = headers
        .get(RETRY_AFTER)
        .and_then(|value| value.to_str().ok()?.parse().ok());
    Err(match seconds {
        Some(seconds) => failure.retry_after_ms(u64::saturating_mul(seconds, 1000)),
        None => failure,
    })
}

fn shown(headers: &HeaderMap) -> Map<String, Value> {
    let mut shown: Map<String, Value> = Map::new();
    for (name, value) in headers {
        let value = String::from_utf8_lossy(value.as_bytes());
        let joined = match shown.get(name.as_str()).and_then(Value::as_str) {
            Some(before) => format!("{before}, {value}"),
            None => value.into_owned(),
        };
        shown.insert(name.to_string(), joined.into());
    }
    shown
}

/// JSON where it says that it is JSON, else text.
fn content(headers: &HeaderMap, body: &[u8]) -> Value {
    let content_type = headers
        .get("content-type")
        .and_then(|value| value.to_str().ok());
    let media_type = content_type
        .unwrap_or_default()
        .split(';')
        .next()
        .unwrap_or_default()
        .trim();
    if (media_type == "application/json" || media_type.ends_with("+json"))
        && let Ok(value) = serde_json::from_slice(body)
    {
        return value;
    }
    String::from_utf8_lossy(body).into_owned().into()
}

pub(super) fn not_allowed(context: &StepContext, why: &str) -> StepFailure {
    let text = text("issue-resource-refused", context, "url");
    StepFailure::review("url_not_allowed", text).tech(why)
}

fn invalid(context: &StepContext, field: &str, why: &str) -> StepFailure {
    let text = text("issue-invalid-parameter-format", context, field);
    StepFailure::review(codes::INVALID_FIELD_FORMAT, text).tech(why)
}

fn unreachable(context: &StepContext, why: &str) -> StepFailure {
    let text = text("issue-service-unavailable", context, "url");
    StepFailure::retryable(codes::CONNECTION_ERROR, text).tech(why)
}

fn unknown(context: &StepContext, why: &str) -> StepFailure {
    let text = text("error-outcome-unknown", context, "url");
    StepFailure::outcome_unknown(codes::OUTCOME_UNKNOWN, text).tech(why)
}

fn unreachable_or_unknown(context: &StepContext, params: &Params, why: &str) -> StepFailure {
    if params.is_idempotent() {
        unreachable(context, why)
    } else {
        unknown(context, why)
    }
}

/// An error with its causes, without the URL: it may hold what is not for the log.
fn chain(error: &reqwest::Error) -> String {
    let mut text = String::new();
    let mut next = std::error::Error::source(error);
    while let Some(cause) = next {
        if !text.is_empty() {
            text.push_str(": ");
        }
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    if text.is_empty() {
        "the call failed".to_owned()
    } else {
        text
    }
}
