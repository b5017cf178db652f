//! Servers that do only a part of the work.

use std::{
    net::{TcpListener, TcpStream},
    time::{Duration, Instant},
};

use docg_test_servers::{postgres::Database, redis};
use serde_json::json;

use crate::{
    follower::Follower,
    server::{Server, Servers, delay, effect},
    site::Site,
};

/// Looks for work are further apart, unless somebody wakes the worker.
const WOKEN: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread")]
async fn one_process_serves_and_runs_nothing_another_runs_and_serves_nothing() {
    let (database, redis) = (Database::empty().await, redis::PrivateServer::start());
    let arguments = ["--heartbeat-ms", "100", "--enable-test-nodes"];
    let site = Site::new(database.url(), Some(&redis.url()), &arguments);
    let http = Server::start_http(&site, "http", &["--role", "http"]);
    let servers = Servers::of(&http);
    let nodes = [delay("delay", json!(200)), effect("effect", 0)];
    let path = http.put_nodes(json!(nodes)).await;
    let id = http.start_at(&path, json!({})).await;
    let mut follower = Follower::start(&servers, &id);
    let seen = follower
        .until("some heartbeats", |seen| seen.heartbeats >= 10)
        .await;
    assert_eq!(seen.events.len(), 1, "only that it was created");
    assert_eq!(http.execution(&id).await["status"], "queued");

    let free = TcpListener::bind("127.0.0.1:0").and_then(|it| it.local_addr());
    let bind = free.expect("the loopback has a free port");
    let worker = site.spawn("worker", &["--role", "worker", "--bind", &bind.to_string()]);
    assert_eq!(worker.line(), "working", "it listens nowhere");
    let seen = follower.finish().await;
    assert_eq!(seen.opened, 1, "live, and not by a new stream");
    assert_eq!(http.execution(&id).await["status"], "completed");
    assert!(TcpStream::connect(bind).is_err(), "it serves nothing");

    // What was done here is heard of there at once.
    let began = Instant::now();
    let id = http.start_at(&path, json!({})).await;
    http.until(&id, &["completed"]).await;
    assert!(began.elapsed() < WOKEN, "{:?}", began.elapsed());

    let mut settings = json!({"name": "Confirmed", "nodes": [delay("delay", json!(0))]});
    settings["nodes"][0]["phase"] = json!("delivery");
    settings["settings"] = json!({"confirm_before_delivery": true});
    let id = uuid::Uuid::new_v4();
    let workflow = format!("/api/v1/workflows/{id}");
    let (status, answer) = http.send(reqwest::Method::PUT, &workflow, &settings).await;
    assert_eq!(status, 201, "{answer}");
    let id = http
        .start_at(&format!("{workflow}/executions"), json!({}))
        .await;
    http.until_it_awaits(&id, "confirmation").await;
    let began = Instant::now();
    let (status, answer) = http
        .post(&format!("/api/v1/executions/{id}/resume"), &json!({}))
        .await;
    assert!(status.is_success(), "{answer}");
    http.until(&id, &["completed"]).await;
    assert!(began.elapsed() < WOKEN, "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn roles_work_together_while_redis_is_down() {
    let (database, redis) = (Database::empty().await, redis::PrivateServer::start());
    redis.kill();
    // A worker looks for work twice in a lease.
    let arguments = [
        "--lease-ms",
        "2000",
        "--heartbeat-ms",
        "100",
        "--enable-test-nodes",
    ];
    let site = Site::new(database.url(), Some(&redis.url()), &arguments);
    let http = Server::start_http(&site, "http", &["--role", "http"]);
    let worker = site.spawn("worker", &["--role", "worker"]);
    assert_eq!(worker.line(), "working");
    let servers = Servers::of(&http);
    let path = http.put_nodes(json!([effect("effect", 0)])).await;
    for _ in 0..3 {
        let id = http.start_at(&path, json!({})).await;
        let seen = Follower::start(&servers, &id).finish().await;
        assert_eq!(seen.opened, 1);
        assert_eq!(http.execution(&id).await["status"], "completed");
    }
    assert_eq!(site.ledger().len(), 3);
}
