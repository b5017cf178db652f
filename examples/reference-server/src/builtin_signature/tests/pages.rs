use axum::{
    Router,
    body::Body,
    http::{Request, StatusCode, header},
    response::Response,
};
use docg_core::{
    engine::{ControlRequest, Resume, StartRequest, WorkerOptions, Workers},
    error::StepFailure,
    ids::WorkflowId,
    observe::Actor,
    run::{Phase, Status},
    workflow::{EffectContext, NodeSpec, StepOutcome, WorkflowDraft, effect},
};
use docg_store_memory::{BusConfig, MemoryBus, MemoryStore, StoreConfig};
use futures::StreamExt;
use serde_json::{Value, json};
use tower::ServiceExt;

use super::*;
use crate::files::RecordKind;

struct Browser(Router);

impl Browser {
    fn new(fixture: &Fixture) -> Self {
        Self(routes(fixture.desk.clone()))
    }

    async fn send(&self, request: Request<Body>) -> (StatusCode, Response) {
        let response = self.0.clone().oneshot(request).await.unwrap();
        (response.status(), response)
    }

    async fn get(&self, path: &str) -> (StatusCode, String) {
        self.get_in(path, "en").await
    }

    async fn get_in(&self, path: &str, language: &str) -> (StatusCode, String) {
        let request = Request::get(path).header(header::ACCEPT_LANGUAGE, language);
        let (status, response) = self.send(request.body(Body::empty()).unwrap()).await;
        (status, text(response).await)
    }

    async fn post(&self, path: &str, form: &str) -> (StatusCode, String) {
        let request = Request::post(path)
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(Body::from(form.to_owned()));
        let (status, response) = self.send(request.unwrap()).await;
        (status, text(response).await)
    }
}

async fn text(response: Response) -> String {
    let bytes = axum::body::to_bytes(response.into_body(), 1 << 20)
        .await
        .unwrap();
    String::from_utf8_lossy(&bytes).into_owned()
}

async fn asked(signers: &[(&str, Option<u32>)]) -> (Fixture, Browser, String) {
    let fixture = Fixture::new().await;
    let envelope = fixture.ask(signers).await;
    let browser = Browser::new(&fixture);
    (fixture, browser, envelope)
}

const SIGN: &str = "name=Signer+One&consent=yes";

#[tokio::test]
async fn the_page_shows_the_document_and_a_form_in_the_reader_s_language() {
    let (fixture, browser, envelope) = asked(&[(ONE, None), (TWO, None)]).await;
    let token = fixture.token(&envelope, ONE);
    let (status, page) = browser.get(&format!("/sign/{token}")).await;
    assert_eq!(status, StatusCode::OK);
    // All links begin with the path of the public URL.
    for part in [
        format!("<form method=\"post\" action=\"/docg/sign/{token}\">"),
        format!("<iframe src=\"/docg/sign/{token}/document.pdf\""),
        "href=\"/docg/sign/assets/style.css\"".to_owned(),
        fixture.document.sha256.clone(),
        "lang=\"en\"".to_owned(),
    ] {
        assert!(page.contains(&part), "{part} is missing in {page}");
    }
    assert!(!page.contains("<script"), "pages work without scripts");
    let (_, page) = browser
        .get_in(&format!("/sign/{token}"), "pt-BR,pt;q=0.9")
        .await;
    assert!(
        page.contains("lang=\"pt-BR\"") && page.contains("Assinar o documento"),
        "{page}"
    );
}

#[tokio::test]
async fn the_pages_load_nothing_from_elsewhere_and_leave_no_trace() {
    let (fixture, browser, envelope) = asked(&[(ONE, None)]).await;
    let path = format!("/sign/{}", fixture.token(&envelope, ONE));
    let (_, response) = browser
        .send(Request::get(&path).body(Body::empty()).unwrap())
        .await;
    let header = |name| {
        response
            .headers()
            .get(name)
            .unwrap()
            .to_str()
            .unwrap()
            .to_owned()
    };
    let policy = header(header::CONTENT_SECURITY_POLICY);
    for part in [
        "default-src 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    ] {
        assert!(policy.contains(part), "{policy}");
    }
    assert!(
        !policy.contains("unsafe") && !policy.contains("script"),
        "{policy}"
    );
    assert_eq!(header(header::CACHE_CONTROL), "no-store");
    assert_eq!(header(header::REFERRER_POLICY), "no-referrer");
    assert_eq!(header(header::X_CONTENT_TYPE_OPTIONS), "nosniff");
}

#[tokio::test]
async fn the_document_is_shown_as_it_is() {
    let (fixture, browser, envelope) = asked(&[(ONE, None)]).await;
    let path = format!("/sign/{}/document.pdf", fixture.token(&envelope, ONE));
    let (status, response) = browser
        .send(Request::get(&path).body(Body::empty()).unwrap())
        .await;
    assert_eq!(status, StatusCode::OK);
    let header = |name| {
        response
            .headers()
            .get(name)
            .unwrap()
            .to_str()
            .unwrap()
            .to_owned()
    };
    assert_eq!(header(header::CONTENT_TYPE), "application/pdf");
    assert!(header(header::CONTENT_DISPOSITION).starts_with("inline; filename=\"Contract 7.pdf\""));
    assert_eq!(text(response).await, "a document");
}

#[tokio::test]
async fn signing_counts_once() {
    let (fixture, browser, envelope) = asked(&[(ONE, None), (TWO, None)]).await;
    let path = format!("/sign/{}", fixture.token(&envelope, ONE));
    let (status, page) = browser.post(&path, SIGN).await;
    assert!(
        status == StatusCode::OK && page.contains("Your signature has been recorded"),
        "{page}"
    );
    let (status, page) = browser.post(&path, "name=Somebody+Else&consent=yes").await;
    assert_eq!(status, StatusCode::CONFLICT);
    assert!(page.contains("You have signed already"), "{page}");
    let (status, page) = browser.post(&format!("{path}/decline"), "reason=x").await;
    assert_eq!(status, StatusCode::CONFLICT, "{page}");
    let signer = link::SignerRef::new(&envelope, ONE);
    let decision = fixture.desk.decision(&signer).await.unwrap().unwrap();
    assert_eq!(decision.name.as_deref(), Some("Signer One"));
    let (status, page) = browser.get(&path).await;
    assert!(
        status == StatusCode::OK && page.contains("Others have yet to sign"),
        "{page}"
    );
}

#[tokio::test]
async fn of_many_clicks_at_once_one_counts() {
    let (fixture, browser, envelope) = asked(&[(ONE, None), (TWO, None)]).await;
    let path = format!("/sign/{}", fixture.token(&envelope, ONE));
    let decline = format!("{path}/decline");
    let clicks = (0..16).map(|number| {
        let (path, form) = if number % 2 == 0 {
            (&path, SIGN)
        } else {
            (&decline, "reason=no")
        };
        browser.post(path, form)
    });
    let answers = futures::future::join_all(clicks).await;
    let taken = answers
        .iter()
        .filter(|(status, _)| *status == StatusCode::OK)
        .count();
    assert_eq!(taken, 1);
    let refused = [StatusCode::CONFLICT, StatusCode::GONE];
    let others = answers
        .iter()
        .filter(|(status, _)| refused.contains(status))
        .count();
    assert_eq!(others, 15);
}

#[tokio::test]
async fn a_form_that_is_not_filled_in_says_what_is_missing_and_records_nothing() {
    let (fixture, browser, envelope) = asked(&[(ONE, None)]).await;
    let path = format!("/sign/{}", fixture.token(&envelope, ONE));
    let long_name = format!("name={}&consent=yes", "x".repeat(201));
    for (form, words, status) in [
        ("", "type your full name", StatusCode::UNPROCESSABLE_ENTITY),
        (
            "name=+%20%0A&consent=yes",
            "type your full name",
            StatusCode::UNPROCESSABLE_ENTITY,
        ),
        (
            "name=A%00B%E2%80%AEC&consent=yes",
            "cannot be recorded as it is",
            StatusCode::UNPROCESSABLE_ENTITY,
        ),
        (
            "name=A%0AB&consent=yes",
            "in one line",
            StatusCode::UNPROCESSABLE_ENTITY,
        ),
        (
            "name=other%40example.com&consent=yes",
            "without an e-mail address",
            StatusCode::UNPROCESSABLE_ENTITY,
        ),
        (
            "name=One",
            "confirm that you have read",
            StatusCode::UNPROCESSABLE_ENTITY,
        ),
        (
            "name=Jos%E9&consent=yes",
            "could not be read",
            StatusCode::UNPROCESSABLE_ENTITY,
        ),
        (
            "name=One&name=Two&consent=yes",
            "could not be read",
            StatusCode::UNPROCESSABLE_ENTITY,
        ),
        (&long_name, "at most 200", StatusCode::UNPROCESSABLE_ENTITY),
    ] {
        let (answered, page) = browser.post(&path, form).await;
        assert_eq!(answered, status, "{form}: {page}");
        assert!(
            page.contains(words) && page.contains("<form"),
            "{form}: {page}"
        );
    }
    let huge = format!("name={}&consent=yes", "x".repeat(100_000));
    let (status, _) = browser.post(&path, &huge).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
    let signer = link::SignerRef::new(&envelope, ONE);
    assert_eq!(fixture.desk.decision(&signer).await.unwrap(), None);
}

#[tokio::test]
async fn what_people_type_is_never_markup() {
    let fixture = Fixture::new().await;
    let mut request = fixture.request(&[(ONE, None)]);
    let attack = "<script>alert(1)</script>\"'>";
    request.signers[0].name = Some(attack.to_owned());
    request.message = Some(attack.to_owned());
    let envelope = fixture.provider.create(request).await.unwrap().envelope_id;
    let browser = Browser::new(&fixture);
    let path = format!("/sign/{}", fixture.token(&envelope, ONE));
    let (_, page) = browser.get(&path).await;
    let (_, refused) = browser.post(&path, "name=%3Cscript%3E%22%27%3E").await;
    for page in [page, refused] {
        assert!(
            !page.contains("<script") && !page.contains("\"'>"),
            "{page}"
        );
    }
}

#[tokio::test]
async fn a_refusal_ends_it_for_all() {
    let (fixture, browser, envelope) = asked(&[(ONE, None), (TWO, None)]).await;
    let path = format!("/sign/{}", fixture.token(&envelope, ONE));
    let (status, page) = browser
        .post(&format!("{path}/decline"), "reason=The+price+is+wrong")
        .await;
    assert!(
        status == StatusCode::OK && page.contains("You have declined"),
        "{page}"
    );
    let signer = link::SignerRef::new(&envelope, ONE);
    let decision = fixture.desk.decision(&signer).await.unwrap().unwrap();
    assert_eq!(decision.reason.as_deref(), Some("The price is wrong"));
    let other = format!("/sign/{}", fixture.token(&envelope, TWO));
    for (status, page) in [browser.get(&other).await, browser.post(&other, SIGN).await] {
        assert_eq!(status, StatusCode::GONE);
        assert!(
            page.contains("no longer open") && !page.contains("<form"),
            "{page}"
        );
    }
    let (status, _) = browser.get(&format!("{other}/document.pdf")).await;
    assert_eq!(status, StatusCode::GONE);
}

#[tokio::test]
async fn after_all_have_signed_the_page_says_so() {
    let (fixture, browser, envelope) = asked(&[(ONE, None)]).await;
    let path = format!("/sign/{}", fixture.token(&envelope, ONE));
    browser.post(&path, SIGN).await;
    for (status, page) in [browser.get(&path).await, browser.post(&path, SIGN).await] {
        assert_eq!(status, StatusCode::GONE);
        assert!(page.contains("This document has been signed"), "{page}");
    }
}

#[tokio::test]
async fn after_its_time_nobody_signs() {
    let fixture = Fixture::new().await;
    let mut request = fixture.request(&[(ONE, None)]);
    request.expires_at = Some(Timestamp::from_millis(1));
    let envelope = fixture.provider.create(request).await.unwrap().envelope_id;
    let browser = Browser::new(&fixture);
    let path = format!("/sign/{}", fixture.token(&envelope, ONE));
    for (status, page) in [browser.get(&path).await, browser.post(&path, SIGN).await] {
        assert_eq!(status, StatusCode::GONE);
        assert!(page.contains("The time for signing is over"), "{page}");
    }
}

#[tokio::test]
async fn who_comes_before_their_turn_is_told_so() {
    let (fixture, browser, envelope) = asked(&[(ONE, Some(1)), (TWO, Some(2))]).await;
    assert_eq!(
        fixture.receivers(),
        [ONE],
        "the second is not written to yet"
    );
    let second = format!("/sign/{}", fixture.token(&envelope, TWO));
    let (status, page) = browser.get(&second).await;
    assert!(
        status == StatusCode::OK && page.contains("not your turn"),
        "{page}"
    );
    assert!(!page.contains("<form"), "{page}");
    let (status, _) = browser.post(&second, SIGN).await;
    assert_eq!(status, StatusCode::CONFLICT);
    browser
        .post(&format!("/sign/{}", fixture.token(&envelope, ONE)), SIGN)
        .await;
    let (status, page) = browser.post(&second, SIGN).await;
    assert_eq!(status, StatusCode::OK, "{page}");
}

#[tokio::test]
async fn links_that_were_not_made_here_open_nothing() {
    let (fixture, browser, envelope) = asked(&[(ONE, None)]).await;
    let unknown = fixture.token(&"0".repeat(32), ONE);
    let mut forged = fixture.token(&envelope, ONE);
    forged.truncate(forged.len() - 1);
    for token in [unknown, forged, "%2e%2e%2f".to_owned(), "x".to_owned()] {
        for path in [
            format!("/sign/{token}"),
            format!("/sign/{token}/document.pdf"),
        ] {
            let (status, page) = browser.get(&path).await;
            assert_eq!(status, StatusCode::NOT_FOUND, "{path}");
            assert!(page.contains("This link does not work"), "{page}");
        }
        let (status, _) = browser.post(&format!("/sign/{token}"), SIGN).await;
        assert_eq!(status, StatusCode::NOT_FOUND);
    }
}

#[tokio::test]
async fn a_look_is_noted_once_and_a_head_request_is_none() {
    let (fixture, browser, envelope) = asked(&[(ONE, None)]).await;
    let path = format!("/sign/{}", fixture.token(&envelope, ONE));
    let head = Request::head(&path).body(Body::empty()).unwrap();
    assert_eq!(browser.send(head).await.0, StatusCode::OK);
    let noted = || fixture.desk.0.files.record_names(RecordKind::Viewed);
    assert!(noted().await.unwrap().is_empty());
    browser.get(&path).await;
    let signer = link::SignerRef::new(&envelope, ONE);
    let first = fixture.desk.viewed_at(&signer).await.unwrap();
    browser.get(&path).await;
    assert_eq!(fixture.desk.viewed_at(&signer).await.unwrap(), first);
    assert_eq!(noted().await.unwrap().len(), 1);
}

/// Starts an engine with an execution in `needs_review`, because its step failed for review.
async fn in_review(organization: OrganizationId) -> (Engine, Workers, ExecutionId) {
    let spec = NodeSpec::new("refused", Phase::Signature);
    let handler = effect(spec, |_: EffectContext, _: Value| async {
        Err::<StepOutcome, _>(StepFailure::review("refused", "Refused."))
    });
    let engine = Engine::builder(
        Arc::new(MemoryStore::new(StoreConfig::default())),
        Arc::new(MemoryBus::new(BusConfig::default())),
    )
    .step(handler)
    .build();
    let workers = engine
        .start_workers(WorkerOptions::concurrency(1))
        .expect("no other workers run");
    let workflow = WorkflowId::new();
    let nodes = json!([{"id": "sign", "type": "refused"}]);
    let draft: WorkflowDraft =
        serde_json::from_value(json!({"name": "Test", "nodes": nodes})).unwrap();
    let put = engine.put_workflow(organization, workflow, draft, None);
    put.await.unwrap();
    let start = StartRequest::new(organization, workflow, Actor::user("test"));
    let id = engine.start(start).await.unwrap().record.execution.id;
    until(&engine, organization, id, |status| {
        status == Status::NeedsReview
    })
    .await;
    (engine, workers, id)
}

async fn until(
    engine: &Engine,
    organization: OrganizationId,
    id: ExecutionId,
    reached: fn(Status) -> bool,
) {
    let mut feed = engine.feed(organization, id, 0).await.unwrap();
    while let Some(event) = feed.next().await {
        if reached(event.unwrap().status) {
            break;
        }
    }
}

#[tokio::test]
async fn a_link_closes_when_its_execution_ends_before_docg_knows_the_request() {
    #[derive(Debug, Clone, Copy, PartialEq)]
    enum End {
        Canceled,
        Rejected,
        Lost,
    }
    for end in [End::Canceled, End::Rejected, End::Lost] {
        let fixture = Fixture::new().await;
        let (engine, _workers, id) = in_review(fixture.organization).await;
        fixture.desk.attach(engine.clone());
        let mut request = fixture.request(&[(ONE, None), (TWO, None)]);
        let asking = if end == End::Lost {
            ExecutionId::new()
        } else {
            id
        };
        request.idempotency_key = format!("{asking}/sign");
        let envelope = fixture.provider.create(request).await.unwrap().envelope_id;
        let browser = Browser::new(&fixture);
        let path = format!("/sign/{}", fixture.token(&envelope, ONE));
        if end != End::Lost {
            let (status, page) = browser.get(&path).await;
            assert_eq!(status, StatusCode::OK, "it may go on: {page}");
        }
        let control = ControlRequest::new(fixture.organization, id, Actor::user("test"));
        match end {
            End::Canceled => drop(engine.cancel(control, None).await.unwrap()),
            End::Rejected => {
                engine.resume(control, Resume::Reject).await.unwrap();
            }
            End::Lost => {}
        }
        if end != End::Lost {
            until(&engine, fixture.organization, id, Status::is_terminal).await;
        }
        for (status, page) in [
            browser.get(&path).await,
            browser.get(&format!("{path}/document.pdf")).await,
            browser.post(&path, SIGN).await,
            browser.post(&format!("{path}/decline"), "reason=no").await,
        ] {
            assert_eq!(status, StatusCode::GONE, "{end:?}: {page}");
            assert!(
                page.contains("no longer open for signing"),
                "{end:?}: {page}"
            );
        }
        let signer = link::SignerRef::new(&envelope, ONE);
        assert_eq!(fixture.desk.decision(&signer).await.unwrap(), None);
    }
}

#[tokio::test]
async fn nobody_decides_before_all_are_invited_and_who_is_left_out_then_reads_it() {
    let fixture = Fixture::new().await;
    let failed = fixture
        .provider
        .create(fixture.request(&[(ONE, None), ("no address", None)]))
        .await;
    failed.expect_err("one cannot be written to");
    assert_eq!(fixture.receivers(), [ONE]);
    let envelope = super::super::provider::envelope_id(&fixture.request(&[]));
    let browser = Browser::new(&fixture);
    let path = format!("/sign/{}", fixture.token(&envelope, ONE));
    let (status, page) = browser.get(&path).await;
    assert_eq!(status, StatusCode::OK);
    assert!(page.contains("not ready to be signed yet") && !page.contains("<form"));
    for (path, form) in [(path.clone(), SIGN), (format!("{path}/decline"), "")] {
        let (status, page) = browser.post(&path, form).await;
        assert_eq!(status, StatusCode::CONFLICT);
        assert!(page.contains("Nothing was recorded"), "{page}");
    }
    let names = fixture.desk.0.files.record_names(RecordKind::Outbox).await;
    assert!(names.unwrap().is_empty(), "neither a look nor a decision");

    // A person corrects the second signer's address: the first signer can sign.
    assert_eq!(fixture.ask(&[(ONE, None), (TWO, None)]).await, envelope);
    let (_, page) = browser.get(&path).await;
    assert!(page.contains("<form"), "{page}");
    // A person removes the first signer: their link closes.
    assert_eq!(fixture.ask(&[(TWO, None)]).await, envelope);
    for (status, page) in [browser.get(&path).await, browser.post(&path, SIGN).await] {
        assert_eq!(status, StatusCode::GONE);
        assert!(page.contains("The sender has withdrawn it"), "{page}");
    }
}
