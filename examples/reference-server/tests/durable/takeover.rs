//! A server dies or seems dead, and another server takes over its executions.

use std::time::{Duration, Instant, SystemTime};

use chrono::{DateTime, Utc};
use docg_test_servers::{postgres::Database, redis};
use serde_json::{Value, json};

use crate::{
    client::Client,
    follower::Follower,
    program::DEADLINE,
    server::{Server, Servers, audit_verifies, cancel, delay, effect, hang, step},
    site::Site,
};

/// Parses a time in JSON.
pub(crate) fn time(value: &Value) -> SystemTime {
    let text = value.as_str().unwrap_or_default();
    let time = text.parse::<DateTime<Utc>>();
    time.unwrap_or_else(|e| panic!("{value}: {e}")).into()
}

/// Waits for the takeover of a step. Returns its time according to the log.
pub(crate) async fn taken_over(server: &Client, id: &str) -> SystemTime {
    let began = Instant::now();
    loop {
        let logs = server.all(id, "logs").await;
        let says = |log: &&Value| {
            let words = log["message_human"].as_str().unwrap_or_default();
            words.ends_with("was interrupted and is taken over.")
        };
        if let Some(log) = logs.iter().find(says) {
            return time(&log["timestamp"]);
        }
        assert!(began.elapsed() < DEADLINE, "nobody takes over {id}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Starts executions that wait in a step for `millis` milliseconds. Returns each with its follower.
pub(crate) async fn waiting_runs(
    server: &Server,
    servers: &Servers,
    count: usize,
    millis: u64,
) -> Vec<(Follower, String)> {
    let nodes = [
        effect("before", 0),
        delay("long", json!(millis)),
        effect("after", 0),
    ];
    let path = server.put_nodes(json!(nodes)).await;
    let mut runs = Vec::new();
    for _ in 0..count {
        let id = server.start_at(&path, &json!({})).await;
        runs.push((Follower::start(servers, &id), id));
    }
    for (follower, _) in &mut runs {
        follower.until_it_has("step.started", "long").await;
    }
    runs
}

#[tokio::test(flavor = "multi_thread")]
async fn steps_of_a_server_that_was_killed_are_taken_over_within_one_and_a_half_leases() {
    let lease = Duration::from_secs(6);
    // The additional delay that a busy machine may cause.
    let late = Duration::from_secs(6);
    let (database, redis) = (Database::empty().await, redis::PrivateServer::start());
    let site = Site::new(
        database.url(),
        Some(&redis.url()),
        &[
            "--lease-ms",
            "6000",
            "--heartbeat-ms",
            "200",
            "--enable-test-nodes",
        ],
    );
    let second = Server::start(&site, "second", &[]);
    // Suspend the second server until the first has claimed all executions.
    second.running.signal("STOP");
    let mut first = Server::start(&site, "first", &[]);
    let servers = Servers::of(&first);
    let runs = waiting_runs(&first, &servers, 5, 5_000).await;
    second.running.signal("CONT");
    servers.add(&second);
    first.running.kill();
    let killed = SystemTime::now();

    for (follower, id) in runs {
        let after = taken_over(&second, &id).await.duration_since(killed);
        let after = after.expect("it is later");
        assert!(after <= lease * 3 / 2 + late, "{id} waited for {after:?}");
        // A worker renews a lease after a third of its duration, so about two thirds were left at the kill.
        assert!(after >= lease / 2, "{id} was taken {after:?} after");
        follower.finish().await;
        assert_eq!(second.execution(&id).await["status"], "completed");
        assert_eq!(step(&second, &id, "long").await["attempt"], 1, "one result");
        audit_verifies(&second, &id).await;
    }
    let mut ledger = site.ledger();
    ledger.sort_unstable();
    ledger.dedup();
    assert_eq!(ledger.len(), 10);
    assert_eq!(site.ledger().len(), 10, "no effect happened twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_slept_past_its_lease_writes_nothing_stale_and_goes_on_with_other_work() {
    let (database, redis) = (Database::empty().await, redis::PrivateServer::start());
    let site = Site::new(
        database.url(),
        Some(&redis.url()),
        &[
            "--lease-ms",
            "1000",
            "--heartbeat-ms",
            "200",
            "--enable-test-nodes",
        ],
    );
    let sleeper = Server::start(&site, "sleeper", &[]);
    let servers = Servers::of(&sleeper);
    let follow = |id: &str| Follower::start(&servers, id);
    // The first server is suspended during an effect, before an effect, and in an endless step.
    let within = sleeper.start_nodes(json!([effect("effect", 700)])).await;
    let nodes = [delay("delay", json!(700)), effect("effect", 0)];
    let before = sleeper.start_nodes(json!(nodes)).await;
    let endless = sleeper.start_nodes(json!([hang("hang", false)])).await;
    let mut runs = [follow(&within), follow(&before), follow(&endless)];
    for (follower, node) in runs.iter_mut().zip(["effect", "delay", "hang"]) {
        follower.until_it_has("step.started", node).await;
    }
    sleeper.running.signal("STOP");

    let other = Server::start(&site, "other", &[]);
    servers.add(&other);
    for id in [&within, &before] {
        other.until(id, &["completed"]).await;
    }
    taken_over(&other, &endless).await;
    sleeper.running.signal("CONT");
    let told = "the lease is lost: the handler was told to stop";
    sleeper.running.until_logged(told).await;
    // When the server that slept answers this request, its handlers have stopped without a result.
    sleeper.until(&endless, &["running"]).await;
    cancel(&other, &endless).await;
    for (follower, id) in runs.into_iter().zip([&within, &before, &endless]) {
        follower.finish().await;
        audit_verifies(&other, id).await;
    }
    assert_eq!(other.execution(&endless).await["status"], "canceled");

    // From here on, the server that slept is the only one.
    other.running.signal("TERM");
    let mut other = other;
    assert!(other.running.wait().success());
    let id = sleeper.start_nodes(json!([effect("effect", 0)])).await;
    sleeper.until(&id, &["completed"]).await;
    let mut ran: Vec<_> = site.ledger().into_iter().map(|(id, _)| id).collect();
    ran.sort_unstable();
    let mut wanted = [within, before, id];
    wanted.sort_unstable();
    assert_eq!(ran, wanted, "each effect happened once");
}
