use std::{sync::Arc, time::Duration};

use serde::de::DeserializeOwned;
use serde_json::Value;
use url::{Host, Url};

use super::client::{HttpClient, HttpError, HttpRequest, HttpResponse, Method};
use crate::{
    json,
    signature::{ProviderError, Secret},
    storable,
    time::{Timestamp, retry_after_ms},
};

/// How long a call of the API may take.
const CALL_TIME: Duration = Duration::from_secs(15);
/// How long a document may take on its way.
const DOCUMENT_TIME: Duration = Duration::from_secs(60);
/// The largest answer of the API, in bytes.
const MAX_ANSWER: usize = 4 * 1024 * 1024;
/// The largest signed document, in bytes.
const MAX_DOCUMENT: usize = 64 * 1024 * 1024;
/// How long a provider that limits calls is left alone where it does not say for how long, in
/// milliseconds: ClickSign counts calls within 10 seconds, and does not say.
const WINDOW_MS: u64 = 10_000;
/// Nothing is left alone for longer, whatever a provider asks for.
const LONGEST_WAIT_MS: u64 = 3_600_000;
/// How much of a refusal is told to technicians, in characters.
const EXCERPT: usize = 400;

/// Where a provider is, and what proves who asks.
#[derive(Debug, Clone)]
pub struct ApiConfig {
    base_url: Url,
    token: Secret,
    /// At least one.
    webhook_secrets: Vec<Secret>,
    download_hosts: Vec<String>,
}

/// Why a provider cannot be used as it is configured.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The base URL is none, or would send the token in the clear.
    #[error(
        "the base URL must begin with https:// (or http:// for this machine alone), such as {0}"
    )]
    BaseUrl(&'static str),
    /// Without a token nothing is answered.
    #[error("the API token is empty")]
    Token,
    /// With an empty secret anybody could sign webhooks.
    #[error("the webhook secret is empty")]
    WebhookSecret,
}

impl ApiConfig {
    pub(in crate::signature) fn new(
        base_url: &str,
        example: &'static str,
        token: Secret,
        webhook_secret: Secret,
        download_hosts: &[&str],
    ) -> Result<Self, ConfigError> {
        let base_url = Url::parse(base_url).map_err(|_| ConfigError::BaseUrl(example))?;
        if !is_protected(&base_url) {
            return Err(ConfigError::BaseUrl(example));
        }
        // What a file or an environment gives often ends with a line break.
        let token = Secret::new(token.expose().trim());
        if token.expose().is_empty() {
            return Err(ConfigError::Token);
        }
        let mut config = Self {
            base_url,
            token,
            webhook_secrets: Vec::new(),
            download_hosts: download_hosts.iter().map(|&host| host.to_owned()).collect(),
        };
        config.accept_webhooks_of(webhook_secret)?;
        Ok(config)
    }

    pub(in crate::signature) fn accept_webhooks_of(
        &mut self,
        secret: Secret,
    ) -> Result<(), ConfigError> {
        let secret = Secret::new(secret.expose().trim());
        if secret.expose().is_empty() {
            return Err(ConfigError::WebhookSecret);
        }
        self.webhook_secrets.push(secret);
        Ok(())
    }

    pub(in crate::signature) fn allow_downloads_from(&mut self, host: &str) {
        self.download_hosts.push(host.to_ascii_lowercase());
    }

    pub(in crate::signature) fn webhook_secrets(&self) -> &[Secret] {
        &self.webhook_secrets
    }

    pub(in crate::signature) fn token(&self) -> &Secret {
        &self.token
    }

    #[cfg(feature = "zapsign")]
    pub(in crate::signature) fn base_url(&self) -> &Url {
        &self.base_url
    }
}

/// Whether what is sent there cannot be read on the way.
fn is_protected(url: &Url) -> bool {
    match (url.scheme(), url.host()) {
        ("https", Some(_)) => true,
        ("http", Some(Host::Ipv4(ip))) => ip.is_loopback(),
        ("http", Some(Host::Ipv6(ip))) => ip.is_loopback(),
        ("http", Some(Host::Domain(name))) => name == "localhost",
        _ => false,
    }
}

/// A provider's API.
pub(in crate::signature) struct Api {
    pub(in crate::signature) config: ApiConfig,
    pub(in crate::signature) client: Arc<dyn HttpClient>,
    /// The value of `Authorization`.
    pub(in crate::signature) authorization: Secret,
    /// The media type of bodies.
    pub(in crate::signature) media_type: &'static str,
}

/// One call of an API.
pub(in crate::signature) struct Call<'c> {
    method: Method,
    path: &'c [&'c str],
    query: &'c [(&'c str, &'c str)],
    body: Option<Value>,
    /// Whether a second call of the same kind would do harm.
    once: bool,
    time: Duration,
}

impl<'c> Call<'c> {
    pub(in crate::signature) fn get(path: &'c [&'c str]) -> Self {
        Self {
            method: Method::Get,
            path,
            query: &[],
            body: None,
            once: false,
            time: CALL_TIME,
        }
    }

    pub(in crate::signature) fn delete(path: &'c [&'c str]) -> Self {
        Self {
            method: Method::Delete,
            ..Self::get(path)
        }
    }

    pub(in crate::signature) fn send(method: Method, path: &'c [&'c str], body: Value) -> Self {
        Self {
            method,
            body: Some(body),
            ..Self::get(path)
        }
    }

    pub(in crate::signature) fn query(mut self, query: &'c [(&'c str, &'c str)]) -> Self {
        self.query = query;
        self
    }

    /// A second call would do harm, so an answer that is lost leaves a doubt.
    #[cfg(feature = "zapsign")]
    pub(in crate::signature) fn once(mut self) -> Self {
        self.once = true;
        self
    }

    /// It carries a document.
    pub(in crate::signature) fn with_document(mut self) -> Self {
        self.time = DOCUMENT_TIME;
        self
    }
}

/// A call that did not go well.
#[derive(Debug)]
pub(in crate::signature) struct Failed {
    /// What the provider answered, if it did.
    pub(in crate::signature) status: Option<u16>,
    pub(in crate::signature) error: ProviderError,
}

impl Failed {
    /// Whether the provider does not do what it was asked for, because of what it was asked for.
    pub(in crate::signature) fn is_refusal(&self) -> bool {
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
    /// Makes a call and reads its answer.
    pub(in crate::signature) async fn call<T: DeserializeOwned>(
        &self,
        call: Call<'_>,
    ) -> Result<T, Failed> {
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

    /// Makes a call whose answer says nothing.
    pub(in crate::signature) async fn tell(&self, call: Call<'_>) -> Result<(), Failed> {
        self.answer(call).await.map(|_| ())
    }

    /// Fetches a PDF that the API has named, from the hosts that documents may come from. The token
    /// is not sent along.
    pub(in crate::signature) async fn download(
        &self,
        link: &str,
    ) -> Result<Vec<u8>, ProviderError> {
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
        // The link is signed, so a refusal says nothing of the API's token.
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
            // Turned away before anything was done.
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

    /// The beginning of what the provider says, on one line and without the token.
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

/// What `Retry-After` says, in milliseconds from now: seconds, or a date.
fn wait_ms(text: &str) -> Option<u64> {
    retry_after_ms(text, Timestamp::now()).map(|millis| millis.min(LONGEST_WAIT_MS))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{super::testing::Scripted, *};
    use crate::{actions::ActionCatalogue, i18n::Locale, preflight::Domain};

    fn config(base_url: &str) -> Result<ApiConfig, ConfigError> {
        let hosts = ["files.example"];
        let (token, secret) = (Secret::new("t0ken\n"), Secret::new("k3y"));
        ApiConfig::new(base_url, "https://api.example", token, secret, &hosts)
    }

    fn api(client: Scripted) -> Api {
        let config = config("https://api.example/base/").expect("a base URL");
        Api {
            authorization: config.token.clone(),
            config,
            client: Arc::new(client),
            media_type: "application/json",
        }
    }

    async fn failure(status: u16, once: bool) -> ProviderError {
        let api = api(Scripted::default().answer(status, "no\n<b>t0ken</b> k3y"));
        let path = ["docs"];
        let mut call = Call::send(Method::Post, &path, json!({}));
        call.once = once;
        api.tell(call).await.expect_err("a failure").error
    }

    #[test]
    fn a_token_is_sent_protected_or_not_at_all() {
        for base_url in [
            "https://api.example",
            "http://127.0.0.1:9",
            "http://[::1]/",
            "http://localhost",
        ] {
            config(base_url).expect(base_url);
        }
        for base_url in [
            "http://api.example",
            "api.example",
            "ftp://api.example",
            "https:",
            "",
        ] {
            assert!(
                matches!(config(base_url), Err(ConfigError::BaseUrl(_))),
                "{base_url}"
            );
        }
        let new = |token: &str, secret: &str| {
            let url = "https://api.example";
            ApiConfig::new(url, url, Secret::new(token), Secret::new(secret), &[])
        };
        assert_eq!(new(" ", "k").expect_err("empty"), ConfigError::Token);
        assert_eq!(new("t", "").expect_err("empty"), ConfigError::WebhookSecret);
    }

    #[tokio::test]
    async fn a_call_goes_below_the_base_url_with_the_token() {
        let client = Scripted::default().answer(200, "{}");
        let sent = client.sent();
        let path = ["docs", "a/b"];
        let call = Call::get(&path).query(&[("filter[name]", "a b&c")]);
        api(client).tell(call).await.expect("well");
        let sent = sent.lock().expect("not poisoned");
        assert_eq!(
            sent[0].url,
            "https://api.example/base/docs/a%2Fb?filter%5Bname%5D=a+b%26c"
        );
        assert!(
            sent[0]
                .headers
                .contains(&("authorization", "t0ken".to_owned()))
        );
        assert!(!format!("{:?}", sent[0]).contains("t0ken"));
    }

    #[tokio::test]
    async fn an_answer_is_judged_by_its_status_and_by_whether_a_repeat_does_harm() {
        use ProviderError as E;
        assert!(matches!(failure(401, true).await, E::Unauthorized(_)));
        assert!(matches!(failure(402, true).await, E::Unpaid(_)));
        assert!(matches!(failure(403, false).await, E::Forbidden(_)));
        assert!(matches!(failure(410, true).await, E::NotFound(_)));
        assert!(matches!(failure(422, true).await, E::Refused(_)));
        assert!(matches!(failure(302, true).await, E::Refused(_)));
        assert!(matches!(failure(503, true).await, E::Unavailable(_)));
        assert!(matches!(failure(500, true).await, E::Unknown(_)));
        assert!(matches!(failure(504, false).await, E::Unavailable(_)));
        let E::NotFound(tech) = failure(404, false).await else {
            panic!("not found")
        };
        assert_eq!(tech, "POST /docs: 404 no <b>***</b> ***");
    }

    #[tokio::test]
    async fn what_the_signers_cannot_mend_is_not_put_down_to_them() {
        for (status, action) in [
            (401, "update_api_key"),
            (402, "add_credits"),
            (403, "update_api_key"),
            (404, "reconnect_provider"),
            (422, "fix_signers"),
        ] {
            let failure = failure(status, true).await.into_failure("zapsign", "Sign");
            let known = ActionCatalogue::default();
            let actions = known.for_error(&failure.context, Domain::Signature, None);
            assert_eq!(actions[0].action, action, "{status}");
            let human = failure.context.human.render(Locale::En);
            assert_eq!(human.contains("the signers"), status == 422, "{human}");
        }
    }

    #[tokio::test]
    async fn what_is_no_answer_is_a_doubt_only_where_a_repeat_does_harm() {
        use ProviderError as E;
        let outcome = async |once: bool, error: HttpError| {
            let path = ["docs"];
            let mut call = Call::send(Method::Post, &path, json!({}));
            call.once = once;
            let api = api(Scripted::default().fail(error));
            api.tell(call).await.expect_err("a failure").error
        };
        let [down, late, cut] = [
            HttpError::Unreachable("dns".to_owned()),
            HttpError::TimedOut("15 s".to_owned()),
            HttpError::Broken("reset".to_owned()),
        ];
        assert!(matches!(outcome(true, down).await, E::Unavailable(_)));
        assert!(matches!(outcome(true, late.clone()).await, E::Unknown(_)));
        assert!(matches!(outcome(false, late).await, E::TimedOut(_)));
        assert!(matches!(outcome(true, cut.clone()).await, E::Unknown(_)));
        assert!(matches!(outcome(false, cut).await, E::Unavailable(_)));
        let garbage = api(Scripted::default().answer(200, "<html>"));
        let path = ["docs"];
        let read = garbage.call::<Value>(Call::get(&path)).await;
        assert!(matches!(
            read.expect_err("garbage").error,
            E::Unavailable(_)
        ));
    }

    #[tokio::test]
    async fn documents_come_from_known_hosts_only_and_without_the_token() {
        for link in [
            "http://files.example/x",
            "https://evil.example/x",
            "https://notfiles.example/x",
            "https://files.example.evil.example/x",
            "https://169.254.169.254/x",
            "nothing",
        ] {
            let refused = api(Scripted::default()).download(link).await;
            assert!(matches!(refused, Err(ProviderError::Refused(_))), "{link}");
        }
        for link in [
            "https://files.example/x?sig=1",
            "https://eu.files.example/x",
            "https://api.example/x",
        ] {
            let client = Scripted::default().answer(200, "%PDF-1.7");
            let sent = client.sent();
            let document = api(client).download(link).await.expect(link);
            assert_eq!(document, b"%PDF-1.7");
            assert!(sent.lock().expect("not poisoned")[0].headers.is_empty());
        }
    }

    #[tokio::test]
    async fn what_is_no_pdf_is_not_kept_for_one() {
        let page = api(Scripted::default().answer(200, "<html>"));
        let read = page.download("https://files.example/x").await;
        assert!(
            matches!(read, Err(ProviderError::Unavailable(_))),
            "{read:?}"
        );
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        assert_eq!(wait_ms("120"), Some(120_000));
        assert_eq!(wait_ms("Wed, 21 Oct 2015 07:28:00 GMT"), Some(0));
        assert_eq!(wait_ms("soon"), None);
        assert_eq!(wait_ms("99999999999999999999"), Some(LONGEST_WAIT_MS));
    }
}
