//! Providers that fail. The server explains each error in both languages, with an action.

use std::time::{Duration, Instant};

use serde_json::json;

use super::{
    clicksign::{self, ClickSign},
    fake::Fault,
    is_clear, start, usual,
    zapsign::{self, ZapSign},
};

const ENVELOPES: &str = "POST /api/v3/envelopes";

#[tokio::test(flavor = "multi_thread")]
async fn what_may_pass_is_tried_again_and_then_told() {
    let fake = ClickSign::serve().await;
    let server = clicksign::with(&fake);
    for (status, body, code) in [
        (500, "<html>oops</html>", "clicksign.service_unavailable"),
        (200, "<html>garbage</html>", "clicksign.service_unavailable"),
        (429, "{}", "clicksign.rate_limit"),
    ] {
        let before = fake.desk.calls(ENVELOPES).len();
        for _ in 0..3 {
            let mut fault = Fault::new(ENVELOPES, status, body);
            // Without `Retry-After`, the server waits ten seconds after a rate limit.
            fault.retry_after = Some("0");
            fake.desk.fails(fault);
        }
        let id = start(&server, "clicksign", usual()).await;
        server.until(&id, &["failed"]).await;
        is_clear(&server, &id, code, "retry").await;
        assert_eq!(
            fake.desk.calls(ENVELOPES).len() - before,
            3,
            "as often as the node says"
        );
    }
    assert_eq!(fake.sent(), 0);
    // The provider fails once; the execution retries and continues.
    fake.desk.fails(Fault::new(ENVELOPES, 500, ""));
    let id = start(&server, "clicksign", usual()).await;
    server.until_it_awaits_signatures(&id).await;
    assert_eq!(fake.sent(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_asks_to_slow_down_is_given_its_time() {
    let fake = ClickSign::serve().await;
    let server = clicksign::with(&fake);
    let mut limited = Fault::new(ENVELOPES, 429, "{}");
    limited.retry_after = Some("2");
    fake.desk.fails(limited);
    let patient = json!({"max_attempts": 3, "initial_ms": 20, "max_ms": 5_000, "multiplier": 2.0});
    let began = Instant::now();
    let id = start(&server, "clicksign", patient).await;
    server.until_it_awaits_signatures(&id).await;
    assert!(
        began.elapsed() >= Duration::from_secs(2),
        "{:?}",
        began.elapsed()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_person_can_repair_waits_for_one() {
    let fake = ClickSign::serve().await;
    let server = clicksign::with(&fake);
    let signers = "POST /api/v3/envelopes/env-0/signers";
    fake.desk.fails(Fault::new(
        signers,
        422,
        r#"{"errors": [{"detail": "name needs two words, not api-token-51a9c3"}]}"#,
    ));
    let id = start(&server, "clicksign", usual()).await;
    server.until(&id, &["needs_review"]).await;
    is_clear(
        &server,
        &id,
        "clicksign.signature_request_refused",
        "fix_signers",
    )
    .await;
    assert_eq!(fake.sent(), 0, "nobody has heard of it");
    let path = format!("/api/v1/executions/{id}/resume");
    server.post(&path, &json!({"approved": true})).await;
    server.until_it_awaits_signatures(&id).await;
    assert_eq!(fake.sent(), 1, "the draft is cleared away");

    let list = "GET /api/v3/envelopes";
    fake.desk.fails(Fault::new(list, 401, "{}"));
    let id = start(&server, "clicksign", usual()).await;
    server.until(&id, &["needs_review"]).await;
    is_clear(&server, &id, "clicksign.api_key_invalid", "update_api_key").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_that_could_not_be_made_is_told_and_asked_for_no_second_time_than_allowed() {
    let fake = ZapSign::serve().await;
    let server = zapsign::with(&fake);
    let create = "POST /api/v1/docs/";
    for _ in 0..3 {
        fake.desk.fails(Fault::new(create, 500, "oops"));
    }
    let id = start(&server, "zapsign", usual()).await;
    server.until(&id, &["failed"]).await;
    is_clear(&server, &id, "zapsign.service_unavailable", "retry").await;
    assert_eq!(fake.desk.calls(create).len(), 3);
    // The outcome of the call is unknown, so the server looks for the document before it creates it again.
    fake.desk.fails(Fault::new(create, 500, "oops"));
    let list = "GET /api/v1/docs/";
    let lists = fake.desk.calls(list).len();
    let id = start(&server, "zapsign", usual()).await;
    server.until_it_awaits_signatures(&id).await;
    assert!(
        fake.desk.calls(list).len() > lists + 1,
        "it was looked for before it was made again"
    );
}
