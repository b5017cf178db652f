//! Work that could become slower in a full database: claims, executions, purges, and the executions of organizations
//! beside one with a backlog.

use std::{
    fmt::Write,
    sync::Arc,
    time::{Duration, Instant},
};

use docg_core::{
    ids::WorkerId,
    ports::{ClaimRequest, ClaimWhat, ExecutionStore},
    time::Timestamp,
};
use docg_store_postgres::{PgStore, PgStoreConfig};
use docg_test_servers::postgres::PrivateServer;
use sqlx::{AssertSqlSafe, Connection, PgConnection, PgPool};

use crate::{
    MANY, STEPS,
    load::{Load, Seen},
    memory, percentile,
};

/// How many executions there are of each kind.
pub(crate) struct Size {
    pub(crate) ended: usize,
    /// Of those that ended, how many are purged.
    pub(crate) purged: usize,
    pub(crate) waiting: usize,
    pub(crate) leased: usize,
    pub(crate) due: usize,
    /// Executions that one organization starts at once.
    pub(crate) flood: usize,
    /// How often a time is measured.
    pub(crate) samples: usize,
}

impl Size {
    pub(crate) const LONG: Self = Self {
        ended: 1_000_000,
        purged: 100_000,
        waiting: 100_000,
        leased: 10_000,
        due: 1_000,
        flood: 100_000,
        samples: 200,
    };
    pub(crate) const SHORT: Self = Self {
        ended: 1_000,
        purged: 100,
        waiting: 100,
        leased: 100,
        due: 100,
        flood: 100,
        samples: 5,
    };

    /// SQL that adds the executions, of a hundred organizations. No worker of the benchmark knows their node type.
    /// Those that are purged ended a year earlier than the others, and have rows of all kinds.
    fn fill(&self) -> String {
        let ended = self.ended;
        let waiting = ended + self.waiting;
        let leased = waiting + self.leased;
        let all = leased + self.due;
        let purged = self.purged;
        format!(
            "INSERT INTO docg.node_type_sets (node_types) VALUES ('{{{OTHER}}}');
            INSERT INTO docg.definitions (hash, definition) VALUES (sha256('d'), '{{}}');
            CREATE TEMPORARY TABLE filled AS
            SELECT gen_random_uuid() AS id, n,
                ('00000000-0000-0000-0000-' || lpad((n % 100)::text, 12, '0'))::uuid AS organization_id,
                timestamptz '2025-01-01' + n * interval '1 s'
                    + CASE WHEN n > {purged} THEN interval '1 year' ELSE interval '0' END AS at
            FROM generate_series(1, {all}) n;
            INSERT INTO docg.executions (id, organization_id, workflow_id, workflow_version, status,
                progress, delivery_state, signature_state, phase_metrics, correlation_id, trigger_type,
                dry_run, attempt, version, created_at, completed_at, updated_at, preflight_due,
                delivery_confirmed, priority, event_seq, log_seq, audit_seq, audit_hash, type_set,
                worker_id, fence, lease_until, expires_at, due_at, published, checkpointed)
            SELECT id, organization_id, organization_id, 1,
                CASE WHEN n <= {ended} THEN 'completed' WHEN n <= {waiting} THEN 'needs_review'
                    WHEN n <= {leased} THEN 'running' ELSE 'queued' END,
                0, 'pending', 'pending', '{{}}', 'c', 'manual', false, 1, 1, at,
                CASE WHEN n <= {ended} THEN at END, at, false, false, 0, 5, 5, 5, sha256('x'),
                (SELECT max(id) FROM docg.node_type_sets),
                CASE WHEN n > {waiting} AND n <= {leased} THEN gen_random_uuid() END, 1,
                CASE WHEN n > {waiting} AND n <= {leased} THEN now() + interval '1 day' END,
                CASE WHEN n > {waiting} AND n <= {leased} THEN now() + interval '1 day' END,
                CASE WHEN n > {leased} THEN at END, 5, 5
            FROM filled;
            INSERT INTO docg.execution_data
            SELECT id, sha256('d'), '{{}}', '{{}}', '{{}}', NULL FROM filled;
            INSERT INTO docg.execution_steps (execution_id, position, id, node_id, node_type, label,
                phase, status, activity, attempt, attempts_before, takeovers)
            SELECT id, p, gen_random_uuid(), 'n' || p, '{OTHER}', 'l', 'save', 'success', 'idle', 1, 0, 0
            FROM filled, generate_series(0, 4) p WHERE n <= {purged};
            INSERT INTO docg.journal SELECT id, p, p, '[{{}}]', '[{{}}]'
            FROM filled, generate_series(1, 5) p WHERE n <= {purged};
            INSERT INTO docg.audit_events (execution_id, seq, id, organization_id, timestamp,
                actor_type, action, target_type, target_id, commitment, prev_hash, hash)
            SELECT id, p, gen_random_uuid(), organization_id, at, 'user', 'a', 't', 'i', sha256('x'),
                sha256('x'), sha256('x')
            FROM filled, generate_series(1, 5) p WHERE n <= {purged};
            DROP TABLE filled;
            VACUUM ANALYZE;"
        )
    }
}

/// The node type of the executions that fill a database.
const OTHER: &str = "other";

/// A database of its own on the server.
struct World {
    url: String,
    store: PgStore,
}

impl World {
    async fn new(server: &PrivateServer, name: &str) -> Self {
        let pool = PgPool::connect(&server.url()).await.expect("connects");
        let create = format!("CREATE DATABASE {name}");
        let created = sqlx::raw_sql(AssertSqlSafe(create)).execute(&pool).await;
        created.expect("creates a database");
        let url = server.url().replace("/postgres?", &format!("/{name}?"));
        assert_ne!(
            url,
            server.url(),
            "the server's URL names the database postgres"
        );
        let store = PgStore::connect(&url, PgStoreConfig::default()).await;
        let store = store.expect("connects");
        store.migrate().await.expect("migrates");
        Self { url, store }
    }

    async fn fill(&self, size: &Size) {
        let mut connection = PgConnection::connect(&self.url).await.expect("connects");
        for statement in size.fill().split_inclusive(';') {
            let statement = sqlx::raw_sql(AssertSqlSafe(statement));
            let filled = statement.execute(&mut connection).await;
            filled.expect("fills");
        }
    }

    async fn load(&self, workers: usize) -> Load {
        Load::new(&self.url, memory(), workers).await
    }

    /// Times of claims of 64 executions, which are released after it.
    async fn claims(&self, samples: usize) -> Vec<Duration> {
        let mut times = Vec::new();
        for _ in 0..samples {
            let now = Timestamp::now();
            let request = ClaimRequest {
                worker_id: WorkerId::new(),
                what: ClaimWhat::Due {
                    limit: 64,
                    per_organization: 256,
                    node_types: [Arc::from(OTHER)].into(),
                },
                now,
                lease_until: now + Duration::from_secs(30),
            };
            let began = Instant::now();
            let claim = self.store.claim(request).await.expect("claims");
            times.push(began.elapsed());
            let leases: Vec<_> = claim.claimed.iter().map(|it| it.lease).collect();
            self.store.release(&leases, now).await.expect("releases");
        }
        times
    }

    /// Deletes all executions that ended in the year before the others.
    async fn purge(&self) -> usize {
        let before = "2026-01-01T00:00:00Z".parse().expect("a time");
        let mut purged = 0;
        loop {
            match self.store.purge(before, 1_000).await.expect("purges") {
                0 => return purged,
                some => purged += some,
            }
        }
    }
}

/// A table of what was measured.
struct Table(String);

impl Table {
    fn line(&mut self, what: &str, alone: &str, beside: &str, ratio: f64) {
        let _ = writeln!(self.0, "| {what} | {alone} | {beside} | {ratio:.2} |");
    }

    /// A line for two lists of times. The ratio is that of their medians, or of their 99th percentiles.
    fn times(&mut self, what: &str, mut few: Vec<Duration>, mut many: Vec<Duration>, of: usize) {
        let text = |times: &mut Vec<Duration>| {
            times.sort_unstable();
            let [p50, p99] = [50, 99].map(|percent| percentile(times, percent).unwrap_or_default());
            format!("{p50:.1} / {p99:.1} ms")
        };
        let texts = [text(&mut few), text(&mut many)];
        let of = |times: &[Duration]| percentile(times, of).unwrap_or_default();
        self.line(what, &texts[0], &texts[1], of(&many) / of(&few));
    }
}

/// Measures with few and with many executions, on a server that the speed was measured on.
pub(crate) async fn measure(server: &PrivateServer, size: &Size, time: Duration) -> String {
    let mut table = Table(
        "| work, p50 / p99 or steps/s | with few executions | with many | ratio |\n|---|---|---|---|\n"
            .into(),
    );
    let few = World::new(server, "few").await;
    let none = Size {
        ended: 0,
        purged: 0,
        waiting: 0,
        leased: 0,
        ..*size
    };
    few.fill(&none).await;
    let many = World::new(server, "many").await;
    many.fill(size).await;
    let there = format!(
        "{} leased, {} waiting, {} ended",
        size.leased, size.waiting, size.ended
    );

    let quick = few.claims(size.samples).await;
    let what = format!("claim of 64 due among {there}");
    table.times(&what, quick.clone(), many.claims(size.samples).await, 50);

    let (alone, beside) = (few.load(MANY.1).await, many.load(MANY.1).await);
    let mut speeds = [0.0, 0.0];
    // In turn, so that both meet the same machine.
    for _ in 0..3 {
        for (speed, load) in speeds.iter_mut().zip([&alone, &beside]) {
            let (ended, took) = load.run(MANY.0, time).await;
            *speed += (ended * STEPS) as f64 / took.as_secs_f64() / 3.0;
        }
    }
    let text = speeds.map(|speed| format!("{speed:.0}"));
    let what = format!("{} in flight beside them", MANY.0);
    table.line(&what, &text[0], &text[1], speeds[1] / speeds[0]);
    alone.end().await;

    table.times(
        "claim of 64 due after these executions",
        quick,
        many.claims(size.samples).await,
        50,
    );

    let quiet = ones(&beside, size.samples).await;
    let (purged, took, during) = {
        let purge = async {
            let began = Instant::now();
            (many.purge().await, began.elapsed())
        };
        tokio::pin!(purge);
        let mut during = Vec::new();
        loop {
            tokio::select! {
                (purged, took) = &mut purge => break (purged, took, during),
                seen = beside.run_one(1) => during.push(seen.ended),
            }
        }
    };
    assert_eq!(purged, size.purged);
    let what = format!(
        "one at a time, while {purged} are purged in {:.0} s",
        took.as_secs_f64()
    );
    table.times(&what, ended(&quiet), during, 99);
    beside.end().await;

    let load = few.load(64).await;
    let quiet = ones(&load, size.samples).await;
    let flooded = {
        let flood = load.flood(0, size.flood);
        tokio::pin!(flood);
        let mut seen = Vec::new();
        let mut is_flooding = true;
        while is_flooding || seen.len() < size.samples {
            tokio::select! {
                () = &mut flood, if is_flooding => is_flooding = false,
                one = load.run_one(1) => seen.push(one),
            }
        }
        seen
    };
    let what = |what| {
        format!(
            "{what} of another organization's execution, while one starts {}",
            size.flood
        )
    };
    table.times(
        &what("first step"),
        first_steps(&quiet),
        first_steps(&flooded),
        50,
    );
    table.times(&what("end"), ended(&quiet), ended(&flooded), 50);
    load.end().await;
    table.0
}

async fn ones(load: &Load, samples: usize) -> Vec<Seen> {
    let mut seen = Vec::new();
    for _ in 0..samples {
        seen.push(load.run_one(1).await);
    }
    seen
}

fn ended(seen: &[Seen]) -> Vec<Duration> {
    seen.iter().map(|it| it.ended).collect()
}

fn first_steps(seen: &[Seen]) -> Vec<Duration> {
    seen.iter().map(|it| it.first_step).collect()
}
