//! Servers with only HTTP, and servers with only workers.

use std::{
    net::TcpListener,
    time::{Duration, Instant},
};

use docg_test_servers::{postgres::Database, redis};
use serde_json::json;

use crate::{
    follower::Follower,
    server::{Server, Servers, cancel, delay, effect},
    site::Site,
};

/// The time limit that shows that a worker was woken. A worker that is not woken polls every 15 seconds, and
/// each call here comes soon after a poll.
const WOKEN: Duration = Duration::from_secs(12);

#[tokio::test(flavor = "multi_thread")]
async fn one_process_serves_and_runs_nothing_another_runs_and_serves_nothing() {
    let (database, redis) = (Database::empty().await, redis::PrivateServer::start());
    let arguments = ["--heartbeat-ms", "100", "--enable-test-nodes"];
    let site = Site::new(database.url(), Some(&redis.url()), &arguments);
    // With this short lease, the server soon logs that no worker is up: within two leases.
    let role = ["--role", "http", "--lease-ms", "1000"];
    let http = Server::start_http(&site, "http", &role);
    let servers = Servers::of(&http);
    let nodes = [delay("delay", json!(200)), effect("effect", 0)];
    let path = http.put_nodes(json!(nodes)).await;
    let id = http.start_at(&path, &json!({})).await;
    let mut follower = Follower::start(&servers, &id);
    let seen = follower
        .until("some heartbeats", |seen| seen.heartbeats >= 10)
        .await;
    assert_eq!(seen.events.len(), 1, "only that it was created");
    assert_eq!(http.execution(&id).await["status"], "queued");

    let told = "has claimed them";
    http.running.until_logged(told).await;

    // The address is taken. A worker starts nevertheless, because it does not listen.
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let bind = taken.local_addr().expect("an address");
    let worker = site.spawn("worker", &["--role", "worker", "--bind", &bind.to_string()]);
    assert_eq!(worker.line(), "working", "it serves nothing");
    let seen = follower.finish().await;
    assert_eq!(seen.opened, 1, "live, and not by a new stream");
    assert_eq!(http.execution(&id).await["status"], "completed");

    // The server with HTTP learns at once of the worker's progress.
    let began = Instant::now();
    let id = http.start_at(&path, &json!({})).await;
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
        .start_at(&format!("{workflow}/executions"), &json!({}))
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
    // A worker polls twice during a lease.
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
        let id = http.start_at(&path, &json!({})).await;
        let seen = Follower::start(&servers, &id).finish().await;
        assert_eq!(seen.opened, 1);
        assert_eq!(http.execution(&id).await["status"], "completed");
    }
    assert_eq!(site.ledger().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_server_cannot_run_waits_for_one_that_can_and_the_operator_is_told() {
    let (database, redis) = (Database::empty().await, redis::PrivateServer::start());
    let arguments = ["--lease-ms", "1000", "--heartbeat-ms", "100"];
    let site = Site::new(database.url(), Some(&redis.url()), &arguments);
    let knows_more = Server::start(&site, "knows-more", &["--enable-test-nodes"]);
    let knows_less = Server::start(&site, "knows-less", &[]);
    let extract = json!({"id": "extract", "type": "extract", "phase": "trigger",
        "params": {"fields": {}}});
    let mixed = knows_more
        .put_nodes(json!([extract, effect("effect", 0)]))
        .await;
    let plain = knows_less.put_nodes(json!([extract])).await;
    // Either server accepts the start, and the server that knows the node type runs the execution.
    let mut runs = Vec::new();
    for server in [&knows_more, &knows_less] {
        for _ in 0..10 {
            runs.push(server.start_at(&mixed, &json!({})).await);
        }
    }
    for id in &runs {
        knows_less.until(id, &["completed"]).await;
    }
    assert_eq!(site.ledger().len(), runs.len());

    let mut knows_more = knows_more;
    knows_more.running.signal("TERM");
    assert!(knows_more.running.wait().success());
    let waiting = knows_less.start_at(&mixed, &json!({})).await;
    let unwanted = knows_less.start_at(&mixed, &json!({})).await;
    let told = "node type test-effect";
    knows_less.running.until_logged(told).await;
    let log = knows_less.running.log();
    assert_eq!(log.matches(told).count(), 1, "it is told once: {log}");
    for id in [&waiting, &unwanted] {
        let left = knows_less.execution(id).await;
        assert_eq!(left["status"], "queued", "it is left alone: {left}");
        assert_eq!(left["error_code"], json!(null));
    }
    // The unclaimable execution blocks no others, and any server can cancel it.
    let id = knows_less.start_at(&plain, &json!({})).await;
    knows_less.until(&id, &["completed"]).await;
    cancel(&knows_less, &unwanted).await;
    knows_less.until(&unwanted, &["canceled"]).await;

    let _knows_more = Server::start(&site, "knows-more-again", &["--enable-test-nodes"]);
    knows_less.until(&waiting, &["completed"]).await;
    knows_less.running.until_logged("wait no longer").await;
    assert_eq!(site.ledger().len(), runs.len() + 1);
}
