//! A client that answers as it was told to, in order, and remembers what it was sent.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use serde_json::Value;

use super::{HttpClient, HttpError, HttpRequest, HttpResponse};
use crate::{
    ids::OrganizationId,
    signature::{Document, Documents, ProviderError, SignatureRequest},
};

#[derive(Default, Clone)]
pub(in crate::signature) struct Scripted {
    answers: Arc<Mutex<VecDeque<Result<HttpResponse, HttpError>>>>,
    sent: Arc<Mutex<Vec<HttpRequest>>>,
}

impl Scripted {
    pub(in crate::signature) fn answer(self, status: u16, body: impl ToString) -> Self {
        let response = HttpResponse {
            status,
            retry_after: None,
            body: body.to_string().into_bytes(),
        };
        self.push(Ok(response))
    }

    pub(in crate::signature) fn fail(self, error: HttpError) -> Self {
        self.push(Err(error))
    }

    /// These answers, then those of another client.
    #[cfg(feature = "zapsign")]
    pub(in crate::signature) fn then(self, other: Self) -> Self {
        let later = std::mem::take(&mut *other.answers.lock().expect("not poisoned"));
        self.answers.lock().expect("not poisoned").extend(later);
        self
    }

    fn push(self, answer: Result<HttpResponse, HttpError>) -> Self {
        let mut answers = self.answers.lock().expect("not poisoned");
        answers.push_back(answer);
        drop(answers);
        self
    }

    pub(in crate::signature) fn sent(&self) -> Arc<Mutex<Vec<HttpRequest>>> {
        Arc::clone(&self.sent)
    }

    /// What was asked, as `METHOD /path?query`, and that nothing more is expected.
    pub(in crate::signature) fn asked(&self) -> Vec<String> {
        let left = self.answers.lock().expect("not poisoned").len();
        assert_eq!(left, 0, "answers that nobody has asked for");
        let sent = self.sent.lock().expect("not poisoned");
        let line = |request: &HttpRequest| {
            let url = url::Url::parse(&request.url).expect("a URL");
            let query = url.query().map(|query| format!("?{query}"));
            let (method, path) = (request.method.as_str(), url.path());
            format!("{method} {path}{}", query.unwrap_or_default())
        };
        sent.iter().map(line).collect()
    }

    /// The bodies that were sent, as JSON.
    pub(in crate::signature) fn bodies(&self) -> Vec<Value> {
        let sent = self.sent.lock().expect("not poisoned");
        let body = |request: &HttpRequest| serde_json::from_slice(&request.body);
        sent.iter()
            .filter(|request| !request.body.is_empty())
            .map(|request| body(request).expect("JSON"))
            .collect()
    }
}

#[async_trait]
impl HttpClient for Scripted {
    async fn send(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let line = format!("{request:?}");
        self.sent.lock().expect("not poisoned").push(request);
        let mut answers = self.answers.lock().expect("not poisoned");
        answers
            .pop_front()
            .unwrap_or_else(|| panic!("no answer for {line}"))
    }
}

/// Documents of a test: one can be read, and what is kept is described by its content.
pub(in crate::signature) struct Folder;

#[async_trait]
impl Documents for Folder {
    async fn read(&self, _: OrganizationId, file: &Value) -> Result<Document, ProviderError> {
        let filename = file["filename"].as_str();
        let filename = filename.ok_or_else(|| ProviderError::Refused("no file".to_owned()))?;
        Ok(Document {
            filename: filename.to_owned(),
            content_type: "application/pdf".to_owned(),
            bytes: b"%PDF-1.7".to_vec(),
        })
    }

    async fn keep_signed(
        &self,
        request: &SignatureRequest,
        document: Document,
    ) -> Result<Value, ProviderError> {
        let content = String::from_utf8_lossy(&document.bytes).into_owned();
        Ok(serde_json::json!({
            "filename": document.filename,
            "content": content,
            "envelope": request.envelope_id,
        }))
    }
}
