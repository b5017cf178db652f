//! Measures the bus on a real Redis: the time of a publish, compared with a pipeline of bare `XADD` with
//! the same entries in the same run; the time from a publish to a live reader, with few and many readers;
//! and the commands and connections that Redis sees.

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
use docg_test_servers::redis::{Keyspace, PrivateServer};
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

/// Events of a new execution. Events that were published before would cost the bus nothing.
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

/// The pipeline for comparison: it only adds the same entries to the execution's stream.
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

/// Measures the time from a publish until all readers of the execution have the event. The other readers
/// read other executions.
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

/// Returns `many`, or 10 if the benchmark is run only as a test.
fn rounds(many: usize) -> usize {
    if std::env::args().any(|argument| argument == "--test") {
        10
    } else {
        many
    }
}

/// Measures the median and the 99th percentile of the time from a publish to the event's reader, while
/// others read other executions.
fn spread(_: &mut Criterion) {
    for readers in [1, 1_000, 10_000] {
        let bench = Bench::new();
        let events = events(rounds(2_000) as u64);
        let mut took = bench.runtime.block_on(async {
            let mut others = Vec::new();
            for _ in 1..rounds(readers).min(readers) {
                others.push(subscribe(&bench.bus, ExecutionId::new()).await);
            }
            let mut reader = subscribe(&bench.bus, events[0].execution_id).await;
            let mut took = Vec::with_capacity(events.len());
            for event in events.chunks(1) {
                let began = Instant::now();
                bench.bus.publish(event).await.expect("publishes");
                reader.next().await.expect("goes on").expect("is an event");
                took.push(began.elapsed());
            }
            took
        });
        took.sort_unstable();
        let at = |percent: usize| took[(took.len() - 1) * percent / 100];
        let (middle, slow) = (at(50), at(99));
        eprintln!("publish to reader, {readers} subscriptions: p50 {middle:?}, p99 {slow:?}");
    }
}

/// Counts the round trips, commands and connections that Redis sees, on a server that nobody else uses.
fn commands(_: &mut Criterion) {
    let (runtime, server) = (Runtime::new().expect("starts"), PrivateServer::start());
    runtime.block_on(async {
        let config = RedisConfig::new(&server.url()).expect("is a configuration");
        // The reading connection waits for 30 s at a time, so that only publishing is counted.
        let bus = RedisBus::open(config.block(Duration::from_secs(30))).expect("is right");
        bus.ready().await;
        let client = redis::Client::open(server.url()).expect("is a URL");
        let mut connection = client.get_multiplexed_async_connection().await;
        let connection = connection.as_mut().expect("connects");
        // The first publish loads the script into Redis, so do not count it.
        bus.publish(&events(1)).await.expect("publishes");
        for size in [1, 5, 100] {
            let batches: Vec<_> = (0..rounds(1_000)).map(|_| batch(size)).collect();
            let () = redis::cmd("CONFIG")
                .arg("RESETSTAT")
                .query_async(connection)
                .await
                .expect("resets");
            for batch in &batches {
                bus.publish(batch).await.expect("publishes");
            }
            let told: String = info(connection, "commandstats").await;
            let (sent, run) = (calls(&told, "evalsha"), calls(&told, ""));
            let count = batches.len() as u64 * size;
            eprintln!(
                "batches of {size}: {:.2} round trips and {:.2} commands for each event",
                sent as f64 / count as f64,
                run as f64 / count as f64,
            );
        }
        let told = info(connection, "clients").await;
        let clients = told
            .lines()
            .find_map(|line| line.strip_prefix("connected_clients:"))
            .and_then(|count| count.trim().parse::<u64>().ok())
            .expect("is told");
        eprintln!("{} connections for each process", clients - 1);
    });
}

async fn info(connection: &mut MultiplexedConnection, section: &str) -> String {
    let mut info = redis::cmd("INFO");
    info.arg(section);
    info.query_async(connection).await.expect("answers")
}

/// The number of commands whose names begin with `name` and that belong to publishing. Commands that scripts run
/// count as well.
fn calls(stats: &str, name: &str) -> u64 {
    let calls = |line: &str| {
        let (command, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
        let counts = command.starts_with(name)
            && !["info", "config|resetstat", "xread", "ping"].contains(&command);
        let (calls, _) = rest.split_once(',')?;
        counts.then(|| calls.parse::<u64>().ok())?
    };
    stats.lines().filter_map(calls).sum()
}

criterion_group!(benches, publishing, latency, spread, commands);
criterion_main!(benches);
