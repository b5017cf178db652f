//! Sends each mail once.
//!
//! Each mail has a key; the mail's Message-ID and the names of its notes are derived from the key. With an
//! SMTP server (`wire`), the intent is noted just before the message itself goes out, and the acceptance
//! after the server has accepted the message. After a crash the notes show the mail's state: accepted, not
//! sent, or - if only the intent is noted - unknown. Without an SMTP server, mails become `.eml` files
//! (`folder`), and the file itself is the note.

mod folder;
mod message;
mod server;
mod wire;

use std::{collections::HashSet, path::PathBuf, sync::Arc};

use docg_core::address::{Address, AddressKey};
use lettre::{address::Envelope, message::header::ContentType};
use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;

pub use self::server::{SmtpServer, SmtpUrlError};
use crate::files::{Files, FilesError, RecordKind};

/// A mail to send.
#[derive(Debug, Clone)]
pub struct Mail {
    /// The identity of the mail. Mails with the same key are one mail, which is sent once.
    pub key: String,
    /// The recipients.
    pub to: Vec<Address>,
    /// The recipients of a copy.
    pub cc: Vec<Address>,
    /// The subject.
    pub subject: String,
    /// The text.
    pub body: String,
    /// The attachments.
    pub attachments: Vec<Attachment>,
}

impl Mail {
    /// The recipients and the recipients of a copy, each mailbox once, however its address is spelled.
    fn recipients(&self) -> (Vec<&Address>, Vec<&Address>) {
        let mut seen: HashSet<AddressKey> = HashSet::new();
        let to = self.to.iter().filter(|it| seen.insert(it.key())).collect();
        let cc = self.cc.iter().filter(|it| seen.insert(it.key())).collect();
        (to, cc)
    }

    /// The addresses of all recipients, as a mail server gets them.
    fn accepted(&self) -> Vec<String> {
        let (to, cc) = self.recipients();
        let everybody = to.into_iter().chain(cc);
        everybody.map(|it| it.ascii().to_owned()).collect()
    }
}

/// An attached file.
#[derive(Debug, Clone)]
pub struct Attachment {
    /// The file name.
    pub filename: String,
    /// The media type.
    pub content_type: ContentType,
    /// The content.
    pub content: bytes::Bytes,
}

/// The record of a mail that was accepted.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Receipt {
    /// The Message-ID, with the angle brackets.
    pub message_id: String,
    /// The addresses that the mail was accepted for.
    pub accepted: Vec<String>,
}

/// The state of a mail, as its notes show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The mail was accepted.
    Accepted(Receipt),
    /// The mail was not handed to a mail server.
    NotSent,
    /// The message may have gone out, but no answer of the mail server was noted.
    Unknown,
}

/// The reason why a mail was not accepted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MailError {
    /// The mail cannot be put together.
    #[error("the mail cannot be written: {0}")]
    Unwritable(String),
    /// The server cannot be reached, or closed the connection before it had the message.
    #[error("the mail server cannot be reached: {0}")]
    Unreachable(String),
    /// The server asks to try again later.
    #[error("the mail server asks to try again later: {0}")]
    Later(String),
    /// The server rejects these recipients.
    #[error("the mail server refuses {}", list(.0))]
    Recipients(Vec<RefusedRecipient>),
    /// The server rejects mail from this sender.
    #[error("the mail server refuses the sender {address}: {reply}")]
    Sender {
        /// The sender's address.
        address: String,
        /// The server's reply.
        reply: String,
    },
    /// The mail is larger than the server accepts.
    #[error("the mail is too large for the mail server: {0}")]
    TooLarge(String),
    /// A quota of the server for sending or storing mail is used up.
    #[error("a quota of the mail server is used up: {0}")]
    Quota(String),
    /// The server rejects this mail.
    #[error("the mail server refuses the mail: {0}")]
    Refused(String),
    /// The server rejects the sign-in.
    #[error("the mail server refuses the sign-in: {0}")]
    SignIn(String),
    /// The caller stopped the delivery before the message went out.
    #[error("stopped before the mail was handed over")]
    Stopped,
    /// The connection failed after the message had gone out. The outcome is unknown.
    #[error("whether the mail server took the mail is unknown: {0}")]
    Unknown(String),
    /// The notes or the `.eml` file could not be written.
    #[error(transparent)]
    Files(#[from] FilesError),
}

/// A recipient that a mail server refuses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedRecipient {
    /// The address.
    pub address: String,
    /// True if the server says that the address is malformed.
    pub malformed: bool,
    /// The server's reply.
    pub reply: String,
}

fn list(refused: &[RefusedRecipient]) -> String {
    let each = refused
        .iter()
        .map(|it| format!("{}: {}", it.address, it.reply));
    each.collect::<Vec<_>>().join("; ")
}

/// Sends mail. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Mailer(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    from: Address,
    files: Files,
    route: Route,
}

#[derive(Debug)]
enum Route {
    Folder(PathBuf),
    Server(SmtpServer),
}

impl Mailer {
    /// Sends mail through an SMTP server; the notes go to `files`.
    #[must_use]
    pub fn smtp(server: SmtpServer, from: Address, files: Files) -> Self {
        Self::new(Route::Server(server), from, files)
    }

    /// Writes mail as `.eml` files into a folder, which is created if it is missing.
    #[must_use]
    pub fn folder(folder: PathBuf, from: Address, files: Files) -> Self {
        Self::new(Route::Folder(folder), from, files)
    }

    fn new(route: Route, from: Address, files: Files) -> Self {
        Self(Arc::new(Inner { from, files, route }))
    }

    /// Sends a mail, unless it was accepted before. `stop` ends the delivery, but only before the message
    /// itself goes out.
    ///
    /// # Errors
    ///
    /// [`MailError::Unknown`] if the mail may have been accepted. After any other error it was not accepted.
    pub async fn deliver(
        &self,
        mail: &Mail,
        stop: &CancellationToken,
    ) -> Result<Receipt, MailError> {
        if let Outcome::Accepted(receipt) = self.outcome(&mail.key).await? {
            return Ok(receipt);
        }
        let name = note_name(&mail.key);
        let receipt = Receipt {
            message_id: self.message_id(&name),
            accepted: mail.accepted(),
        };
        let to_folder = matches!(self.0.route, Route::Folder(_));
        let message = message::write(mail, &self.0.from, &receipt.message_id, to_folder)?;
        match &self.0.route {
            Route::Folder(folder) => {
                folder::put(folder, &name, message).await?;
            }
            Route::Server(server) => {
                let envelope = message::envelope(&self.0.from, mail)?;
                self.converse(server, &name, &envelope, &message, stop)
                    .await?;
                self.note_accepted(&name, &receipt).await;
            }
        }
        Ok(receipt)
    }

    /// As [`deliver`](Self::deliver), for a mail that its recipient can ask the sender to send again.
    ///
    /// If the outcome is unknown, now or from an earlier attempt, the mail counts as sent, so that nobody
    /// gets it twice. Returns true if the mail is known to be accepted.
    ///
    /// # Errors
    ///
    /// As [`deliver`](Self::deliver), without [`MailError::Unknown`].
    pub async fn deliver_at_most_once(
        &self,
        mail: &Mail,
        stop: &CancellationToken,
    ) -> Result<bool, MailError> {
        let why = match self.outcome(&mail.key).await? {
            Outcome::Accepted(_) => return Ok(true),
            Outcome::Unknown => "an earlier attempt ended without an answer".to_owned(),
            Outcome::NotSent => match self.deliver(mail, stop).await {
                Err(MailError::Unknown(why)) => why,
                sent => return sent.map(|_| true),
            },
        };
        let message_id = self.message_id(&note_name(&mail.key));
        tracing::warn!(
            message_id,
            "a mail counts as sent, though its outcome is unknown: {why}"
        );
        Ok(false)
    }

    /// Reads the state of the mail with this key.
    ///
    /// # Errors
    ///
    /// If the notes cannot be read.
    pub async fn outcome(&self, key: &str) -> Result<Outcome, FilesError> {
        let name = note_name(key);
        match &self.0.route {
            Route::Folder(folder) => Ok(match folder::recipients(folder, &name).await? {
                Some(accepted) => Outcome::Accepted(Receipt {
                    message_id: self.message_id(&name),
                    accepted,
                }),
                None => Outcome::NotSent,
            }),
            Route::Server(_) => {
                let files = &self.0.files;
                if let Some(receipt) = files.record(RecordKind::MailSent, &name).await? {
                    return Ok(Outcome::Accepted(receipt));
                }
                let intent: Option<serde_json::Value> =
                    files.record(RecordKind::MailIntent, &name).await?;
                Ok(intent.map_or(Outcome::NotSent, |_| Outcome::Unknown))
            }
        }
    }

    async fn converse(
        &self,
        server: &SmtpServer,
        name: &str,
        envelope: &Envelope,
        message: &[u8],
        stop: &CancellationToken,
    ) -> Result<(), MailError> {
        let files = &self.0.files;
        let ready = tokio::select! {
            ready = wire::prepare(server, envelope, message) => ready?,
            () = stop.cancelled() => return Err(MailError::Stopped),
        };
        let intent = serde_json::json!({"at": docg_core::time::Timestamp::now()});
        files
            .put_record(RecordKind::MailIntent, name, &intent)
            .await?;
        let result = ready.hand_over(message).await;
        if !matches!(result, Ok(()) | Err(MailError::Unknown(_))) {
            // The server certainly did not accept the mail, so delete the note of the intent. If that fails,
            // a person is asked needlessly, which is better than sending a mail twice.
            files.delete_record(RecordKind::MailIntent, name).await?;
        }
        result
    }

    /// Notes that a mail was accepted. If that fails, it is only logged, because the mail has been sent.
    async fn note_accepted(&self, name: &str, receipt: &Receipt) {
        let files = &self.0.files;
        let noted = files.put_record(RecordKind::MailSent, name, receipt).await;
        let noted = match noted {
            Ok(()) => files.delete_record(RecordKind::MailIntent, name).await,
            Err(e) => Err(e),
        };
        if let Err(e) = noted {
            tracing::warn!(
                message_id = receipt.message_id,
                "a sent mail was not noted: {e}"
            );
        }
    }

    fn message_id(&self, name: &str) -> String {
        format!("<{}@{}>", &name[..40], self.0.from.parts().1)
    }
}

/// The name of a mail's notes. Its first 40 digits are in the Message-ID.
fn note_name(key: &str) -> String {
    let mut hasher = Sha256::new();
    hasher.update(b"docg.mail.v1\0");
    hasher.update(key);
    hex::encode(hasher.finalize())
}

#[cfg(test)]
mod tests;
