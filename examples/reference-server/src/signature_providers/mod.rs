//! External signature providers: ClickSign and ZapSign, if the environment names an account. [`Accounts`]
//! reads the accounts, `client` makes the HTTP calls, and `documents` reads and stores the documents.

mod client;
mod documents;

use std::sync::Arc;

use docg_core::signature::{Secret, SignatureProvider};
use docg_signature_vendors::{
    ConfigError,
    clicksign::{ClickSign, ClickSignConfig},
    zapsign::{ZapSign, ZapSignConfig},
};

use crate::files::Files;

/// The reason why a provider's account cannot be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum AccountError {
    /// One of an account's two values is missing.
    #[error("{missing} is not set, and {given} is: an account needs both")]
    Missing {
        /// The variable that is not set.
        missing: String,
        /// The variable that is set.
        given: String,
    },
    /// A value is invalid.
    #[error("DOCG_{provider}_*: {source}")]
    Config {
        /// The provider, as it appears in the variables' names.
        provider: &'static str,
        /// The fault.
        source: ConfigError,
    },
}

/// The accounts at external signature providers that the environment names.
///
/// ClickSign's variables are `DOCG_CLICKSIGN_TOKEN`, `DOCG_CLICKSIGN_WEBHOOK_SECRET` and, for an unusual URL,
/// `DOCG_CLICKSIGN_BASE_URL`. ZapSign's have the same names with `ZAPSIGN`. While a webhook secret is being
/// changed at the provider, its variable holds the old and the new secret, separated by a comma. There are no
/// options for these values, because all users of a machine see command lines.
#[derive(Debug, Clone, Default)]
pub struct Accounts {
    clicksign: Option<ClickSignConfig>,
    zapsign: Option<ZapSignConfig>,
}

/// The values of one account.
struct Account {
    base_url: Option<String>,
    token: Secret,
    webhook_secret: Secret,
    other_webhook_secrets: Vec<Secret>,
}

impl Accounts {
    /// Reads the accounts from this process's environment.
    ///
    /// # Errors
    ///
    /// [`AccountError`] names the variable that is missing or wrong.
    pub fn from_env() -> Result<Self, AccountError> {
        Self::read(crate::options::variable)
    }

    fn read(value: impl Fn(&str) -> Option<String>) -> Result<Self, AccountError> {
        let mut accounts = Self::default();
        if let Some(account) = Account::read("CLICKSIGN", &value)? {
            let base_url = account.base_url.as_deref();
            let base_url = base_url.unwrap_or("https://app.clicksign.com");
            let config = ClickSignConfig::new(base_url, account.token, account.webhook_secret);
            let mut others = account.other_webhook_secrets.into_iter();
            let config = others.try_fold(config.map_err(of("CLICKSIGN"))?, |config, secret| {
                config.also_webhook_secret(secret)
            });
            accounts.clicksign = Some(config.map_err(of("CLICKSIGN"))?);
        }
        if let Some(account) = Account::read("ZAPSIGN", &value)? {
            let base_url = account.base_url.as_deref();
            let base_url = base_url.unwrap_or("https://api.zapsign.com.br");
            let config = ZapSignConfig::new(base_url, account.token, account.webhook_secret);
            let mut others = account.other_webhook_secrets.into_iter();
            let config = others.try_fold(config.map_err(of("ZAPSIGN"))?, |config, secret| {
                config.also_webhook_secret(secret)
            });
            accounts.zapsign = Some(config.map_err(of("ZAPSIGN"))?);
        }
        Ok(accounts)
    }

    /// Creates the providers of these accounts. Their documents are in the server's files.
    ///
    /// # Errors
    ///
    /// If the HTTP client cannot be created.
    pub fn providers(
        self,
        files: &Files,
    ) -> Result<Vec<Arc<dyn SignatureProvider>>, reqwest::Error> {
        let mut providers: Vec<Arc<dyn SignatureProvider>> = Vec::new();
        if self.clicksign.is_none() && self.zapsign.is_none() {
            return Ok(providers);
        }
        let client = Arc::new(client::Client::new()?);
        let documents = Arc::new(documents::FileDocuments::new(files.clone()));
        if let Some(config) = self.clicksign {
            let provider = ClickSign::new(config, client.clone(), documents.clone());
            providers.push(Arc::new(provider));
        }
        if let Some(config) = self.zapsign {
            providers.push(Arc::new(ZapSign::new(config, client, documents)));
        }
        Ok(providers)
    }
}

fn of(provider: &'static str) -> impl Fn(ConfigError) -> AccountError {
    move |source| AccountError::Config { provider, source }
}

impl Account {
    fn read(
        provider: &str,
        value: impl Fn(&str) -> Option<String>,
    ) -> Result<Option<Self>, AccountError> {
        let names = ["BASE_URL", "TOKEN", "WEBHOOK_SECRET"];
        let names = names.map(|name| format!("DOCG_{provider}_{name}"));
        // An empty value counts as unset, because some environments cannot remove a variable.
        let value = |name: &str| value(name).filter(|value| !value.trim().is_empty());
        let [base_url, token, webhook_secret] = [&names[0], &names[1], &names[2]].map(|n| value(n));
        let missing = |missing: &str, given: &str| AccountError::Missing {
            missing: missing.to_owned(),
            given: given.to_owned(),
        };
        match (token, webhook_secret) {
            (Some(token), Some(webhook_secrets)) => {
                let mut secrets = webhook_secrets.split(',').map(Secret::new);
                Ok(Some(Self {
                    base_url,
                    token: Secret::new(token),
                    webhook_secret: secrets.next().unwrap_or_else(|| Secret::new("")),
                    other_webhook_secrets: secrets.collect(),
                }))
            }
            (Some(_), None) => Err(missing(&names[2], &names[1])),
            (None, Some(_)) => Err(missing(&names[1], &names[2])),
            (None, None) if base_url.is_some() => Err(missing(&names[1], &names[0])),
            (None, None) => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Accounts, AccountError> {
        Accounts::read(|name| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    fn names(variables: &[(&str, &str)]) -> Vec<String> {
        crate::tls::prepare();
        let folder = tempfile::tempdir().unwrap();
        let files = Files::in_folder(folder.path()).unwrap();
        let providers = read(variables).unwrap().providers(&files).unwrap();
        providers.iter().map(|it| it.name().to_owned()).collect()
    }

    const CLICKSIGN: [(&str, &str); 2] = [
        ("DOCG_CLICKSIGN_TOKEN", "t"),
        ("DOCG_CLICKSIGN_WEBHOOK_SECRET", "s"),
    ];

    #[test]
    fn the_providers_are_those_whose_accounts_are_named() {
        assert!(names(&[]).is_empty());
        assert!(names(&[("DOCG_ZAPSIGN_TOKEN", " ")]).is_empty());
        assert_eq!(names(&CLICKSIGN), ["clicksign"]);
        let zapsign = [
            ("DOCG_ZAPSIGN_TOKEN", "t"),
            ("DOCG_ZAPSIGN_WEBHOOK_SECRET", "s"),
            (
                "DOCG_ZAPSIGN_BASE_URL",
                "https://sandbox.api.zapsign.com.br",
            ),
        ];
        let both = [&CLICKSIGN[..], &zapsign].concat();
        assert_eq!(names(&both), ["clicksign", "zapsign"]);
    }

    #[test]
    fn half_an_account_is_refused_by_the_name_of_what_is_missing() {
        for (given, missing) in [
            (CLICKSIGN[0], "DOCG_CLICKSIGN_WEBHOOK_SECRET is not set"),
            (CLICKSIGN[1], "DOCG_CLICKSIGN_TOKEN is not set"),
            (
                ("DOCG_ZAPSIGN_BASE_URL", "https://x.example"),
                "DOCG_ZAPSIGN_TOKEN is not set",
            ),
        ] {
            let refused = read(&[given]).unwrap_err().to_string();
            assert!(refused.starts_with(missing), "{refused}");
        }
        let insecure = ("DOCG_CLICKSIGN_BASE_URL", "http://app.clicksign.com");
        let refused = read(&[&CLICKSIGN[..], &[insecure]].concat()).unwrap_err();
        assert!(refused.to_string().contains("https://"), "{refused}");
    }

    #[test]
    fn two_webhook_secrets_stand_with_a_comma_between_and_none_is_empty() {
        let secrets = |text| read(&[CLICKSIGN[0], ("DOCG_CLICKSIGN_WEBHOOK_SECRET", text)]);
        assert!(secrets("old, new").is_ok());
        for broken in ["old,", ",new", "old, ,new"] {
            let refused = secrets(broken).unwrap_err().to_string();
            assert!(refused.contains("webhook secret is empty"), "{refused}");
        }
    }

    #[test]
    fn secrets_are_not_printed() {
        let variables = [
            ("DOCG_CLICKSIGN_TOKEN", "t0ken"),
            ("DOCG_CLICKSIGN_WEBHOOK_SECRET", "s3cret"),
        ];
        let shown = format!("{:?}", read(&variables).unwrap());
        assert!(
            !shown.contains("t0ken") && !shown.contains("s3cret"),
            "{shown}"
        );
    }
}
