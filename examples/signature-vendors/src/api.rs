use std::{sync::Arc, time::Duration};

use docg_core::{
    json,
    signature::{ProviderError, Secret},
    storable,
    time::{Timestamp, retry_after_ms},
};
use serde::de::DeserializeOwned;
use serde_json::Value;
use url::Url;

use crate::{
    config::ApiConfig,
    http::{HttpClient, HttpError, HttpRequest, HttpResponse, Method},
};

/// The time limit of a call of the API.
const CALL_TIME: Duration = Duration::from_secs(15);
/// The time limit of a call that carries a document.
const DOCUMENT_TIME: Duration = Duration::from_secs(60);
/// The largest answer of the API, in bytes.
const MAX_ANSWER: usize = 4 * 1024 * 1024;
/// The largest signed document, in bytes.
const MAX_DOCUMENT: usize = 64 * 1024 * 1024;
/// The wait in milliseconds after a vendor's rate limit without `Retry-After`. ClickSign sends none, and
/// counts the calls within 10 seconds.
const WINDOW_MS: u64 = 10_000;
/// The longest wait in milliseconds. If a vendor asks for more, the wait is cut to this time.
const LONGEST_WAIT_MS: u64 = 3_600_000;
/// The length in characters to which a vendor's error text is cut.
const EXCERPT: usize = 400;

/// A vendor's API: its account, and the client that makes the calls.
pub(crate) struct Api {
    pub(crate) config: ApiConfig,
    pub(crate) client: Arc<dyn HttpClient>,
    /// The value of the header `Authorization`.
    pub(crate) authorization: Secret,
    /// The media type of requests and answers.
    pub(crate) media_type: &'static str,
}

/// One call of an API.
pub(crate) struct Call<'c> {
    method: Method,
    path: &'c [&'c str],
    query: &'c [(&'c str, &'c str)],
    body: Option<Value>,
    /// True if a repetition of the call would do harm.
    once: bool,
    time: Duration,
}

impl<'c> Call<'c> {
    pub(crate) fn get(path: &'c [&'c str]) -> Self {
        Self {
            method: Method::Get,
            path,
            query: &[],
            body: None,
            once: false,
            time: CALL_TIME,
        }
    }

    pub(crate) fn delete(path: &'c [&'c str]) -> Self {
        Self {
            method: Method::Delete,
            ..Self::get(path)
        }
    }

    pub(crate) fn send(method: Method, path: &'c [&'c str], body: Value) -> Self {
        Self {
            method,
            body: Some(body),
            ..Self::get(path)
        }
    }

    pub(crate) fn query(mut self, query: &'c [(&'c str, &'c str)]) -> Self {
        self.query = query;
        self
    }

    /// Marks a call whose repetition would do harm. If its answer is lost, the outcome is unknown.
    pub(crate) fn once(mut self) -> Self {
        self.once = true;
        self
    }

    /// Marks a call that carries a document, which takes longer.
    pub(crate) fn with_document(mut self) -> Self {
        self.time = DOCUMENT_TIME;
        self
    }
}

/// A call that failed.
#[derive(Debug)]
pub(crate) struct Failed {
    /// The answer's status; `None` if there was no whole answer.
    pub(crate) status: Option<u16>,
    pub(crate) error: ProviderError,
}

impl Failed {
    /// True if the vendor refused the request itself, so that a repetition would be refused too.
    pub(crate) fn is_refusal(&self) -> bool {
        matches!(
            self.error,
            ProviderError::Refused(_) | ProviderError::NotFound(_)
        )
    }
}

impl From<Failed> for ProviderError {
    fn from(failed: Failed) -> Self {
        failed.error
    }
}

impl Api {
    /// Makes a call and parses the answer's body.
    pub(crate) async fn call<T: DeserializeOwned>(&self, call: Call<'_>) -> Result<T, Failed> {
        let (once, name) = (call.once, self.name(&call));
        let body = self.answer(call).await?;
        json::read_message(&body).map_err(|e| {
            let tech = format!("{name}: the answer cannot be read: {e}");
            Failed {
                status: None,
                error: match once {
                    true => ProviderError::Unknown(tech),
                    false => ProviderError::Unavailable(tech),
                },
            }
        })
    }

    /// Makes a call and ignores the answer's body.
    pub(crate) async fn tell(&self, call: Call<'_>) -> Result<(), Failed> {
        self.answer(call).await.map(|_| ())
    }

    /// Downloads a PDF from a link that the API gave, without the token. The link's host must be the API's
    /// host or one of the download hosts.
    pub(crate) async fn download(&self, link: &str) -> Result<Vec<u8>, ProviderError> {
        let url = Url::parse(link)
            .ok()
            .filter(|url| self.may_download(url))
            .ok_or_else(|| {
                let host = Url::parse(link).ok();
                let host = host.as_ref().and_then(Url::host_str).unwrap_or("nowhere");
                ProviderError::Refused(format!("documents are not fetched from {host}"))
            })?;
        let name = format!("GET {}", url.host_str().unwrap_or_default());
        let request = HttpRequest {
            method: Method::Get,
            url: url.into(),
            headers: Vec::new(),
            body: Vec::new(),
            timeout: DOCUMENT_TIME,
            max_response: MAX_DOCUMENT,
        };
        let sent = self.client.send(request).await;
        let response = sent.map_err(|e| self.not_answered(&name, false, &e))?;
        // The link carries its own signature: a refusal means that the link expired, not that the token is
        // wrong.
        match self.judged(&name, false, response) {
            Ok(body) if body.starts_with(b"%PDF-") => Ok(body),
            Ok(_) => Err(ProviderError::Unavailable(format!("{name}: not a PDF"))),
            Err(Failed {
                error:
                    ProviderError::Unauthorized(tech)
                    | ProviderError::Forbidden(tech)
                    | ProviderError::NotFound(tech),
                ..
            }) => Err(ProviderError::Unavailable(tech)),
            Err(failed) => Err(failed.error),
        }
    }

    fn may_download(&self, url: &Url) -> bool {
        let host = url.host_str().unwrap_or_default().to_ascii_lowercase();
        let base = &self.config.base_url;
        if url.origin() == base.origin() {
            return true;
        }
        url.scheme() == "https"
            && self.config.download_hosts.iter().any(|allowed| {
                host.strip_suffix(allowed.as_str())
                    .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
            })
    }

    /// The call's name in error texts for technicians.
    fn name(&self, call: &Call<'_>) -> String {
        format!("{} /{}", call.method.as_str(), call.path.join("/"))
    }

    fn url(&self, call: &Call<'_>) -> Url {
        let mut url = self.config.base_url.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(call.path);
        }
        if !call.query.is_empty() {
            url.query_pairs_mut().extend_pairs(call.query);
        }
        url
    }

    /// Makes a call and returns the answer's body.
    async fn answer(&self, call: Call<'_>) -> Result<Vec<u8>, Failed> {
        let name = self.name(&call);
        let mut headers = vec![
            ("accept", self.media_type.to_owned()),
            ("authorization", self.authorization.expose().to_owned()),
        ];
        let url = self.url(&call).into();
        let body = call.body.map(|body| body.to_string().into_bytes());
        if body.is_some() {
            headers.push(("content-type", self.media_type.to_owned()));
        }
        let request = HttpRequest {
            method: call.method,
            url,
            headers,
            body: body.unwrap_or_default(),
            timeout: call.time,
            max_response: MAX_ANSWER,
        };
        match self.client.send(request).await {
            Ok(response) => self.judged(&name, call.once, response),
            Err(error) => Err(Failed {
                status: None,
                error: self.not_answered(&name, call.once, &error),
            }),
        }
    }

    /// Turns a missing answer into an error. `once` means that a repetition of the call would do harm.
    fn not_answered(&self, name: &str, once: bool, error: &HttpError) -> ProviderError {
        let tech = self.config.token.hide(&format!("{name}: {error}"));
        match error {
            HttpError::Unreachable(_) => ProviderError::Unavailable(tech),
            _ if once => ProviderError::Unknown(tech),
            HttpError::TimedOut(_) => ProviderError::TimedOut(tech),
            HttpError::Broken(_) => ProviderError::Unavailable(tech),
            HttpError::TooLarge(_) => ProviderError::Refused(tech),
        }
    }

    /// Turns an answer into its body, or into an error by its status.
    fn judged(&self, name: &str, once: bool, response: HttpResponse) -> Result<Vec<u8>, Failed> {
        let HttpResponse {
            status,
            retry_after,
            body,
        } = response;
        if (200..300).contains(&status) {
            return Ok(body);
        }
        let excerpt = self.excerpt(&body);
        let tech = match &retry_after {
            Some(wait) => format!("{name}: {status} (Retry-After: {wait}) {excerpt}"),
            None => format!("{name}: {status} {excerpt}"),
        };
        let error = match status {
            401 | 407 => ProviderError::Unauthorized(tech),
            402 => ProviderError::Unpaid(tech),
            403 => ProviderError::Forbidden(tech),
            404 | 405 | 410 => ProviderError::NotFound(tech),
            429 => ProviderError::RateLimited {
                retry_after_ms: Some(
                    retry_after
                        .as_deref()
                        .and_then(wait_ms)
                        .unwrap_or(WINDOW_MS),
                ),
                tech,
            },
            // The vendor rejected the call before doing anything.
            503 => ProviderError::Unavailable(tech),
            408 | 500..=599 if once => ProviderError::Unknown(tech),
            408 | 500..=599 => ProviderError::Unavailable(tech),
            _ => ProviderError::Refused(tech),
        };
        Err(Failed {
            status: Some(status),
            error,
        })
    }

    /// The beginning of an answer's body, on one line and without secrets.
    fn excerpt(&self, body: &[u8]) -> String {
        let text = self.config.token.hide(&storable::legible(body));
        let secrets = self.config.webhook_secrets.iter();
        let text = secrets.fold(text, |text, secret| secret.hide(&text));
        let words: Vec<_> = text
            .split(|c: char| c.is_whitespace() || c.is_control())
            .filter(|word| !word.is_empty())
            .collect();
        words.join(" ").chars().take(EXCERPT).collect()
    }
}

/// Parses the header `Retry-After` into milliseconds from now.
fn wait_ms(text: &str) -> Option<u64> {
    retry_after_ms(text, Timestamp::now()).map(|millis| millis.min(LONGEST_WAIT_MS))
}

#[cfg(test)]
mod tests;
