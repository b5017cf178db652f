//! Durations of steps and phases show the time that really passed, even if the clock is set meanwhile.

use std::{sync::Arc, time::Duration};

use docg_core::{
    prelude::*,
    time::{Clock, ManualClock, Timestamp},
};
use serde_json::{Value, json};

use crate::world::{World, builder};

const START: Timestamp = Timestamp::from_millis(1_800_000_000_000);
const HOUR: i64 = 3_600_000;

/// The durations of an execution's two steps and of their phase. Each step takes 700 ms, in which the
/// clock is set three times.
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
    let world = World::new(builder().clock(Arc::new(clock)).step(handler));
    let workers = world.workers();
    let nodes = json!([{"id": "one", "type": "work"}, {"id": "two", "type": "work"}]);
    let id = world.start(nodes).await;
    world.until_completed(id).await;
    let execution = world.execution(id).await;
    let steps = world.steps(id).await;
    let durations = steps.iter().filter_map(|step| step.duration_ms());
    let of_phase = execution.phase_metrics.0[Phase::Render as usize].as_ref();
    let durations = durations.chain(of_phase.map(|times| times.duration_ms));
    let durations = durations.collect();
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
