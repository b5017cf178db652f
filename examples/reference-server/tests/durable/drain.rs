//! Servers that are told to stop finish the steps that they can, and hand over the other executions.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use docg_test_servers::{postgres::Database, redis};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    follower::Follower,
    program::DEADLINE,
    server::{Server, Servers, audit_verifies, cancel, delay, effect, hang, step},
    site::Site,
    takeover::time,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_told_to_stop_finishes_what_it_can_and_hands_over_the_rest_at_once() {
    let grace = Duration::from_secs(6);
    // The time limit for a hand-over. It is much shorter than the lease, and than the interval at which
    // workers poll.
    let at_once = Duration::from_secs(12);
    let (database, redis) = (Database::empty().await, redis::PrivateServer::start());
    let site = Site::new(
        database.url(),
        Some(&redis.url()),
        &[
            "--lease-ms",
            "120000",
            "--cancel-grace-ms",
            "6000",
            "--heartbeat-ms",
            "200",
            "--enable-test-nodes",
        ],
    );
    let second = Server::start(&site, "second", &[]);
    // Suspend the second server until the first has claimed all executions. Then the first server runs all of
    // them.
    second.running.signal("STOP");
    let mut first = Server::start(&site, "first", &[]);
    let servers = Servers::of(&first);
    let nodes = json!([effect("short", 1_500), delay("next", json!(0))]);
    let short = first.start_nodes(nodes).await;
    let obedient = first.start_nodes(json!([hang("hang", false)])).await;
    let stubborn = first.start_nodes(json!([hang("hang", true)])).await;
    let follow = |id: &str| Follower::start(&servers, id);
    let mut runs = [follow(&short), follow(&obedient), follow(&stubborn)];
    for (follower, node) in runs.iter_mut().zip(["short", "hang", "hang"]) {
        follower.until_it_has("step.started", node).await;
    }
    first.running.signal("TERM");
    let told = SystemTime::now();
    second.running.signal("CONT");
    servers.add(&second);
    until_it_is_not_ready(&first).await;

    let [mut finishing, mut obeying, mut resisting] = runs;
    // The first server finishes the step that ends within the grace time. The next step runs elsewhere.
    finishing.until_it_has("step.completed", "short").await;
    assert!(first.running.has_ended().is_none(), "it still drains");
    second.until(&short, &["completed"]).await;
    let next = step(&second, &short, "next").await;
    let obeyed = obeying.until_it_started("hang", 2).await;
    let dropped = resisting.until_it_started("hang", 2).await;
    for (what, at, least, most) in [
        ("next", time(&next["started_at"]), Duration::ZERO, at_once),
        (
            "obedient",
            time(&obeyed["timestamp"]),
            Duration::ZERO,
            at_once,
        ),
        (
            "stubborn",
            time(&dropped["timestamp"]),
            grace,
            grace + at_once,
        ),
    ] {
        let waited = at.duration_since(told).expect("it is later");
        assert!(waited >= least && waited < most, "{what} after {waited:?}");
    }
    assert_eq!(obeyed["data"]["attempt"], 1, "the first did not count");
    assert!(first.running.wait().success(), "{}", first.running.log());
    for id in [&obedient, &stubborn] {
        cancel(&second, id).await;
    }
    for (follower, end) in [
        (finishing, "completed"),
        (obeying, "canceled"),
        (resisting, "canceled"),
    ] {
        let seen = follower.finish().await;
        assert_eq!(seen.broken, 0, "streams end in order");
        let last = seen.events.last().expect("there are events");
        assert_eq!(last["status"], end);
        let of = |kind: &str| {
            let is = |event: &&Value| event["event_type"] == kind;
            seen.events.iter().filter(is).count()
        };
        // Stopping a handler is no failure: a step has failed only if its execution was canceled at the end.
        assert_eq!(of("step.failed"), usize::from(end == "canceled"));
    }
    let logs = second.all(&short, "logs").await;
    let words = logs.iter().map(|log| log["message_human"].to_string());
    assert!(!words.into_iter().any(|words| words.contains("taken over")));
    assert_eq!(site.ledger().len(), 1);
    assert!(first.running.log().contains("stopped"));
}

/// Waits until a server reports that it is not ready for new requests.
async fn until_it_is_not_ready(server: &Server) {
    let began = Instant::now();
    loop {
        let ready = server.request(Method::GET, "/readyz").send().await;
        let ready = ready.expect("it still answers");
        if ready.status() == StatusCode::SERVICE_UNAVAILABLE {
            let body: Value = ready.json().await.expect("JSON");
            assert_eq!(body, json!({"status": "shutting_down"}));
            return;
        }
        assert!(began.elapsed() < DEADLINE, "it stays ready");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Starts executions until `end` is canceled. If a server does not accept a start, another one is tried.
async fn start_runs(servers: Servers, path: Arc<str>, end: CancellationToken) -> Vec<Follower> {
    let mut accepted = Vec::new();
    for turn in 0.. {
        if end.is_cancelled() {
            break;
        }
        let key = Uuid::new_v4().to_string();
        let began = Instant::now();
        for again in 0.. {
            let request = servers.turn(turn + again).request(Method::POST, &path);
            let request = request
                .header("Idempotency-Key", &key)
                .json(&json!({"trigger_data": {"ms": turn % 7 * 500}}));
            if let Ok(answer) = request.send().await
                && let StatusCode::CREATED | StatusCode::OK = answer.status()
                && let Ok(execution) = answer.json::<Value>().await
            {
                let id = execution["id"].as_str().expect("an id");
                accepted.push(Follower::start(&servers, id));
                break;
            }
            assert!(began.elapsed() < DEADLINE, "nobody answers");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        tokio::time::sleep(Duration::from_millis(40)).await;
    }
    accepted
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_are_replaced_one_after_the_other_while_runs_flow_and_nobody_notices() {
    let (database, redis) = (Database::empty().await, redis::PrivateServer::start());
    let site = Site::new(
        database.url(),
        Some(&redis.url()),
        &[
            "--lease-ms",
            "30000",
            "--cancel-grace-ms",
            "500",
            "--heartbeat-ms",
            "200",
            "--enable-test-nodes",
        ],
    );
    let start = |name: &str| Server::start(&site, name, &[]);
    let old = ["old-1", "old-2", "old-3"].map(start);
    let servers = Servers::default();
    old.iter().for_each(|server| servers.add(server));
    let nodes = json!([
        effect("before", 0),
        delay("wait", json!("{{trigger.ms}}")),
        effect("after", 50),
    ]);
    let path: Arc<str> = old[0].put_nodes(nodes).await.into();
    let end = CancellationToken::new();
    let mut clients = JoinSet::new();
    for _ in 0..2 {
        let work = start_runs(servers.clone(), Arc::clone(&path), end.clone());
        clients.spawn(work);
    }
    let mut new = Vec::new();
    for mut server in old {
        let replacement = start(&format!("new-{}", new.len() + 1));
        servers.add(&replacement);
        server.running.signal("TERM");
        assert!(server.running.wait().success(), "{}", server.running.log());
        servers.remove(&server);
        new.push(replacement);
    }
    end.cancel();

    let followers: Vec<_> = clients.join_all().await.into_iter().flatten().collect();
    let runs = followers.len();
    assert!(runs >= 20, "only {runs} runs were under way");
    let mut moved = 0;
    for follower in followers {
        let seen = follower.finish().await;
        moved += usize::from(seen.opened > 1);
        assert_eq!(seen.broken, 0, "streams end in order");
        let last = seen.events.last().expect("there are events");
        assert_eq!(last["event_type"], "execution.completed", "{last}");
        let failed = |event: &Value| event["event_type"] == "step.failed";
        assert!(!seen.events.iter().any(failed), "{:#?}", seen.events);
        let id = last["execution_id"].as_str().expect("an id");
        audit_verifies(&new[0], id).await;
        for node in ["before", "after"] {
            let is = |(of, ran): &&(String, String)| of == id && ran == node;
            assert_eq!(site.ledger().iter().filter(is).count(), 1, "{node} of {id}");
        }
    }
    assert!(moved >= 3, "only {moved} streams went to another server");
}
