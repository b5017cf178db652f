//! A server is killed while executions are under way, and the next server continues on the same database.

use docg_test_servers::{postgres::Database, redis};
use futures::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    follower::Follower,
    server::{Server, Servers, audit_verifies, delay, effect},
    site::Site,
};

/// The state of an execution as a client saw it.
struct Told {
    id: String,
    events: usize,
    logs: Vec<Value>,
    audit: Vec<Value>,
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_only_server_told_outlives_it_and_the_next_one_finishes_its_work() {
    let (database, redis) = (Database::empty().await, redis::PrivateServer::start());
    let site = Site::new(
        database.url(),
        Some(&redis.url()),
        &[
            "--lease-ms",
            "1500",
            "--heartbeat-ms",
            "200",
            "--enable-test-nodes",
        ],
    );
    let mut first = Server::start(&site, "first", &[]);
    let servers = Servers::of(&first);
    let nodes = [
        effect("before", 0),
        delay("long", json!("{{trigger.ms}}")),
        effect("after", 0),
    ];
    let path = first.put_nodes(json!(nodes)).await;
    // Some executions end before the server is killed; others are under way.
    let mut runs = Vec::new();
    for ms in [0, 10, 100, 400, 4_000, 4_000, 4_000, 5_000] {
        let id = first.start_at(&path, &json!({"ms": ms})).await;
        runs.push((Follower::start(&servers, &id), id));
    }
    let body = json!({"trigger_data": {"ms": 1}});
    let with_key = |server: &Server| {
        server
            .request(Method::POST, &path)
            .header("Idempotency-Key", "only-once")
            .json(&body)
            .send()
    };
    let answer = with_key(&first).await.expect("it answers");
    assert_eq!(answer.status(), 201);
    let once: Value = answer.json().await.expect("JSON");

    runs[3].0.until_it_has("step.completed", "long").await;
    runs[7].0.until_it_has("step.started", "long").await;
    let mut told = Vec::new();
    for (follower, id) in &runs {
        told.push(Told {
            id: id.clone(),
            events: follower.seen().events.len(),
            logs: first.all(id, "logs").await,
            audit: first.all(id, "audit").await,
        });
    }
    first.running.kill();
    let second = Server::start(&site, "second", &[]);
    servers.add(&second);

    let seen = join_all(runs.into_iter().map(|(follower, _)| follower.finish())).await;
    for (told, seen) in told.iter().zip(&seen) {
        let id = &told.id;
        assert_eq!(second.execution(id).await["status"], "completed");
        let replayed = second.stream(id, None).await;
        let replayed: Vec<_> = replayed.into_iter().map(|(_, _, event)| event).collect();
        assert_eq!(replayed, seen.events, "what was read is what is stored");
        assert!(told.events > 0 && told.events <= replayed.len());
        for (list, before) in [("logs", &told.logs), ("audit", &told.audit)] {
            let after = second.all(id, list).await;
            assert!(!before.is_empty() && after.len() >= before.len(), "{list}");
            assert_eq!(after[..before.len()], before[..], "{list} of {id}");
        }
        audit_verifies(&second, id).await;
        for node in ["before", "after"] {
            let is = |(of, ran): &&(String, String)| of == id && ran == node;
            assert_eq!(site.ledger().iter().filter(is).count(), 1, "{node} of {id}");
        }
    }
    let interrupted = seen.iter().filter(|seen| seen.opened > 1).count();
    assert!(interrupted >= 3, "the kill met only {interrupted}");

    let answer = with_key(&second).await.expect("it answers");
    assert_eq!(answer.status(), 200, "the key is remembered");
    let again: Value = answer.json().await.expect("JSON");
    assert_eq!(again["id"], once["id"]);
}
