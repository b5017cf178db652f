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
use serde_json::{Value, json};

use super::*;
use crate::{
    HttpError,
    request::mark_of,
    testing::{Folder, Scripted},
};

const SECRET: &str = "webhook-secret";
const TOKEN: &str = "cce11abf-abcd-4bcd-a657-25b55f185f16";

macro_rules! fixture {
    ($name:literal) => {
        include_bytes!(concat!("../../fixtures/zapsign/", $name, ".json"))
    };
}

fn config(base_url: &str) -> ZapSignConfig {
    let config = ZapSignConfig::new(base_url, Secret::new("t0ken"), Secret::new(SECRET));
    config.expect("valid").patience(Duration::ZERO)
}

fn provider(client: Scripted) -> ZapSign {
    let config = config("https://api.zapsign.com.br");
    ZapSign::new(config, Arc::new(client), Arc::new(Folder))
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
    webhook(&[("x-webhook-secret", SECRET)], body).expect("taken")
}

fn at(text: &str) -> Timestamp {
    text.parse().expect("a time")
}

fn fact(email: &str, kind: SignerFactKind, time: &str) -> SignerFact {
    SignerFact::new(format!("{email}@example.com"), kind, at(time))
}

fn kinds(update: &ProviderUpdate) -> Vec<(Option<&str>, SignerFactKind)> {
    let facts = update.facts.iter();
    facts
        .map(|fact| (fact.email.as_deref(), fact.kind))
        .collect()
}

#[test]
fn a_webhook_reports_the_state_of_all_signers() {
    use SignerFactKind::{Signed, Viewed};
    let update = read(fixture!("doc_signed"));
    assert_eq!(update.envelope_id.as_deref(), Some(TOKEN));
    let signed = fact("first", Signed, "2026-03-02T12:03:10.250Z");
    assert_eq!(
        update.facts,
        [
            fact("first", Viewed, "2026-03-02T12:02:00.875Z"),
            signed.clone(),
            signed
        ]
    );
    let last = read(fixture!("doc_signed_last"));
    let signed = |email| (Some(email), Signed);
    let kinds = kinds(&last);
    assert!(kinds.contains(&signed("first@example.com")));
    assert!(kinds.contains(&signed("second@example.com")));
    let opened = read(fixture!("doc_viewed"));
    assert_eq!(
        opened.facts,
        [fact("first", Viewed, "2026-03-02T12:02:00.875Z")]
    );
}

#[test]
fn a_signature_without_a_moment_gets_the_time_of_its_report() {
    for moment in [json!(null), json!("yesterday"), json!("0000-00-00")] {
        let mut body: Value = serde_json::from_slice(fixture!("doc_signed_last")).expect("JSON");
        for signer in body["signers"].as_array_mut().expect("signers") {
            signer["signed_at"] = moment.clone();
        }
        let before = Timestamp::now();
        let update = read(body.to_string().as_bytes());
        let signed = |fact: &&SignerFact| fact.kind == SignerFactKind::Signed;
        let moments: Vec<_> = update.facts.iter().filter(signed).map(|it| it.at).collect();
        assert!(moments.len() >= 2, "{update:?}");
        assert!(
            moments.iter().all(|at| *at >= before),
            "{moment}: {moments:?}"
        );
    }
}

#[test]
fn an_unreadable_field_of_another_signer_does_not_cost_the_event() {
    let whole: Value = serde_json::from_slice(fixture!("doc_signed")).expect("JSON");
    let signers = whole["signers"].as_array().expect("signers");
    let other = signers
        .iter()
        .position(|it| it["email"] == "second@example.com");
    let other = other.expect("a second signer");
    let expected = kinds(&read(fixture!("doc_signed"))).len();
    let fields = [
        "email",
        "status",
        "times_viewed",
        "last_view_at",
        "signed_at",
    ];
    for broken in [json!(null), json!(-1), json!([]), json!({})] {
        for field in fields {
            let mut body = whole.clone();
            body["signers"][other][field] = broken.clone();
            let update = read(body.to_string().as_bytes());
            assert_eq!(update.facts.len(), expected, "{field}: {broken}");
        }
        let mut body = whole.clone();
        body["signers"][other] = broken.clone();
        let update = read(body.to_string().as_bytes());
        assert_eq!(update.facts.len(), expected, "signer: {broken}");
    }
}

#[test]
fn a_refusal_belongs_to_the_only_signer_left_or_to_nobody() {
    let update = read(fixture!("doc_refused"));
    let refusal = update.facts.last().expect("a fact");
    assert_eq!(refusal.kind, SignerFactKind::Declined);
    assert_eq!(refusal.email.as_deref(), Some("second@example.com"));
    assert_eq!(refusal.reason.as_deref(), Some("the amount is wrong"));
    let update = read(fixture!("doc_refused_by_somebody"));
    let refusal = update.facts.last().expect("a fact");
    assert_eq!(
        (refusal.email.as_deref(), refusal.kind),
        (None, SignerFactKind::Declined)
    );
    assert!(!kinds(&update).contains(&(None, SignerFactKind::Canceled)));
}

#[test]
fn the_end_of_a_document_is_a_fact_about_all_signers() {
    for (body, kind) in [
        (&fixture!("doc_deleted")[..], SignerFactKind::Canceled),
        (fixture!("doc_expired"), SignerFactKind::Expired),
        // A signer may have signed with another address than the requested one, so this fact names no signer.
        (fixture!("doc_signed_last"), SignerFactKind::Signed),
    ] {
        assert!(kinds(&read(body)).contains(&(None, kind)), "{kind:?}");
    }
    let one = read(fixture!("doc_signed"));
    let of_one = kinds(&one);
    assert!(!of_one.contains(&(None, SignerFactKind::Signed)));
    let bounced = read(fixture!("email_bounce"));
    assert_eq!(
        kinds(&bounced),
        [(Some("second@example.com"), SignerFactKind::Bounced)]
    );
    assert_eq!(bounced.envelope_id.as_deref(), Some(TOKEN));
}

#[test]
fn a_webhook_about_anything_but_signers_has_no_facts() {
    for body in [
        &fixture!("doc_created")[..],
        fixture!("doc_expiration_alert"),
        fixture!("signature_notification_sent"),
        br#"{"event_type": "new_kind"}"#,
        br#"{"event_type": "email_bounce"}"#,
        b"{}",
    ] {
        let update = read(body);
        assert_eq!((update.envelope_id, update.facts), (None, Vec::new()));
    }
}

#[test]
fn a_signature_in_the_sandbox_counts_only_in_the_sandbox() {
    let body = fixture!("doc_signed_sandbox");
    assert!(read(body).facts.is_empty());
    let config = config("https://sandbox.api.zapsign.com.br");
    let sandbox = ZapSign::new(config, Arc::new(Scripted::default()), Arc::new(Folder));
    let headers = vec![("X-Webhook-Secret".to_owned(), SECRET.to_owned())];
    let read = |body: &[u8]| {
        let (headers, body) = (headers.clone(), body.to_vec());
        sandbox.read_webhook(&WebhookRequest { headers, body })
    };
    assert!(!read(body).expect("taken").facts.is_empty());
    assert!(
        read(fixture!("doc_signed_last"))
            .expect("taken")
            .facts
            .is_empty()
    );
    let mut bounced: Value = serde_json::from_slice(fixture!("email_bounce")).expect("JSON");
    bounced["sandbox"] = false.into();
    let bounced = bounced.to_string();
    assert!(read(bounced.as_bytes()).expect("taken").facts.is_empty());
}

#[test]
fn webhooks_of_both_secrets_are_accepted_while_the_secret_changes() {
    let config = config("https://api.zapsign.com.br").also_webhook_secret(Secret::new("new"));
    let client = Arc::new(Scripted::default());
    let provider = ZapSign::new(config.expect("valid"), client, Arc::new(Folder));
    for (secret, taken) in [(SECRET, true), ("new", true), ("other", false)] {
        let headers = vec![("x-webhook-secret".to_owned(), secret.to_owned())];
        let body = fixture!("doc_signed").to_vec();
        let read = provider.read_webhook(&WebhookRequest { headers, body });
        assert_eq!(read.is_ok(), taken, "{secret}");
    }
}

#[test]
fn a_webhook_without_the_right_secret_is_refused() {
    let body = fixture!("doc_signed");
    let refused = |headers: &[(&str, &str)]| {
        let read = webhook(headers, body);
        assert!(
            matches!(read, Err(WebhookError::Unauthenticated)),
            "{read:?}"
        );
    };
    refused(&[]);
    refused(&[("x-webhook-secret", "")]);
    refused(&[("authorization", SECRET)]);
    refused(&[("x-webhook-secret", SECRET), ("X-Webhook-Secret", SECRET)]);
    refused(&[("x-webhook-secret", &SECRET[1..])]);
    refused(&[("x-webhook-secret", &format!("{SECRET} "))]);
    for place in 0..SECRET.len() {
        let mut wrong = SECRET.as_bytes().to_vec();
        wrong[place] ^= 1;
        refused(&[(
            "x-webhook-secret",
            std::str::from_utf8(&wrong).expect("ASCII"),
        )]);
    }
    for body in [&b""[..], b"[]", br#"{"event_type": "doc_signed"}"#] {
        let read = webhook(&[("x-webhook-secret", SECRET)], body);
        assert!(matches!(read, Err(WebhookError::Malformed(_))), "{read:?}");
    }
}

#[test]
fn a_repeated_delivery_has_the_same_key() {
    let key = |body: &[u8]| read(body).dedupe_key;
    assert_eq!(key(fixture!("doc_signed")), key(fixture!("doc_signed")));
    assert_ne!(
        key(fixture!("doc_signed")),
        key(fixture!("doc_signed_last"))
    );
}

fn asked() -> EnvelopeRequest {
    let mut first = NewSigner::new("first@example.com");
    first.name = Some("First".to_owned());
    let signers = vec![first, NewSigner::new("second@example.com")];
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
        envelope_id: TOKEN.to_owned(),
        status: RequestStatus::Signing,
        signers: Vec::new(),
        file: Value::Null,
        created_at: at("2026-03-02T12:00:00.000Z"),
        expires_at: None,
        completed_at: None,
        details: Value::Null,
        follow_up: FollowUp::default(),
        unreadable: false,
    }
}

fn listed(documents: Value) -> Value {
    json!({"count": 1, "next": null, "previous": null, "results": documents})
}

#[tokio::test]
async fn a_document_is_sent_with_the_mark_of_its_request() {
    let made = json!({"token": TOKEN, "status": "pending"});
    let client = Scripted::default()
        .answer(200, listed(json!([])))
        .answer(200, made);
    let envelope = provider(client.clone())
        .create(asked())
        .await
        .expect("made");
    assert_eq!(envelope.envelope_id, TOKEN);
    assert_eq!(
        client.asked(),
        [
            "GET /api/v1/docs/?page=1&sort_order=desc&signer_email=first%40example.com",
            "POST /api/v1/docs/",
        ]
    );
    let body = &client.bodies()[0];
    assert_eq!(body["external_id"], mark_of(&asked()));
    assert_eq!(body["base64_pdf"], "JVBERi0xLjc=");
    assert_eq!(body["signature_order_active"], false);
    assert_eq!(body["date_limit_to_sign"], "2026-04-01T12:00:00.000Z");
    assert_eq!(body["signers"][0]["name"], "First");
    assert_eq!(body["signers"][1]["name"], "second@example.com");
    assert_eq!(body["signers"][1]["custom_message"], "Please sign.");
    let sent = client.sent();
    let sent = sent.lock().expect("not poisoned");
    let bearer = ("authorization", "Bearer t0ken".to_owned());
    assert!(sent.iter().all(|request| request.headers.contains(&bearer)));
}

#[tokio::test]
async fn a_retry_sends_no_second_document() {
    let mark = mark_of(&asked());
    let document = json!({"token": TOKEN, "status": "pending", "external_id": mark});
    for listing in [
        json!([{"token": "other", "external_id": "x"}, {"token": TOKEN, "external_id": mark}]),
        // The list leaves out the marks.
        json!([{"token": TOKEN, "name": "contract"}]),
    ] {
        let client = Scripted::default()
            .answer(200, listed(listing))
            .answer(200, &document);
        let envelope = provider(client.clone())
            .create(asked())
            .await
            .expect("found");
        assert_eq!(envelope.envelope_id, TOKEN);
        assert_eq!(client.asked().len(), 2, "nothing was made");
    }
}

#[tokio::test]
async fn a_lost_answer_to_the_creation_is_an_unknown_outcome() {
    let none = listed(json!([]));
    for (client, unknown) in [
        (
            Scripted::default().fail(HttpError::TimedOut("60 s".to_owned())),
            true,
        ),
        (
            Scripted::default().fail(HttpError::Broken("reset".to_owned())),
            true,
        ),
        (Scripted::default().answer(502, "<html>"), true),
        (Scripted::default().answer(200, "<html>"), true),
        (
            Scripted::default().fail(HttpError::Unreachable("dns".to_owned())),
            false,
        ),
        (Scripted::default().answer(503, ""), false),
    ] {
        let listed = Scripted::default().answer(200, &none);
        let failed = provider(listed.then(client)).create(asked()).await;
        let is_unknown = matches!(failed, Err(ProviderError::Unknown(_)));
        assert_eq!(is_unknown, unknown, "{failed:?}");
    }
}

#[tokio::test]
async fn the_status_has_the_same_facts_as_webhooks() {
    let document = String::from_utf8_lossy(fixture!("api_doc")).into_owned();
    let client = Scripted::default().answer(200, document);
    let mut facts = provider(client).status(&open()).await.expect("told");
    let mut from_webhook = read(fixture!("doc_signed_last")).facts;
    from_webhook.pop();
    // The last signature has no time of its own and gets the time at which it was read.
    let [told, reported] = [&mut facts, &mut from_webhook].map(|facts| facts.last_mut());
    told.expect("signed").at = reported.expect("signed").at;
    assert_eq!(facts, from_webhook);
}

#[tokio::test]
async fn the_signed_document_is_stored_once_all_have_signed() {
    let document = String::from_utf8_lossy(fixture!("api_doc")).into_owned();
    let client = Scripted::default()
        .answer(200, &document)
        .answer(200, "%PDF-1.7 signed");
    let file = provider(client)
        .signed_document(&open())
        .await
        .expect("taken");
    assert_eq!(file["content"], "%PDF-1.7 signed");
    let mut state: Value = serde_json::from_str(&document).expect("JSON");
    state["status"] = "pending".into();
    let early = provider(Scripted::default().answer(200, &state));
    let early = early.signed_document(&open()).await;
    assert!(
        matches!(early, Err(ProviderError::NotReady(_))),
        "{early:?}"
    );
    state["status"] = "recusado".into();
    let refused = provider(Scripted::default().answer(200, &state));
    let refused = refused.signed_document(&open()).await;
    assert!(
        matches!(refused, Err(ProviderError::Refused(_))),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_cancel_of_an_ended_document_succeeds() {
    let outcome = async |status: &str| {
        let client = Scripted::default()
            .answer(400, "{}")
            .answer(200, json!({"token": TOKEN, "status": status}));
        provider(client).cancel(&open()).await
    };
    outcome("signed").await.expect("ended there");
    outcome("pending").await.expect_err("still open");
    let client = Scripted::default().answer(200, "{}");
    provider(client.clone())
        .cancel(&open())
        .await
        .expect("withdrawn");
    assert_eq!(client.bodies()[0]["doc_token"], TOKEN);
}
