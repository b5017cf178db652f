//! The cost of an execution for the database, as counted by `pg_stat_statements`, and the cost of an
//! idle worker.

#![expect(clippy::print_stdout, reason = "the figures are what it is run for")]

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use docg_core::{
    engine::EngineBuilder,
    prelude::*,
    time::{Clock, Timestamp},
};
use docg_store_memory::MemoryBus;
use docg_store_postgres::{PgStore, PgStoreConfig};
use docg_test_servers::postgres::PrivateServer;
use futures::StreamExt;
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection, Row};

/// The number of measured executions. They run one after the other, so that none shares a transaction with
/// another. Only the lowest cost counts: real time adds to the cost of some executions, and of most on a busy
/// machine. For example, a commit cannot be delayed any longer, the sweeper runs, or a page is cleaned up.
const RUNS: usize = 15;

/// A server with `pg_stat_statements`.
struct Server {
    server: PrivateServer,
    counts: PgConnection,
}

/// The server's counts since the last reset.
#[derive(Debug, Clone, Copy)]
struct Counts {
    statements: i64,
    /// Transactions that wrote. Here each statement is a transaction of its own.
    commits: i64,
    wal_bytes: i64,
}

impl Counts {
    /// The lowest of each number.
    fn least(of: &[Self]) -> Self {
        let least =
            |number: fn(&Self) -> i64| of.iter().map(number).min().expect("there were runs");
        Self {
            statements: least(|it| it.statements),
            commits: least(|it| it.commits),
            wal_bytes: least(|it| it.wal_bytes),
        }
    }
}

impl Server {
    async fn start() -> Self {
        let server = PrivateServer::start().await;
        let libraries = "shared_preload_libraries";
        server.configure(libraries, "pg_stat_statements").await;
        // Turn autovacuum off: its work is not caused by executions.
        server.configure("autovacuum", "off").await;
        server.stop_fast();
        server.start_again().await;
        let mut counts = PgConnection::connect(&server.url())
            .await
            .expect("connects");
        sqlx::raw_sql("CREATE EXTENSION pg_stat_statements")
            .execute(&mut counts)
            .await
            .expect("the server has its extension pg_stat_statements (Debian: postgresql-contrib)");
        let store = PgStore::connect(&server.url(), PgStoreConfig::default()).await;
        store.expect("connects").migrate().await.expect("migrates");
        Self { server, counts }
    }

    /// An engine that looks to the database like a separate process.
    async fn engine(&self, bus: &Arc<MemoryBus>) -> EngineBuilder {
        let store = PgStore::connect(&self.server.url(), PgStoreConfig::default()).await;
        let spec = |name: &'static str| {
            NodeSpec::new(name, Phase::Trigger)
                .any_phase()
                .param(ParamSpec::optional("in", ParamKind::Json))
        };
        Engine::builder(Arc::new(store.expect("connects")), Arc::clone(bus) as _)
            .step(compute(spec("compute"), |_, p: Value| async move { Ok(p) }))
            .step(effect(spec("effect"), |_, p: Value| async move {
                StepOutcome::done(p)
            }))
    }

    async fn reset(&mut self) {
        sqlx::raw_sql("SELECT pg_stat_statements_reset()")
            .execute(&mut self.counts)
            .await
            .expect("resets");
    }

    /// Reads the counts. A statement counts as writing if each of its calls wrote to the log: a statement
    /// that only reads may occasionally clean up a page, which is logged too.
    async fn counted(&mut self) -> Counts {
        let row = sqlx::query(
            "SELECT sum(calls)::bigint, (sum(calls) FILTER (WHERE wal_records >= calls))::bigint,
                    sum(wal_bytes)::bigint
             FROM pg_stat_statements WHERE query LIKE '%docg.%'",
        );
        let row = row.fetch_one(&mut self.counts).await.expect("reads");
        let number = |index: usize| row.get::<Option<i64>, _>(index).unwrap_or_default();
        Counts {
            statements: number(0),
            commits: number(1),
            wal_bytes: number(2),
        }
    }

    /// The number of calls of statements that contain these words.
    async fn calls_of(&mut self, words: &str) -> i64 {
        let sql = "SELECT coalesce(sum(calls), 0)::bigint FROM pg_stat_statements
            WHERE position($1 in query) > 0";
        let calls = sqlx::query_scalar(sql).bind(words);
        calls.fetch_one(&mut self.counts).await.expect("reads")
    }

    /// The statements by their number of calls, to find out why there are more than expected.
    async fn detail(&mut self) -> String {
        let rows = sqlx::query(
            "SELECT calls, wal_records, left(regexp_replace(query, '\\s+', ' ', 'g'), 110)
             FROM pg_stat_statements WHERE query LIKE '%docg.%' ORDER BY calls DESC",
        );
        let rows = rows.fetch_all(&mut self.counts).await.expect("reads");
        let lines = rows.iter().map(|row| {
            let (calls, wal, query): (i64, i64, String) = (row.get(0), row.get(1), row.get(2));
            format!("{calls} calls, {wal} WAL records: {query}\n")
        });
        lines.collect()
    }
}

/// Stores a workflow with nodes of these types and returns its id.
async fn workflow(engine: &Engine, organization: OrganizationId, types: &[&str]) -> WorkflowId {
    let id = WorkflowId::new();
    let nodes: Vec<_> = types
        .iter()
        .enumerate()
        .map(|(index, node_type)| {
            json!({"id": format!("n{index}"), "type": node_type, "phase": "trigger",
                "params": {"in": "{{trigger}}"}})
        })
        .collect();
    let draft = serde_json::from_value(json!({"name": "Budget", "nodes": nodes}));
    let draft = draft.expect("a definition");
    engine
        .put_workflow(organization, id, draft, None)
        .await
        .expect("stores");
    id
}

/// Starts executions one after the other, and follows each to its end.
async fn run(engine: &Engine, organization: OrganizationId, workflow: WorkflowId, runs: u32) {
    for _ in 0..runs {
        let mut request = StartRequest::new(organization, workflow, Actor::user("budget"));
        request.trigger_data = json!({"customer": "x".repeat(500)});
        let started = engine.start(request).await.expect("starts");
        let id = started.record.execution.id;
        let feed = engine.feed(organization, id, 0).await.expect("follows");
        let last = feed.map(|event| event.expect("an event").data.event_type());
        let last = tokio::time::timeout(Duration::from_secs(60), last.collect::<Vec<_>>()).await;
        let last = last.expect("it ends").pop();
        assert_eq!(last, Some("execution.completed"));
    }
}

/// A kind of execution, and its maximum costs.
struct Kind {
    name: &'static str,
    types: [&'static str; 5],
    /// Transactions that write, if another process runs the execution: one creates it, one claims it, one
    /// ends it, and one comes before each effect, except an effect that is the first step. If the process
    /// that creates the execution also runs it, there is no claim.
    commits: i64,
    /// All statements, including those by which readers look up the execution and the sweeper marks the
    /// execution's events as published.
    statements: i64,
    /// A little more than was measured when the test was written. The trigger data take 500 of these bytes.
    wal_bytes: i64,
}

const KINDS: [Kind; 3] = [
    // Steps that only compute can be repeated without loss, so they are committed together.
    Kind {
        name: "five steps that compute",
        types: ["compute"; 5],
        commits: 3,
        statements: 7,
        wal_bytes: 30_000,
    },
    Kind {
        name: "a contract: two that compute, three effects",
        types: ["compute", "compute", "effect", "effect", "effect"],
        commits: 6,
        statements: 10,
        wal_bytes: 34_000,
    },
    // The intent of each effect is committed before it begins.
    Kind {
        name: "five effects",
        types: ["effect"; 5],
        commits: 8,
        statements: 12,
        wal_bytes: 37_000,
    },
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_takes_few_transactions_and_little_log() {
    let mut server = Server::start().await;
    let organization = OrganizationId::new();
    let bus = Arc::<MemoryBus>::default();
    let (one, other) = (server.engine(&bus).await, server.engine(&bus).await);
    let (one, other) = (one.build(), other.build());
    for kind in KINDS {
        let name = kind.name;
        let workflow = workflow(&one, organization, &kind.types).await;
        for elsewhere in [false, true] {
            let worker = if elsewhere { &other } else { &one };
            let workers = worker
                .start_workers(WorkerOptions::default())
                .expect("no other workers run");
            // Leave out the one-time costs: connections, plans, the first page of each index.
            run(&one, organization, workflow, 3).await;
            let (mut all, mut detail) = (Vec::new(), String::new());
            for _ in 0..RUNS {
                server.reset().await;
                run(&one, organization, workflow, 1).await;
                all.push(server.counted().await);
                detail = server.detail().await;
            }
            workers.shutdown().await;
            let counts = Counts::least(&all);
            let saved = i64::from(!elsewhere);
            println!(
                "{name}, run by {}: {} statements, {} transactions that write, {} bytes of WAL",
                if elsewhere {
                    "another process"
                } else {
                    "the process that creates it"
                },
                counts.statements,
                counts.commits,
                counts.wal_bytes,
            );
            assert!(
                counts.commits <= kind.commits - saved
                    && counts.statements <= kind.statements - saved
                    && counts.wal_bytes <= kind.wal_bytes,
                "{name}: {all:?}\nthe last:\n{detail}"
            );
        }
    }
}

/// A clock that runs many times as fast as the system's, so that the test can keep the engine's intervals.
#[derive(Debug)]
struct FastClock {
    start: Timestamp,
    began: Instant,
}

impl FastClock {
    const TIMES: u32 = 100;

    fn new() -> Self {
        Self {
            start: Timestamp::now(),
            began: Instant::now(),
        }
    }
}

#[async_trait]
impl Clock for FastClock {
    fn now(&self) -> Timestamp {
        self.start + self.elapsed()
    }

    fn elapsed(&self) -> Duration {
        self.began.elapsed() * Self::TIMES
    }

    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration / Self::TIMES).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_worker_asks_six_times_a_minute_at_most() {
    const MINUTES: u32 = 10;
    let mut server = Server::start().await;
    let clock = Arc::new(FastClock::new());
    let engine = server.engine(&Arc::default()).await;
    let engine = engine.clock(Arc::clone(&clock) as _).build();
    let organization = OrganizationId::new();
    let workflow = workflow(&engine, organization, &["compute"]).await;
    let workers = engine
        .start_workers(WorkerOptions::default())
        .expect("no other workers run");
    run(&engine, organization, workflow, 1).await;
    // Wait for the sweep that marks the execution's events as published: it is the last work for the
    // execution.
    while server.calls_of("SET published").await == 0 {
        tokio::task::yield_now().await;
    }
    server.reset().await;
    let from = clock.now();
    clock.sleep(Duration::from_secs(60) * MINUTES).await;
    let (counts, detail) = (server.counted().await, server.detail().await);
    let minutes = clock.now().millis_since(from).div_ceil(60_000);
    workers.shutdown().await;
    println!(
        "idle: {} statements in {minutes} minutes\n{detail}",
        counts.statements
    );
    let allowed = 6 * i64::try_from(minutes).expect("a few");
    assert!(counts.statements <= allowed, "{counts:?}\n{detail}");
    assert!(
        counts.statements >= i64::from(MINUTES),
        "it polls, for what nobody told it of: {counts:?}"
    );
}
