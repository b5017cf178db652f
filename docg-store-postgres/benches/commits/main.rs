//! Durable steps per second against the floor: the same rows written to the same tables of the same
//! server by plain statements, in one transaction for each step. Then what one run takes while
//! nothing else happens, and how the cost grows with what is stored.
//!
//! Each round runs ours and the floor, one after the other, so the ratios are of the same minutes.
//! `DOCG_BENCH_STORED` sets how many executions are stored at most (100,000).

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use criterion::{
    BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main, measurement::WallTime,
};
use docg_core::{conformance::FaultyStore, prelude::*};
use docg_store_memory::MemoryBus;
use futures::StreamExt;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

mod world;

use world::World;

/// `cargo bench -- --test`: whether it still runs, not how fast.
fn is_smoke_test() -> bool {
    std::env::args().any(|argument| argument == "--test")
}

/// What was counted in a number of rounds.
#[derive(Default)]
struct Totals(Mutex<[f64; 3]>);

impl Totals {
    /// Adds a round: how much was done, in what time, and in what time by the floor.
    fn add(&self, done: f64, ours: Duration, floor: Duration) {
        let mut totals = self.0.lock().expect("nobody panicked");
        totals[0] += done;
        totals[1] += ours.as_secs_f64();
        totals[2] += floor.as_secs_f64();
    }

    /// Done, and the seconds that ours and the floor took.
    fn get(&self) -> [f64; 3] {
        *self.0.lock().expect("nobody panicked")
    }
}

fn group<'a>(criterion: &'a mut Criterion, name: &str) -> BenchmarkGroup<'a, WallTime> {
    let mut group = criterion.benchmark_group(name);
    let time = Duration::from_secs(4);
    group.sample_size(10).measurement_time(time);
    group
}

fn durable_steps(criterion: &mut Criterion) {
    let runtime = Runtime::new().expect("starts");
    let world = runtime.block_on(World::new());
    for executions in [1, 32, 256] {
        let totals = Totals::default();
        let mut group = group(criterion, "durable_steps");
        group.throughput(Throughput::Elements(executions as u64));
        group.bench_function(format!("{executions}_at_once"), |bencher| {
            bencher.iter_custom(|steps| {
                runtime.block_on(async {
                    let claimed = world.claimed(executions).await;
                    let ours = world.commits(claimed, steps).await;
                    let claimed = world.claimed(executions).await;
                    let floor = world.floor(claimed, steps).await;
                    totals.add((executions as u64 * steps) as f64, ours, floor);
                    ours
                })
            });
        });
        group.finish();
        let [steps, ours, floor] = totals.get();
        if steps > 0.0 {
            eprintln!(
                "{executions} at once: {:.0} steps/s, floor {:.0} steps/s, ratio {:.2}",
                steps / ours,
                steps / floor,
                floor / ours
            );
        }
    }
    runtime.block_on(world.close());
}

/// The latency of a run of five effects, whose intents are committed before they begin, all but the first,
/// against as many transactions of the floor as it has committed itself.
fn idle_run(criterion: &mut Criterion) {
    let runtime = Runtime::new().expect("starts");
    let _entered = runtime.enter();
    let world = runtime.block_on(World::new());
    let commits = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&commits);
    let store = FaultyStore::new(world.store.clone(), move |call| {
        if matches!(call.operation, "create" | "claim" | "commit") {
            counted.fetch_add(1, Ordering::Relaxed);
        }
        None
    });
    let spec = NodeSpec::new("effect", Phase::Save).any_phase();
    let engine = Engine::builder(Arc::new(store), Arc::<MemoryBus>::default());
    let engine = engine
        .step(effect(spec, |_, _: Value| async {
            StepOutcome::done(json!({}))
        }))
        .build();
    let workers = engine
        .start_workers(WorkerOptions::default())
        .expect("no other workers run");
    let (organization, workflow) = (OrganizationId::new(), WorkflowId::new());
    let node = |n: usize| json!({"id": format!("n{n}"), "type": "effect", "phase": "save"});
    let nodes: Vec<_> = (0..5).map(node).collect();
    let draft = serde_json::from_value(json!({"name": "Idle", "nodes": nodes}));
    let stored = engine.put_workflow(organization, workflow, draft.expect("is one"), None);
    runtime.block_on(stored).expect("stores");
    let run = async || {
        let request = StartRequest::new(organization, workflow, Actor::user("bench"));
        let started = engine.start(request).await.expect("starts");
        let id = started.record.execution.id;
        let feed = engine.feed(organization, id, 0).await.expect("follows");
        feed.for_each(|event| async { drop(event.expect("an event")) })
            .await;
    };

    let totals = Totals::default();
    let mut group = group(criterion, "idle_run");
    group.bench_function("five_effects", |bencher| {
        bencher.iter_custom(|runs| {
            runtime.block_on(async {
                let before = commits.load(Ordering::Relaxed);
                let begin = Instant::now();
                for _ in 0..runs {
                    run().await;
                }
                let ours = begin.elapsed();
                let made = commits.load(Ordering::Relaxed) - before;
                let claimed = world.claimed(1).await;
                let floor = world.floor(claimed, made).await;
                totals.add(runs as f64, ours, floor);
                ours
            })
        });
    });
    group.finish();
    let [runs, ours, floor] = totals.get();
    if runs > 0.0 {
        eprintln!(
            "one run: {:.1} ms; as many transactions of the floor: {:.1} ms; ratio {:.2}",
            1_000.0 * ours / runs,
            1_000.0 * floor / runs,
            ours / floor
        );
    }
    runtime.block_on(async {
        workers.shutdown().await;
        world.close().await;
    });
}

/// A commit among so many executions that have ended.
fn stored_executions(criterion: &mut Criterion) {
    let runtime = Runtime::new().expect("starts");
    let world = runtime.block_on(World::new());
    let most = std::env::var("DOCG_BENCH_STORED").ok();
    let most = most.map_or(100_000, |most| {
        most.parse().expect("DOCG_BENCH_STORED is a number")
    });
    let sizes: &[i64] = match is_smoke_test() {
        true => &[10, 100],
        false => &[1_000, 100_000, 1_000_000],
    };
    for stored in sizes.iter().filter(|stored| **stored <= most) {
        runtime.block_on(world.store_executions(*stored));
        group(criterion, "stored_executions").bench_function(stored.to_string(), |bencher| {
            bencher.iter_custom(|steps| {
                runtime.block_on(async { world.commits(world.claimed(1).await, steps).await })
            });
        });
    }
    runtime.block_on(world.close());
}

/// A commit to an execution that has so many events already.
fn events_of_one(criterion: &mut Criterion) {
    let runtime = Runtime::new().expect("starts");
    let world = runtime.block_on(World::new());
    for events in [1, 10_000] {
        group(criterion, "events_of_one").bench_function(events.to_string(), |bencher| {
            bencher.iter_custom(|steps| {
                runtime.block_on(async {
                    let mut claimed = world.claimed(1).await;
                    // It was created with the first.
                    world.add_events(&mut claimed[0], events - 1).await;
                    world.commits(claimed, steps).await
                })
            });
        });
    }
    runtime.block_on(world.close());
}

criterion_group!(
    benches,
    durable_steps,
    idle_run,
    stored_executions,
    events_of_one
);
criterion_main!(benches);
