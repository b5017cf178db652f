//! Random calls on the memory store and the PostgreSQL store: both stores give the same answers and keep the
//! same records. The test ignores allowed differences: fencing tokens, the times proposed for the next claim,
//! and the words of an error.

#[path = "../support/mod.rs"]
mod support;

mod calls;
mod pair;

use calls::{Call, calls};
use docg_store_postgres::{PgStore, PgStoreConfig};
use pair::Pair;
use proptest::{prelude::*, test_runner::Config};

/// Runs a sequence of calls on its own database, because any worker may claim any due execution.
async fn run(calls: Vec<Call>) {
    let database = support::migrated().await;
    let config = PgStoreConfig::default().max_connections(2);
    let store = PgStore::connect(database.url(), config).await;
    let mut pair = Pair::new(store.expect("connects"));
    for call in calls {
        pair.make(&call).await;
    }
    pair.compare_all().await;
    pair.close().await;
}

proptest! {
    #![proptest_config(Config {
        cases: 48,
        max_shrink_iters: 400,
        failure_persistence: None,
        ..Config::default()
    })]

    #[test]
    fn memory_and_postgres_answer_alike(calls in calls()) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        runtime.block_on(run(calls));
    }
}
