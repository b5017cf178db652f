#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test file uses a part of it"
)]

use std::hash::{DefaultHasher, Hash, Hasher};

use docg_store_postgres::{PgStore, PgStoreConfig, migrations_sql};
use docg_test_servers::postgres::Database;

/// A database with the schema, for one test alone.
pub async fn migrated() -> Database {
    let mut hasher = DefaultHasher::new();
    migrations_sql().hash(&mut hasher);
    Database::copy_of(&format!("{:016x}", hasher.finish()), async |url| {
        let store = PgStore::connect(&url, PgStoreConfig::default())
            .await
            .expect("connects");
        store.migrate().await.expect("migrates");
        store.close().await;
    })
    .await
}
