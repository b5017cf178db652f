//! A client of one server. It calls the API, and can wait until an execution reaches a state.

// Each test binary uses a part of this module.
#![allow(dead_code)]

use std::time::{Duration, Instant};

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::program::DEADLINE;

#[derive(Clone)]
pub(crate) struct Client {
    pub(crate) url: String,
    pub(crate) token: String,
    pub(crate) http: reqwest::Client,
}

impl Client {
    pub(crate) fn new(url: String, token: String) -> Self {
        // reqwest needs a TLS provider for the whole process.
        reference_server::tls::prepare();
        let http = reqwest::Client::builder()
            .no_proxy()
            .build()
            .expect("a client");
        Self { url, token, http }
    }

    pub(crate) fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let url = if path.starts_with("http") {
            path.to_owned()
        } else {
            format!("{}{path}", self.url)
        };
        self.http
            .request(method, url)
            .bearer_auth(&self.token)
            .timeout(DEADLINE)
    }

    pub(crate) async fn get(&self, path: &str) -> Value {
        let response = self
            .request(Method::GET, path)
            .send()
            .await
            .expect("it answers");
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        response.json().await.expect("JSON")
    }

    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        body: &Value,
    ) -> (StatusCode, Value) {
        let response = self
            .request(method, path)
            .json(body)
            .send()
            .await
            .expect("it answers");
        (response.status(), response.json().await.expect("JSON"))
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> (StatusCode, Value) {
        self.send(Method::POST, path, body).await
    }

    /// Stores a workflow of these nodes. Returns the path at which to start it.
    pub(crate) async fn put_nodes(&self, nodes: Value) -> String {
        let path = format!("/api/v1/workflows/{}", uuid::Uuid::new_v4());
        let workflow = json!({"name": "Test", "nodes": nodes});
        let (status, answer) = self.send(Method::PUT, &path, &workflow).await;
        assert_eq!(status, StatusCode::CREATED, "{answer}");
        format!("{path}/executions")
    }

    /// Starts the workflow at this path. Returns the execution's id.
    pub(crate) async fn start_at(&self, path: &str, trigger_data: &Value) -> String {
        let body = json!({"trigger_data": trigger_data});
        let (status, execution) = self.post(path, &body).await;
        assert_eq!(status, StatusCode::CREATED, "{execution}");
        execution["id"].as_str().expect("an id").to_owned()
    }

    /// Stores and starts a workflow of these nodes. Returns the execution's id.
    pub(crate) async fn start_nodes(&self, nodes: Value) -> String {
        self.start_nodes_with(nodes, &json!({})).await
    }

    pub(crate) async fn start_nodes_with(&self, nodes: Value, trigger_data: &Value) -> String {
        let path = self.put_nodes(nodes).await;
        self.start_at(&path, trigger_data).await
    }

    pub(crate) async fn execution(&self, id: &str) -> Value {
        self.get(&format!("/api/v1/executions/{id}")).await
    }

    /// All entries of a paged list of an execution, such as its `logs`.
    pub(crate) async fn all(&self, id: &str, list: &str) -> Vec<Value> {
        let name = if list == "audit" { "events" } else { list };
        let (mut all, mut cursor) = (Vec::new(), String::new());
        loop {
            let path = format!("/api/v1/executions/{id}/{list}?limit=100{cursor}");
            let mut page = self.get(&path).await;
            match page[name].take() {
                Value::Array(more) => all.extend(more),
                other => panic!("{other} is no page of {list}"),
            }
            match page["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return all,
            }
        }
    }

    /// Waits until an execution has one of these statuses.
    pub(crate) async fn until(&self, id: &str, statuses: &[&str]) -> Value {
        let has = |execution: &Value| {
            statuses.contains(&execution["status"].as_str().unwrap_or_default())
        };
        self.until_it(id, has).await
    }

    /// Waits until an execution has asked for signatures.
    pub(crate) async fn until_it_awaits_signatures(&self, id: &str) -> Value {
        self.until_it_awaits(id, "signature").await
    }

    /// Waits until an execution waits for something of this kind, such as an approval.
    pub(crate) async fn until_it_awaits(&self, id: &str, kind: &str) -> Value {
        self.until_it(id, |execution| execution["waiting_for"]["kind"] == kind)
            .await
    }

    async fn until_it(&self, id: &str, reached: impl Fn(&Value) -> bool) -> Value {
        let began = Instant::now();
        loop {
            let execution = self.execution(id).await;
            if reached(&execution) {
                return execution;
            }
            assert!(began.elapsed() < DEADLINE, "it stays at {execution:#}");
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
    }

    /// Reads the event stream, from after an event to its end. Returns id, type and data of each event with
    /// an id.
    pub(crate) async fn stream(
        &self,
        id: &str,
        after: Option<&str>,
    ) -> Vec<(String, String, Value)> {
        let path = format!("/api/v1/sse/executions/{id}/stream");
        let mut request = self.request(Method::GET, &path);
        if let Some(after) = after {
            request = request.header("last-event-id", after);
        }
        let response = request.send().await.expect("it answers");
        assert!(response.status().is_success(), "{}", response.status());
        let whole = response.text().await.expect("it ends with the execution");
        whole.split("\n\n").filter_map(frame).collect()
    }
}

/// The id, type and data of a frame, if it is an event.
pub(crate) fn frame(block: &str) -> Option<(String, String, Value)> {
    let field = |name: &str| {
        let line = block.lines().find_map(|line| line.strip_prefix(name));
        line.map(|value| value.trim_start().to_owned())
    };
    let data = serde_json::from_str(&field("data:")?).expect("JSON");
    Some((field("id:")?, field("event:")?, data))
}
