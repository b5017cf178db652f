//! Migrating the schema: by many processes at once, by hand, and refused for an older program.

use std::sync::Arc;

use docg_core::ports::StoreErrorKind;
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
    assert_eq!(versions(database.url()).await.len(), 11);
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
    assert_eq!(versions(database.url()).await.len(), 11);
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
