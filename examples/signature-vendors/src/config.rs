use docg_core::signature::Secret;
use url::{Host, Url};

/// A vendor's address, the token for calls of its API, and the secrets that prove its webhooks.
#[derive(Debug, Clone)]
pub(crate) struct ApiConfig {
    pub(crate) base_url: Url,
    pub(crate) token: Secret,
    /// The secrets that prove a webhook's origin. There is at least one.
    pub(crate) webhook_secrets: Vec<Secret>,
    /// Documents are downloaded from these hosts and their subdomains, and from the base URL's host.
    pub(crate) download_hosts: Vec<String>,
}

/// The reason why a vendor's account cannot be used as configured.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The base URL is not a URL, or would send the token unencrypted.
    #[error(
        "the base URL must begin with https:// (or http:// for this machine alone), such as {0}"
    )]
    BaseUrl(&'static str),
    /// The token is empty.
    #[error("the API token is empty")]
    Token,
    /// The webhook secret is empty, so that anybody could forge webhooks.
    #[error("the webhook secret is empty")]
    WebhookSecret,
}

impl ApiConfig {
    /// Checks the values of an account. `example` is a valid base URL for the error's text.
    pub(crate) fn new(
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
        // Values from a file or an environment often end with a line break.
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

    /// Also accepts webhooks that are proven by this secret.
    pub(crate) fn accept_webhooks_of(&mut self, secret: Secret) -> Result<(), ConfigError> {
        let secret = Secret::new(secret.expose().trim());
        if secret.expose().is_empty() {
            return Err(ConfigError::WebhookSecret);
        }
        self.webhook_secrets.push(secret);
        Ok(())
    }

    /// Allows downloads of documents from this host and its subdomains.
    pub(crate) fn allow_downloads_from(&mut self, host: &str) {
        self.download_hosts.push(host.to_ascii_lowercase());
    }
}

/// True if no third party can read a request to this URL on its way.
fn is_protected(url: &Url) -> bool {
    match (url.scheme(), url.host()) {
        ("https", Some(_)) => true,
        ("http", Some(Host::Ipv4(ip))) => ip.is_loopback(),
        ("http", Some(Host::Ipv6(ip))) => ip.is_loopback(),
        ("http", Some(Host::Domain(name))) => name == "localhost",
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_never_sent_unencrypted() {
        let config = |base_url: &str| {
            let (token, secret) = (Secret::new("t0ken\n"), Secret::new("k3y"));
            ApiConfig::new(base_url, "https://api.example", token, secret, &[])
        };
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
    }

    #[test]
    fn an_empty_token_or_webhook_secret_is_refused() {
        let new = |token: &str, secret: &str| {
            let url = "https://api.example";
            ApiConfig::new(url, url, Secret::new(token), Secret::new(secret), &[])
        };
        assert_eq!(new(" ", "k").expect_err("empty"), ConfigError::Token);
        assert_eq!(new("t", "").expect_err("empty"), ConfigError::WebhookSecret);
    }
}
