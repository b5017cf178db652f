//! The conversation with the SMTP server (RFC 5321), command by command: which command an error
//! belongs to decides whether the mail may have been taken.

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
    MailError,
    server::{Encryption, SmtpServer},
};

/// A server that has accepted sender and recipients and awaits the message.
pub(super) struct Ready {
    connection: AsyncSmtpConnection,
    timeout: Duration,
}

/// Everything up to the message. Nothing has happened when this fails or is dropped.
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
    within(server.timeout, sender)
        .await?
        .map_err(|e| answer(&e))?;
    for address in envelope.to() {
        let recipient = connection.command(Rcpt::new(address.clone(), Vec::new()));
        within(server.timeout, recipient)
            .await?
            .map_err(|e| match e.status() {
                Some(code) if e.is_permanent() => MailError::Recipient {
                    address: address.to_string(),
                    malformed: code.category == Category::Syntax
                        || (code.category == Category::MailSystem && code.detail == Detail::Three),
                    reply: e.to_string(),
                },
                _ => answer(&e),
            })?;
    }
    Ok(Ready {
        connection,
        timeout: server.timeout,
    })
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
        Some(_) => answer(&e),
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
                Some(_) if e.is_permanent() => MailError::SignIn(e.to_string()),
                // The server offers no way to sign in.
                None if e.is_client() => MailError::SignIn(full_text(&e)),
                _ => answer(&e),
            })?;
    }
    Ok(connection)
}

impl Ready {
    /// Sends the message. From here on an answer is needed to know anything.
    pub(super) async fn hand_over(mut self, message: &[u8]) -> Result<(), MailError> {
        let begin = self.connection.command(Data);
        // Before the server has said that it is ready, it has nothing.
        within(self.timeout, begin).await?.map_err(|e| answer(&e))?;
        let sending = self.connection.message(message);
        // Large mails take their time on the way, and servers may scan them before they answer.
        let sent = tokio::time::timeout(self.timeout * 6, sending).await;
        match sent {
            Ok(Ok(_)) => {
                // It is accepted, however the goodbye goes.
                let _ = within(Duration::from_secs(2), self.connection.quit()).await;
                Ok(())
            }
            Ok(Err(e)) if e.is_permanent() => Err(MailError::Refused(e.to_string())),
            Ok(Err(e)) if e.is_transient() => Err(MailError::Later(e.to_string())),
            Ok(Err(e)) => Err(MailError::Unknown(full_text(&e))),
            Err(_) => Err(MailError::Unknown("no answer to the message".to_owned())),
        }
    }
}

async fn within<T>(limit: Duration, work: impl Future<Output = T>) -> Result<T, MailError> {
    let timed = tokio::time::timeout(limit, work).await;
    timed.map_err(|_| MailError::Unreachable(format!("no answer within {} s", limit.as_secs())))
}

/// What an error before the message means.
fn answer(error: &smtp::Error) -> MailError {
    if error.is_transient() {
        MailError::Later(error.to_string())
    } else if error.is_permanent() {
        MailError::Refused(error.to_string())
    } else {
        MailError::Unreachable(full_text(error))
    }
}

/// With what caused it: lettre's own text does not say who refused.
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
