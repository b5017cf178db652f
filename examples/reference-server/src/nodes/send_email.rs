//! `send-email`: sends a mail once.

use docg_core::{
    address::Addresses,
    error::{StepFailure, codes},
    run::Phase,
    workflow::{
        EffectContext, Handler, NodeSpec, ParamKind, ParamSpec, Probe, StepContext, StepOutcome,
        effect,
    },
};
use lettre::message::header::ContentType;
use serde::{Deserialize, Deserializer, de::Error as _};
use serde_json::{Value, json};

use super::text;
use crate::{
    files::{Document, Files},
    mail::{Attachment, Mail, MailError, Mailer, Outcome, Receipt},
};

/// The largest total size of attachments, in bytes. Mail servers accept 20 to 30 MiB, and encoding adds a
/// third.
const MAX_ATTACHED: u64 = 16 * 1024 * 1024;

#[derive(Deserialize)]
struct Params {
    to: Addresses,
    cc: Option<Addresses>,
    subject: String,
    body: String,
    #[serde(default)]
    attachments: Attached,
}

/// A document or a list of documents, small enough for a mail.
#[derive(Default)]
struct Attached(Vec<Document>);

impl<'de> Deserialize<'de> for Attached {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let given = Value::deserialize(deserializer)?;
        let documents = Document::list_from_value(&given).map_err(D::Error::custom)?;
        let sizes = documents.iter().map(|document| document.bytes);
        if sizes.fold(0, u64::saturating_add) > MAX_ATTACHED {
            let text = format!("attachments may have {MAX_ATTACHED} bytes together");
            return Err(D::Error::custom(text));
        }
        Ok(Self(documents))
    }
}

/// The handler of the node type `send-email`.
pub(super) fn handler(files: Files, mailer: Mailer) -> Handler {
    let spec = NodeSpec::new("send-email", Phase::Delivery)
        .param(ParamSpec::required("to", ParamKind::EmailList))
        .param(ParamSpec::optional("cc", ParamKind::EmailList))
        .param(ParamSpec::required("subject", ParamKind::Text))
        .param(ParamSpec::required("body", ParamKind::Text))
        .param(ParamSpec::optional("attachments", ParamKind::Json))
        .outputs(["message_id", "accepted"])
        .timeout_ms(180_000);
    let prober = mailer.clone();
    effect(spec, move |context: EffectContext, params: Params| {
        let (files, mailer) = (files.clone(), mailer.clone());
        async move {
            let mail = compose(&context, &files, params).await?;
            let sent = mailer.deliver(&mail, &context.cancellation).await;
            sent.map(|receipt| StepOutcome::Done(output(&receipt)))
                .map_err(|e| failure(e, &context, "to"))
        }
    })
    .probe(move |context, _params: Params| {
        let mailer = prober.clone();
        async move {
            match mailer.outcome(&context.idempotency_key()).await {
                Ok(Outcome::Accepted(receipt)) => Probe::Done(output(&receipt)),
                Ok(Outcome::NotSent) => Probe::NotDone,
                Ok(Outcome::Unknown) | Err(_) => Probe::Unknown,
            }
        }
    })
    .into()
}

fn output(receipt: &Receipt) -> Value {
    json!({"message_id": receipt.message_id, "accepted": receipt.accepted})
}

async fn compose(
    context: &EffectContext,
    files: &Files,
    params: Params,
) -> Result<Mail, StepFailure> {
    let Attached(attached) = params.attachments;
    let mut attachments = Vec::with_capacity(attached.len());
    for document in attached {
        let content = files
            .read_document(context.organization_id, &document)
            .await
            .map_err(|e| e.failure(&context.label, "attachments"))?;
        attachments.push(Attachment {
            content_type: content_type(&document.content_type),
            filename: document.filename,
            content,
        });
    }
    Ok(Mail {
        key: context.idempotency_key(),
        to: params.to.into_vec(),
        cc: params.cc.unwrap_or_default().into_vec(),
        subject: params.subject,
        body: params.body,
        attachments,
    })
}

/// Parses a media type. A type with parameters becomes `application/octet-stream`, because parameters could
/// hold any text.
fn content_type(text: &str) -> ContentType {
    let is_name = |c: char| c.is_ascii_alphanumeric() || "!#$&^_.+-/".contains(c);
    let parsed = ContentType::parse(text).ok();
    parsed
        .filter(|_| text.len() <= 127 && text.chars().all(is_name))
        .unwrap_or(
            ContentType::parse("application/octet-stream").unwrap_or(ContentType::TEXT_PLAIN),
        )
}

/// Converts a mail error to the failure of the step. `field` names the parameter with the recipients.
pub(super) fn failure(error: MailError, context: &StepContext, field: &'static str) -> StepFailure {
    let text = |key| text(key, context, field);
    let failure = match &error {
        MailError::Unreachable(_) => {
            StepFailure::retryable(codes::CONNECTION_ERROR, text("issue-connection-error"))
        }
        MailError::Later(_) => {
            StepFailure::retryable(codes::SERVICE_UNAVAILABLE, text("issue-mail-later"))
        }
        MailError::Recipients(refused) => {
            let addresses: Vec<_> = refused.iter().map(|it| &*it.address).collect();
            let code = match refused.iter().all(|it| it.malformed) {
                true => codes::INVALID_EMAIL_FORMAT,
                false => "smtp_refused",
            };
            let text = text("issue-recipients-refused");
            StepFailure::review(code, text.with("addresses", addresses.join(", ")))
        }
        MailError::Sender { address, .. } => {
            let text = text("issue-sender-refused").with("sender", address);
            StepFailure::review("smtp_sender_refused", text)
        }
        MailError::TooLarge(_) => {
            StepFailure::review("mail_too_large", text("issue-mail-too-large"))
        }
        MailError::Quota(_) => StepFailure::review("smtp_quota", text("issue-mail-quota")),
        MailError::Refused(_) => StepFailure::review("mail_refused", text("issue-mail-refused")),
        MailError::SignIn(_) => {
            StepFailure::review("smtp_auth_failed", text("issue-mail-sign-in-refused"))
        }
        MailError::Unknown(_) => {
            StepFailure::outcome_unknown(codes::OUTCOME_UNKNOWN, text("error-outcome-unknown"))
        }
        MailError::Unwritable(_) => StepFailure::review(
            codes::INVALID_FIELD_FORMAT,
            text("issue-invalid-parameter-format"),
        ),
        MailError::Stopped => return StepFailure::stopped(),
        MailError::Files(_) => {
            let MailError::Files(error) = error else {
                return StepFailure::stopped();
            };
            return error.failure(&context.label, field);
        }
    };
    failure.tech(error)
}
