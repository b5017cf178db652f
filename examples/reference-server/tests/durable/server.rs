//! A server of a site with its client, and nodes for the tests' workflows.

use std::{
    ops::Deref,
    sync::{Arc, Mutex},
};

use serde_json::{Value, json};

use crate::{
    client::Client,
    program::Running,
    site::{Site, TENANTS},
};

pub(crate) struct Server {
    pub(crate) running: Running,
    client: Client,
}

/// A server can be used as its own client.
impl Deref for Server {
    type Target = Client;
    fn deref(&self) -> &Client {
        &self.client
    }
}

impl Server {
    /// Starts a server with HTTP and workers.
    pub(crate) fn start(site: &Site, name: &str, arguments: &[&str]) -> Self {
        let server = Self::start_http(site, name, arguments);
        assert_eq!(server.running.line(), "working");
        server
    }

    /// Wraps a server with HTTP and workers that the caller has started. The client uses its development
    /// token.
    pub(crate) fn of(running: Running) -> Self {
        let url = running.address();
        assert_eq!(running.line(), "working");
        let token = running.development_token().expect("it prints one");
        let client = Client::new(url, token);
        Self { running, client }
    }

    /// Wraps a server of a site, with HTTP and workers, that the caller has started.
    pub(crate) fn of_site(running: Running) -> Self {
        let client = Client::new(running.address(), TENANTS[0].0.to_owned());
        assert_eq!(running.line(), "working");
        Self { running, client }
    }

    /// Starts a server with HTTP; the arguments decide whether it has workers.
    pub(crate) fn start_http(site: &Site, name: &str, arguments: &[&str]) -> Self {
        let running = site.spawn(name, &[&["--bind", "127.0.0.1:0"], arguments].concat());
        let client = Client::new(running.address(), TENANTS[0].0.to_owned());
        Self { running, client }
    }
}

/// The servers that clients know, as a load balancer does. Some may be down.
#[derive(Clone, Default)]
pub(crate) struct Servers(Arc<Mutex<Vec<Client>>>);

impl Servers {
    pub(crate) fn of(server: &Server) -> Self {
        let servers = Self::default();
        servers.add(server);
        servers
    }

    pub(crate) fn add(&self, server: &Server) {
        let mut servers = self.0.lock().expect("nobody panics in it");
        servers.push(server.client.clone());
    }

    pub(crate) fn remove(&self, server: &Server) {
        let mut servers = self.0.lock().expect("nobody panics in it");
        servers.retain(|client| client.url != server.url);
    }

    /// The server for this turn, in rotation.
    pub(crate) fn turn(&self, turn: usize) -> Client {
        let servers = self.0.lock().expect("nobody panics in it");
        servers[turn % servers.len()].clone()
    }
}

/// A node that waits for `ms` milliseconds, and stops early if it is canceled.
pub(crate) fn delay(id: &str, ms: Value) -> Value {
    json!({"id": id, "type": "test-delay", "phase": "save", "params": {"ms": ms}})
}

/// A node that has its effect after `ms` milliseconds. A cancel does not shorten this time.
pub(crate) fn effect(id: &str, ms: u64) -> Value {
    json!({"id": id, "type": "test-effect", "phase": "save",
        "params": {"ledger": "ledger.tsv", "ms": ms}})
}

/// A node that ends only if it is canceled. With `ignore_cancel` it never ends.
pub(crate) fn hang(id: &str, ignore_cancel: bool) -> Value {
    json!({"id": id, "type": "test-hang", "phase": "save",
        "params": {"ignore_cancel": ignore_cancel}})
}

/// Gets the step of a node.
pub(crate) async fn step(server: &Client, id: &str, node: &str) -> Value {
    let steps = server.get(&format!("/api/v1/executions/{id}/steps")).await;
    let steps = steps["steps"].as_array().expect("steps");
    let step = steps.iter().find(|step| step["node_id"] == node);
    step.unwrap_or_else(|| panic!("no {node} in {steps:?}"))
        .clone()
}

pub(crate) async fn cancel(server: &Client, id: &str) {
    let path = format!("/api/v1/executions/{id}/cancel");
    let (status, answer) = server.post(&path, &json!({})).await;
    assert!(status.is_success(), "{answer}");
}

pub(crate) async fn audit_verifies(server: &Client, id: &str) {
    let path = format!("/api/v1/executions/{id}/audit/verify");
    let verdict = server.get(&path).await;
    assert_eq!(verdict["valid"], true, "{verdict}");
}
