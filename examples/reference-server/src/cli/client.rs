//! A small client of docg's HTTP API, for the commands.

use std::time::Duration;

use reqwest::{Method, Response, redirect::Policy};
use serde_json::Value;
use url::Url;
use uuid::Uuid;

use super::CliError;

/// The time limit for connecting to a server, and for the start of a stream.
const PATIENCE: Duration = Duration::from_secs(5);
/// The time limit for any answer that is not a stream.
const ANSWER: Duration = Duration::from_secs(30);

/// A server, and the credentials to call it.
#[derive(Clone)]
pub(super) struct Client {
    http: reqwest::Client,
    base: Url,
    token: String,
    organization: Option<Uuid>,
}

impl Client {
    pub(super) fn new(
        base: &Url,
        token: &str,
        organization: Option<Uuid>,
    ) -> Result<Self, CliError> {
        let http = reqwest::Client::builder()
            .redirect(Policy::none())
            .connect_timeout(PATIENCE)
            .build()
            .map_err(|e| http_error(&e))?;
        let mut base = base.clone();
        if !base.path().ends_with('/') {
            base.set_path(&format!("{}/", base.path()));
        }
        Ok(Self {
            http,
            base,
            token: token.to_owned(),
            organization,
        })
    }

    pub(super) async fn get(&self, path: &str) -> Result<Value, CliError> {
        let request = self.request(Method::GET, path)?;
        json(self.answer(request.timeout(ANSWER)).await?).await
    }

    pub(super) async fn post(&self, path: &str, body: &Value) -> Result<Value, CliError> {
        let request = self.request(Method::POST, path)?.json(body);
        json(self.answer(request.timeout(ANSWER)).await?).await
    }

    /// Opens an event stream. With `last_event_id`, the stream starts after that event.
    pub(super) async fn stream(
        &self,
        path: &str,
        last_event_id: Option<&str>,
    ) -> Result<Response, CliError> {
        let mut request = self
            .request(Method::GET, path)?
            .header("accept", "text/event-stream");
        if let Some(id) = last_event_id {
            request = request.header("last-event-id", id);
        }
        tokio::time::timeout(PATIENCE, self.answer(request))
            .await
            .map_err(|_| self.unanswered(format!("no answer within {PATIENCE:?}")))?
    }

    fn unanswered(&self, why: String) -> CliError {
        CliError::Unanswered {
            url: self.base.clone(),
            why,
        }
    }

    fn request(&self, method: Method, path: &str) -> Result<reqwest::RequestBuilder, CliError> {
        let url = self
            .base
            .join(path)
            .map_err(|e| CliError::Usage(format!("--url: {e}")))?;
        let mut request = self.http.request(method, url).bearer_auth(&self.token);
        if let Some(organization) = self.organization {
            request = request.header("x-organization-id", organization.to_string());
        }
        Ok(request)
    }

    async fn answer(&self, request: reqwest::RequestBuilder) -> Result<Response, CliError> {
        match request.send().await {
            Ok(response) => accepted(response).await,
            Err(e) if e.is_connect() || e.is_timeout() => Err(self.unanswered(with_causes(&e))),
            Err(e) => Err(http_error(&e)),
        }
    }
}

/// Returns a successful response as it is. An error status becomes a [`CliError::Refused`].
async fn accepted(response: Response) -> Result<Response, CliError> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let text = response.text().await.unwrap_or_default();
    let problem: Value = serde_json::from_str(&text).unwrap_or_default();
    let said = problem
        .get("detail")
        .and_then(Value::as_str)
        .map(str::to_owned);
    let mut detail = said.unwrap_or_else(|| text.chars().take(200).collect());
    for error in problem
        .get("errors")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
    {
        let field = |name| error.get(name).and_then(Value::as_str).unwrap_or_default();
        detail.push_str(&format!("\n  {}: {}", field("pointer"), field("detail")));
    }
    Err(CliError::Refused {
        status: status.as_u16(),
        detail,
    })
}

async fn json(response: Response) -> Result<Value, CliError> {
    response.json().await.map_err(|e| http_error(&e))
}

pub(super) fn http_error(error: &reqwest::Error) -> CliError {
    CliError::Http(with_causes(error))
}

/// The text of an error with its causes: reqwest's own text stops at "error sending request".
fn with_causes(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut next = std::error::Error::source(error);
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}
