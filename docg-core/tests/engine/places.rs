//! Steps whose handlers wait for a place in a pool that several executions share.

use std::{sync::Arc, time::Duration};

use docg_core::{
    error::codes,
    prelude::*,
    run::Step,
    time::{ManualClock, Timestamp},
    workflow::wait_for_place,
};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use crate::world::{World, builder};

const TIMEOUT_MS: u64 = 1_500;

/// Runs so many executions of one step each. The pool has one place. Each step needs the place for `work_ms`
/// by the clock, and has a timeout of 1.5 seconds.
async fn run(executions: usize, work_ms: u64) -> Vec<(Status, Step)> {
    let clock = ManualClock::new(Timestamp::from_millis(1_800_000_000_000));
    let (hands, places) = (clock.clone(), Arc::new(Semaphore::new(1)));
    let work = compute(
        NodeSpec::new("work", Phase::Render),
        move |context: StepContext, _: Value| {
            let (hands, places) = (hands.clone(), Arc::clone(&places));
            async move {
                let _place = wait_for_place(places.acquire()).await;
                // Let all other steps wait for the place before the clock advances.
                for _ in 0..1_000 {
                    tokio::task::yield_now().await;
                }
                hands.advance(Duration::from_millis(work_ms));
                if work_ms > TIMEOUT_MS {
                    context.cancellation.cancelled().await;
                    return Err(StepFailure::stopped());
                }
                Ok(json!({}))
            }
        },
    );
    let world = World::new(builder().clock(Arc::new(clock)).step(work));
    let workers = world.workers_with(WorkerOptions::concurrency(executions));
    let retry = json!({"max_attempts": 1});
    let node = json!({"id": "work", "type": "work", "timeout_ms": TIMEOUT_MS, "retry": retry});
    let workflow = world.put(json!([node])).await;
    let mut ids = Vec::new();
    for _ in 0..executions {
        ids.push(world.accept(world.request(workflow)).await);
    }
    let mut ended = Vec::new();
    for id in ids {
        world.until_rest(id).await;
        let status = world.execution(id).await.status;
        ended.push((status, world.steps(id).await.remove(0)));
    }
    workers.shutdown().await;
    ended
}

#[tokio::test]
async fn a_wait_for_a_place_uses_up_neither_the_time_of_a_step_nor_an_attempt() {
    for (status, step) in run(8, 1_000).await {
        assert_eq!((status, step.attempt), (Status::Completed, 1), "{step:#?}");
    }
}

#[tokio::test]
async fn a_step_that_has_its_place_has_the_time_of_its_node_and_no_more() {
    for (status, step) in run(3, TIMEOUT_MS + 1).await {
        assert_eq!(status, Status::Failed);
        assert_eq!(step.error.expect("an error").code, codes::TIMEOUT);
    }
}
