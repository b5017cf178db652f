//! Signatures through external providers. The server calls a provider's API, which this process fakes, and
//! receives webhooks as the provider sends them.

mod clicksign;
mod fake;
mod faults;
mod zapsign;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::process::{Server, sample_data};

/// `TOKEN` and `SECRET` are secrets that neither the API nor the log may show.
const TOKEN: &str = "api-token-51a9c3";
const SECRET: &str = "webhook-secret-7fe02b";
const ONE: &str = "signer.one@example.com";
const TWO: &str = "signer.two@example.com";

/// A server with an account at the provider. It polls the provider every second, and logs at the finest
/// level.
fn server(provider: &str, base_url: &str) -> Server {
    let names = ["BASE_URL", "TOKEN", "WEBHOOK_SECRET"];
    let [url, token, secret] = names.map(|name| format!("DOCG_{provider}_{name}"));
    let variables = [
        (url.as_str(), base_url),
        (&token, TOKEN),
        (&secret, SECRET),
        ("DOCG_SIGNATURE_CHECK_MS", "1000"),
        ("DOCG_CANCEL_GRACE_MS", "200"),
        (
            "RUST_LOG",
            "info,docg_core=trace,reference_server=trace,reqwest=trace,hyper=trace,hyper_util=trace,tower_http=trace",
        ),
    ];
    Server::start_in(&variables, &[])
}

/// Starts the rendering and signing of a contract. Returns the execution's id.
async fn start(server: &Server, provider: &str, retry: Value) -> String {
    let nodes = json!([
        {"id": "render", "type": "render-pdf", "phase": "render",
            "params": {"template": "contract.typ", "data": "{{trigger}}", "filename": "Contract 7"}},
        {"id": "sign", "type": "request-signatures", "phase": "signature", "label": "Sign",
            "params": {"provider": provider, "file": "{{steps.render.file}}",
                "signers": "{{trigger.signers}}", "message": "Please sign.",
                "expires_in_ms": 86_400_000, "remind_every_ms": 3_600_000},
            "retry": retry},
    ]);
    let sample = sample_data("contract.good.json");
    server.start_nodes_with(nodes, &sample).await
}

fn usual() -> Value {
    json!({"max_attempts": 3, "initial_ms": 20, "max_ms": 50, "multiplier": 2.0})
}

/// Sends a webhook, with a header that authenticates it.
async fn webhook(
    server: &Server,
    provider: &str,
    proof: (&str, &str),
    body: &str,
) -> (StatusCode, Value) {
    let path = format!("{}/api/v1/webhooks/signature/{provider}", server.url);
    let client = reqwest::Client::builder().no_proxy().build();
    let request = client
        .expect("a client")
        .post(path)
        .header("content-type", "application/json")
        .header(proof.0, proof.1)
        .body(body.to_owned());
    let response = request.send().await.expect("it answers");
    (response.status(), response.json().await.expect("JSON"))
}

async fn signers(server: &Server, execution: &Value) -> Value {
    let id = &execution["waiting_for"]["detail"]["signature_request_id"];
    let id = id.as_str().expect("an id");
    server
        .get(&format!("/api/v1/signatures/{id}/signers"))
        .await
}

/// The execution as a reader of this language gets it.
async fn in_language(server: &Server, id: &str, language: &str) -> Value {
    let request = server.request(Method::GET, &format!("/api/v1/executions/{id}"));
    let response = request.header("accept-language", language).send().await;
    response.expect("it answers").json().await.expect("JSON")
}

/// Asserts that the error is explained in both languages, with an action and without a secret.
async fn is_clear(server: &Server, id: &str, code: &str, action: &str) {
    let english = in_language(server, id, "en").await;
    let portuguese = in_language(server, id, "pt-BR").await;
    let mut words = Vec::new();
    for execution in [&english, &portuguese] {
        assert_eq!(execution["error_code"], code, "{execution:#}");
        let actions = execution["recommended_actions"].as_array().expect("a list");
        let named = actions.iter().find(|it| it["action"] == action);
        let label = &named.unwrap_or_else(|| panic!("{actions:?}"))["label"];
        let human = &execution["last_error_human"];
        words.push((human.to_string(), label.to_string()));
        assert!(human.as_str().is_some_and(|human| !human.is_empty()));
    }
    assert_ne!(words[0].0, words[1].0);
    assert_ne!(words[0].1, words[1].1);
    let tech = english["last_error_tech"].as_str().unwrap_or_default();
    assert!(!tech.is_empty());
    says_no_secret(server, id).await;
}

/// Asserts that neither the API nor the log shows a secret.
async fn says_no_secret(server: &Server, id: &str) {
    let mut shown = server.log();
    assert!(shown.contains("TRACE"), "the log is as full as it can be");
    for part in ["", "/steps", "/logs", "/audit"] {
        let path = format!("/api/v1/executions/{id}{part}");
        shown.push_str(&server.get(&path).await.to_string());
    }
    for secret in [TOKEN, SECRET] {
        assert!(!shown.contains(secret), "{secret} is shown");
    }
}

/// The content of the signed document in the step's output.
async fn signed_document(server: &Server, id: &str) -> String {
    let path = format!("/api/v1/executions/{id}/steps");
    let steps = server.get(&path).await;
    let steps = steps["steps"].as_array().expect("a list");
    let sign = steps.iter().find(|step| step["node_id"] == "sign");
    let file = &sign.expect("a step")["data_out"]["signed_file"];
    assert_eq!(file["filename"], "Contract 7-signed.pdf", "{file}");
    let path = server.data().join("files");
    let path = path.join(file["path"].as_str().expect("a path"));
    std::fs::read_to_string(path).expect("it is kept")
}

async fn audit_actions(server: &Server, id: &str) -> Vec<String> {
    let audit = server.get(&format!("/api/v1/executions/{id}/audit")).await;
    let events = audit["events"].as_array().expect("a list").iter();
    let actions = events.map(|event| event["action"].as_str().unwrap_or_default().to_owned());
    actions.collect()
}
