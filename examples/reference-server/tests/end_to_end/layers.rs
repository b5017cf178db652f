//! Behaviour that all routes share, including the pages for signers and approvers.

use reqwest::{Method, StatusCode};
use serde_json::Value;

use crate::process::Server;

#[tokio::test(flavor = "multi_thread")]
async fn a_method_that_pages_do_not_take_is_a_problem_too() {
    let server = Server::start(&[]);
    for (method, path, status) in [
        (Method::PATCH, "/sign/x", StatusCode::METHOD_NOT_ALLOWED),
        (Method::PUT, "/approvals/x", StatusCode::METHOD_NOT_ALLOWED),
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
        assert!(headers.contains_key("allow"));
        let problem: Value = response.json().await.expect("JSON");
        assert_eq!(problem["status"], status.as_u16());
    }
}
