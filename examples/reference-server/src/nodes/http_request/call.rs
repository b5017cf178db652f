//! Makes the HTTP call of a step, within limits of destination, size and time.

use std::{
    borrow::Cow,
    fmt::Display,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use docg_core::{
    error::{FailureClass, StepFailure, codes},
    i18n::Text,
    json,
    observe::{LogDraft, LogLevel, REDACTED, Redaction, redact_text},
    preflight::{Domain, Issue},
    time::{Timestamp, retry_after_ms},
    workflow::{StepContext, handler::CheckRequest},
};
use reqwest::{
    Method, StatusCode,
    header::{
        CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, LOCATION, RETRY_AFTER,
    },
    redirect::Policy,
};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use url::{Host, Url};

use super::{
    guard,
    verdict::{self, Verdict},
};
use crate::{
    charset::{NotText, decode},
    nodes::text,
};

/// The largest body of an answer, in bytes. It becomes a part of the step's output, which may have 1 MiB.
const MAX_BODY: usize = 512 * 1024;
/// The length, in bytes, to which a text of the called server is cut for the technical part of an error.
const MAX_EXCERPT: usize = 500;
/// The error code of a URL that may not be called.
const URL_NOT_ALLOWED: &str = "url_not_allowed";
/// The error code of an answer that is not text in its declared charset.
const ANSWER_NOT_TEXT: &str = "answer_not_text";
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const TIMEOUT: Duration = Duration::from_secs(30);
/// The headers that a workflow may not set: the HTTP client sets them, or they could change the destination
/// of the call.
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

    /// True if a repeat has no further effect (RFC 9110, section 9.2.2).
    pub(super) fn is_idempotent(&self) -> bool {
        matches!(
            self.method().as_str(),
            "GET" | "HEAD" | "OPTIONS" | "PUT" | "DELETE"
        )
    }

    /// The values of the headers that carry credentials.
    fn credentials(&self) -> impl Iterator<Item = &Value> {
        let redaction = Redaction::default();
        let mut headers = self.headers.iter();
        std::iter::from_fn(move || headers.find(|(name, _)| redaction.is_secret(name)))
            .map(|(_, value)| value)
    }

    fn has_credentials(&self) -> bool {
        self.credentials().next().is_some() || matches!(redact_text(&self.url), Cow::Owned(_))
    }

    /// True if the request has a condition, so that 304 is a regular answer (RFC 9110, section 13.1).
    fn is_conditional(&self) -> bool {
        let conditions = ["if-none-match", "if-modified-since"];
        let mut names = self.headers.keys().map(|name| name.to_ascii_lowercase());
        names.any(|name| conditions.contains(&name.as_str()))
    }

    /// True if the call only reads.
    pub(super) fn is_safe(&self) -> bool {
        matches!(self.method().as_str(), "GET" | "HEAD" | "OPTIONS")
    }
}

/// Makes the call. Returns the status, headers and body of the answer.
pub(super) async fn call(
    context: &StepContext,
    params: Params,
    key: Option<String>,
    allow_private: bool,
) -> Result<Value, StepFailure> {
    let work = exchange(context, &params, key, allow_private);
    tokio::select! {
        result = work => result,
        // The called server may have acted on the call. Repeating an idempotent call does no harm.
        () = context.cancellation.cancelled() => Err(if params.is_idempotent() {
            StepFailure::stopped()
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
    let url = target(&params.url, allow_private).map_err(|why| why.failure(context))?;
    let addresses = resolve(context, &url, allow_private).await?;
    let method = Method::from_bytes(params.method().as_bytes())
        .map_err(|e| invalid(context, "method", &e.to_string()))?;
    let headers = headers(context, params, key).map_err(|why| invalid(context, "headers", &why))?;
    let host = url.host_str().unwrap_or_default();
    // Call only the checked addresses: a second lookup of the host name could return other addresses.
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
    let silent = |e: &reqwest::Error| {
        let is_sent = !(e.is_connect() || e.is_builder());
        let verdict = verdict::of_silence(e, is_sent, params.is_idempotent());
        failed(context, verdict, &chain(e))
    };
    let mut response = request.send().await.map_err(|e| silent(&e))?;
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
    judge(context, params, status, &headers, &body)?;
    let unusable = |code, key, why: &dyn Display| {
        let human = text(key, context, "url").with("status", status.as_u16());
        unusable(params, code, human).tech(format!("the answer is {status}, but {why}"))
    };
    read.map_err(|e| match params.is_idempotent() {
        true => silent(&e),
        false => {
            let why = format!("it broke off: {}", chain(&e));
            unusable(codes::OUTCOME_UNKNOWN, "error-answer-broken-off", &why)
        }
    })?;
    if body.len() > MAX_BODY {
        let why = format!("it exceeds {MAX_BODY} bytes");
        let key = "error-answer-too-large";
        return Err(unusable(codes::OUTPUT_TOO_LARGE, key, &why));
    }
    let encoding = headers.get(CONTENT_ENCODING).filter(|it| *it != "identity");
    if let Some(encoding) = encoding.filter(|_| !body.is_empty()) {
        let why = format!("it has Content-Encoding {encoding:?}, which is not read");
        return Err(unusable(ANSWER_NOT_TEXT, "error-answer-compressed", &why));
    }
    let answer = shown(&headers).and_then(|shown| Ok((shown, content(context, &headers, &body)?)));
    let (headers, body) =
        answer.map_err(|why| unusable(ANSWER_NOT_TEXT, "error-answer-not-text", &why))?;
    Ok(json!({"status": status.as_u16(), "headers": headers, "body": body}))
}

/// The reason why a URL is not called.
enum NotAllowed {
    /// The URL is never allowed.
    Url(String),
    /// The URL leads into a private network, which the operator may allow.
    Private { host: String, ip: IpAddr },
}

impl NotAllowed {
    fn url(why: impl Into<String>) -> Self {
        Self::Url(why.into())
    }

    fn private(url: &Url, ip: IpAddr) -> Self {
        let host = url.host_str().unwrap_or_default().to_owned();
        Self::Private { host, ip }
    }

    fn human(&self, label: &str) -> Text {
        let text = match self {
            Self::Url(_) => Text::key("issue-resource-refused"),
            Self::Private { host, .. } => Text::key("issue-host-not-allowed").with("host", host),
        };
        text.with("label", label).with("field", "url")
    }

    fn tech(&self) -> String {
        match self {
            Self::Url(why) => why.clone(),
            Self::Private { host, ip } => format!(
                "{ip} (host {host}) is not a public address; the operator allows such by \
                 --http-allow-private (DOCG_HTTP_ALLOW_PRIVATE=true)"
            ),
        }
    }

    fn failure(&self, context: &StepContext) -> StepFailure {
        StepFailure::review(URL_NOT_ALLOWED, self.human(&context.label)).tech(self.tech())
    }
}

/// Parses the URL of a call and checks that it is allowed.
fn target(text: &str, allow_private: bool) -> Result<Url, NotAllowed> {
    let url = Url::parse(text).map_err(|e| NotAllowed::url(e.to_string()))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(NotAllowed::url("only http and https are called"));
    }
    if guard::is_other_protocol(url.port_or_known_default()) {
        return Err(NotAllowed::url("that port is another protocol's"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        let why = "a URL carries no user and no password: use headers";
        return Err(NotAllowed::url(why));
    }
    let ip: Option<IpAddr> = match url.host() {
        Some(Host::Ipv4(ip)) => Some(ip.into()),
        Some(Host::Ipv6(ip)) => Some(ip.into()),
        Some(Host::Domain(_)) => None,
        None => return Err(NotAllowed::url("there is no host")),
    };
    match ip.filter(|ip| !allow_private && !guard::is_public(*ip)) {
        Some(ip) => Err(NotAllowed::private(&url, ip)),
        None => Ok(url),
    }
}

/// The issues of a call that are known before anything is sent.
pub(super) fn issues(request: &CheckRequest, allow_private: bool) -> Vec<Issue> {
    let mut issues = request.misfits::<Params>();
    let params = request.sound_params();
    let url = params.get("url").and_then(Value::as_str);
    if let Some(Err(why)) = url.map(|url| target(url, allow_private)) {
        let human = why.human(&request.label);
        let issue = Issue::blocking(Domain::Data, URL_NOT_ALLOWED, human);
        issues.push(
            issue
                .at(request.node_id.clone())
                .field("url")
                .tech(why.tech()),
        );
    }
    let headers = params.get("headers").and_then(Value::as_object);
    if let Some(Err(why)) = headers.map(given_headers) {
        let human = Text::key("issue-invalid-parameter-format")
            .with("label", &request.label)
            .with("field", "headers");
        let issue = Issue::blocking(Domain::Data, codes::INVALID_FIELD_FORMAT, human);
        issues.push(issue.at(request.node_id.clone()).field("headers").tech(why));
    }
    issues
}

/// Resolves the host of a URL. Every address must be allowed; otherwise the owner of the host name could lead
/// the call to a private address.
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
            let found = looked_up
                .map_err(|e| failed(context, verdict::of_name(&e), &format!("{name}: {e}")))?;
            found.map(|address| address.ip()).collect()
        }
        None => return Err(NotAllowed::url("there is no host").failure(context)),
    };
    if ips.is_empty() {
        return Err(NotAllowed::url("the host has no address").failure(context));
    }
    let refused = ips.iter().find(|ip| !guard::is_public(**ip));
    if let Some(refused) = refused.filter(|_| !allow_private) {
        return Err(NotAllowed::private(url, *refused).failure(context));
    }
    Ok(ips
        .into_iter()
        .map(|ip| SocketAddr::new(ip, port))
        .collect())
}

/// Converts the headers that a workflow sets. The error is a text that explains the fault.
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

/// Converts the status of an answer, unless it is a success, to the failure of the step.
fn judge(
    context: &StepContext,
    params: &Params,
    status: StatusCode,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<(), StepFailure> {
    if status == StatusCode::NOT_MODIFIED && params.is_conditional() {
        return Ok(());
    }
    let Some(mut verdict) =
        verdict::of_status(status, params.is_idempotent(), params.has_credentials())
    else {
        return Ok(());
    };
    let location = headers.get(LOCATION).filter(|_| status.is_redirection());
    if status.is_redirection() && location.is_none() {
        verdict = verdict::LEADS_NOWHERE;
    }
    let to = location.map_or_else(String::new, |to| {
        format!(
            "; Location: {}",
            excerpt(&String::from_utf8_lossy(to.as_bytes()))
        )
    });
    let says = match said(params, headers, body) {
        says if says.is_empty() => says,
        says => format!("; it says: {says}"),
    };
    let wait = headers.get(RETRY_AFTER);
    let wait = wait.map_or_else(String::new, |wait| {
        format!(
            "; Retry-After: {}",
            excerpt(&String::from_utf8_lossy(wait.as_bytes()))
        )
    });
    let mut failure = failed(
        context,
        verdict,
        &format!("the answer is {status}{to}{wait}{says}"),
    );
    failure.context.human = failure.context.human.with("status", status.as_u16());
    let wait = headers.get(RETRY_AFTER).and_then(|it| it.to_str().ok());
    let millis = wait.and_then(|wait| retry_after_ms(wait, Timestamp::now()));
    Err(match millis {
        Some(millis) => failure.retry_after_ms(millis),
        None => failure,
    })
}

/// The beginning of the body of an answer that is no success. The values of fields with secret names and the
/// call's credentials are redacted.
fn said(params: &Params, headers: &HeaderMap, body: &[u8]) -> String {
    let content_type = headers.get(CONTENT_TYPE);
    let content_type = content_type.and_then(|value| value.to_str().ok());
    let Ok(mut text) = decode(content_type, body) else {
        return String::new();
    };
    if let Ok(json) = json::read(text.as_bytes()) {
        text = Redaction::default().redacted(&json).to_string();
    }
    for word in params.credentials().filter_map(Value::as_str) {
        for word in word.split_whitespace() {
            text = text.replace(word, REDACTED);
        }
    }
    excerpt(&text)
}

/// The beginning of a text from the called server, in one line and without the secrets in URLs.
fn excerpt(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let redacted = redact_text(&line);
    let end = redacted.floor_char_boundary(MAX_EXCERPT);
    redacted[..end].to_owned()
}

/// The headers of an answer. Values that are not UTF-8 are read as ISO-8859-1 (RFC 9110, section 5.5).
fn shown(headers: &HeaderMap) -> Result<Map<String, Value>, NotText> {
    let mut shown: Map<String, Value> = Map::new();
    for (name, value) in headers {
        let bytes = value.as_bytes();
        let value = decode(None, bytes).or_else(|_| decode(Some("; charset=latin1"), bytes))?;
        let joined = match shown.get(name.as_str()).and_then(Value::as_str) {
            Some(before) => format!("{before}, {value}"),
            None => value,
        };
        shown.insert(name.to_string(), joined.into());
    }
    Ok(shown)
}

/// The body of an answer: JSON if it is declared as JSON and can be stored unchanged, else text.
fn content(context: &StepContext, headers: &HeaderMap, body: &[u8]) -> Result<Value, NotText> {
    let content_type = headers.get(CONTENT_TYPE);
    let content_type = content_type.and_then(|value| value.to_str().ok());
    let body = decode(content_type, body)?;
    let media_type = content_type.and_then(|it| it.split(';').next());
    let is_json = media_type.is_some_and(|media_type| {
        let media_type = media_type.trim().to_ascii_lowercase();
        media_type == "application/json" || media_type.ends_with("+json")
    });
    let json = is_json.then(|| json::read(body.as_bytes()));
    Ok(match json {
        Some(Ok(json)) => json,
        Some(Err(error)) => {
            let human = text("log-answer-kept-as-text", context, "body");
            context.log_entry(LogDraft::new(LogLevel::Warn, human).tech(error));
            body.into()
        }
        None => body.into(),
    })
}

/// The failure if the call succeeded but its answer cannot be stored. An idempotent call can be repeated once
/// the cause is mended. For any other call a person has to confirm that it is done.
fn unusable(params: &Params, code: &'static str, human: Text) -> StepFailure {
    if params.is_idempotent() {
        StepFailure::review(code, human)
    } else {
        StepFailure::answer_unusable(codes::OUTCOME_UNKNOWN, human)
    }
}

fn invalid(context: &StepContext, field: &str, why: &str) -> StepFailure {
    let text = text("issue-invalid-parameter-format", context, field);
    StepFailure::review(codes::INVALID_FIELD_FORMAT, text).tech(why)
}

fn failed(context: &StepContext, verdict: Verdict, why: &str) -> StepFailure {
    let human = text(verdict.text, context, verdict.field);
    let failure = match verdict.class {
        FailureClass::Retryable => StepFailure::retryable(verdict.code, human),
        FailureClass::Review => StepFailure::review(verdict.code, human),
        FailureClass::Final => StepFailure::fatal(verdict.code, human),
        FailureClass::OutcomeUnknown | FailureClass::AnswerRefused => {
            StepFailure::outcome_unknown(verdict.code, human)
        }
        FailureClass::Stopped => StepFailure::stopped(),
    };
    failure.tech(why)
}

fn unknown(context: &StepContext, why: &str) -> StepFailure {
    let text = text("error-outcome-unknown", context, "url");
    StepFailure::outcome_unknown(codes::OUTCOME_UNKNOWN, text).tech(why)
}

/// The causes of an error, without the URL, which may hold secrets.
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
