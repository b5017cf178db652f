//! The mails with the signers' links.

use docg_core::{address::Address, i18n::Locale, signature::NewSigner};
use tokio_util::sync::CancellationToken;

use super::{Desk, envelope::Envelope, link::SignerRef, texts};
use crate::mail::{Mail, MailError};

/// The occasion of a mail to a signer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Occasion {
    Invitation,
    /// A reminder with its number. The first reminder has number 1.
    Reminder(u64),
}

impl Desk {
    /// Sends a signer their link. The same mail is never sent twice, even if its outcome is unknown. Returns
    /// true if the mail is known to be accepted.
    pub(super) async fn write_to(
        &self,
        envelope: &Envelope,
        signer: &NewSigner,
        occasion: Occasion,
    ) -> Result<bool, MailError> {
        let address: Address = signer
            .email
            .parse()
            .map_err(|e| MailError::Unwritable(format!("{:?}: {e}", signer.email)))?;
        // An envelope of an older version may have a name that no mail can carry: names were not checked.
        let name = signer.name.as_deref();
        let address = address.clone().named(name).unwrap_or(address);
        let reference = SignerRef::new(&envelope.id, &signer.email);
        let occasion_name = match occasion {
            Occasion::Invitation => "invitation".to_owned(),
            Occasion::Reminder(number) => format!("reminder-{number}"),
        };
        let link = self.link(&reference);
        let (subject, body) = texts::invitation(envelope, signer, &link, occasion);
        let mail = Mail {
            // The key contains the document's hash: if a person has corrected the document, a new mail goes
            // out.
            key: format!(
                "builtin/{}/{}/{occasion_name}",
                reference.record_name(),
                envelope.document.sha256
            ),
            to: vec![address],
            cc: Vec::new(),
            subject,
            body,
            attachments: Vec::new(),
        };
        let never = CancellationToken::new();
        self.0.mailer.deliver_at_most_once(&mail, &never).await
    }

    fn link(&self, signer: &SignerRef) -> String {
        let base = self.0.public_url.as_str().trim_end_matches('/');
        format!("{base}/sign/{}", signer.token(&self.0.secret))
    }
}

/// The language of mails to the signers of a document.
pub(super) fn language_of(envelope: &Envelope) -> Locale {
    let language = envelope.document.language.as_deref();
    language
        .and_then(|tag| tag.parse().ok())
        .unwrap_or_default()
}
