//! Turns ClickSign's events, from webhooks and from the API, into facts about signers.

use docg_core::{
    json,
    signature::{ProviderUpdate, SignerFact, SignerFactKind, WebhookError},
    time::Timestamp,
};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::{
    lenient::{lenient, readable},
    moment,
};

/// An event of an envelope. Its time is in `occurred_at` in webhooks, and in `created` in the API's lists.
#[derive(Debug, Deserialize)]
pub(super) struct Event {
    name: String,
    #[serde(default, deserialize_with = "lenient")]
    data: Data,
    #[serde(
        default,
        deserialize_with = "moment::lenient",
        alias = "created",
        alias = "created_at"
    )]
    occurred_at: Option<Timestamp>,
}

#[derive(Debug, Default, Deserialize)]
struct Data {
    #[serde(default, deserialize_with = "lenient")]
    signer: Option<Person>,
    #[serde(default, deserialize_with = "readable")]
    signers: Vec<Person>,
    #[serde(default, deserialize_with = "lenient")]
    refusal: Option<Refusal>,
}

#[derive(Debug, Deserialize)]
struct Person {
    #[serde(default, deserialize_with = "lenient")]
    key: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    email: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Refusal {
    #[serde(default, deserialize_with = "readable")]
    reasons: Vec<String>,
    #[serde(default, deserialize_with = "lenient")]
    comment: Option<String>,
}

impl Refusal {
    fn text(&self) -> Option<String> {
        let comment = self.comment.as_deref().map(str::trim);
        let comment = comment.filter(|comment| !comment.is_empty());
        let reasons = self.reasons.iter().map(String::as_str);
        let parts: Vec<_> = reasons.chain(comment).collect();
        (!parts.is_empty()).then(|| parts.join("; "))
    }
}

/// A webhook's body. Events about acceptance terms have no document and are ignored.
#[derive(Debug, Deserialize)]
struct Webhook {
    event: Event,
    document: Option<WebhookDocument>,
}

#[derive(Debug, Deserialize)]
struct WebhookDocument {
    key: String,
    /// The envelope's whole history, so that one webhook replaces earlier webhooks that were lost.
    #[serde(default, deserialize_with = "readable")]
    events: Vec<Event>,
}

impl Event {
    fn people(&self) -> impl Iterator<Item = &Person> {
        self.data.signer.iter().chain(&self.data.signers)
    }

    /// The event's facts about signers, all with the time of the event.
    pub(super) fn facts(&self) -> Vec<SignerFact> {
        // If the time cannot be read, use the current time: the event has happened by now.
        let at = self.occurred_at.unwrap_or_else(Timestamp::now);
        let of_people = |kind| {
            let emails = self.people().filter_map(|person| person.email.as_deref());
            emails
                .map(|email| SignerFact::new(email, kind, at))
                .collect()
        };
        match self.name.as_str() {
            "signature_started" => of_people(SignerFactKind::Viewed),
            "sign" => of_people(SignerFactKind::Signed),
            // ClickSign closes the envelope itself when the last signer has signed.
            "auto_close" => vec![SignerFact::of_all(SignerFactKind::Signed, at)],
            "refusal" => {
                let reason = self.data.refusal.as_ref().and_then(Refusal::text);
                let mut facts: Vec<_> = of_people(SignerFactKind::Declined);
                if facts.is_empty() {
                    facts.push(SignerFact::of_all(SignerFactKind::Declined, at));
                }
                let facts = facts.into_iter();
                facts.map(|fact| fact.because(reason.clone())).collect()
            }
            "deadline" => vec![SignerFact::of_all(SignerFactKind::Expired, at)],
            // An envelope that a person has closed takes no more signatures.
            "cancel" | "close" => vec![SignerFact::of_all(SignerFactKind::Canceled, at)],
            _ => Vec::new(),
        }
    }

    /// A hash of the event alone. It is the same for each delivery of the event, whatever else the webhook
    /// holds.
    fn dedupe_key(&self, document: &str) -> String {
        let mut hasher = Sha256::new();
        let mut part = |text: &str| {
            hasher.update((text.len() as u64).to_be_bytes());
            hasher.update(text);
        };
        part(document);
        part(&self.name);
        if let Some(at) = self.occurred_at {
            part(&at.to_string());
        }
        for person in self.people() {
            part(person.key.as_deref().unwrap_or_default());
            part(person.email.as_deref().unwrap_or_default());
        }
        hex::encode(hasher.finalize())
    }
}

/// Parses a webhook. The caller has checked its origin.
pub(super) fn read(body: &[u8]) -> Result<ProviderUpdate, WebhookError> {
    let webhook: Webhook =
        json::read_message(body).map_err(|e| WebhookError::Malformed(e.to_string()))?;
    let event = &webhook.event;
    let key = webhook.document.as_ref().map(|document| &document.key);
    let dedupe_key = event.dedupe_key(key.map_or("", String::as_str));
    let mut facts = event.facts();
    // The event `document_closed` gives no reason; the history does. A webhook about an event of an unknown
    // kind has no effect, whatever its history holds.
    let has_facts = !facts.is_empty() || event.name == "document_closed";
    let envelope_id = match webhook.document.filter(|_| has_facts) {
        Some(document) => {
            facts.extend(document.events.iter().flat_map(Event::facts));
            (!facts.is_empty()).then_some(document.key)
        }
        None => {
            facts.clear();
            None
        }
    };
    Ok(ProviderUpdate {
        envelope_id,
        dedupe_key,
        facts,
    })
}
