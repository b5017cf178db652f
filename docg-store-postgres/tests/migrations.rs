//! Migrating the schema: by many processes at once, by hand, and refused for an older program.

use std::sync::Arc;

use docg_core::{
    conformance::fixtures::{CommitFixture, RunFixture, at},
    event::Event,
    ids::{ExecutionId, OrganizationId, WorkerId},
    observe::{LogDomain, LogEntry, LogLevel},
    ports::{ClaimRequest, ClaimWhat, ExecutionReader, ExecutionStore, LeaseAfter, StoreErrorKind},
    query::{EventQuery, ExecutionFilter, LogQuery, Search},
};
use docg_store_postgres::{PgStore, PgStoreConfig, grants_sql, migrations_sql};
use docg_test_servers::postgres::Database;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tokio::sync::Barrier;

async fn open(url: &str) -> PgStore {
    PgStore::connect(url, PgStoreConfig::default().max_connections(2))
        .await
        .expect("connects")
}

async fn sql(url: &str, statements: &str) {
    let mut connection = PgConnection::connect(url).await.expect("connects");
    sqlx::raw_sql(AssertSqlSafe(statements.to_owned()))
        .execute(&mut connection)
        .await
        .expect("runs");
}

async fn versions(url: &str) -> Vec<(i32, String)> {
    let mut connection = PgConnection::connect(url).await.expect("connects");
    sqlx::query_as("SELECT version, checksum FROM docg.migrations ORDER BY version")
        .fetch_all(&mut connection)
        .await
        .expect("reads")
}

/// The number of migrations.
fn all() -> usize {
    migrations_sql()
        .matches("INSERT INTO docg.migrations")
        .count()
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_that_start_at_once_migrate_once() {
    let database = Database::empty().await;
    let barrier = Arc::new(Barrier::new(8));
    let starting: Vec<_> = (0..8)
        .map(|_| {
            let (barrier, url) = (Arc::clone(&barrier), database.url().to_owned());
            tokio::spawn(async move {
                let store = open(&url).await;
                barrier.wait().await;
                store.migrate().await
            })
        })
        .collect();
    for migrated in starting {
        migrated.await.expect("does not panic").expect("migrates");
    }
    assert_eq!(versions(database.url()).await.len(), all());
}

#[tokio::test]
async fn what_was_run_by_hand_counts_as_run() {
    let (by_hand, by_call) = (Database::empty().await, Database::empty().await);
    sql(by_hand.url(), &migrations_sql()).await;
    open(by_hand.url())
        .await
        .migrate()
        .await
        .expect("has nothing to do");
    open(by_call.url()).await.migrate().await.expect("migrates");
    assert_eq!(versions(by_hand.url()).await, versions(by_call.url()).await);
}

#[tokio::test]
async fn a_hosts_own_migrations_are_not_met() {
    let database = Database::empty().await;
    let host = "CREATE TABLE _sqlx_migrations (version bigint); CREATE TABLE executions (n int);
        INSERT INTO _sqlx_migrations VALUES (1);";
    sql(database.url(), host).await;
    open(database.url())
        .await
        .migrate()
        .await
        .expect("migrates");
    assert_eq!(versions(database.url()).await.len(), all());
}

#[tokio::test]
async fn a_newer_or_changed_schema_is_refused() {
    for change in [
        "INSERT INTO docg.migrations (version, name, checksum) VALUES (999, 'later', 'x')",
        "UPDATE docg.migrations SET checksum = 'x' WHERE version = 2",
    ] {
        let database = Database::empty().await;
        let store = open(database.url()).await;
        store.migrate().await.expect("migrates");
        sql(database.url(), change).await;
        let error = store.migrate().await.expect_err("is refused");
        assert_eq!(error.kind, StoreErrorKind::Corrupt, "{error}");
    }
}

#[tokio::test]
async fn grants_cover_every_table() {
    let database = Database::empty().await;
    open(database.url())
        .await
        .migrate()
        .await
        .expect("migrates");
    let mut connection = PgConnection::connect(database.url())
        .await
        .expect("connects");
    let tables: Vec<String> = sqlx::query_scalar(
        "SELECT relname::text FROM pg_class
         WHERE relnamespace = 'docg'::regnamespace AND relkind IN ('r', 'v')",
    )
    .fetch_all(&mut connection)
    .await
    .expect("reads");
    let grants = grants_sql("app");
    for table in tables {
        assert!(grants.contains(&format!("docg.{table} ")), "{table}");
    }
}

/// SQL that takes the schema with its rows back to the state before the journal.
fn before_the_journal() -> String {
    let all = migrations_sql();
    let table = |name: &str| {
        let begin = format!("CREATE TABLE docg.{name} (");
        let (_, rest) = all.split_once(&begin).expect("was a table");
        let (columns, _) = rest.split_once(");\n\n").expect("has an end");
        format!(
            "CREATE TABLE docg.kept_{name} AS SELECT * FROM docg.{name}; DROP VIEW docg.{name};
             {begin}{columns}); INSERT INTO docg.{name} SELECT v.* FROM json_populate_recordset(
                NULL::docg.{name}, (SELECT json_agg(k) FROM docg.kept_{name} k)) v;
             DROP TABLE docg.kept_{name};"
        )
    };
    format!(
        "{}{}DROP TABLE docg.journal; DROP FUNCTION docg.delete_event, docg.delete_log, docg.without;
        ALTER TABLE docg.execution_steps DROP COLUMN awaits;
        ALTER TABLE docg.execution_data DROP COLUMN kept_events, DROP COLUMN start_at;
        ALTER TABLE docg.execution_data DROP COLUMN title, DROP COLUMN search;
        ALTER TABLE docg.executions DROP COLUMN waiting_kind, DROP COLUMN rested_at;
        DELETE FROM docg.migrations WHERE version >= 12;",
        table("execution_events"),
        table("execution_logs")
    )
}

/// An execution in a database of its own.
struct World {
    database: Database,
    store: PgStore,
    organization: OrganizationId,
    id: ExecutionId,
}

impl World {
    async fn new() -> Self {
        let database = Database::empty().await;
        let store = open(database.url()).await;
        store.migrate().await.expect("migrates");
        let organization = OrganizationId::new();
        let run = RunFixture::of(organization).build();
        let id = run.state.execution.id;
        store.create(run).await.expect("stores");
        Self {
            database,
            store,
            organization,
            id,
        }
    }

    /// Commits so many events, and two log entries.
    async fn commit(&self, events: usize) {
        let claim = self.store.claim(ClaimRequest {
            worker_id: WorkerId::new(),
            what: ClaimWhat::One(self.id),
            now: at(0),
            lease_until: at(60_000),
        });
        let claimed = claim.await.expect("claims").claimed.pop().expect("is free");
        let mut commit = CommitFixture::on(&claimed).events(events);
        for level in [LogLevel::Ok, LogLevel::Warn] {
            commit = commit.log(level, LogDomain::Step, Some("a"));
        }
        let mut commit = commit.build();
        commit.then = LeaseAfter::Release { due_at: None };
        self.store.commit(commit).await.expect("commits");
    }

    async fn read(&self) -> (Vec<Arc<Event>>, Vec<Arc<LogEntry>>) {
        let events = EventQuery::of(self.organization, self.id).limit(1_000);
        let logs = LogQuery::of(self.organization, self.id).limit(1_000);
        let events = self.store.events(events).await.expect("lists");
        (events, self.store.logs(logs).await.expect("lists").items)
    }
}

#[tokio::test]
async fn deleted_events_and_log_entries_leave_the_others_as_they_are() {
    let world = World::new().await;
    world.commit(250).await;
    let (mut events, mut logs) = world.read().await;
    let delete = "DELETE FROM docg.execution_events WHERE seq IN (1, 5, 120, 121);
        DELETE FROM docg.execution_logs WHERE seq = 2";
    sql(world.database.url(), delete).await;
    events.retain(|event| ![1, 5, 120, 121].contains(&event.seq));
    logs.retain(|entry| entry.seq != 2);
    assert_eq!(world.read().await, (events, logs));
}

#[tokio::test]
async fn executions_with_events_and_logs_are_migrated_and_go_on() {
    let world = World::new().await;
    // More than a row of the journal takes.
    world.commit(250).await;
    let before = world.read().await;
    sql(world.database.url(), &before_the_journal()).await;
    world.store.migrate().await.expect("migrates");
    assert_eq!(world.read().await, before);
    for text in [world.id.to_string(), "correlation".to_owned()] {
        let mut filter = ExecutionFilter::default();
        filter.search = Some(Search::of(&text));
        let counts = world
            .store
            .execution_counts(world.organization, &filter)
            .await;
        let found: u64 = counts.expect("counts").by_status.iter().sum();
        assert_eq!(found, 1, "an older execution is found by {text}");
    }
    world.commit(1).await;
    let (events, logs) = world.read().await;
    assert_eq!(events[..before.0.len()], before.0);
    assert_eq!(logs[..before.1.len()], before.1);
    let counted = |seq: Vec<u64>| assert!(seq.iter().copied().eq(1..=seq.len() as u64), "{seq:?}");
    counted(events.iter().map(|event| event.seq).collect());
    counted(logs.iter().map(|entry| entry.seq).collect());
    assert_eq!(
        (events.len(), logs.len()),
        (before.0.len() + 1, before.1.len() + 2)
    );
}
