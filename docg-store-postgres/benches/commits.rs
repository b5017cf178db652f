//! Durable steps per second, against the floor: the same rows inserted by the same server, one
//! prepared statement and one transaction for each step.
//!
//! Each round runs both, one after the other, and the ratio at the end is of the same run.

use std::{
    hint::black_box,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use criterion::{Criterion, criterion_group, criterion_main};
use docg_core::{
    conformance::fixtures::{CommitFixture, RunFixture, at},
    ids::{OrganizationId, WorkerId},
    observe::{LogDomain, LogLevel},
    ports::{ClaimRequest, ClaimWhat, Claimed, Commit, RunStore},
};
use docg_store_postgres::{PgStore, PgStoreConfig};
use docg_test_servers::postgres::PrivateServer;
use sqlx::{PgPool, postgres::PgPoolOptions};
use tokio::runtime::Runtime;

/// What a step leaves behind: the row that is rewritten, two events, a log entry, an audit row.
const FLOOR: &str = "WITH e AS (
        INSERT INTO public.floor_events SELECT $1, n, $2 FROM generate_series(1, 2) n),
    l AS (INSERT INTO public.floor_logs VALUES ($1, $2)),
    a AS (INSERT INTO public.floor_audit VALUES ($1, $3)),
    s AS (INSERT INTO public.floor_steps VALUES ($1, $2))
    INSERT INTO public.floor_executions VALUES ($1, $3)";

const TABLES: &str = "
    CREATE TABLE public.floor_events (id uuid, seq bigint, data text, PRIMARY KEY (id, seq));
    CREATE TABLE public.floor_logs (id uuid PRIMARY KEY, data text);
    CREATE TABLE public.floor_audit (id uuid PRIMARY KEY, data text);
    CREATE TABLE public.floor_steps (id uuid PRIMARY KEY, data text);
    CREATE TABLE public.floor_executions (id uuid PRIMARY KEY, data text)";

struct Bench {
    store: Arc<PgStore>,
    pool: PgPool,
    _server: PrivateServer,
}

async fn bench() -> Bench {
    let server = PrivateServer::start().await;
    let config = PgStoreConfig::default().max_connections(8);
    let store = PgStore::connect(&server.url(), config)
        .await
        .expect("connects");
    store.migrate().await.expect("migrates");
    let pool = PgPoolOptions::new()
        .max_connections(32)
        .test_before_acquire(false)
        .connect(&server.url())
        .await
        .expect("connects");
    sqlx::raw_sql(TABLES).execute(&pool).await.expect("creates");
    Bench {
        store: Arc::new(store),
        pool,
        _server: server,
    }
}

impl Bench {
    /// Executions that somebody holds, ready to be committed to.
    async fn claimed(&self, count: usize) -> Vec<Claimed> {
        let created = (0..count).map(|_| {
            let store = Arc::clone(&self.store);
            tokio::spawn(async move {
                let run = RunFixture::of(OrganizationId::new()).build();
                let id = run.state.execution.id;
                store.create(run).await.expect("stores");
                let request = ClaimRequest {
                    worker_id: WorkerId::new(),
                    what: ClaimWhat::One(id),
                    now: at(0),
                    lease_until: at(60_000),
                };
                store
                    .claim(request)
                    .await
                    .expect("claims")
                    .claimed
                    .remove(0)
            })
        });
        let created: Vec<_> = created.collect();
        let mut claimed = Vec::with_capacity(count);
        for task in created {
            claimed.push(task.await.expect("does not panic"));
        }
        claimed
    }

    /// Commits `steps` steps of each of `executions` executions, all executions at once.
    async fn commits(&self, executions: usize, steps: u64) -> Duration {
        let claimed = self.claimed(executions).await;
        let begin = Instant::now();
        let tasks: Vec<_> = claimed
            .into_iter()
            .map(|mut claimed| {
                let store = Arc::clone(&self.store);
                tokio::spawn(async move {
                    for _ in 0..steps {
                        let commit = step(&claimed);
                        claimed.state.execution = commit.execution.clone();
                        store.commit(commit).await.expect("commits");
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.expect("does not panic");
        }
        begin.elapsed()
    }

    /// The floor for as many steps.
    async fn inserts(&self, executions: usize, steps: u64) -> Duration {
        let begin = Instant::now();
        let tasks: Vec<_> = (0..executions)
            .map(|_| {
                let pool = self.pool.clone();
                tokio::spawn(async move {
                    for _ in 0..steps {
                        sqlx::query(FLOOR)
                            .bind(uuid::Uuid::new_v4())
                            .bind("x".repeat(150))
                            .bind("x".repeat(500))
                            .execute(&pool)
                            .await
                            .expect("inserts");
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.expect("does not panic");
        }
        begin.elapsed()
    }
}

fn step(claimed: &Claimed) -> Commit {
    CommitFixture::on(claimed)
        .events(2)
        .log(LogLevel::Ok, LogDomain::Step, Some("n0"))
        .audit("document.generated")
        .but(|commit| commit.steps = vec![claimed.state.steps[0].clone()])
        .keep(at(60_000))
        .build()
}

fn durable_steps(criterion: &mut Criterion) {
    let runtime = Runtime::new().expect("starts");
    let bench = runtime.block_on(bench());
    for executions in [1, 32, 256] {
        // Steps and time of ours, steps and time of the floor.
        let totals = Mutex::new([0.0_f64; 4]);
        let mut group = criterion.benchmark_group("durable_steps");
        group
            .sample_size(10)
            .measurement_time(Duration::from_secs(4));
        group.throughput(criterion::Throughput::Elements(executions as u64));
        group.bench_function(format!("{executions}_at_once"), |bencher| {
            bencher.iter_custom(|steps| {
                let ours = runtime.block_on(bench.commits(executions, steps));
                let floor = runtime.block_on(bench.inserts(executions, steps));
                let mut totals = totals.lock().expect("nobody panicked");
                let done = (executions as u64 * steps) as f64;
                totals[0] += done;
                totals[1] += ours.as_secs_f64();
                totals[2] += done;
                totals[3] += floor.as_secs_f64();
                black_box(ours)
            });
        });
        group.finish();
        let [steps, seconds, floor_steps, floor_seconds] = *totals.lock().expect("nobody panicked");
        if seconds > 0.0 {
            let (ours, floor) = (steps / seconds, floor_steps / floor_seconds);
            eprintln!(
                "{executions} at once: {ours:.0} steps/s, floor {floor:.0} transactions/s, \
                 ratio {:.2}",
                ours / floor
            );
        }
    }
    runtime.block_on(async {
        bench.store.close().await;
        bench.pool.close().await;
    });
}

criterion_group!(benches, durable_steps);
criterion_main!(benches);
