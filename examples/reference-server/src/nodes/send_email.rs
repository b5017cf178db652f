//! `send-email`: one mail, sent once.

use docg_core::{
    error::{StepFailure, codes},
    run::Phase,
    workflow::{
        EffectContext, Handler, NodeSpec, ParamKind, ParamSpec, Probe, StepContext, StepOutcome,
        effect,
    },
};
use lettre::message::{Mailbox, header::ContentType};
use serde::Deserialize;
use serde_json::{Value, json};

use super::text;
use crate::{
    files::{Document, Files},
    mail::{Attachment, Mail, MailError, Mailer, Outcome, Receipt},
};

/// What a mail may weigh. Mail servers take 20 to 30 MiB, and a file grows by a third on the way.
const MAX_ATTACHED: u64 = 16 * 1024 * 1024;

#[derive(Deserialize)]
#[serde(untagged)]
enum Addresses {
    One(String),
    Many(Vec<String>),
}

#[derive(Deserialize)]
struct Params {
    to: Addresses,
    cc: Option<Addresses>,
    subject: String,
    body: String,
    #[serde(default)]
    attachments: Value,
}

/// The node type.
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
    let attached = Document::list_from_value(&params.attachments)
        .map_err(|e| e.failure(&context.label, "attachments"))?;
    let size: u64 = attached.iter().map(|document| document.bytes).sum();
    if size > MAX_ATTACHED {
        let failure = StepFailure::review(
            codes::INVALID_FIELD_FORMAT,
            text("issue-resource-refused", context, "attachments"),
        );
        return Err(failure.tech(format!("{size} bytes are attached, {MAX_ATTACHED} at most")));
    }
    let mut attachments = Vec::with_capacity(attached.len());
    for document in attached {
        let content = files
            .read_document(context.organization_id, &document)
            .await
            .map_err(|e| e.failure(&context.label, "attachments"))?;
        attachments.push(Attachment {
            content_type: ContentType::parse(&document.content_type)
                .unwrap_or(ContentType::TEXT_PLAIN),
            filename: document.filename,
            content,
        });
    }
    let cc = match params.cc {
        Some(cc) => addresses(cc, context, "cc")?,
        None => Vec::new(),
    };
    Ok(Mail {
        key: context.idempotency_key(),
        to: addresses(params.to, context, "to")?,
        cc,
        subject: params.subject,
        body: params.body,
        attachments,
    })
}

fn addresses(
    given: Addresses,
    context: &StepContext,
    field: &str,
) -> Result<Vec<Mailbox>, StepFailure> {
    let given = match given {
        Addresses::One(one) => vec![one],
        Addresses::Many(many) => many,
    };
    let read = |address: &String| {
        address.trim().parse::<Mailbox>().map_err(|e| {
            StepFailure::review(
                codes::INVALID_EMAIL_FORMAT,
                text("issue-invalid-email-format", context, field),
            )
            .tech(format!("{address:?}: {e}"))
        })
    };
    given
        .iter()
        .filter(|address| !address.trim().is_empty())
        .map(read)
        .collect()
}

/// What a mail that did not go out means for the step; `field` names who it was for.
pub(super) fn failure(error: MailError, context: &StepContext, field: &'static str) -> StepFailure {
    let text = |key| text(key, context, field);
    let failure = match &error {
        MailError::Unreachable(_) => {
            StepFailure::retryable(codes::CONNECTION_ERROR, text("issue-connection-error"))
        }
        MailError::Later(_) => StepFailure::retryable(
            codes::SERVICE_UNAVAILABLE,
            text("issue-service-unavailable"),
        ),
        MailError::Recipient {
            malformed: true, ..
        } => StepFailure::review(
            codes::INVALID_EMAIL_FORMAT,
            text("issue-invalid-email-format"),
        ),
        MailError::Recipient { .. } | MailError::Refused(_) => {
            StepFailure::review("smtp_refused", text("issue-resource-refused"))
        }
        MailError::SignIn(_) => {
            StepFailure::review("smtp_auth_failed", text("issue-connection-error"))
        }
        MailError::Unknown(_) => {
            StepFailure::outcome_unknown(codes::OUTCOME_UNKNOWN, text("error-outcome-unknown"))
        }
        MailError::Unwritable(_) => {
            StepFailure::review(codes::INVALID_FIELD_FORMAT, text("issue-resource-refused"))
        }
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
