//! The calls of ClickSign's API, in JSON:API.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use docg_core::{
    signature::{NewSigner, ProviderError},
    time::Timestamp,
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::events::Event;
use crate::{
    Document, Method,
    api::{Api, Call, Failed},
};

/// The largest number of pages that are read of a list.
const PAGES: u32 = 40;
/// The number of entries on a page.
const PAGE_SIZE: usize = 50;

#[derive(Debug, Deserialize)]
struct Answer<T> {
    data: T,
}

#[derive(Debug, Deserialize)]
struct Named {
    id: String,
}

#[derive(Debug, Deserialize)]
struct ResourceOf<T> {
    attributes: T,
}

/// An envelope in the API's answers.
#[derive(Debug, Deserialize)]
pub(super) struct EnvelopeResource {
    pub(super) id: String,
    attributes: EnvelopeAttributes,
}

#[derive(Debug, Deserialize)]
struct EnvelopeAttributes {
    name: Option<String>,
    status: EnvelopeStatus,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum EnvelopeStatus {
    Draft,
    Running,
    Closed,
    Canceled,
    #[serde(other)]
    Unknown,
}

impl EnvelopeResource {
    pub(super) fn status(&self) -> EnvelopeStatus {
        self.attributes.status
    }
}

#[derive(Debug, Deserialize)]
struct DocumentResource {
    #[serde(default)]
    links: DocumentLinks,
}

#[derive(Debug, Default, Deserialize)]
struct DocumentLinks {
    #[serde(default)]
    files: DocumentFiles,
}

#[derive(Debug, Default, Deserialize)]
struct DocumentFiles {
    signed: Option<String>,
}

/// The values of a new envelope.
pub(super) struct NewEnvelope<'e> {
    pub(super) name: &'e str,
    pub(super) subject: &'e str,
    pub(super) message: Option<&'e str>,
    pub(super) deadline_at: Option<Timestamp>,
    pub(super) locale: &'e str,
}

fn resource(kind: &str, attributes: Value) -> Value {
    json!({"data": {"type": kind, "attributes": attributes}})
}

/// The API calls of one ClickSign account.
pub(super) struct Calls(pub(super) Api);

impl Calls {
    async fn create(&self, path: &[&str], body: Value) -> Result<String, Failed> {
        let call = Call::send(Method::Post, path, body);
        let answer: Answer<Named> = self.0.call(call).await?;
        Ok(answer.data.id)
    }

    /// The envelopes with exactly this name.
    pub(super) async fn envelopes(&self, name: &str) -> Result<Vec<EnvelopeResource>, Failed> {
        let path = ["api", "v3", "envelopes"];
        let call = Call::get(&path);
        let query = [("filter[name]", name)];
        let answer: Answer<Vec<EnvelopeResource>> = self.0.call(call.query(&query)).await?;
        let is_named = |found: &EnvelopeResource| found.attributes.name.as_deref() == Some(name);
        Ok(answer.data.into_iter().filter(is_named).collect())
    }

    pub(super) async fn envelope(&self, envelope: &str) -> Result<EnvelopeResource, Failed> {
        let path = ["api", "v3", "envelopes", envelope];
        let answer: Answer<EnvelopeResource> = self.0.call(Call::get(&path)).await?;
        Ok(answer.data)
    }

    pub(super) async fn create_envelope(&self, new: NewEnvelope<'_>) -> Result<String, Failed> {
        let mut attributes = json!({
            "name": new.name,
            "locale": new.locale,
            "auto_close": true,
            "block_after_refusal": true,
            "default_subject": new.subject,
        });
        if let Some(message) = new.message {
            attributes["default_message"] = message.into();
        }
        if let Some(deadline_at) = new.deadline_at {
            attributes["deadline_at"] = json!(deadline_at);
        }
        let path = ["api", "v3", "envelopes"];
        self.create(&path, resource("envelopes", attributes)).await
    }

    pub(super) async fn delete_envelope(&self, envelope: &str) -> Result<(), Failed> {
        let path = ["api", "v3", "envelopes", envelope];
        self.0.tell(Call::delete(&path)).await
    }

    pub(super) async fn add_document(
        &self,
        envelope: &str,
        document: &Document,
    ) -> Result<String, Failed> {
        let content = STANDARD.encode(&document.bytes);
        let attributes = json!({
            "filename": document.filename,
            "content_base64": format!("data:{};base64,{content}", document.content_type),
        });
        let path = ["api", "v3", "envelopes", envelope, "documents"];
        let body = resource("documents", attributes);
        let call = Call::send(Method::Post, &path, body).with_document();
        let answer: Answer<Named> = self.0.call(call).await?;
        Ok(answer.data.id)
    }

    pub(super) async fn add_signer(
        &self,
        envelope: &str,
        signer: &NewSigner,
        group: Option<usize>,
    ) -> Result<String, Failed> {
        let mut attributes = json!({
            "email": signer.email,
            "has_documentation": false,
            "refusable": true,
            "communicate_events": {
                "signature_request": "email",
                "signature_reminder": "email",
                "document_signed": "email",
            },
        });
        if let Some(name) = &signer.name {
            attributes["name"] = name.as_str().into();
        }
        if let Some(group) = group {
            attributes["group"] = group.into();
        }
        let path = ["api", "v3", "envelopes", envelope, "signers"];
        self.create(&path, resource("signers", attributes)).await
    }

    /// Requires the signer to sign the document, and to prove their identity by mail.
    pub(super) async fn require(
        &self,
        envelope: &str,
        document: &str,
        signer: &str,
    ) -> Result<(), Failed> {
        let path = ["api", "v3", "envelopes", envelope, "requirements"];
        for attributes in [
            json!({"action": "agree", "role": "sign"}),
            json!({"action": "provide_evidence", "auth": "email"}),
        ] {
            let mut body = resource("requirements", attributes);
            body["data"]["relationships"] = json!({
                "document": {"data": {"type": "documents", "id": document}},
                "signer": {"data": {"type": "signers", "id": signer}},
            });
            self.create(&path, body).await?;
        }
        Ok(())
    }

    pub(super) async fn set_status(&self, envelope: &str, status: &str) -> Result<(), Failed> {
        let path = ["api", "v3", "envelopes", envelope];
        let body = json!({
            "data": {"id": envelope, "type": "envelopes", "attributes": {"status": status}},
        });
        self.0.tell(Call::send(Method::Patch, &path, body)).await
    }

    /// Has ClickSign notify the signers whose turn it is.
    pub(super) async fn notify(&self, envelope: &str) -> Result<(), Failed> {
        let path = ["api", "v3", "envelopes", envelope, "notifications"];
        let body = resource("notifications", json!({}));
        self.0.tell(Call::send(Method::Post, &path, body)).await
    }

    /// The id of the envelope's only document.
    pub(super) async fn document_of(&self, envelope: &str) -> Result<String, ProviderError> {
        let path = ["api", "v3", "envelopes", envelope, "documents"];
        let answer: Answer<Vec<Named>> = self.0.call(Call::get(&path)).await?;
        let first = answer.data.into_iter().next();
        let first = first.map(|document| document.id);
        first.ok_or_else(|| ProviderError::Refused(format!("envelope {envelope} has no document")))
    }

    /// The link to the signed document; `None` until ClickSign has made it.
    pub(super) async fn signed_file(
        &self,
        envelope: &str,
        document: &str,
    ) -> Result<Option<String>, Failed> {
        let path = ["api", "v3", "envelopes", envelope, "documents", document];
        let answer: Answer<DocumentResource> = self.0.call(Call::get(&path)).await?;
        Ok(answer.data.links.files.signed)
    }

    /// The events in the envelope's history.
    pub(super) async fn events(&self, envelope: &str) -> Result<Vec<Event>, Failed> {
        let path = ["api", "v3", "envelopes", envelope, "events"];
        let size = PAGE_SIZE.to_string();
        let mut events = Vec::new();
        for page in 1..=PAGES {
            let number = page.to_string();
            let query = [("page[number]", number.as_str()), ("page[size]", &size)];
            let call = Call::get(&path).query(&query);
            let answer: Answer<Vec<Value>> = self.0.call(call).await?;
            let last = answer.data.len() < PAGE_SIZE;
            // Skip events of unknown kinds, which can have any shape.
            let read = answer.data.into_iter().map(serde_json::from_value);
            events.extend(
                read.filter_map(Result::ok)
                    .map(|event: ResourceOf<Event>| event.attributes),
            );
            if last {
                break;
            }
        }
        Ok(events)
    }
}
