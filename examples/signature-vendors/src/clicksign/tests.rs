use std::{sync::Arc, time::Duration};

use docg_core::{
    ids::{ExecutionId, NodeId, OrganizationId, SignatureRequestId},
    signature::{
        EnvelopeRequest, FollowUp, NewSigner, ProviderError, ProviderUpdate, RequestStatus, Secret,
        SignatureProvider, SignatureRequest, SignerFact, SignerFactKind, WebhookError,
        WebhookRequest,
    },
    time::Timestamp,
};
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;

use super::*;
use crate::{
    HttpError,
    request::mark_of,
    testing::{Folder, Scripted},
};

const SECRET: &str = "webhook-secret";
const DOCUMENT: &str = "3c7a3b1e-55a1-4a5c-9c0e-0d3f8a5b7f10";

macro_rules! fixture {
    ($name:literal) => {
        include_bytes!(concat!("../../fixtures/clicksign/", $name, ".json"))
    };
}

fn provider(client: Scripted) -> ClickSign {
    let secret = Secret::new;
    let config = ClickSignConfig::new("https://app.clicksign.com", secret("t0ken"), secret(SECRET));
    let config = config.expect("valid").patience(Duration::ZERO);
    ClickSign::new(config, Arc::new(client), Arc::new(Folder))
}

fn signed(key: &str, body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(key.as_bytes()).expect("any length");
    mac.update(body);
    format!("sha256={}", hex::encode(mac.finalize().into_bytes()))
}

fn webhook(headers: &[(&str, &str)], body: &[u8]) -> Result<ProviderUpdate, WebhookError> {
    let headers = headers
        .iter()
        .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()));
    provider(Scripted::default()).read_webhook(&WebhookRequest {
        headers: headers.collect(),
        body: body.to_vec(),
    })
}

fn read(body: &[u8]) -> ProviderUpdate {
    webhook(&[("content-hmac", &signed(SECRET, body))], body).expect("taken")
}

fn at(text: &str) -> Timestamp {
    text.parse().expect("a time")
}

fn fact(email: &str, kind: SignerFactKind, time: &str) -> SignerFact {
    SignerFact::new(format!("{email}@example.com"), kind, at(time))
}

#[test]
fn a_webhook_reports_its_event_and_the_whole_history() {
    let update = read(fixture!("sign_last"));
    assert_eq!(update.envelope_id.as_deref(), Some(DOCUMENT));
    use SignerFactKind::{Signed, Viewed};
    let second = fact("second", Signed, "2026-03-02T12:10:00.000Z");
    assert_eq!(
        update.facts,
        [
            second.clone(),
            fact("first", Viewed, "2026-03-02T12:02:00.000Z"),
            fact("first", Signed, "2026-03-02T12:03:10.250Z"),
            second,
        ]
    );
}

#[test]
fn a_refusal_has_its_reasons_and_the_signers_comment() {
    let refusal = &read(fixture!("refusal")).facts[0];
    assert_eq!(refusal.kind, SignerFactKind::Declined);
    assert_eq!(refusal.email.as_deref(), Some("second@example.com"));
    assert_eq!(
        refusal.reason.as_deref(),
        Some("Conteúdo do documento; Outros; the amount is wrong")
    );
}

#[test]
fn the_end_of_an_envelope_is_a_fact_about_all_signers() {
    for (body, kind) in [
        (&fixture!("cancel")[..], SignerFactKind::Canceled),
        (fixture!("deadline"), SignerFactKind::Expired),
    ] {
        let fact = read(body).facts.swap_remove(0);
        assert_eq!((fact.email, fact.kind), (None, kind));
    }
}

#[test]
fn an_envelope_that_closes_itself_was_signed_by_all() {
    let mut body: Value = serde_json::from_slice(fixture!("document_closed")).expect("JSON");
    body["event"]["name"] = "auto_close".into();
    body["document"]["events"] = json!([]);
    let fact = read(body.to_string().as_bytes()).facts.swap_remove(0);
    assert_eq!((fact.email, fact.kind), (None, SignerFactKind::Signed));
}

#[test]
fn the_history_tells_why_a_document_was_closed() {
    let update = read(fixture!("document_closed"));
    assert_eq!(update.envelope_id.as_deref(), Some(DOCUMENT));
    let signed = |email: &str| {
        let mut facts = update.facts.iter();
        facts.any(|it| it.kind == SignerFactKind::Signed && it.email.as_deref() == Some(email))
    };
    assert!(signed("first@example.com") && signed("second@example.com"));
    let mut body: Value = serde_json::from_slice(fixture!("document_closed")).expect("JSON");
    body["document"]["events"] = json!([]);
    let update = read(body.to_string().as_bytes());
    assert_eq!((update.envelope_id, update.facts), (None, Vec::new()));
}

#[test]
fn webhooks_of_both_secrets_are_accepted_while_the_secret_changes() {
    let secret = Secret::new;
    let config = ClickSignConfig::new("https://app.clicksign.com", secret("t0ken"), secret("old"));
    let config = config.and_then(|config| config.also_webhook_secret(secret("new")));
    let provider = ClickSign::new(
        config.expect("valid"),
        Arc::new(Scripted::default()),
        Arc::new(Folder),
    );
    let body = fixture!("sign");
    for (key, taken) in [("old", true), ("new", true), ("other", false)] {
        let headers = vec![("content-hmac".to_owned(), signed(key, body))];
        let body = body.to_vec();
        let read = provider.read_webhook(&WebhookRequest { headers, body });
        assert_eq!(read.is_ok(), taken, "{key}");
    }
    let config = ClickSignConfig::new("https://app.clicksign.com", secret("t0ken"), secret("old"));
    config
        .and_then(|config| config.also_webhook_secret(secret(" ")))
        .expect_err("anybody could sign");
}

#[test]
fn an_unreadable_field_hides_no_other() {
    let person = json!({"email": "one@example.com"});
    for data in [
        json!({"signer": person, "signers": null, "refusal": 7}),
        json!({"signer": {"key": 7, "email": "one@example.com"}}),
        json!({"signer": 7, "signers": [7, person]}),
    ] {
        let event = json!({"name": "sign", "occurred_at": "2026-01-15T10:30:00.000-03:00",
            "data": data});
        let body = json!({"event": event, "document": {"key": "doc"}});
        let update = events::read(body.to_string().as_bytes()).expect("it is read");
        assert_eq!(update.facts.len(), 1, "{data}");
    }
}

#[tokio::test]
async fn a_failure_after_the_activation_is_an_unknown_outcome() {
    for calls in [9, 10] {
        let mut client = Scripted::default().answer(200, json!({"data": []}));
        for _ in 1..calls {
            client = client.answer(201, made("it"));
        }
        let client = client.answer(503, "later");
        let broken = provider(client).create(asked()).await;
        assert!(
            matches!(broken, Err(ProviderError::Unknown(_))),
            "{broken:?}"
        );
    }
}

#[test]
fn a_webhook_about_anything_but_signers_has_no_facts() {
    for body in [
        &fixture!("attempts_exceeded")[..],
        fixture!("acceptance"),
        br#"{"event": {"name": "new_kind", "more": 1}, "else": []}"#,
    ] {
        let update = read(body);
        assert_eq!((update.envelope_id, update.facts), (None, Vec::new()));
    }
}

#[test]
fn a_webhook_without_the_right_signature_is_refused() {
    let body = fixture!("sign");
    let right = signed(SECRET, body);
    let refused = |headers: &[(&str, &str)], body: &[u8]| {
        let read = webhook(headers, body);
        assert!(
            matches!(read, Err(WebhookError::Unauthenticated)),
            "{read:?}"
        );
    };
    refused(&[], body);
    refused(&[("content-hmac", "")], body);
    refused(
        &[("content-hmac", right.trim_start_matches("sha256="))],
        body,
    );
    refused(&[("content-hmac", &right[..right.len() - 2])], body);
    refused(&[("content-hmac", &format!("{right}00"))], body);
    refused(&[("content-hmac", &signed("other", body))], body);
    // A header that only contains the signature is not accepted.
    refused(&[("content-hmac", &format!("x{right}"))], body);
    refused(&[("content-hmac", &right), ("Content-Hmac", &right)], body);
    refused(&[("x-content-hmac", &right)], body);
    // Change one byte of the body, then one of the signature, at each place.
    for place in (0..body.len()).step_by(97) {
        let mut wrong = body.to_vec();
        wrong[place] ^= 1;
        refused(&[("content-hmac", &right)], &wrong);
    }
    for place in "sha256=".len()..right.len() {
        let mut wrong = right.clone().into_bytes();
        wrong[place] = if wrong[place] == b'0' { b'1' } else { b'0' };
        let wrong = String::from_utf8(wrong).expect("ASCII");
        refused(&[("content-hmac", &wrong)], body);
    }
}

#[test]
fn a_proven_webhook_that_cannot_be_parsed_is_malformed() {
    for body in [&b""[..], b"[]", b"{\"document\": {}}", b"\xff"] {
        let read = webhook(&[("content-hmac", &signed(SECRET, body))], body);
        assert!(matches!(read, Err(WebhookError::Malformed(_))), "{read:?}");
    }
}

#[test]
fn a_repeated_event_has_the_same_key_in_a_later_state() {
    let mut later: Value = serde_json::from_slice(fixture!("sign")).expect("JSON");
    later["document"]["updated_at"] = json!("2026-04-01T00:00:00.000-03:00");
    later["document"]["events"] = json!([]);
    let later = later.to_string();
    let key = |body: &[u8]| read(body).dedupe_key;
    assert_eq!(key(fixture!("sign")), key(later.as_bytes()));
    assert_ne!(key(fixture!("sign")), key(fixture!("sign_last")));
}

fn asked() -> EnvelopeRequest {
    let signer = |email: &str, order| NewSigner {
        order: Some(order),
        name: Some("Some Name".to_owned()),
        ..NewSigner::new(email)
    };
    let signers = vec![
        signer("second@example.com", 5),
        signer("first@example.com", 2),
    ];
    let file = json!({"filename": "contract.pdf"});
    let organization = OrganizationId(uuid::Uuid::nil());
    let mut request = EnvelopeRequest::new(organization, "run/sign".to_owned(), file, signers);
    request.message = Some("Please sign.".to_owned());
    request.expires_at = Some(at("2026-04-01T12:00:00.000Z"));
    request
}

fn open() -> SignatureRequest {
    SignatureRequest {
        id: SignatureRequestId::new(),
        execution_id: ExecutionId::new(),
        organization_id: OrganizationId::new(),
        node_id: NodeId::from("sign"),
        provider: NAME.to_owned(),
        envelope_id: "doc-1".to_owned(),
        status: RequestStatus::Signing,
        signers: Vec::new(),
        file: Value::Null,
        created_at: at("2026-03-02T12:00:00.000Z"),
        expires_at: None,
        completed_at: None,
        details: json!({"envelope": "env-1"}),
        follow_up: FollowUp::default(),
        unreadable: false,
    }
}

fn made(id: &str) -> Value {
    json!({"data": {"id": id, "type": "things"}})
}

fn name() -> String {
    format!("contract [{}]", mark_of(&asked()))
}

fn found(id: &str, status: &str) -> Value {
    json!({"id": id, "type": "envelopes", "attributes": {"name": name(), "status": status}})
}

#[tokio::test]
async fn an_envelope_is_drafted_then_activated_then_announced() {
    let mut client = Scripted::default().answer(200, json!({"data": []}));
    for id in [
        "env-1", "doc-1", "sig-2", "r", "r", "sig-1", "r", "r", "env-1", "n",
    ] {
        client = client.answer(201, made(id));
    }
    let envelope = provider(client.clone())
        .create(asked())
        .await
        .expect("made");
    assert_eq!(envelope.envelope_id, "doc-1", "as webhooks name it");
    assert_eq!(envelope.details, json!({"envelope": "env-1"}));
    let asked = client.asked();
    let paths: Vec<_> = asked[1..].iter().map(String::as_str).collect();
    assert_eq!(
        paths,
        [
            "POST /api/v3/envelopes",
            "POST /api/v3/envelopes/env-1/documents",
            "POST /api/v3/envelopes/env-1/signers",
            "POST /api/v3/envelopes/env-1/requirements",
            "POST /api/v3/envelopes/env-1/requirements",
            "POST /api/v3/envelopes/env-1/signers",
            "POST /api/v3/envelopes/env-1/requirements",
            "POST /api/v3/envelopes/env-1/requirements",
            "PATCH /api/v3/envelopes/env-1",
            "POST /api/v3/envelopes/env-1/notifications",
        ]
    );
    let bodies = client.bodies();
    let attributes = |index: usize| &bodies[index]["data"]["attributes"];
    assert_eq!(attributes(0)["name"], name());
    assert_eq!(attributes(0)["deadline_at"], "2026-04-01T12:00:00.000Z");
    assert_eq!(attributes(0)["default_message"], "Please sign.");
    assert_eq!(
        attributes(1)["content_base64"],
        "data:application/pdf;base64,JVBERi0xLjc="
    );
    assert_eq!(
        (&attributes(2)["group"], &attributes(5)["group"]),
        (&json!(2), &json!(1))
    );
    let related = &bodies[3]["data"]["relationships"];
    assert_eq!(related["signer"]["data"]["id"], "sig-2");
    assert_eq!(related["document"]["data"]["id"], "doc-1");
    assert_eq!(attributes(8)["status"], "running");
    let sent = client.sent();
    let sent = sent.lock().expect("not poisoned");
    assert!(sent.iter().all(|request| {
        request
            .headers
            .contains(&("authorization", "t0ken".to_owned()))
    }));
}

#[tokio::test]
async fn a_retry_sends_no_second_envelope() {
    let running = json!({"data": [found("env-1", "running")]});
    let client = Scripted::default()
        .answer(200, &running)
        // ClickSign answers 429 because it notified the signers within the last minute.
        .answer(429, "{}")
        .answer(200, json!({"data": [{"id": "doc-1"}]}));
    let envelope = provider(client.clone())
        .create(asked())
        .await
        .expect("found");
    assert_eq!(envelope.envelope_id, "doc-1");
    assert_eq!(client.asked().len(), 3);
    // `find` notifies no signer.
    let client = Scripted::default()
        .answer(200, &running)
        .answer(200, json!({"data": [{"id": "doc-1"}]}));
    let found = provider(client.clone())
        .find(&asked())
        .await
        .expect("asked");
    assert_eq!(found.expect("one").details, json!({"envelope": "env-1"}));
    assert_eq!(client.asked().len(), 2);
}

#[tokio::test]
async fn a_retry_does_not_resend_an_envelope_that_has_ended() {
    for status in ["closed", "canceled"] {
        let client = Scripted::default()
            .answer(200, json!({"data": [found("env-1", status)]}))
            .answer(200, json!({"data": [{"id": "doc-1"}]}));
        let envelope = provider(client.clone()).create(asked()).await;
        assert_eq!(envelope.expect("found").envelope_id, "doc-1", "{status}");
        assert_eq!(client.asked().len(), 2);
    }
}

#[tokio::test]
async fn a_retry_deletes_the_draft_of_its_request_and_no_other() {
    let mut other = found("other", "draft");
    other["attributes"]["name"] = "contract".into();
    let listed = json!({"data": [other, found("draft", "draft")]});
    let mut client = Scripted::default().answer(200, listed).answer(204, "");
    for id in ["env-1", "doc-1", "s", "r", "r", "s", "r", "r", "e", "n"] {
        client = client.answer(201, made(id));
    }
    provider(client.clone())
        .create(asked())
        .await
        .expect("made");
    let asked = client.asked();
    assert_eq!(asked[1], "DELETE /api/v3/envelopes/draft");
    assert_eq!(asked[2], "POST /api/v3/envelopes");
    // The draft becomes active at this moment, so ClickSign refuses to delete it. The next attempt finds it
    // active.
    let listed = json!({"data": [found("draft", "draft")]});
    let client = Scripted::default().answer(200, listed).answer(422, "{}");
    let refused = provider(client).create(self::asked()).await;
    assert!(
        matches!(refused, Err(ProviderError::Unavailable(_))),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_refused_call_gives_clicksigns_reason_and_a_timeout_is_retryable() {
    let none = json!({"data": []});
    let wrong = json!({"errors": [{"title": "invalid", "detail": "name needs two words",
        "source": {"pointer": "/data/attributes/name"}}]});
    let client = Scripted::default()
        .answer(200, &none)
        .answer(201, made("env-1"))
        .answer(201, made("doc-1"))
        .answer(422, wrong);
    let refused = provider(client).create(asked()).await;
    let Err(ProviderError::Refused(tech)) = refused else {
        panic!("{refused:?}")
    };
    assert!(
        tech.contains("name needs two words") && !tech.contains("t0ken"),
        "{tech}"
    );
    let client = Scripted::default()
        .answer(200, &none)
        .fail(HttpError::TimedOut("15 s".to_owned()));
    let late = provider(client).create(asked()).await;
    assert!(matches!(late, Err(ProviderError::TimedOut(_))), "{late:?}");
}

#[tokio::test]
async fn the_status_has_the_same_facts_as_webhooks() {
    let events = String::from_utf8_lossy(fixture!("api_events")).into_owned();
    let client = Scripted::default().answer(200, events);
    let facts = provider(client.clone())
        .status(&open())
        .await
        .expect("told");
    let mut from_webhook = read(fixture!("refusal")).facts;
    from_webhook.remove(0);
    assert_eq!(facts, from_webhook);
    assert_eq!(
        client.asked(),
        ["GET /api/v3/envelopes/env-1/events?page%5Bnumber%5D=1&page%5Bsize%5D=50"]
    );
}

#[tokio::test]
async fn a_long_history_is_read_to_its_end() {
    let event = json!({"attributes": {"name": "add_image"}});
    let signed = json!({"attributes": {"name": "sign", "created": "2026-03-02T12:00:00Z",
        "data": {"signer": {"email": "first@example.com"}}}});
    let client = Scripted::default()
        .answer(200, json!({"data": vec![event; 50]}))
        .answer(200, json!({"data": [signed]}));
    let facts = provider(client).status(&open()).await.expect("told");
    assert_eq!(
        facts,
        [fact(
            "first",
            SignerFactKind::Signed,
            "2026-03-02T12:00:00Z"
        )]
    );
}

#[tokio::test]
async fn the_signed_document_is_stored_once_the_envelope_is_closed() {
    let link = "https://content.s3.amazonaws.com/signed.pdf?sig=1";
    let document = json!({"data": {"id": "doc-1", "links": {"files": {"signed": link}}}});
    let client = Scripted::default()
        .answer(200, &document)
        .answer(200, json!({"data": found("env-1", "closed")}))
        .answer(200, "%PDF-1.7 signed");
    let file = provider(client)
        .signed_document(&open())
        .await
        .expect("taken");
    assert_eq!(
        (&file["content"], &file["envelope"]),
        (&json!("%PDF-1.7 signed"), &json!("doc-1"))
    );
    for (document, status) in [
        (document, Some("running")),
        (
            json!({"data": {"id": "doc-1", "links": {"files": {}}}}),
            None,
        ),
    ] {
        let mut client = Scripted::default().answer(200, document);
        if let Some(status) = status {
            client = client.answer(200, json!({"data": found("env-1", status)}));
        }
        let early = provider(client).signed_document(&open()).await;
        assert!(
            matches!(early, Err(ProviderError::NotReady(_))),
            "{early:?}"
        );
    }
}

#[tokio::test]
async fn a_cancel_of_an_ended_envelope_succeeds() {
    let done = Scripted::default().answer(200, made("env-1"));
    provider(done.clone())
        .cancel(&open())
        .await
        .expect("withdrawn");
    assert_eq!(done.bodies()[0]["data"]["attributes"]["status"], "canceled");
    let outcome = async |status: &str| {
        let client = Scripted::default()
            .answer(422, "{}")
            .answer(200, json!({"data": found("env-1", status)}));
        provider(client).cancel(&open()).await
    };
    outcome("closed").await.expect("ended there");
    outcome("running").await.expect_err("still open");
}

#[test]
fn an_event_of_an_unknown_shape_hides_no_other() {
    let odd = [
        json!({"name": "new_kind", "data": null, "occurred_at": "yesterday"}),
        json!({"name": "new_kind", "data": ["x"]}),
        json!(7),
        json!({"data": {"signers": null}}),
    ];
    let signed = json!({"name": "sign", "occurred_at": "2026-01-15T10:30:00.000-03:00",
        "data": {"signer": {"email": "one@example.com"}}});
    for event in odd {
        let history = [event.clone(), signed.clone()];
        let body = json!({"event": signed, "document": {"key": "doc", "events": history}});
        let update = events::read(body.to_string().as_bytes()).expect("it is read");
        assert_eq!(update.facts.len(), 2, "{event}");
    }
    let body = json!({"event": {"name": "new_kind", "data": null}, "document": {"key": "doc"}});
    let update = events::read(body.to_string().as_bytes()).expect("it is kept");
    assert!(update.facts.is_empty() && update.envelope_id.is_none());
}
