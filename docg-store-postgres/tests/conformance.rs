//! The conformance suite of all stores, on a real server.

use std::sync::Arc;

use docg_core::conformance::{StoreCapabilities, StoreUnderTest};
use docg_store_postgres::{PgStore, PgStoreConfig};

mod support;

async fn store() -> StoreUnderTest {
    let database = support::migrated().await;
    let connect = async || {
        let config = PgStoreConfig::default().max_connections(5);
        Arc::new(
            PgStore::connect(database.url(), config)
                .await
                .expect("connects"),
        )
    };
    StoreUnderTest::from(connect().await)
        .peer(connect().await)
        .capabilities(StoreCapabilities::default().takes_turns())
        .keeping(database)
}

docg_core::store_conformance!(store);
