//! What all that the server serves has in common, its pages for people included.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::process::{CONTRACT, Server, sample_data};

#[tokio::test(flavor = "multi_thread")]
async fn what_the_pages_refuse_is_a_problem_too() {
    let server = Server::start(&[]);
    for (method, path, status) in [
        (Method::PATCH, "/sign/x", StatusCode::METHOD_NOT_ALLOWED),
        (Method::PUT, "/approvals/x", StatusCode::METHOD_NOT_ALLOWED),
        (Method::GET, "/sign/%ff", StatusCode::BAD_REQUEST),
        (Method::GET, "/approvals/%ff", StatusCode::BAD_REQUEST),
    ] {
        let request = server.request(method.clone(), path);
        let response = request.send().await.expect("it answers");
        assert_eq!(response.status(), status, "{method} {path}");
        let headers = response.headers().clone();
        assert_eq!(
            headers["content-type"], "application/problem+json",
            "{path}"
        );
        assert!(headers.contains_key("x-correlation-id"));
        assert_eq!(
            headers.contains_key("allow"),
            status == StatusCode::METHOD_NOT_ALLOWED
        );
        let problem: Value = response.json().await.expect("JSON");
        assert_eq!(problem["status"], status.as_u16());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_preview_of_a_dry_run_can_be_fetched() {
    let server = Server::start(&[]);
    let body = json!({"trigger_data": sample_data("contract.good.json"), "dry_run": true});
    let path = format!("/api/v1/workflows/{CONTRACT}/executions");
    let (status, made) = server.post(&path, &body).await;
    assert_eq!(status, StatusCode::CREATED, "{made}");
    let id = made["id"].as_str().expect("an id");
    server.until(id, &["completed"]).await;
    let path = format!("/api/v1/executions/{id}/files/render");
    let response = server.request(Method::GET, &path).send().await;
    let response = response.expect("it answers");
    assert_eq!(response.status(), StatusCode::OK);
    let preview = response.bytes().await.expect("a document");
    assert!(preview.starts_with(b"%PDF-"));
}
