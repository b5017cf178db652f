//! Worker pools: their options, and how many an engine may have.

use docg_core::{engine::WorkersRunning, prelude::*};

use crate::world::{World, builder};

#[tokio::test]
async fn workers_begin_and_end_with_any_options() {
    for concurrency in [0, 1, usize::MAX] {
        for limit in [0, 1, usize::MAX] {
            let options = WorkerOptions::concurrency(concurrency).per_organization(limit);
            let workers = World::new(builder()).workers_with(options);
            workers.shutdown().await;
        }
    }
}

#[tokio::test]
async fn an_engine_has_one_worker_pool_at_a_time() {
    let engine = builder().build();
    let start = || engine.clone().start_workers(WorkerOptions::default());
    let first = start().expect("no other workers run");
    assert_eq!(start().map(drop), Err(WorkersRunning));
    first.shutdown().await;
    let second = start().expect("the first were shut down");
    assert_eq!(start().map(drop), Err(WorkersRunning));
    drop(second);
    start().expect("the second were dropped").shutdown().await;
}
