//! Random calls on a store in memory and on one in PostgreSQL: both give the same answers, and keep
//! the same. What they may choose freely is left out: the numbers of fences, hints of when to ask
//! again, and the words of an error.

#[path = "../support/mod.rs"]
mod support;

mod calls;
mod pair;

use calls::{Call, calls};
use docg_store_postgres::{PgStore, PgStoreConfig};
use pair::Pair;
use proptest::{prelude::*, test_runner::Config};

/// A database for each case: due executions are everybody's.
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
