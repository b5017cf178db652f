//! What the bus costs on a real Redis: publishing, against the same entries sent by a pipeline of bare
//! `XADD` in the same run; and the time from a publish to a live reader, with few and many readers.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use docg_bus_redis::{RedisBus, RedisConfig};
use docg_core::{
    conformance::fixtures::events,
    event::Event,
    i18n::Locale,
    ids::ExecutionId,
    ports::{EventBus, EventStream},
};
use docg_test_servers::redis::Keyspace;
use futures::StreamExt;
use redis::aio::MultiplexedConnection;
use tokio::runtime::Runtime;

struct Bench {
    runtime: Runtime,
    keys: Keyspace,
    bus: RedisBus,
}

impl Bench {
    fn new() -> Self {
        let runtime = Runtime::new().expect("starts");
        let keys = Keyspace::fresh();
        let config = RedisConfig::new(keys.url())
            .and_then(|config| config.prefix(keys.prefix()))
            .expect("is a configuration")
            .stream_ttl(Duration::from_secs(120))
            .timeout(Duration::from_secs(10));
        let bus = {
            let _inside = runtime.enter();
            RedisBus::open(config).expect("is a configuration")
        };
        runtime.block_on(bus.ready());
        Self { runtime, keys, bus }
    }

    fn raw(&self) -> MultiplexedConnection {
        let client = redis::Client::open(self.keys.url()).expect("is a URL");
        let connect = client.get_multiplexed_async_connection();
        self.runtime.block_on(connect).expect("connects")
    }
}

/// Fresh events of one execution: what was published before is no work.
fn batch(size: u64) -> Vec<Arc<Event>> {
    events(size)
}

fn publishing(c: &mut Criterion) {
    let bench = Bench::new();
    let mut group = c.benchmark_group("publish");
    for size in [1, 5, 100] {
        group.throughput(Throughput::Elements(size));
        group.bench_function(BenchmarkId::new("bus", size), |b| {
            b.iter_custom(|rounds| {
                let batches: Vec<_> = (0..rounds).map(|_| batch(size)).collect();
                bench.runtime.block_on(async {
                    let began = Instant::now();
                    for batch in &batches {
                        bench.bus.publish(batch).await.expect("publishes");
                    }
                    began.elapsed()
                })
            });
        });
        let mut connection = bench.raw();
        group.bench_function(BenchmarkId::new("bare XADD", size), |b| {
            b.iter_custom(|rounds| {
                let batches: Vec<_> = (0..rounds).map(|_| batch(size)).collect();
                bench.runtime.block_on(async {
                    let began = Instant::now();
                    for batch in &batches {
                        bare(&bench.keys, batch)
                            .query_async::<()>(&mut connection)
                            .await
                            .expect("adds");
                    }
                    began.elapsed()
                })
            });
        });
    }
    group.finish();
}

/// The same entries in one stream for each execution, and no more than that.
fn bare(keys: &Keyspace, events: &[Arc<Event>]) -> redis::Pipeline {
    let mut pipeline = redis::pipe();
    for event in events {
        pipeline
            .cmd("XADD")
            .arg(format!("{}bare:{}", keys.prefix(), event.execution_id))
            .arg("MAXLEN")
            .arg("~")
            .arg(1_000)
            .arg(format!("{}-0", event.seq))
            .arg("event")
            .arg(event.encode(Locale::En))
            .ignore();
    }
    pipeline
        .cmd("EXPIRE")
        .arg(format!("{}bare:{}", keys.prefix(), events[0].execution_id))
        .arg(120)
        .ignore();
    pipeline
}

/// From before a publish until all readers of the execution have the event. The other readers read
/// executions of their own.
fn latency(c: &mut Criterion) {
    let bench = Bench::new();
    let mut group = c.benchmark_group("publish to reader");
    for (readers, watching) in [
        (1_usize, 1),
        (100, 1),
        (100, 100),
        (1_000, 1),
        (1_000, 1_000),
    ] {
        let name = format!("{watching} of {readers} readers");
        group.bench_function(BenchmarkId::from_parameter(name), |b| {
            b.iter_custom(|rounds| {
                let events = events(rounds);
                let id = events[0].execution_id;
                bench.runtime.block_on(async {
                    let mut watchers = Vec::new();
                    let mut others = Vec::new();
                    for _ in 0..watching {
                        watchers.push(subscribe(&bench.bus, id).await);
                    }
                    for _ in watching..readers {
                        others.push(subscribe(&bench.bus, ExecutionId::new()).await);
                    }
                    let began = Instant::now();
                    for event in &events {
                        let one = std::slice::from_ref(event);
                        bench.bus.publish(one).await.expect("publishes");
                        for watcher in &mut watchers {
                            watcher.next().await.expect("goes on").expect("is an event");
                        }
                    }
                    began.elapsed()
                })
            });
        });
    }
    group.finish();
}

async fn subscribe(bus: &RedisBus, execution: ExecutionId) -> EventStream {
    bus.subscribe(execution, 0).await.expect("subscribes")
}

criterion_group!(benches, publishing, latency);
criterion_main!(benches);
