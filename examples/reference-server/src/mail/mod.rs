//! Mail that is handed over once.
//!
//! Each mail has a key; its Message-ID and the names of its notes follow from it. By SMTP, `wire` is
//! asked to note the intent just before the message itself goes out, and the acceptance is noted
//! after the server has taken it. So whoever comes after a crash can tell: accepted, not sent, or -
//! between the two notes - unknown. Without an SMTP server, mails become `.eml` files (`folder`),
//! and the file itself is the note.

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

/// A mail that is to go out.
#[derive(Debug, Clone)]
pub struct Mail {
    /// Names it: the same key is the same mail.
    pub key: String,
    /// Who it is for.
    pub to: Vec<Address>,
    /// Who gets a copy.
    pub cc: Vec<Address>,
    /// The subject.
    pub subject: String,
    /// The text.
    pub body: String,
    /// What comes with it.
    pub attachments: Vec<Attachment>,
}

impl Mail {
    /// Who the mail is for and who gets a copy, each mailbox once.
    fn recipients(&self) -> (Vec<&Address>, Vec<&Address>) {
        let mut seen: HashSet<AddressKey> = HashSet::new();
        let to = self.to.iter().filter(|it| seen.insert(it.key())).collect();
        let cc = self.cc.iter().filter(|it| seen.insert(it.key())).collect();
        (to, cc)
    }

    /// The addresses that a mail server is given.
    fn accepted(&self) -> Vec<String> {
        let (to, cc) = self.recipients();
        let everybody = to.into_iter().chain(cc);
        everybody.map(|it| it.ascii().to_owned()).collect()
    }
}

/// A file in a mail.
#[derive(Debug, Clone)]
pub struct Attachment {
    /// What it is called.
    pub filename: String,
    /// What it is.
    pub content_type: ContentType,
    /// The file.
    pub content: bytes::Bytes,
}

/// What is known of a mail that was accepted.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Receipt {
    /// Its Message-ID, with the angle brackets.
    pub message_id: String,
    /// The addresses that it was accepted for.
    pub accepted: Vec<String>,
}

/// What became of a mail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It was accepted.
    Accepted(Receipt),
    /// It was not handed over.
    NotSent,
    /// The message went out, and no answer was noted.
    Unknown,
}

/// Why a mail was not accepted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MailError {
    /// The mail cannot be put together.
    #[error("the mail cannot be written: {0}")]
    Unwritable(String),
    /// The server cannot be reached, or went away before it had the message.
    #[error("the mail server cannot be reached: {0}")]
    Unreachable(String),
    /// It answered that it cannot at the moment.
    #[error("the mail server asks to try again later: {0}")]
    Later(String),
    /// It does not take this address.
    #[error("the mail server refuses the recipient {address}: {reply}")]
    Recipient {
        /// Which one.
        address: String,
        /// Whether it does not count as an address at all.
        malformed: bool,
        /// What the server said.
        reply: String,
    },
    /// It does not take this mail.
    #[error("the mail server refuses the mail: {0}")]
    Refused(String),
    /// It does not accept who we are.
    #[error("the mail server refuses the sign-in: {0}")]
    SignIn(String),
    /// We were told to stop before the message went out.
    #[error("stopped before the mail was handed over")]
    Stopped,
    /// It broke off after the message had gone out.
    #[error("whether the mail server took the mail is unknown: {0}")]
    Unknown(String),
    /// The notes or the `.eml` file could not be written.
    #[error(transparent)]
    Files(#[from] FilesError),
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
    /// Hands mail to an SMTP server; the notes go to `files`.
    #[must_use]
    pub fn smtp(server: SmtpServer, from: Address, files: Files) -> Self {
        Self::new(Route::Server(server), from, files)
    }

    /// Writes mail as `.eml` files into a folder, which is made where there is none.
    #[must_use]
    pub fn folder(folder: PathBuf, from: Address, files: Files) -> Self {
        Self::new(Route::Folder(folder), from, files)
    }

    fn new(route: Route, from: Address, files: Files) -> Self {
        Self(Arc::new(Inner { from, files, route }))
    }

    /// Hands a mail over, unless that has been done before. `stop` is heeded until the message
    /// itself goes out.
    ///
    /// # Errors
    ///
    /// [`MailError::Unknown`] where it may have been accepted; after every other error it was not.
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

    /// As [`deliver`](Self::deliver), for mail that people can ask for again: it counts as sent where
    /// its outcome is unknown, now or from an earlier attempt. Nobody gets it twice. Returns whether
    /// it is known that it was accepted.
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

    /// What became of the mail with this key.
    ///
    /// # Errors
    ///
    /// Where the notes cannot be read.
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
            // Refused for certain. Where the note stays behind, a person is asked in vain; that is
            // better than a mail that is sent twice.
            files.delete_record(RecordKind::MailIntent, name).await?;
        }
        result
    }

    /// The mail is out: that it could not be noted is no reason to say that it is not.
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

/// The name of a mail's notes; its first 40 digits are in the Message-ID.
fn note_name(key: &str) -> String {
    let mut hasher = Sha256::new();
    hasher.update(b"docg.mail.v1\0");
    hasher.update(key);
    hex::encode(hasher.finalize())
}

#[cfg(test)]
mod tests;
