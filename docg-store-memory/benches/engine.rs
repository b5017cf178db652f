//! Benchmarks of the whole engine on the memory adapters. Executions have five steps and record everything:
//! events, log entries and audit hashes. Three groups vary the number in flight, the backlog of one
//! organization beyond its share of the workers, and the number of finished executions that are kept.
//!
//! `DOCG_BENCH_FINISHED` sets how many finished executions the store keeps (default: 200,000; in a smoke run:
//! 1,000). Each takes about 20 kB of memory.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use docg_core::{
    engine::{StartRequest, WorkerOptions, Workers},
    observe::Actor,
    prelude::*,
};
use docg_store_memory::{BusConfig, MemoryBus, MemoryStore, StoreConfig};
use futures::{StreamExt, stream};
use serde_json::{Value, json};
use tokio::{runtime::Runtime, sync::mpsc};

/// The engine makes many small allocations on several threads, which the system's allocator is slow at.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const STEPS: u64 = 5;

struct Bench {
    engine: Engine,
    _workers: Workers,
    organization: OrganizationId,
    workflow: WorkflowId,
    /// Receives the id of each execution whose last step has run.
    ended: mpsc::UnboundedReceiver<ExecutionId>,
}

impl Bench {
    /// A bench whose worker runs `concurrency` executions at once, all of one organization.
    async fn new(concurrency: usize) -> Self {
        Self::with(WorkerOptions::concurrency(concurrency).per_organization(concurrency)).await
    }

    async fn with(options: WorkerOptions) -> Self {
        let (sender, ended) = mpsc::unbounded_channel();
        let spec = |name: &'static str, phase| {
            NodeSpec::new(name, phase)
                .param(ParamSpec::optional("in", ParamKind::Json))
                .safe_to_repeat()
        };
        let last = move |context: EffectContext, _: Value| {
            let sender = sender.clone();
            async move {
                // Ignore the result: the receiver lives as long as the benchmark.
                let _ = sender.send(context.execution_id);
                StepOutcome::done(json!({"accepted": true}))
            }
        };
        let store = MemoryStore::new(
            StoreConfig::default()
                .max_executions(usize::MAX)
                .max_bytes(usize::MAX),
        );
        let engine = Engine::builder(
            Arc::new(store),
            Arc::new(MemoryBus::new(BusConfig::default())),
        )
        .step(compute(
            spec("extract", Phase::Trigger),
            |_, p: Value| async move { Ok(json!({"total": p["in"]})) },
        ))
        .step(compute(
            spec("render", Phase::Render),
            |_, _: Value| async { Ok(json!({"file": "f", "pages": 2})) },
        ))
        .step(effect(spec("save", Phase::Save), |_, _: Value| async {
            StepOutcome::done(json!({"url": "u"}))
        }))
        .step(effect(spec("send", Phase::Delivery), last))
        .build();
        let workers = engine.start_workers(options).expect("no other workers run");
        let (organization, workflow) = (OrganizationId::new(), WorkflowId::new());
        let draft = serde_json::from_value(json!({"name": "bench", "nodes": [
            {"id": "extract", "type": "extract", "params": {"in": "{{trigger.deal.amount}}"}},
            {"id": "total", "type": "extract", "params": {"in": "{{steps.extract.total}}"}},
            {"id": "render", "type": "render", "params": {"in": "{{steps.total}}"}},
            {"id": "save", "type": "save", "params": {"in": "{{steps.render.file}}"}},
            {"id": "send", "type": "send", "params": {"in": "{{steps.save.url}}"}},
        ]}))
        .expect("a readable definition");
        engine
            .put_workflow(organization, workflow, draft, None)
            .await
            .expect("a valid definition");
        Self {
            engine,
            _workers: workers,
            organization,
            workflow,
            ended,
        }
    }

    /// Runs `count` executions, `in_flight` at once.
    async fn run(&mut self, count: usize, in_flight: usize) -> Duration {
        let begun = Instant::now();
        let engine = &self.engine;
        let starts = stream::iter(0..count).map(|_| {
            let request = StartRequest::new(self.organization, self.workflow, Actor::user("bench"))
                .trigger_data(json!({"deal": {"amount": 120_000}}));
            engine.start(request)
        });
        let mut starts = starts.buffered(1);
        let (mut started, mut ended) = (0, 0);
        while ended < count {
            while started < count && started - ended < in_flight {
                starts.next().await.expect("one more").expect("accepted");
                started += 1;
            }
            self.ended.recv().await.expect("the engine lives");
            ended += 1;
        }
        begun.elapsed()
    }
}

fn smoke() -> bool {
    std::env::args().any(|argument| argument == "--test")
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime")
}

fn in_flight(criterion: &mut Criterion) {
    let runtime = runtime();
    let mut group = criterion.benchmark_group("steps_per_second");
    group
        .throughput(Throughput::Elements(STEPS))
        .sample_size(10)
        .measurement_time(Duration::from_secs(5));
    for in_flight in [1, 100, 10_000] {
        let mut bench = runtime.block_on(Bench::new(in_flight));
        group.bench_function(BenchmarkId::new("in_flight", in_flight), |b| {
            b.iter_custom(|count| {
                // Run enough executions that `in_flight` of them are in flight for most of the time.
                let scale = if smoke() {
                    1
                } else {
                    (in_flight as u64 * 3).div_ceil(count.max(1)).max(1)
                };
                let runs = usize::try_from(count * scale).expect("a count");
                runtime.block_on(bench.run(runs, in_flight))
                    / u32::try_from(scale).expect("a scale")
            });
        });
    }
    group.finish();
}

/// A backlog of one organization that is larger than its share of the workers.
fn one_organization(criterion: &mut Criterion) {
    let runtime = runtime();
    let backlog = if smoke() { 100 } else { 1_000 };
    let mut group = criterion.benchmark_group("backlog_of_one_organization");
    group
        .throughput(Throughput::Elements(STEPS * backlog as u64))
        .sample_size(10);
    let mut bench = runtime.block_on(Bench::with(WorkerOptions::default()));
    group.bench_function(BenchmarkId::from_parameter(backlog), |b| {
        b.iter_custom(|count| {
            let runs = (0..count).map(|_| runtime.block_on(bench.run(backlog, backlog)));
            runs.sum()
        });
    });
    group.finish();
}

fn finished(criterion: &mut Criterion) {
    let runtime = runtime();
    let kept = std::env::var("DOCG_BENCH_FINISHED")
        .ok()
        .and_then(|n| n.parse().ok());
    let kept: usize = kept.unwrap_or(if smoke() { 1_000 } else { 200_000 });
    let mut group = criterion.benchmark_group("steps_per_second_with_finished_kept");
    group
        .throughput(Throughput::Elements(STEPS))
        .sample_size(10)
        .measurement_time(Duration::from_secs(5));
    let mut bench = runtime.block_on(Bench::new(100));
    // The measured runs add some executions to the kept ones, but few in comparison.
    let mut done = 0;
    for keep in [0, kept / 10, kept] {
        runtime.block_on(bench.run(keep.saturating_sub(done), 100));
        done = done.max(keep);
        group.bench_function(BenchmarkId::from_parameter(keep), |b| {
            b.iter_custom(|count| {
                runtime.block_on(bench.run(usize::try_from(count).expect("a count"), 100))
            });
        });
    }
    group.finish();
}

criterion_group!(benches, in_flight, one_organization, finished);
criterion_main!(benches);
