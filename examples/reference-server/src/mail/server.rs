//! The address of an SMTP server and its credentials.

use std::{fmt, time::Duration};

use lettre::transport::smtp::authentication::Credentials;
use url::Url;

use super::{MailError, wire};

/// The reason why a text is not an SMTP URL. It quotes nothing of the text, which may hold a password.
#[derive(Debug, thiserror::Error)]
#[error(
    "an SMTP URL is smtp://[user:password@]host[:port][?tls=required|opportunistic|none] or smtps://…: {0}"
)]
pub struct SmtpUrlError(String);

/// The encryption of the connection to an SMTP server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encryption {
    /// TLS from the first byte on.
    Wrapped,
    /// STARTTLS. If the server does not offer it, no mail is sent.
    Required,
    /// STARTTLS if the server offers it.
    Opportunistic,
    None,
}

/// An SMTP server.
#[derive(Clone)]
pub struct SmtpServer {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) encryption: Encryption,
    pub(super) credentials: Option<Credentials>,
    /// The time limit for one command and its answer.
    pub(super) timeout: Duration,
}

impl fmt::Debug for SmtpServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SmtpServer({}:{})", self.host, self.port)
    }
}

impl SmtpServer {
    /// Reads an SMTP URL. If it has a password, the connection must be encrypted, unless the URL's parameter
    /// `tls` says otherwise.
    ///
    /// # Errors
    ///
    /// If the text is not an SMTP URL.
    pub fn from_text(text: &str) -> Result<Self, SmtpUrlError> {
        let url = Url::parse(text.trim());
        Self::from_url(&url.map_err(|e| SmtpUrlError(e.to_string()))?)
    }

    /// As [`from_text`](Self::from_text), for a parsed URL.
    ///
    /// # Errors
    ///
    /// If the URL is not that of a mail server.
    pub fn from_url(url: &Url) -> Result<Self, SmtpUrlError> {
        let error = |why: &str| SmtpUrlError(why.to_owned());
        let wrapped = match url.scheme() {
            "smtp" => false,
            "smtps" => true,
            _ => return Err(error("the scheme is another one")),
        };
        let host = url.host_str().filter(|host| !host.is_empty());
        let host = host.ok_or_else(|| error("there is no host"))?;
        let text = |encoded: &str| {
            let mut pairs = url::form_urlencoded::parse(encoded.as_bytes());
            // Keep a `+` in a user name or password: the form decoder would read it as a space.
            pairs.next().map(|(name, _)| name.into_owned())
        };
        let credentials = match (url.username(), url.password()) {
            ("", None) => None,
            (user, Some(password)) => {
                let decode = |part: &str| text(&part.replace('+', "%2B")).unwrap_or_default();
                Some(Credentials::new(decode(user), decode(password)))
            }
            (_, None) => return Err(error("a user without a password")),
        };
        let mut encryption = match (wrapped, credentials.is_some()) {
            (true, _) => Encryption::Wrapped,
            (false, true) => Encryption::Required,
            (false, false) => Encryption::Opportunistic,
        };
        for (name, value) in url.query_pairs() {
            encryption = match (&*name, &*value) {
                ("tls", "required") if !wrapped => Encryption::Required,
                ("tls", "opportunistic") if !wrapped => Encryption::Opportunistic,
                ("tls", "none") if !wrapped => Encryption::None,
                ("tls", _) => return Err(error("that value of tls does not go with the scheme")),
                _ => return Err(error("it has a parameter other than tls")),
            };
        }
        let port = url.port().unwrap_or(match encryption {
            Encryption::Wrapped => 465,
            _ if credentials.is_some() => 587,
            _ => 25,
        });
        Ok(Self {
            host: host.trim_matches(['[', ']']).to_owned(),
            port,
            encryption,
            credentials,
            timeout: Duration::from_secs(20),
        })
    }

    /// The host and port.
    #[must_use]
    pub fn address(&self) -> (&str, u16) {
        (&self.host, self.port)
    }

    /// Connects and signs in, and sends no mail.
    ///
    /// # Errors
    ///
    /// The errors that [`deliver`](super::Mailer::deliver) may return before the message is sent.
    pub async fn greet(&self) -> Result<(), MailError> {
        wire::greet(self).await
    }

    /// Sets the time limit for one command and its answer.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }
}
