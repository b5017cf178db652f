//! Signatures through ClickSign: envelopes in JSON:API, webhooks with an HMAC over their raw bytes.

use std::sync::{Arc, Mutex};

use axum::{
    Json, Router,
    extract::{Path, Query, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, patch, post},
};
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;

use super::{
    ONE, SECRET, TOKEN, TWO, audit_actions, fake,
    fake::{Desk, Fault},
    is_clear, says_no_secret, server, signed_document, signers, start, usual, webhook,
};
use crate::process::Server;

#[derive(Default)]
struct Envelope {
    name: String,
    status: &'static str,
    document: bool,
    signers: Vec<String>,
    requirements: usize,
    events: Vec<Value>,
}

/// A fake ClickSign for one test. Its envelopes are `env-0`, `env-1` …, their documents `doc-0` ….
#[derive(Clone)]
pub(super) struct ClickSign {
    pub(super) desk: Desk,
    envelopes: Arc<Mutex<Vec<Envelope>>>,
}

type At = State<ClickSign>;

fn place(id: &str) -> usize {
    let (_, number) = id.split_once('-').expect("an id");
    number.parse().expect("a number")
}

fn resource(kind: &str, id: String) -> Response {
    let body = json!({"data": {"id": id, "type": kind}});
    (StatusCode::CREATED, Json(body)).into_response()
}

/// The status and reason of a rejected request.
type Refused = (StatusCode, &'static str);

/// The attributes in a JSON:API body, if its resource type is `kind`.
fn attributes(body: &Value, kind: &str) -> Result<Value, Refused> {
    match body["data"]["type"] == kind {
        true => Ok(body["data"]["attributes"].clone()),
        false => Err((StatusCode::UNPROCESSABLE_ENTITY, "another type is expected")),
    }
}

impl ClickSign {
    pub(super) async fn serve() -> Self {
        let envelopes = Arc::default();
        let shared = Arc::clone(&envelopes);
        let desk = Desk::serve(TOKEN, |desk| {
            let state = Self {
                desk,
                envelopes: shared,
            };
            Router::new()
                .route("/api/v3/envelopes", get(list).post(create))
                .route(
                    "/api/v3/envelopes/{id}",
                    patch(change).get(show).delete(remove),
                )
                .route(
                    "/api/v3/envelopes/{id}/documents",
                    post(add_document).get(documents),
                )
                .route("/api/v3/envelopes/{id}/documents/{document}", get(document))
                .route("/api/v3/envelopes/{id}/signers", post(add_signer))
                .route("/api/v3/envelopes/{id}/requirements", post(require))
                .route("/api/v3/envelopes/{id}/notifications", post(notify))
                .route("/api/v3/envelopes/{id}/events", get(events))
                .route("/files/{document}", get(file))
                .fallback(fake::unknown)
                .with_state(state)
        });
        Self {
            desk: desk.await,
            envelopes,
        }
    }

    fn all<T>(&self, read: impl FnOnce(&mut Vec<Envelope>) -> T) -> T {
        read(&mut self.envelopes.lock().expect("not poisoned"))
    }

    fn status(&self, envelope: usize) -> &'static str {
        self.all(|all| all[envelope].status)
    }

    /// The number of envelopes that were sent to their signers.
    pub(super) fn sent(&self) -> usize {
        let reached = |envelope: &&Envelope| !matches!(envelope.status, "draft" | "deleted");
        self.all(|all| all.iter().filter(reached).count())
    }

    /// Adds an event that the API lists but no webhook reports.
    fn happens(&self, envelope: usize, event: &Value) {
        let listed = json!({"type": "events", "attributes": {
            "name": event["name"], "data": event["data"], "created": event["occurred_at"]}});
        self.all(|all| all[envelope].events.push(listed));
    }

    fn close(&self, envelope: usize) {
        self.all(|all| all[envelope].status = "closed");
    }
}

async fn create(State(fake): At, Json(body): Json<Value>) -> Result<Response, Refused> {
    let wanted = attributes(&body, "envelopes")?;
    Ok(fake.all(|all| {
        all.push(Envelope {
            name: wanted["name"].as_str().unwrap_or_default().to_owned(),
            status: "draft",
            ..Envelope::default()
        });
        resource("envelopes", format!("env-{}", all.len() - 1))
    }))
}

fn shown(place: usize, envelope: &Envelope) -> Value {
    json!({"id": format!("env-{place}"), "type": "envelopes",
        "attributes": {"name": envelope.name, "status": envelope.status}})
}

async fn list(State(fake): At, Query(query): Query<Vec<(String, String)>>) -> Json<Value> {
    let name = query.iter().find(|(key, _)| key == "filter[name]");
    let name = name.map_or("", |(_, name)| name.as_str());
    let found: Vec<_> = fake.all(|all| {
        let named = all
            .iter()
            .enumerate()
            .filter(|(_, it)| it.name.contains(name));
        named.map(|(place, it)| shown(place, it)).collect()
    });
    Json(json!({"data": found, "meta": {"record_count": found.len()}}))
}

async fn show(State(fake): At, Path(id): Path<String>) -> Json<Value> {
    Json(fake.all(|all| json!({"data": shown(place(&id), &all[place(&id)])})))
}

async fn remove(State(fake): At, Path(id): Path<String>) -> StatusCode {
    fake.all(|all| match all[place(&id)].status {
        "draft" => {
            all[place(&id)].status = "deleted";
            all[place(&id)].name.clear();
            StatusCode::NO_CONTENT
        }
        _ => StatusCode::UNPROCESSABLE_ENTITY,
    })
}

async fn change(
    State(fake): At,
    Path(id): Path<String>,
    Json(body): Json<Value>,
) -> Result<Json<Value>, Refused> {
    let wanted = attributes(&body, "envelopes")?;
    fake.all(|all| {
        let envelope = &mut all[place(&id)];
        let complete = envelope.document
            && !envelope.signers.is_empty()
            && envelope.requirements == 2 * envelope.signers.len();
        envelope.status = match (wanted["status"].as_str(), envelope.status) {
            (Some("running"), "draft") if complete => "running",
            (Some("canceled"), "running") => "canceled",
            _ => return Err((StatusCode::UNPROCESSABLE_ENTITY, "not from this status")),
        };
        Ok(Json(json!({"data": shown(place(&id), envelope)})))
    })
}

async fn add_document(
    State(fake): At,
    Path(id): Path<String>,
    Json(body): Json<Value>,
) -> Result<Response, Refused> {
    let wanted = attributes(&body, "documents")?;
    let content = wanted["content_base64"].as_str().unwrap_or_default();
    // `%PDF-` in base64.
    if !content.starts_with("data:application/pdf;base64,JVBERi") {
        return Err((StatusCode::UNPROCESSABLE_ENTITY, "no document"));
    }
    fake.all(|all| all[place(&id)].document = true);
    Ok(resource("documents", format!("doc-{}", place(&id))))
}

async fn documents(Path(id): Path<String>) -> Json<Value> {
    Json(json!({"data": [{"id": format!("doc-{}", place(&id)), "type": "documents"}]}))
}

async fn document(State(fake): At, Path((id, document)): Path<(String, String)>) -> Json<Value> {
    let link = format!("{}/files/{document}", fake.desk.url);
    let files = match fake.status(place(&id)) {
        "closed" => json!({"signed": link}),
        _ => json!({}),
    };
    Json(json!({"data": {"id": document, "type": "documents", "links": {"files": files}}}))
}

async fn file(Path(document): Path<String>) -> String {
    format!("%PDF-1.7 {document} with all signatures")
}

async fn add_signer(
    State(fake): At,
    Path(id): Path<String>,
    Json(body): Json<Value>,
) -> Result<Response, Refused> {
    let wanted = attributes(&body, "signers")?;
    let email = wanted["email"].as_str().unwrap_or_default().to_owned();
    Ok(fake.all(|all| {
        let signers = &mut all[place(&id)].signers;
        signers.push(email);
        resource("signers", format!("sig-{}", signers.len() - 1))
    }))
}

async fn require(
    State(fake): At,
    Path(id): Path<String>,
    Json(body): Json<Value>,
) -> Result<Response, Refused> {
    attributes(&body, "requirements")?;
    let related = &body["data"]["relationships"];
    if related["document"]["data"]["id"] != format!("doc-{}", place(&id)) {
        return Err((StatusCode::UNPROCESSABLE_ENTITY, "wrong relationships"));
    }
    fake.all(|all| all[place(&id)].requirements += 1);
    Ok(resource("requirements", "req-0".to_owned()))
}

async fn notify(State(fake): At, Path(id): Path<String>) -> Response {
    match fake.status(place(&id)) {
        "running" => resource("notifications", "note-0".to_owned()),
        _ => StatusCode::UNPROCESSABLE_ENTITY.into_response(),
    }
}

async fn events(State(fake): At, Path(id): Path<String>) -> Json<Value> {
    Json(fake.all(|all| json!({"data": all[place(&id)].events})))
}

fn event(name: &str, email: &str, occurred_at: &str) -> Value {
    json!({"name": name, "occurred_at": occurred_at, "data": {
        "signer": {"key": format!("key of {email}"), "email": email},
        "account": {"key": "acc"}}})
}

/// The body of a webhook, with the history that it carries.
fn body(envelope: usize, event: &Value, history: &[&Value]) -> String {
    let document = json!({"key": format!("doc-{envelope}"), "filename": "Contract 7.pdf",
        "events": history});
    json!({"event": event, "document": document}).to_string()
}

fn proof(body: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).expect("any length");
    mac.update(body.as_bytes());
    format!("sha256={}", hex::encode(mac.finalize().into_bytes()))
}

async fn send(server: &Server, body: &str) -> (u16, Value) {
    let (status, answer) = webhook(server, "clicksign", ("Content-Hmac", &proof(body)), body).await;
    (status.as_u16(), answer)
}

pub(super) fn with(fake: &ClickSign) -> Server {
    server("CLICKSIGN", &fake.desk.url)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_contract_is_signed_though_webhooks_come_twice_late_forged_and_not_at_all() {
    let fake = ClickSign::serve().await;
    let server = with(&fake);
    let id = start(&server, "clicksign", usual()).await;
    let execution = server.until_it_awaits_signatures(&id).await;
    assert_eq!(fake.status(0), "running");
    assert_eq!(
        fake.desk
            .calls("POST /api/v3/envelopes/env-0/notifications")
            .len(),
        1
    );
    let asked = fake.desk.calls("POST /api/v3/envelopes/env-0/signers");
    let name = &asked[0]["data"]["attributes"]["name"];
    assert_eq!(name, "Legal representative of the provider");

    // Webhooks about the first signer: the signature, the same webhook again, and then an event that happened
    // before the signature.
    let seen = event("signature_started", ONE, "2026-03-02T09:01:00.000-03:00");
    let signed = event("sign", ONE, "2026-03-02T09:02:00.000-03:00");
    let taken = body(0, &signed, &[]);
    assert_eq!(
        send(&server, &taken).await,
        (200, json!({"received": true}))
    );
    assert_eq!(
        send(&server, &taken).await,
        (200, json!({"duplicate": true}))
    );
    assert_eq!(send(&server, &body(0, &seen, &[])).await.0, 200);
    let state = signers(&server, &execution).await;
    let one = &state["signers"][0];
    assert_eq!(one["status"], "signed", "a late look takes nothing back");
    assert_eq!(one["viewed_at"], "2026-03-02T12:01:00.000Z");
    assert_eq!(one["signed_at"], "2026-03-02T12:02:00.000Z");
    assert_eq!(state["all_signed"], false);

    // A webhook with a wrong secret changes nothing. An unknown event does not either.
    let forged = body(0, &event("sign", TWO, "2026-03-02T09:03:00.000-03:00"), &[]);
    let mut wrong = proof(&forged).into_bytes();
    let last = wrong.last_mut().expect("a digit");
    *last = if *last == b'0' { b'1' } else { b'0' };
    let wrong = String::from_utf8(wrong).expect("ASCII");
    for (header, value) in [("Content-Hmac", wrong.as_str()), ("X-Other", "x")] {
        let (status, problem) = webhook(&server, "clicksign", (header, value), &forged).await;
        assert_eq!(status.as_u16(), 401, "{problem}");
        assert_eq!(problem["code"], "webhook_unauthenticated");
    }
    let strange = body(
        0,
        &event("new_kind", TWO, "2026-03-02T09:03:00.000-03:00"),
        &[],
    );
    assert_eq!(
        send(&server, &strange).await,
        (200, json!({"received": true}))
    );
    assert_eq!(
        send(&server, &strange).await,
        (200, json!({"duplicate": true}))
    );
    let elsewhere = body(9, &signed, &[]);
    assert_eq!(
        send(&server, &elsewhere).await.0,
        404,
        "to be delivered again"
    );
    assert_eq!(
        signers(&server, &execution).await["signers"][1]["status"],
        "pending"
    );

    // No webhook reports the last signature: the server asks the provider.
    fake.close(0);
    fake.happens(0, &event("sign", TWO, "2026-03-02T09:04:00.000-03:00"));
    let execution = server.until(&id, &["completed"]).await;
    assert_eq!(execution["signature_state"], "signed");
    let signed = signed_document(&server, &id).await;
    assert_eq!(signed, "%PDF-1.7 doc-0 with all signatures");
    assert_eq!(fake.sent(), 1);
    assert_eq!(fake.desk.calls("PATCH ").len(), 1, "nothing was withdrawn");
    let closed = event("document_closed", TWO, "2026-03-02T09:05:00.000-03:00");
    assert_eq!(send(&server, &body(0, &closed, &[])).await.0, 200);
    let actions = audit_actions(&server, &id).await;
    let signatures = actions
        .iter()
        .filter(|action| *action == "signature.signed");
    assert_eq!(signatures.count(), 2);
    says_no_secret(&server, &id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_webhook_makes_up_for_those_that_were_lost_before_it() {
    let fake = ClickSign::serve().await;
    let server = with(&fake);
    let id = start(&server, "clicksign", usual()).await;
    server.until_it_awaits_signatures(&id).await;
    fake.close(0);
    let one = event("sign", ONE, "2026-03-02T09:02:00.000-03:00");
    let two = event("sign", TWO, "2026-03-02T09:04:00.000-03:00");
    assert_eq!(send(&server, &body(0, &two, &[&one, &two])).await.0, 200);
    server.until(&id, &["completed"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_ends_the_run_at_once_and_withdraws_the_envelope() {
    let fake = ClickSign::serve().await;
    let server = with(&fake);
    let id = start(&server, "clicksign", usual()).await;
    server.until_it_awaits_signatures(&id).await;
    let mut refusal = event("refusal", TWO, "2026-03-02T09:04:00.000-03:00");
    refusal["data"]["refusal"] = json!({"reasons": ["Outros"], "comment": "the amount is wrong"});
    let (status, answer) = send(&server, &body(0, &refusal, &[&refusal])).await;
    assert_eq!(status, 200, "{answer}");
    let execution = server.execution(&id).await;
    assert_eq!(execution["status"], "failed", "{execution:#}");
    assert_eq!(execution["signature_state"], "declined");
    let human = execution["last_error_human"].as_str().unwrap_or_default();
    assert!(
        human.contains(TWO) && human.contains("the amount is wrong"),
        "{human}"
    );
    let withdrawn = fake
        .desk
        .until_called("PATCH /api/v3/envelopes/env-0")
        .await;
    assert_eq!(withdrawn["data"]["type"], "envelopes");
    // `until_called` may have found the PATCH that activated the envelope, so wait for the cancellation
    // itself.
    let began = std::time::Instant::now();
    while fake.status(0) != "canceled" {
        assert!(began.elapsed() < crate::process::DEADLINE, "it stays open");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_envelope_whose_announcement_broke_off_is_found_and_announced() {
    let fake = ClickSign::serve().await;
    let server = with(&fake);
    let announce = "POST /api/v3/envelopes/env-0/notifications";
    fake.desk.fails(Fault::new(announce, 500, "no"));
    let id = start(&server, "clicksign", usual()).await;
    server.until_it_awaits_signatures(&id).await;
    assert_eq!(fake.sent(), 1);
    assert_eq!(fake.desk.calls(announce).len(), 2);
    assert_eq!(
        fake.desk
            .calls("POST /api/v3/envelopes")
            .iter()
            .filter(|body| { body["data"]["type"] == "envelopes" })
            .count(),
        1
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_that_is_not_finished_is_fetched_later_and_nobody_is_asked_again() {
    let fake = ClickSign::serve().await;
    let server = with(&fake);
    let id = start(&server, "clicksign", usual()).await;
    server.until_it_awaits_signatures(&id).await;
    let get = "GET /api/v3/envelopes/env-0/documents/doc-0";
    for _ in 0..3 {
        fake.desk.fails(Fault::new(get, 503, "later"));
    }
    fake.close(0);
    let one = event("sign", ONE, "2026-03-02T09:02:00.000-03:00");
    let two = event("sign", TWO, "2026-03-02T09:04:00.000-03:00");
    assert_eq!(send(&server, &body(0, &two, &[&one, &two])).await.0, 200);
    // All attempts to fetch the document fail. All signers have signed, so the execution waits for a person
    // instead of failing.
    server.until(&id, &["needs_review"]).await;
    is_clear(&server, &id, "clicksign.service_unavailable", "retry").await;
    let path = format!("/api/v1/executions/{id}/resume");
    server.post(&path, &json!({"approved": true})).await;
    server.until(&id, &["completed"]).await;
    assert_eq!(
        signed_document(&server, &id).await,
        "%PDF-1.7 doc-0 with all signatures"
    );
    assert_eq!(fake.sent(), 1);
}
