//! Test doubles: an HTTP client that plays a script, and documents in memory.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use docg_core::{
    ids::OrganizationId,
    signature::{ProviderError, SignatureRequest},
};
use serde_json::Value;

use crate::{Document, Documents, HttpClient, HttpError, HttpRequest, HttpResponse};

/// A client that gives the scripted answers in order, and records the requests.
#[derive(Default, Clone)]
pub(crate) struct Scripted {
    answers: Arc<Mutex<VecDeque<Result<HttpResponse, HttpError>>>>,
    sent: Arc<Mutex<Vec<HttpRequest>>>,
}

impl Scripted {
    pub(crate) fn answer(self, status: u16, body: impl ToString) -> Self {
        let response = HttpResponse {
            status,
            retry_after: None,
            body: body.to_string().into_bytes(),
        };
        self.push(Ok(response))
    }

    pub(crate) fn fail(self, error: HttpError) -> Self {
        self.push(Err(error))
    }

    /// Appends the answers of another script.
    pub(crate) fn then(self, other: Self) -> Self {
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

    pub(crate) fn sent(&self) -> Arc<Mutex<Vec<HttpRequest>>> {
        Arc::clone(&self.sent)
    }

    /// The requests, as `METHOD /path?query`. Fails the test if an answer is left over.
    pub(crate) fn asked(&self) -> Vec<String> {
        let left = self.answers.lock().expect("not poisoned").len();
        assert_eq!(left, 0, "answers are left over");
        let sent = self.sent.lock().expect("not poisoned");
        let line = |request: &HttpRequest| {
            let url = url::Url::parse(&request.url).expect("a URL");
            let query = url.query().map(|query| format!("?{query}"));
            let (method, path) = (request.method.as_str(), url.path());
            format!("{method} {path}{}", query.unwrap_or_default())
        };
        sent.iter().map(line).collect()
    }

    /// The requests' bodies, as JSON.
    pub(crate) fn bodies(&self) -> Vec<Value> {
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

/// An application with one fixed document, which describes a signed document by its content.
pub(crate) struct Folder;

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
