//! The calls of ZapSign's API.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use docg_core::signature::{EnvelopeRequest, ProviderError};
use serde::Deserialize;
use serde_json::{Value, json};

use super::document::{DocumentState, Status};
use crate::{
    Document, Method,
    api::{Api, Call, Failed},
    request::{mark_of, turns},
};

/// The largest number of pages that are searched for an earlier document.
const PAGES: u32 = 5;
/// The largest number of documents searched, newest first.
const NEWEST: usize = 100;
/// The largest document that ZapSign accepts, in bytes.
const MAX_DOCUMENT: usize = 10 * 1024 * 1024;
/// The longest name that ZapSign accepts, in characters.
const LONGEST_NAME: usize = 255;

#[derive(Debug, Deserialize)]
struct Page {
    #[serde(default)]
    next: Option<String>,
    results: Vec<Listed>,
}

#[derive(Debug, Deserialize)]
struct Listed {
    token: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    external_id: Option<String>,
    #[serde(default)]
    deleted: bool,
}

/// The API calls of one ZapSign account.
pub(super) struct Calls {
    pub(super) api: Api,
    pub(super) lang: String,
    pub(super) sandbox: bool,
}

impl Calls {
    /// Sends a document to its signers.
    pub(super) async fn create(
        &self,
        request: &EnvelopeRequest,
        document: &Document,
    ) -> Result<DocumentState, ProviderError> {
        if document.bytes.len() > MAX_DOCUMENT {
            return Err(ProviderError::Refused(format!(
                "documents of at most {MAX_DOCUMENT} bytes are taken, this one has {}",
                document.bytes.len()
            )));
        }
        let mut in_turns = false;
        let signers: Vec<_> = turns(&request.signers)
            .map(|(signer, turn)| {
                let mut wanted = json!({
                    "name": signer.name.as_deref().unwrap_or(&signer.email),
                    "email": signer.email,
                    "lock_email": true,
                    "auth_mode": "assinaturaTela",
                    "send_automatic_email": true,
                });
                if let Some(message) = &request.message {
                    wanted["custom_message"] = message.as_str().into();
                }
                if let Some(turn) = turn {
                    in_turns = true;
                    wanted["order_group"] = turn.into();
                }
                wanted
            })
            .collect();
        let mut body = json!({
            "name": name_of(document),
            "external_id": mark_of(request),
            "base64_pdf": STANDARD.encode(&document.bytes),
            "lang": self.lang,
            "signers": signers,
            "signature_order_active": in_turns,
            "allow_refuse_signature": true,
            "disable_signer_emails": false,
            "reminder_every_n_days": 0,
        });
        if let Some(expires_at) = request.expires_at {
            body["date_limit_to_sign"] = json!(expires_at);
        }
        if self.sandbox {
            body["sandbox"] = true.into();
        }
        let path = ["api", "v1", "docs", ""];
        let call = Call::send(Method::Post, &path, body).with_document();
        Ok(self.api.call(call.once()).await?)
    }

    pub(super) async fn document(&self, token: &str) -> Result<DocumentState, Failed> {
        let path = ["api", "v1", "docs", token, ""];
        self.api.call(Call::get(&path)).await
    }

    /// Finds the document with the request's mark among the newest documents of its first signer.
    pub(super) async fn find(
        &self,
        request: &EnvelopeRequest,
        document: &Document,
    ) -> Result<Option<DocumentState>, ProviderError> {
        let Some(signer) = request.signers.first() else {
            return Ok(None);
        };
        let (mark, name) = (mark_of(request), name_of(document));
        let mut seen = 0;
        for number in 1..=PAGES {
            let number = number.to_string();
            let path = ["api", "v1", "docs", ""];
            let query = [
                ("page", number.as_str()),
                ("sort_order", "desc"),
                ("signer_email", &signer.email),
            ];
            let page: Page = self.api.call(Call::get(&path).query(&query)).await?;
            seen += page.results.len();
            for listed in page.results.into_iter().filter(|listed| !listed.deleted) {
                let may_be = match &listed.external_id {
                    Some(external_id) => *external_id == mark,
                    // A list may leave out the mark. If the name fits, the document itself is read, which has
                    // the mark.
                    None => listed.name == name,
                };
                if !may_be {
                    continue;
                }
                let found = self.document(&listed.token).await?;
                if found.external_id.as_deref() == Some(&mark) {
                    return Ok(Some(found));
                }
            }
            if page.next.is_none() || seen >= NEWEST {
                break;
            }
        }
        Ok(None)
    }

    /// Has ZapSign notify the signers whose turn it is.
    pub(super) async fn remind(&self, token: &str) -> Result<(), ProviderError> {
        let path = ["api", "v1", "docs", token, "resend-notifications-bulk", ""];
        let call = Call::send(Method::Post, &path, json!({}));
        Ok(self.api.tell(call).await?)
    }

    /// Withdraws a document.
    pub(super) async fn withdraw(&self, token: &str) -> Result<(), ProviderError> {
        let path = ["api", "v1", "refuse", ""];
        let body: Value = json!({"doc_token": token, "rejected_reason": "withdrawn by the sender"});
        let call = Call::send(Method::Post, &path, body);
        let Err(failed) = self.api.tell(call).await else {
            return Ok(());
        };
        if !failed.is_refusal() {
            return Err(failed.error);
        }
        // ZapSign rejects a withdrawal of a document that has ended. Such a document needs none.
        match self.document(token).await?.status {
            Status::Pending | Status::Opened | Status::Unknown => Err(failed.error),
            Status::Signed | Status::Refused | Status::Expired => Ok(()),
        }
    }
}

fn name_of(document: &Document) -> String {
    document.title().chars().take(LONGEST_NAME).collect()
}
