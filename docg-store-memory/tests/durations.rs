//! Durations are those that have passed, however the clock is set meanwhile.

use std::{sync::Arc, time::Duration};

use docg_core::{
    prelude::*,
    run::Status,
    time::{Clock, ManualClock, Timestamp},
};
use docg_store_memory::{MemoryBus, MemoryStore};
use futures::StreamExt;
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(20);
const START: Timestamp = Timestamp::from_millis(1_800_000_000_000);
const HOUR: i64 = 3_600_000;

/// An execution whose two steps take 700 ms each, between which the clock is set by each of these.
async fn run_with(jumps: [i64; 3]) -> Vec<u64> {
    let clock = ManualClock::new(START);
    let set = {
        let clock = clock.clone();
        move |by: i64| clock.set(Timestamp::from_millis(clock.now().as_millis() + by))
    };
    let hands = clock.clone();
    let handler = compute(NodeSpec::new("work", Phase::Render), move |_, _: Value| {
        let (hands, set) = (hands.clone(), set.clone());
        async move {
            hands.advance(Duration::from_millis(200));
            set(jumps[0]);
            hands.advance(Duration::from_millis(300));
            set(jumps[1]);
            hands.advance(Duration::from_millis(200));
            set(jumps[2]);
            Ok(json!({}))
        }
    });
    let (store, bus) = (Arc::<MemoryStore>::default(), Arc::<MemoryBus>::default());
    let engine = Engine::builder(store, bus)
        .clock(Arc::new(clock))
        .step(handler)
        .build();
    let workers = engine
        .start_workers(WorkerOptions::default())
        .expect("no other workers run");
    let (organization, workflow) = (OrganizationId::new(), WorkflowId::new());
    let nodes = json!([{"id": "one", "type": "work"}, {"id": "two", "type": "work"}]);
    let draft = serde_json::from_value(json!({"name": "test", "nodes": nodes})).expect("readable");
    let stored = engine.put_workflow(organization, workflow, draft, None);
    stored.await.expect("a valid definition");
    let request = StartRequest::new(organization, workflow, Actor::user("somebody"));
    let id = engine
        .start(request)
        .await
        .expect("accepted")
        .record
        .execution
        .id;
    let events = engine.feed(organization, id, 0).await.expect("readable");
    let ended = events.for_each(|event| async move { drop(event.expect("readable")) });
    tokio::time::timeout(PATIENCE, ended)
        .await
        .expect("it ends");
    let execution = engine
        .execution(organization, id)
        .await
        .expect("it is there");
    assert_eq!(execution.execution.status, Status::Completed);
    let steps = engine.steps(organization, id).await.expect("readable");
    let mut durations: Vec<u64> = steps.iter().filter_map(|step| step.duration_ms()).collect();
    let metrics = &execution.execution.phase_metrics;
    durations.extend(
        metrics.0[Phase::Render as usize]
            .as_ref()
            .map(|times| times.duration_ms),
    );
    workers.shutdown().await;
    durations
}

#[tokio::test]
async fn a_clock_that_is_set_in_the_middle_of_a_step_makes_it_no_longer_and_no_shorter() {
    for jumps in [
        [0, 0, 0],
        [HOUR, 0, 0],
        [-HOUR, 0, 0],
        [HOUR, -HOUR, HOUR],
        [-HOUR, HOUR, 0],
        [0, 0, -HOUR],
        [-24 * HOUR, 48 * HOUR, -7 * 24 * HOUR],
        [1, -2, 1],
    ] {
        assert_eq!(run_with(jumps).await, [700, 700, 1_400], "{jumps:?}");
    }
}
