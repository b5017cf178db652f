//! Outages of the database and of Redis, which the server uses.

use std::time::{Duration, Instant};

use docg_test_servers::{
    postgres::{self, Database},
    redis,
};
use futures::future::join_all;
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

use crate::{
    client::Client,
    follower::Follower,
    program::DEADLINE,
    server::{Server, Servers, audit_verifies, delay, effect},
    site::Site,
};

/// Sends a request without a body. Returns the answer and the time it took.
async fn ask(server: &Client, method: Method, path: &str) -> (Response, Duration) {
    let began = Instant::now();
    let answer = server.request(method, path).send().await;
    (answer.expect("it answers"), began.elapsed())
}

/// Waits until a path answers with this status. Returns the answer's body.
async fn until_it_answers(server: &Client, path: &str, status: StatusCode) -> Value {
    let began = Instant::now();
    loop {
        let (answer, _) = ask(server, Method::GET, path).await;
        if answer.status() == status {
            return answer.json().await.expect("JSON");
        }
        let found = answer.status();
        assert!(began.elapsed() < DEADLINE, "{path} stays at {found}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_redis_runs_go_on_and_streams_lose_nothing() {
    // The longest time of a call. The server soon notices that Redis is down, and its calls to Redis then
    // fail at once; most of this time allows for a busy machine.
    let slowest = Duration::from_secs(10);
    let (database, redis) = (Database::empty().await, redis::PrivateServer::start());
    let arguments = ["--heartbeat-ms", "200", "--enable-test-nodes"];
    let site = Site::new(database.url(), Some(&redis.url()), &arguments);
    let server = Server::start(&site, "server", &[]);
    let servers = Servers::of(&server);
    // Each step waits for the one before it, so that events keep coming.
    let nodes: Vec<_> = (0..8)
        .map(|n| delay(&format!("n{n}"), json!("{{trigger.ms}}")))
        .collect();
    let path = server.put_nodes(json!(nodes)).await;
    let id = server.start_at(&path, &json!({"ms": 700})).await;
    let mut before = Follower::start(&servers, &id);
    before.until_it_has("step.completed", "n0").await;

    redis.kill();
    let mut during = Follower::start(&servers, &id);
    let health = "/api/v1/sse/health";
    let unhealthy = until_it_answers(&server, health, StatusCode::SERVICE_UNAVAILABLE).await;
    assert_eq!(
        unhealthy,
        json!({"status": "unhealthy", "redis": "disconnected"})
    );
    let (ready, _) = ask(&server, Method::GET, "/readyz").await;
    assert_eq!(ready.status(), 200, "it can serve");
    for _ in 0..20 {
        let (answer, took) = ask(&server, Method::POST, &path).await;
        assert_eq!(answer.status(), StatusCode::CREATED);
        assert!(took < slowest, "a start took {took:?}");
        let (answer, took) = ask(&server, Method::GET, &format!("/api/v1/executions/{id}")).await;
        assert_eq!(answer.status(), StatusCode::OK);
        assert!(took < slowest, "a read took {took:?}");
    }
    let began = Instant::now();
    let short = server.start_at(&path, &json!({"ms": 0})).await;
    let seen = Follower::start(&servers, &short).finish().await;
    assert_eq!(seen.opened, 1, "its stream went on to the end");
    assert!(began.elapsed() < Duration::from_secs(10));
    let gone_on = before.until_it_has("step.completed", "n3").await;
    assert_eq!(gone_on.opened, 1, "its stream stayed open");
    during.until_it_has("step.completed", "n3").await;

    redis.start_again();
    let healthy = until_it_answers(&server, health, StatusCode::OK).await;
    assert_eq!(healthy["redis"], "connected");
    for follower in [before, during] {
        let seen = follower.finish().await;
        assert_eq!((seen.opened, seen.broken), (1, 0));
        assert_eq!(seen.of("step.completed", "n7").count(), 1);
    }
    audit_verifies(&server, &id).await;
}

/// Asserts that the server rejects a request as unavailable, within ten seconds.
async fn is_refused(request: RequestBuilder) {
    let began = Instant::now();
    let answer = request.send().await.expect("it answers");
    let (what, took) = (answer.url().clone(), began.elapsed());
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE, "{what}");
    assert_eq!(answer.headers()["content-type"], "application/problem+json");
    let wait = answer.headers()["retry-after"].to_str().expect("text");
    assert!(wait.parse::<u32>().is_ok_and(|seconds| seconds > 0));
    assert!(took < Duration::from_secs(10), "{what} took {took:?}");
    let problem: Value = answer.json().await.expect("JSON");
    assert_eq!(problem["code"], "service_unavailable", "{problem}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_postgres_requests_are_refused_nothing_is_half_done_and_it_recovers_by_itself() {
    let postgres = postgres::PrivateServer::start().await;
    let arguments = [
        "--lease-ms",
        "2000",
        "--heartbeat-ms",
        "200",
        "--enable-test-nodes",
    ];
    let site = Site::new(&postgres.url(), None, &arguments);
    let server = Server::start(&site, "server", &[]);
    let servers = Servers::of(&server);
    // The database goes down while a step waits, and while an effect runs.
    let nodes = [
        delay("wait", json!("{{trigger.ms}}")),
        effect("effect", 500),
        delay("last", json!(0)),
    ];
    let path = server.put_nodes(json!(nodes)).await;
    let mut runs = Vec::new();
    for ms in [0, 500, 3_000] {
        let id = server.start_at(&path, &json!({"ms": ms})).await;
        runs.push((Follower::start(&servers, &id), id));
    }
    runs[0].0.until_it_has("step.started", "effect").await;
    runs[1].0.until_it_has("step.started", "wait").await;
    runs[2].0.until_it_has("step.started", "wait").await;

    postgres.stop();
    let of_run = format!("/api/v1/executions/{}", runs[2].1);
    let stream = format!("/api/v1/sse/executions/{}/stream", runs[2].1);
    let keyed = || {
        let request = server.request(Method::POST, &path);
        request
            .header("Idempotency-Key", "once")
            .json(&json!({"trigger_data": {"ms": 1}}))
    };
    join_all([
        is_refused(server.request(Method::GET, &of_run)),
        is_refused(server.request(Method::GET, &format!("{of_run}/logs"))),
        is_refused(server.request(Method::GET, "/api/v1/executions")),
        is_refused(server.request(Method::POST, &format!("{of_run}/cancel"))),
        is_refused(server.request(Method::GET, &stream)),
        is_refused(keyed()),
    ])
    .await;
    let (ready, _) = ask(&server, Method::GET, "/readyz").await;
    assert_eq!(ready.status(), StatusCode::SERVICE_UNAVAILABLE);
    let why: Value = ready.json().await.expect("JSON");
    assert_eq!(why["status"], "store_unavailable");
    let (live, _) = ask(&server, Method::GET, "/healthz").await;
    assert_eq!(live.status(), StatusCode::OK, "it need not be restarted");

    postgres.start_again().await;
    until_it_answers(&server, "/readyz", StatusCode::OK).await;
    let again = keyed().send().await.expect("it answers");
    assert_eq!(again.status(), StatusCode::CREATED, "it was not half done");
    let again: Value = again.json().await.expect("JSON");
    let id = again["id"].as_str().expect("an id").to_owned();
    runs.push((Follower::start(&servers, &id), id));
    for (follower, id) in runs {
        let seen = follower.finish().await;
        let last = seen.events.last().expect("there are events");
        assert_eq!(last["event_type"], "execution.completed", "{last}");
        for node in ["wait", "effect", "last"] {
            assert_eq!(seen.of("step.completed", node).count(), 1, "{node}");
        }
        let is = |(of, _): &&(String, String)| *of == id;
        assert_eq!(site.ledger().iter().filter(is).count(), 1, "{id}");
        audit_verifies(&server, &id).await;
    }
    let all = server.get("/api/v1/executions").await;
    assert_eq!(all["executions"].as_array().map(Vec::len), Some(4));
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_not_ready_while_nothing_can_be_written() {
    let postgres = postgres::PrivateServer::start().await;
    let owner = postgres.url();
    let site = Site::new(&owner, None, &[]);
    assert!(site.output(&["migrate"]).status.success());
    let grants = docg_store_postgres::grants_sql("app");
    run_sql(&owner, &format!("CREATE ROLE app LOGIN; {grants}")).await;
    let (_, place) = owner.split_once('@').expect("it names a user");
    let site = Site::new(&format!("postgres://app@{place}"), None, &["--no-migrate"]);
    let server = Server::start(&site, "server", &[]);
    for (broken, mended) in [
        (
            "ALTER ROLE app SET default_transaction_read_only = on",
            "ALTER ROLE app RESET default_transaction_read_only",
        ),
        (
            "REVOKE UPDATE ON docg.executions FROM app",
            "GRANT UPDATE ON docg.executions TO app",
        ),
    ] {
        until_it_answers(&server, "/readyz", StatusCode::OK).await;
        // End all sessions, as a failover does.
        let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'app'";
        run_sql(&owner, &format!("{broken}; {end}")).await;
        let why = until_it_answers(&server, "/readyz", StatusCode::SERVICE_UNAVAILABLE).await;
        assert_eq!(why["status"], "store_unavailable", "{broken}");
        let (still, _) = ask(&server, Method::GET, "/readyz").await;
        assert_eq!(still.status(), StatusCode::SERVICE_UNAVAILABLE, "{broken}");
        run_sql(&owner, &format!("{mended}; {end}")).await;
    }
    until_it_answers(&server, "/readyz", StatusCode::OK).await;
    let log = server.running.log();
    assert!(log.matches("not ready").count() <= 2, "{log}");
}

async fn run_sql(url: &str, sql: &str) {
    let mut owner = PgConnection::connect(url).await.expect("connects");
    let done = sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut owner).await;
    done.unwrap_or_else(|e| panic!("{sql}: {e}"));
}
