//! A page of another origin follows an execution with `EventSource` alone.

use serde_json::{Value, json};
use url::Url;

use super::{
    driver::{Browser, Settings},
    origin,
    proxy::CuttingProxy,
};
use crate::process::Server;

/// The event types that the page listens for. An `EventSource` receives only the types that it names.
const TYPES: &str = "execution.created,execution.status_changed,execution.progress,preflight.completed,\
    step.started,step.completed,step.failed,step.skipped,execution.paused,execution.resumed,\
    execution.completed,execution.failed,execution.canceled,approval.requested,approval.decided,\
    signature.requested,signature.signer.viewed,signature.signer.signed,signature.signer.declined,\
    signature.completed,signature.expired,gap";

#[tokio::test(flavor = "multi_thread")]
async fn an_event_source_of_another_origin_hears_each_event_once_though_connections_break() {
    let server = Server::start(&[]);
    let id = server.start_contract("contract.good.json").await;
    server.until_it_awaits_signatures(&id).await;
    let (status, token) = server
        .post("/api/v1/sse/tokens", &json!({"execution_id": id}))
        .await;
    assert_eq!(status, 201, "{token}");
    let token = token["token"].as_str().expect("a token");

    // The first connection breaks within a replayed event, the second within a live one.
    let cuts = ["id: 4-0\nevent", "event: signature.signer.signed\nda"];
    let proxy = CuttingProxy::to(&server.url, &cuts).await;
    let stream = format!(
        "{}/api/v1/sse/executions/{id}/stream?token={token}",
        proxy.url
    );
    let page = origin::serve(include_str!("follow.html")).await;
    let parameters = [("stream", stream.as_str()), ("types", TYPES)];
    let page = Url::parse_with_params(&page, parameters).expect("a URL");
    let browser = Browser::open(Settings::default()).await;
    browser.goto(page.as_str()).await;
    // Wait until the page has reconnected after the first break and caught up, so that later events are live.
    browser
        .run_to_its_end(
            "const done = arguments[0];
             const requested = () => events.some((event) => event.type === 'signature.requested');
             if (requested()) done(); else source.addEventListener('signature.requested', () => done());",
        )
        .await;
    for signer in ["signer.one@example.com", "signer.two@example.com"] {
        let link = server.link_for(signer).await;
        server.fill_in(&link, "name=A+Signer&consent=yes").await;
    }

    let heard = browser
        .run_to_its_end("const done = arguments[0]; ended.then(done);")
        .await;
    let expected = server.stream(&id, None).await;
    let event = |(id, event_type, data): &(String, String, Value)| json!({"id": id, "type": event_type, "data": data});
    let expected: Vec<Value> = expected.iter().map(event).collect();
    assert_eq!(heard["events"], json!(expected));
    assert_eq!(
        expected.last().expect("events")["type"],
        "execution.completed"
    );

    // The page connects again after two breaks and after the end of the stream. The server then tells it to
    // stop.
    let last = |event: Option<&Value>| {
        let id = event.and_then(|event| event["id"].as_str());
        Some(id.expect("an id").to_owned())
    };
    let signed = expected
        .iter()
        .position(|event| event["type"] == "signature.signer.signed")
        .expect("it was signed");
    let asked = [
        None,
        Some("3-0".to_owned()),
        last(expected.get(signed - 1)),
        last(expected.last()),
    ];
    assert_eq!(proxy.asked_after(), asked);
    assert_eq!(
        (&heard["connected"], &heard["broken"]),
        (&json!(3), &json!(3))
    );
    assert_eq!(browser.run("return source.readyState").await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_an_origin_that_is_not_named_hears_nothing() {
    let page = origin::serve(include_str!("follow.html")).await;
    let server = Server::start(&["--cors-origins", "https://app.example.com"]);
    let id = server.start_contract("contract.good.json").await;
    let body = json!({"execution_id": id});
    let (_, token) = server.post("/api/v1/sse/tokens", &body).await;
    let token = token["token"].as_str().expect("a token");
    let stream = format!(
        "{}/api/v1/sse/executions/{id}/stream?token={token}",
        server.url
    );
    let parameters = [("stream", stream.as_str()), ("types", TYPES)];
    let page = Url::parse_with_params(&page, parameters).expect("a URL");
    let browser = Browser::open(Settings::default()).await;
    browser.goto(page.as_str()).await;
    let heard = browser
        .run_to_its_end("const done = arguments[0]; ended.then(done);")
        .await;
    assert_eq!(heard["events"], json!([]));
    assert_eq!(heard["connected"], 0);
    let complaints = browser.complaints().await.join("\n");
    assert!(complaints.contains("CORS policy"), "{complaints}");
}
