//! Signatures through ZapSign: documents in plain JSON, webhooks with a secret in a header.

use std::sync::{Arc, Mutex};

use axum::{
    Json, Router,
    extract::{Path, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde_json::{Value, json};

use super::{
    ONE, SECRET, TWO, fake,
    fake::{Desk, Fault},
    says_no_secret, server, signed_document, signers, start, usual, webhook,
};
use crate::process::Server;

const CREATE: &str = "POST /api/v1/docs/";

/// A fake ZapSign for one test. Its documents are `tok-0`, `tok-1` ….
#[derive(Clone)]
pub(super) struct ZapSign {
    pub(super) desk: Desk,
    documents: Arc<Mutex<Vec<Value>>>,
}

type At = State<ZapSign>;

impl ZapSign {
    pub(super) async fn serve() -> Self {
        let documents = Arc::default();
        let shared = Arc::clone(&documents);
        let desk = Desk::serve(concat!("Bearer ", "api-token-51a9c3"), |desk| {
            let state = Self {
                desk,
                documents: shared,
            };
            Router::new()
                .route("/api/v1/docs/", get(list).post(create))
                .route("/api/v1/docs/{token}/", get(show))
                .route("/api/v1/refuse/", post(refuse))
                .route("/files/{token}", get(file))
                .fallback(fake::unknown)
                .with_state(state)
        });
        Self {
            desk: desk.await,
            documents,
        }
    }

    fn all<T>(&self, read: impl FnOnce(&mut Vec<Value>) -> T) -> T {
        read(&mut self.documents.lock().expect("not poisoned"))
    }

    /// Changes the first document. Returns the body of the webhook about the change.
    fn happens(&self, change: impl FnOnce(&mut Value), event_type: &str) -> String {
        self.all(|all| {
            change(&mut all[0]);
            let mut told = all[0].clone();
            told["event_type"] = event_type.into();
            told.to_string()
        })
    }

    fn signs(&self, signer: usize, at: &str) -> String {
        let link = format!("{}/files/tok-0", self.desk.url);
        let change = |document: &mut Value| {
            document["signers"][signer]["status"] = "signed".into();
            document["signers"][signer]["signed_at"] = at.into();
            document["last_update_at"] = at.into();
            let signers = document["signers"].as_array().expect("a list");
            if signers.iter().all(|it| it["status"] == "signed") {
                document["status"] = "signed".into();
                document["signed_file"] = link.into();
            }
        };
        self.happens(change, "doc_signed")
    }
}

async fn create(State(fake): At, Json(body): Json<Value>) -> Response {
    let is_pdf = body["base64_pdf"]
        .as_str()
        .is_some_and(|it| it.starts_with("JVBERi"));
    if !is_pdf || body["name"] != "Contract 7" {
        return StatusCode::BAD_REQUEST.into_response();
    }
    let signers = body["signers"].as_array().expect("a list").iter();
    let signers: Vec<_> = signers
        .map(|it| json!({"token": "s", "email": it["email"], "status": "new", "times_viewed": 0}))
        .collect();
    let document = fake.all(|all| {
        let document = json!({"token": format!("tok-{}", all.len()), "status": "pending",
            "sandbox": false, "name": body["name"], "external_id": body["external_id"],
            "deleted": false, "signed_file": null, "signers": signers,
            "created_at": "2026-03-02T11:49:40.100000Z",
            "last_update_at": "2026-03-02T11:49:40.100000Z"});
        all.push(document.clone());
        document
    });
    Json(document).into_response()
}

async fn list(State(fake): At) -> Json<Value> {
    let documents: Vec<_> = fake.all(|all| all.iter().rev().cloned().collect());
    Json(json!({"count": documents.len(), "next": null, "previous": null, "results": documents}))
}

async fn show(State(fake): At, Path(token): Path<String>) -> Response {
    let found = fake.all(|all| all.iter().find(|it| it["token"] == token).cloned());
    found.map_or_else(
        || StatusCode::NOT_FOUND.into_response(),
        |it| Json(it).into_response(),
    )
}

async fn refuse(State(fake): At, Json(body): Json<Value>) -> StatusCode {
    fake.all(|all| {
        let mut pending = all.iter_mut();
        let found =
            pending.find(|it| it["token"] == body["doc_token"] && it["status"] == "pending");
        match found {
            Some(document) => {
                document["status"] = "recusado".into();
                StatusCode::OK
            }
            None => StatusCode::BAD_REQUEST,
        }
    })
}

async fn file(Path(token): Path<String>) -> String {
    format!("%PDF-1.7 {token} with all signatures")
}

async fn send(server: &Server, body: &str) -> (u16, Value) {
    let proof = ("X-Webhook-Secret", SECRET);
    let (status, answer) = webhook(server, "zapsign", proof, body).await;
    (status.as_u16(), answer)
}

pub(super) fn with(fake: &ZapSign) -> Server {
    server("ZAPSIGN", &fake.desk.url)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_contract_is_signed_though_webhooks_come_twice_forged_and_not_at_all() {
    let fake = ZapSign::serve().await;
    let server = with(&fake);
    let id = start(&server, "zapsign", usual()).await;
    let execution = server.until_it_awaits_signatures(&id).await;
    let made = fake.desk.calls(CREATE);
    assert_eq!(made.len(), 1);
    assert_eq!(made[0]["signers"][1]["email"], TWO);
    assert!(made[0]["date_limit_to_sign"].is_string());

    let signed = fake.signs(0, "2026-03-02T12:02:00.000000Z");
    for (header, value) in [
        ("X-Webhook-Secret", "webhook-secret-7fe02c"),
        ("X-Other", SECRET),
    ] {
        let (status, problem) = webhook(&server, "zapsign", (header, value), &signed).await;
        assert_eq!(status.as_u16(), 401, "{problem}");
    }
    assert_eq!(send(&server, &signed).await.0, 200);
    assert_eq!(
        send(&server, &signed).await,
        (200, json!({"duplicate": true}))
    );
    let state = signers(&server, &execution).await;
    assert_eq!(state["signers"][0]["email"], ONE);
    assert_eq!(state["signers"][0]["status"], "signed");
    assert_eq!(state["all_signed"], false, "one signature is not all");

    // No webhook reports the last signature: the server asks the provider.
    fake.signs(1, "2026-03-02T12:04:00.000000Z");
    server.until(&id, &["completed"]).await;
    let signed = signed_document(&server, &id).await;
    assert_eq!(signed, "%PDF-1.7 tok-0 with all signatures");
    assert!(fake.desk.calls("POST /api/v1/refuse/").is_empty());
    says_no_secret(&server, &id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_ends_the_run_at_once() {
    let fake = ZapSign::serve().await;
    let server = with(&fake);
    let id = start(&server, "zapsign", usual()).await;
    server.until_it_awaits_signatures(&id).await;
    let refusal = |document: &mut Value| {
        document["status"] = "recusado".into();
        document["rejected_reason"] = "the amount is wrong".into();
    };
    let body = fake.happens(refusal, "doc_refused");
    assert_eq!(send(&server, &body).await.0, 200);
    let execution = server.execution(&id).await;
    assert_eq!(execution["status"], "failed", "{execution:#}");
    assert_eq!(execution["signature_state"], "declined");
    let human = execution["last_error_human"].as_str().unwrap_or_default();
    assert!(human.contains("the amount is wrong"), "{human}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_that_was_made_though_the_answer_was_lost_is_found() {
    let fake = ZapSign::serve().await;
    let server = with(&fake);
    let mut lost = Fault::new(CREATE, 502, "<html>bad gateway</html>");
    lost.done = true;
    fake.desk.fails(lost);
    let id = start(&server, "zapsign", usual()).await;
    server.until_it_awaits_signatures(&id).await;
    assert_eq!(fake.all(|all| all.len()), 1);
    assert_eq!(fake.desk.calls(CREATE).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_canceled_withdraws_its_document() {
    let fake = ZapSign::serve().await;
    let server = with(&fake);
    let id = start(&server, "zapsign", usual()).await;
    server.until_it_awaits_signatures(&id).await;
    let path = format!("/api/v1/executions/{id}/cancel");
    let (status, answer) = server.post(&path, &json!({})).await;
    assert!(status.is_success(), "{answer}");
    let withdrawn = fake.desk.until_called("POST /api/v1/refuse/").await;
    assert_eq!(withdrawn["doc_token"], "tok-0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_whose_maker_was_canceled_before_the_answer_came_is_withdrawn() {
    let fake = ZapSign::serve().await;
    let server = with(&fake);
    let mut held = Fault::new(CREATE, 200, "");
    (held.done, held.held) = (true, true);
    fake.desk.fails(held);
    let id = start(&server, "zapsign", usual()).await;
    fake.desk.until_called(CREATE).await;
    let path = format!("/api/v1/executions/{id}/cancel");
    server.post(&path, &json!({})).await;
    server.until(&id, &["canceled"]).await;
    let refused = fake.desk.until_called("POST /api/v1/refuse/").await;
    assert_eq!(refused["doc_token"], "tok-0", "nobody signs in vain");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_whose_last_answer_was_lost_is_awaited() {
    let fake = ZapSign::serve().await;
    let server = with(&fake);
    let mut lost = Fault::new(CREATE, 502, "<html>bad gateway</html>");
    lost.done = true;
    fake.desk.fails(lost);
    let id = start(&server, "zapsign", json!({"max_attempts": 1})).await;
    server.until_it_awaits_signatures(&id).await;
    assert_eq!(fake.desk.calls(CREATE).len(), 1);
}
