//! A server of the benchmark's own, our commits on it, and the floor below them.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use docg_core::{
    conformance::fixtures::{CommitFixture, RunFixture, at},
    ids::{ExecutionId, OrganizationId, WorkerId},
    observe::{LogDomain, LogLevel},
    ports::{ClaimRequest, ClaimWhat, Claimed, Commit, ExecutionStore},
};
use docg_store_postgres::{PgStore, PgStoreConfig};
use docg_test_servers::postgres::PrivateServer;
use futures::future::join_all;
use sqlx::{Connection, PgPool, postgres::PgPoolOptions};

/// What one step's commit writes, to the same tables: the row that is rewritten, two events, a log
/// entry, an audit row, a step. As one would write it: a plain statement for each, in one
/// transaction.
const FLOOR: [&str; 5] = [
    "UPDATE docg.executions
     SET version = version + 1, updated_at = now(), event_seq = event_seq + 2,
        log_seq = log_seq + 1, audit_seq = audit_seq + 1
     WHERE id = $1",
    "INSERT INTO docg.execution_events (execution_id, seq, event_id, event_type, timestamp, status,
        progress, data)
     SELECT id, event_seq - n, gen_random_uuid(), 'execution.progress', now(), status, progress,
        '{\"progress\": 1}'
     FROM docg.executions, generate_series(0, 1) n WHERE id = $1",
    "INSERT INTO docg.execution_logs (execution_id, seq, id, step_id, timestamp, level, domain,
        message_human, correlation_id)
     SELECT id, log_seq, gen_random_uuid(), 'n0', now(), 'ok', 'step', '\"A log entry.\"',
        correlation_id
     FROM docg.executions WHERE id = $1",
    "INSERT INTO docg.audit_events (execution_id, seq, id, organization_id, timestamp, actor_type,
        actor_id, metadata, salt, action, target_type, target_id, commitment, prev_hash, hash)
     SELECT id, audit_seq, gen_random_uuid(), organization_id, now(), 'user', 'ana', '{}',
        gen_random_uuid(), 'document.generated', 'execution', id::text, audit_hash, audit_hash,
        audit_hash
     FROM docg.executions WHERE id = $1",
    "UPDATE docg.execution_steps SET attempt = attempt WHERE execution_id = $1 AND position = 0",
];

/// Executions that ended, each with the least that one has.
const STORED: &str = "
    WITH new AS (
        INSERT INTO docg.executions (id, organization_id, workflow_id, workflow_version, status,
            progress, delivery_state, signature_state, phase_metrics, correlation_id, trigger_type,
            dry_run, attempt, version, created_at, completed_at, updated_at, preflight_due,
            delivery_confirmed, priority, event_seq, log_seq, audit_seq, audit_hash, type_set,
            published, checkpointed)
        SELECT gen_random_uuid(), o.id, o.id, 1, 'completed', 100, 'pending', 'pending', '{}', 'c',
            'manual', false, 1, 1, now(), now(), now(), false, false, 0, 1, 0, 1, sha256('x'), 1, 1,
            1
        FROM generate_series(1, $1) n
            JOIN (SELECT n, gen_random_uuid() AS id FROM generate_series(0, 99) n) o
            ON o.n = n.n % 100
        RETURNING id, organization_id),
    steps AS (
        INSERT INTO docg.execution_steps (execution_id, position, id, node_id, node_type, label,
            phase, status, activity, attempt, attempts_before, takeovers)
        SELECT id, 0, gen_random_uuid(), 'n0', 'extract', 'l', 'trigger', 'success', 'idle', 1, 0, 0
        FROM new),
    events AS (
        INSERT INTO docg.execution_events (execution_id, seq, event_id, event_type, timestamp,
            status, progress, data)
        SELECT id, 1, gen_random_uuid(), 'execution.progress', now(), 'completed', 100,
            '{\"progress\": 100}'
        FROM new)
    INSERT INTO docg.audit_events (execution_id, seq, id, organization_id, timestamp, actor_type,
        action, target_type, target_id, commitment, prev_hash, hash)
    SELECT id, 1, gen_random_uuid(), organization_id, now(), 'system', 'execution.completed',
        'execution', id::text, sha256('x'), sha256('x'), sha256('x')
    FROM new";

pub(crate) struct World {
    pub(crate) store: Arc<PgStore>,
    pool: PgPool,
    _server: PrivateServer,
}

impl World {
    pub(crate) async fn new() -> Self {
        let server = PrivateServer::start().await;
        let config = PgStoreConfig::default().max_connections(8);
        let store = PgStore::connect(&server.url(), config).await;
        let store = store.expect("connects");
        store.migrate().await.expect("migrates");
        let pool = PgPoolOptions::new()
            .max_connections(32)
            .test_before_acquire(false)
            .connect(&server.url())
            .await
            .expect("connects");
        Self {
            store: Arc::new(store),
            pool,
            _server: server,
        }
    }

    pub(crate) async fn close(self) {
        self.store.close().await;
        self.pool.close().await;
    }

    /// Executions that somebody holds, ready to be committed to.
    pub(crate) async fn claimed(&self, count: usize) -> Vec<Claimed> {
        let claimed = (0..count).map(async |_| {
            let run = RunFixture::of(OrganizationId::new()).build();
            let id = run.state.execution.id;
            self.store.create(run).await.expect("stores");
            let request = ClaimRequest {
                worker_id: WorkerId::new(),
                what: ClaimWhat::One(id),
                now: at(0),
                lease_until: at(60_000),
            };
            let mut claim = self.store.claim(request).await.expect("claims");
            claim.claimed.pop().expect("is free")
        });
        join_all(claimed).await
    }

    /// Commits `steps` steps of each of these executions, all executions at once.
    pub(crate) async fn commits(&self, claimed: Vec<Claimed>, steps: u64) -> Duration {
        let begin = Instant::now();
        let tasks = claimed.into_iter().map(|mut claimed| {
            let store = Arc::clone(&self.store);
            tokio::spawn(async move {
                for _ in 0..steps {
                    let commit = step(&claimed);
                    claimed.state.execution = commit.execution.clone();
                    store.commit(commit).await.expect("commits");
                }
            })
        });
        let tasks: Vec<_> = tasks.collect();
        for task in tasks {
            task.await.expect("does not panic");
        }
        begin.elapsed()
    }

    /// The floor for as many steps of as many executions.
    pub(crate) async fn floor(&self, claimed: Vec<Claimed>, steps: u64) -> Duration {
        let begin = Instant::now();
        let tasks = claimed.into_iter().map(|claimed| {
            let (pool, id) = (self.pool.clone(), claimed.lease.execution_id);
            tokio::spawn(async move {
                for _ in 0..steps {
                    plain_step(&pool, id).await.expect("writes");
                }
            })
        });
        let tasks: Vec<_> = tasks.collect();
        for task in tasks {
            task.await.expect("does not panic");
        }
        begin.elapsed()
    }

    /// Adds executions until there are so many.
    pub(crate) async fn store_executions(&self, count: i64) {
        let there: i64 = sqlx::query_scalar("SELECT count(*) FROM docg.executions")
            .fetch_one(&self.pool)
            .await
            .expect("counts");
        sqlx::query(STORED)
            .bind(count - there)
            .execute(&self.pool)
            .await
            .expect("stores");
        sqlx::raw_sql("VACUUM ANALYZE")
            .execute(&self.pool)
            .await
            .expect("tidies");
    }

    /// Gives an execution so many events more.
    pub(crate) async fn add_events(&self, claimed: &mut Claimed, count: i64) {
        let last: i64 = sqlx::query_scalar(
            "WITH moved AS (
                UPDATE docg.executions SET event_seq = event_seq + $2 WHERE id = $1
                RETURNING id, event_seq),
            events AS (
                INSERT INTO docg.execution_events (execution_id, seq, event_id, event_type,
                    timestamp, status, progress, data)
                SELECT id, event_seq - n, gen_random_uuid(), 'execution.progress', now(),
                    'running', 1, '{\"progress\": 1}'
                FROM moved, generate_series(0, $2 - 1) n)
            SELECT event_seq FROM moved",
        )
        .bind(claimed.lease.execution_id.0)
        .bind(count)
        .fetch_one(&self.pool)
        .await
        .expect("adds");
        claimed.state.execution.heads.event_seq = u64::try_from(last).expect("is a number");
    }
}

async fn plain_step(pool: &PgPool, id: ExecutionId) -> Result<(), sqlx::Error> {
    let mut connection = pool.acquire().await?;
    let mut transaction = connection.begin().await?;
    for statement in FLOOR {
        sqlx::query(statement)
            .bind(id.0)
            .execute(&mut *transaction)
            .await?;
    }
    transaction.commit().await
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
