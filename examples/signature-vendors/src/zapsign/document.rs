//! Turns the state of a document, from webhooks and from the API, into facts about signers.

use docg_core::{
    address::is_same,
    json,
    signature::{ProviderUpdate, SignerFact, SignerFactKind, WebhookError},
    time::Timestamp,
};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::{
    lenient::{each, lenient},
    moment,
};

/// A document's state. Most webhooks contain the whole state, beside the event.
#[derive(Debug, Deserialize)]
pub(super) struct DocumentState {
    pub(super) token: String,
    #[serde(default, deserialize_with = "lenient")]
    pub(super) status: Status,
    #[serde(default)]
    pub(super) external_id: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    pub(super) signed_file: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    deleted: bool,
    #[serde(default, deserialize_with = "lenient")]
    rejected_reason: Option<String>,
    #[serde(default, deserialize_with = "moment::lenient")]
    created_at: Option<Timestamp>,
    #[serde(default, deserialize_with = "moment::lenient")]
    last_update_at: Option<Timestamp>,
    #[serde(default, deserialize_with = "moment::lenient")]
    deleted_at: Option<Timestamp>,
    #[serde(default, deserialize_with = "each")]
    signers: Vec<SignerState>,
}

#[derive(Debug, Default, Deserialize)]
struct SignerState {
    #[serde(default, deserialize_with = "lenient")]
    email: String,
    #[serde(default, deserialize_with = "lenient")]
    status: Status,
    #[serde(default, deserialize_with = "lenient")]
    times_viewed: u64,
    #[serde(default, deserialize_with = "moment::lenient")]
    last_view_at: Option<Timestamp>,
    #[serde(default, deserialize_with = "moment::lenient")]
    signed_at: Option<Timestamp>,
}

/// The status of a document or a signer, with all names that ZapSign's answers have shown.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Status {
    #[serde(alias = "new", alias = "em-curso")]
    Pending,
    #[serde(alias = "abriu-link", alias = "link-opened")]
    Opened,
    #[serde(alias = "assinado")]
    Signed,
    #[serde(alias = "recusado", alias = "rejected")]
    Refused,
    #[serde(alias = "expirado")]
    Expired,
    #[default]
    #[serde(other)]
    Unknown,
}

impl DocumentState {
    /// The time of the document's last change.
    fn changed_at(&self) -> Timestamp {
        let moments = [self.deleted_at, self.last_update_at, self.created_at];
        let known = moments.into_iter().flatten().next();
        // If no time can be read, use the current time: the change has happened by now.
        known.unwrap_or_else(Timestamp::now)
    }

    /// The facts about signers that the state contains.
    pub(super) fn facts(&self) -> Vec<SignerFact> {
        let mut facts = Vec::new();
        for signer in self.signers.iter().filter(|it| !it.email.is_empty()) {
            // A fact without its own time gets the current time: it has happened by now. The document's last
            // change is no substitute, because it may be a later change.
            let mut tell = |kind, at: Option<Timestamp>| {
                let at = at.unwrap_or_else(Timestamp::now);
                facts.push(SignerFact::new(&signer.email, kind, at));
            };
            if signer.times_viewed > 0 || signer.status == Status::Opened {
                tell(SignerFactKind::Viewed, signer.last_view_at);
            }
            if signer.status == Status::Signed {
                tell(SignerFactKind::Signed, signer.signed_at);
            }
        }
        match self.status {
            Status::Refused => facts.push(self.refusal()),
            Status::Expired => {
                facts.push(SignerFact::of_all(
                    SignerFactKind::Expired,
                    self.changed_at(),
                ));
            }
            Status::Pending | Status::Opened | Status::Unknown if self.deleted => {
                facts.push(SignerFact::of_all(
                    SignerFactKind::Canceled,
                    self.changed_at(),
                ));
            }
            // All signers have signed, even if a signer now has another address at ZapSign.
            Status::Signed => {
                facts.push(SignerFact::of_all(SignerFactKind::Signed, Timestamp::now()));
            }
            Status::Pending | Status::Opened | Status::Unknown => {}
        }
        facts
    }

    /// The fact that the document was refused. It names a signer if their status shows the refusal, or if
    /// they are the only signer who has not signed. Otherwise it names no signer.
    fn refusal(&self) -> SignerFact {
        let named = self.signers.iter().find(|it| it.status == Status::Refused);
        let mut open = self.signers.iter().filter(|it| it.status != Status::Signed);
        let only = open.next().filter(|_| open.next().is_none());
        let at = self.changed_at();
        let fact = match named.or(only).filter(|signer| !signer.email.is_empty()) {
            Some(signer) => SignerFact::new(&signer.email, SignerFactKind::Declined, at),
            None => SignerFact::of_all(SignerFactKind::Declined, at),
        };
        fact.because(self.rejected_reason.clone())
    }
}

/// True if the fact is the signature of the signer with this address.
fn is_signature_of(fact: &SignerFact, email: &str) -> bool {
    let whose = fact.email.as_deref();
    fact.kind == SignerFactKind::Signed && whose.is_some_and(|whose| is_same(whose, email))
}

/// The event of a webhook.
#[derive(Debug, Deserialize)]
struct Event {
    event_type: Option<String>,
    #[serde(default)]
    sandbox: Option<bool>,
    token: Option<String>,
    #[serde(default, deserialize_with = "moment::lenient")]
    last_update_at: Option<Timestamp>,
    #[serde(default, deserialize_with = "lenient")]
    email: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    signer: Option<Person>,
    #[serde(default, deserialize_with = "lenient")]
    signer_who_signed: Option<Person>,
}

#[derive(Debug, Deserialize)]
struct Person {
    #[serde(default, deserialize_with = "lenient")]
    email: Option<String>,
}

/// Parses a webhook. The caller has checked its origin. A webhook about the other environment (`sandbox` or
/// not) is ignored: a signature in the sandbox is not a real one.
pub(super) fn read(body: &[u8], sandbox: bool) -> Result<ProviderUpdate, WebhookError> {
    let malformed = |e: serde_json::Error| WebhookError::Malformed(e.to_string());
    let event: Event = json::read_message(body).map_err(malformed)?;
    let dedupe_key = hex::encode(Sha256::digest(body));
    let ignored = ProviderUpdate {
        envelope_id: None,
        dedupe_key: dedupe_key.clone(),
        facts: Vec::new(),
    };
    if event.sandbox.is_some_and(|is| is != sandbox) {
        return Ok(ignored);
    }
    let facts_and_token = match event.event_type.as_deref() {
        Some(
            kind @ ("doc_signed"
            | "doc_refused"
            | "doc_viewed"
            | "doc_read_confirmation"
            | "doc_deleted"
            | "doc_expired"),
        ) => {
            let state: DocumentState = json::read_message(body).map_err(malformed)?;
            let mut facts = state.facts();
            let at = state.changed_at();
            match kind {
                "doc_expired" => facts.push(SignerFact::of_all(SignerFactKind::Expired, at)),
                "doc_deleted" if state.status != Status::Signed => {
                    facts.push(SignerFact::of_all(SignerFactKind::Canceled, at));
                }
                "doc_refused" if state.status != Status::Refused => facts.push(state.refusal()),
                "doc_signed" => {
                    let who = event.signer_who_signed.and_then(|person| person.email);
                    let signed = who.map(|email| {
                        let told = facts.iter().find(|fact| is_signature_of(fact, &email));
                        let at = told.map_or_else(Timestamp::now, |fact| fact.at);
                        SignerFact::signed(email, at)
                    });
                    facts.extend(signed);
                }
                _ => {}
            }
            (facts, state.token)
        }
        Some("email_bounce") => {
            let named = event.signer.and_then(|person| person.email);
            let (Some(email), Some(token)) = (event.email.or(named), event.token) else {
                return Ok(ignored);
            };
            let at = event.last_update_at.unwrap_or_else(Timestamp::now);
            let fact = SignerFact::new(email, SignerFactKind::Bounced, at);
            (vec![fact], token)
        }
        _ => return Ok(ignored),
    };
    let (facts, token) = facts_and_token;
    Ok(ProviderUpdate {
        envelope_id: (!facts.is_empty()).then_some(token),
        dedupe_key,
        facts,
    })
}
