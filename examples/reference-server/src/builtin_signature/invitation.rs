//! The mails with the links.

use docg_core::{address::Address, i18n::Locale, signature::NewSigner};
use tokio_util::sync::CancellationToken;

use super::{Desk, envelope::Envelope, link::SignerRef, texts};
use crate::mail::{Mail, MailError};

/// Which mail to a signer it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Occasion {
    Invitation,
    /// The first reminder is number 1.
    Reminder(u64),
}

impl Desk {
    /// Sends a signer their link. The same mail again does nothing, also where its outcome is unknown.
    /// Returns whether it is known that it was accepted.
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
        // Envelopes from before names were checked may have one that no mail can carry.
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
            // The document is part of the key: where a person had it corrected, it is another mail.
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

/// The language that a document's signers are written to in.
pub(super) fn language_of(envelope: &Envelope) -> Locale {
    let language = envelope.document.language.as_deref();
    language
        .and_then(|tag| tag.parse().ok())
        .unwrap_or_default()
}
