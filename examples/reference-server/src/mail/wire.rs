//! Talks to the SMTP server (RFC 5321), command by command: the command that failed decides whether the
//! server may have accepted the mail.

use std::{future::Future, time::Duration};

use lettre::{
    address::Envelope,
    transport::smtp::{
        self,
        authentication::DEFAULT_MECHANISMS,
        client::{AsyncSmtpConnection, TlsParameters},
        commands::{Data, Mail, Rcpt},
        extension::{ClientId, Extension, MailBodyParameter, MailParameter},
        response::{Category, Detail},
    },
};

use super::{
    MailError, RefusedRecipient,
    server::{Encryption, SmtpServer},
};

/// A connection whose server has accepted sender and recipients and awaits the message.
pub(super) struct Ready {
    connection: AsyncSmtpConnection,
    timeout: Duration,
}

/// Connects, signs in, and names the sender and the recipients. If the future fails or is dropped, no message
/// was sent.
pub(super) async fn prepare(
    server: &SmtpServer,
    envelope: &Envelope,
    message: &[u8],
) -> Result<Ready, MailError> {
    let mut connection = connect(server).await?;
    let supports = |connection: &AsyncSmtpConnection, extension| {
        connection.server_info().supports_feature(extension)
    };
    let mut options = Vec::new();
    if !message.is_ascii() && supports(&connection, Extension::EightBitMime) {
        options.push(MailParameter::Body(MailBodyParameter::EightBitMime));
    }
    let sender = connection.command(Mail::new(envelope.from().cloned(), options));
    within(server.timeout, sender).await?.map_err(|e| {
        answer(&e, |reply| MailError::Sender {
            address: envelope.from().map(ToString::to_string).unwrap_or_default(),
            reply,
        })
    })?;
    let (mut refused, mut later) = (Vec::new(), None);
    for address in envelope.to() {
        let recipient = connection.command(Rcpt::new(address.clone(), Vec::new()));
        let Err(error) = within(server.timeout, recipient).await? else {
            continue;
        };
        let malformed = error.status().is_some_and(|code| {
            code.category == Category::Syntax
                || (code.category == Category::MailSystem && code.detail == Detail::Three)
        });
        let refusal = |reply| {
            MailError::Recipients(vec![RefusedRecipient {
                address: address.to_string(),
                malformed,
                reply,
            }])
        };
        match answer(&error, refusal) {
            // Go on to the next recipient, so that the error names all rejected recipients.
            MailError::Recipients(one) => refused.extend(one),
            asked @ MailError::Later(_) => later = later.or(Some(asked)),
            other => return Err(other),
        }
    }
    if !refused.is_empty() {
        return Err(MailError::Recipients(refused));
    }
    if let Some(later) = later {
        return Err(later);
    }
    Ok(Ready {
        connection,
        timeout: server.timeout,
    })
}

/// Connects and signs in, as before a mail, and then disconnects without sending one.
pub(super) async fn greet(server: &SmtpServer) -> Result<(), MailError> {
    let mut connection = connect(server).await?;
    // Ignore an error of QUIT: the sign-in has succeeded.
    let _ = within(Duration::from_secs(1), connection.quit()).await;
    Ok(())
}

async fn connect(server: &SmtpServer) -> Result<AsyncSmtpConnection, MailError> {
    let unreachable = |e: smtp::Error| MailError::Unreachable(full_text(&e));
    let tls = || TlsParameters::new(server.host.clone()).map_err(unreachable);
    let wrapped = match server.encryption {
        Encryption::Wrapped => Some(tls()?),
        _ => None,
    };
    let hello = ClientId::default();
    let connecting = AsyncSmtpConnection::connect_tokio1(
        (server.host.as_str(), server.port),
        Some(server.timeout),
        &hello,
        wrapped,
        None,
    );
    let connected = within(server.timeout, connecting).await?;
    let mut connection = connected.map_err(|e| match e.status() {
        Some(_) => answer(&e, MailError::Refused),
        None => unreachable(e),
    })?;
    let encrypt = match server.encryption {
        Encryption::Required => true,
        Encryption::Opportunistic => connection.can_starttls(),
        Encryption::Wrapped | Encryption::None => false,
    };
    if encrypt {
        let starting = connection.starttls(tls()?, &hello);
        within(server.timeout, starting)
            .await?
            .map_err(unreachable)?;
    }
    if let Some(credentials) = &server.credentials {
        let signing_in = connection.auth(DEFAULT_MECHANISMS, credentials);
        within(server.timeout, signing_in)
            .await?
            .map_err(|e| match e.status() {
                // The server offers no way to sign in that this client supports.
                None if e.is_client() => MailError::SignIn(full_text(&e)),
                _ => answer(&e, MailError::SignIn),
            })?;
    }
    Ok(connection)
}

impl Ready {
    /// Sends the message. From here on, the outcome is unknown until the server answers.
    pub(super) async fn hand_over(mut self, message: &[u8]) -> Result<(), MailError> {
        let begin = self.connection.command(Data);
        // After an error of DATA the mail was not accepted: the server has nothing of the message yet.
        within(self.timeout, begin)
            .await?
            .map_err(|e| answer(&e, MailError::Refused))?;
        let sending = self.connection.message(message);
        // Large mails take long to transfer, and servers may scan them before they answer.
        let sent = tokio::time::timeout(self.timeout * 6, sending).await;
        match sent {
            Ok(Ok(_)) => {
                // Ignore an error of QUIT: the mail is accepted.
                let _ = within(Duration::from_secs(2), self.connection.quit()).await;
                Ok(())
            }
            Ok(Err(e)) if e.is_permanent() || e.is_transient() => {
                Err(answer(&e, MailError::Refused))
            }
            Ok(Err(e)) => Err(MailError::Unknown(full_text(&e))),
            Err(_) => Err(MailError::Unknown("no answer to the message".to_owned())),
        }
    }
}

async fn within<T>(limit: Duration, work: impl Future<Output = T>) -> Result<T, MailError> {
    let timed = tokio::time::timeout(limit, work).await;
    timed.map_err(|_| MailError::Unreachable(format!("no answer within {} s", limit.as_secs())))
}

/// Converts an error of the SMTP client. Without an answer, the server is unreachable. A temporary answer
/// asks to try again later. A permanent answer about the sign-in, a size or a quota has its own error;
/// `refusal` makes the error for any other permanent answer.
fn answer(error: &smtp::Error, refusal: impl FnOnce(String) -> MailError) -> MailError {
    let reply = error.to_string();
    match error.status().map(|code| code.to_string()) {
        None => MailError::Unreachable(full_text(error)),
        Some(_) if !error.is_permanent() => MailError::Later(reply),
        Some(code) => match (&*code, enhanced(&reply)) {
            ("530" | "534" | "535" | "538", _) => MailError::SignIn(reply),
            (_, "5.3.4" | "5.2.3") | ("552", "") => MailError::TooLarge(reply),
            // Not 5.2.2: a full mailbox is the recipient's problem.
            (_, "5.4.5" | "5.7.28") => MailError::Quota(reply),
            _ => refusal(reply),
        },
    }
}

/// The enhanced status code at the start of a reply (RFC 2034). Empty if there is none.
fn enhanced(reply: &str) -> &str {
    let text = reply.split_once(": ").map_or("", |(_, text)| text);
    let code = text.split([' ', '\n']).next().unwrap_or_default();
    let is_code = code.split('.').count() == 3
        && code
            .bytes()
            .all(|byte| byte == b'.' || byte.is_ascii_digit());
    if is_code { code } else { "" }
}

/// The text of an error with its causes: lettre's own text does not name the cause.
fn full_text(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}
