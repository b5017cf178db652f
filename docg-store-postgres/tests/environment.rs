//! The faults of its database that an application learns when it connects.

use docg_core::ports::StoreErrorKind;
use docg_store_postgres::{DatabaseFault, PgStore, PgStoreConfig};
use docg_test_servers::postgres::PrivateServer;
use sqlx::{AssertSqlSafe, Connection, PgConnection};

async fn run(url: &str, statements: &[&str]) {
    let mut owner = PgConnection::connect(url).await.expect("connects");
    for statement in statements {
        let done = sqlx::raw_sql(AssertSqlSafe(*statement))
            .execute(&mut owner)
            .await;
        done.unwrap_or_else(|e| panic!("{statement}: {e}"));
    }
}

/// The URL of another database on the same server.
fn database(url: &str, name: &str) -> String {
    let (server, rest) = url.rsplit_once('/').expect("it names a database");
    let settings = rest.find('?').map_or("", |at| &rest[at..]);
    format!("{server}/{name}{settings}")
}

/// The fault for which connecting to a database is refused.
async fn refused(url: &str) -> DatabaseFault {
    let error = PgStore::connect(url, PgStoreConfig::default())
        .await
        .expect_err("it is refused");
    assert_eq!(error.kind, StoreErrorKind::Invalid, "{error}");
    let source = error.source.expect("it has a cause");
    source
        .downcast_ref::<DatabaseFault>()
        .expect("it is a fault")
        .clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_cannot_be_worked_on_is_refused_as_it_is_connected() {
    let server = PrivateServer::start().await;
    let url = server.url();
    for encoding in ["LATIN1", "SQL_ASCII"] {
        let name = encoding.to_lowercase();
        let made = format!(
            "CREATE DATABASE {name} ENCODING '{encoding}' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'"
        );
        run(&url, &[&made]).await;
        let fault = refused(&database(&url, &name)).await;
        assert_eq!(fault, DatabaseFault::Encoding(encoding.to_owned()));
        assert!(fault.to_string().contains("ENCODING 'UTF8'"), "{fault}");
    }
    run(
        &url,
        &[
            "CREATE DATABASE sealed",
            "ALTER DATABASE sealed SET default_transaction_read_only = on",
        ],
    )
    .await;
    assert_eq!(
        refused(&database(&url, "sealed")).await,
        DatabaseFault::ReadOnly
    );

    let store = PgStore::connect(&url, PgStoreConfig::default())
        .await
        .expect("connects");
    store.migrate().await.expect("migrates");
    let later = "INSERT INTO docg.migrations (version, name, checksum) VALUES (9999, 'later', '')";
    run(&url, &[later]).await;
    let fault = refused(&url).await;
    assert!(
        matches!(fault, DatabaseFault::Newer { found: 9999, .. }),
        "{fault:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_missing_or_unwise_is_told_and_mended_by_what_it_says() {
    let server = PrivateServer::start().await;
    let url = server.url();
    let open = async |url: &str| {
        PgStore::connect(url, PgStoreConfig::default())
            .await
            .expect("connects")
    };
    let store = open(&url).await;
    let found = store.faults().await.expect("it answers");
    assert!(
        matches!(found[..], [DatabaseFault::Unmigrated { found: 0, .. }]),
        "{found:?}"
    );
    store.migrate().await.expect("migrates");
    assert_eq!(store.faults().await.expect("it answers"), []);

    run(&url, &["ALTER TABLE docg.approvals RENAME TO gone"]).await;
    let found = store.faults().await.expect("it answers");
    assert_eq!(found, [DatabaseFault::Missing("approvals")]);
    run(&url, &["ALTER TABLE docg.gone RENAME TO approvals"]).await;

    run(&url, &["CREATE ROLE app LOGIN"]).await;
    let (_, rest) = url.split_once('@').expect("it names a user");
    let as_app = format!("postgres://app@{rest}");
    let found = open(&as_app).await.faults().await.expect("it answers");
    assert!(matches!(found[..], [DatabaseFault::Rights(_)]), "{found:?}");
    run(&url, &[&docg_store_postgres::grants_sql("app")]).await;
    assert_eq!(open(&as_app).await.faults().await.expect("it answers"), []);

    run(&url, &["ALTER ROLE app SET synchronous_commit = off"]).await;
    let found = open(&as_app).await.faults().await.expect("it answers");
    assert_eq!(found, [DatabaseFault::Asynchronous]);
    assert!(!found[0].is_fatal());
}
