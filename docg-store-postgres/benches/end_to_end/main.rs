//! Five effects from start to end through the whole engine, on a PostgreSQL server that waits for its disk, next to
//! what pgbench reaches on the same server. `scripts/bench` runs it and explains the arguments.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "the figures are what it is run for"
)]

use std::{env, fs, path::Path, sync::Arc, time::Duration};

use docg_bus_redis::{RedisBus, RedisConfig};
use docg_core::ports::EventBus;
use docg_store_memory::MemoryBus;
use docg_test_servers::{postgres::PrivateServer, redis};
use sqlx::{PgPool, postgres::PgPoolOptions};

mod counts;
mod floor;
mod load;
mod peers;
mod processes;
mod report;
mod scale;

use counts::Counts;
use floor::Floor;
use load::{Load, STEPS};
use report::{Details, Line};

/// How much is measured.
struct Plan {
    rounds: usize,
    time: Duration,
    alone: usize,
    scale: scale::Size,
}

impl Plan {
    const LONG: Self = Self {
        rounds: 3,
        time: Duration::from_secs(5),
        alone: 200,
        scale: scale::Size::LONG,
    };
    /// Shows that the benchmark works; its figures mean nothing.
    const SHORT: Self = Self {
        rounds: 1,
        time: Duration::from_millis(500),
        alone: 5,
        scale: scale::Size::SHORT,
    };
}

/// Executions in flight and workers. With fewer workers than executions, the others are claimed.
const LOADS: [(usize, usize); 3] = [(32, 64), (256, 64), MANY];
const MANY: (usize, usize) = (256, 256);

/// The figures of one kind of work, one for each round.
struct Measured {
    name: String,
    rounds: Vec<Line>,
}

/// The parts that every measurement uses.
struct Bench {
    url: String,
    pool: PgPool,
    floor: Floor,
    redis: redis::PrivateServer,
    with_statements: bool,
}

#[tokio::main(worker_threads = 2)]
async fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    if processes::is_one_of_many(&arguments).await {
        return;
    }
    let has = |name: &str| arguments.iter().any(|argument| argument == name);
    let plan = if has("--test") {
        Plan::SHORT
    } else {
        Plan::LONG
    };
    let server = PrivateServer::start_durable().await;
    let bench = Bench::new(server.url(), has("--statements")).await;

    let mut all: Vec<Measured> = Vec::new();
    for round in 1..=plan.rounds {
        let lines = bench.round(&plan, has("--peers")).await;
        let title = format!("Round {round}, load {}", machine_load());
        println!("{}", report::table(&lines, &title));
        for (index, line) in lines.into_iter().enumerate() {
            match all.get_mut(index) {
                Some(measured) => measured.rounds.push(line),
                None => all.push(Measured {
                    name: line.name.clone(),
                    rounds: vec![line],
                }),
            }
        }
    }
    let lines: Vec<Line> = all.into_iter().map(Measured::median).collect();
    let version: String = sqlx::query_scalar("SELECT current_setting('server_version')")
        .fetch_one(&bench.pool)
        .await
        .expect("reads");
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let title = format!(
        "Medians of {} rounds by ratio to the floor; PostgreSQL {version} with fsync, {cores} cores for all, \
         load {} at the end.",
        plan.rounds,
        machine_load()
    );
    let mut table = report::table(&lines, &title);
    println!("{table}");
    let scale = scale::measure(&server, &plan.scale, plan.time).await;
    println!("{scale}");
    table.push('\n');
    table.push_str(&scale);
    if has("--store") {
        let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
        report::store(&docs, &table, &report::picture(&lines));
    }
}

impl Bench {
    async fn new(url: String, with_statements: bool) -> Self {
        let pool = PgPoolOptions::new()
            .max_connections(1)
            .connect(&url)
            .await
            .expect("connects");
        sqlx::raw_sql("CREATE EXTENSION pg_stat_statements")
            .execute(&pool)
            .await
            .expect("the server has pg_stat_statements (Debian: postgresql-contrib)");
        let store = docg_store_postgres::PgStore::connect(&url, Default::default()).await;
        store.expect("connects").migrate().await.expect("migrates");
        Self {
            floor: Floor::new(&pool, &url).await,
            redis: redis::PrivateServer::start(),
            url,
            pool,
            with_statements,
        }
    }

    async fn round(&self, plan: &Plan, with_peers: bool) -> Vec<Line> {
        let time = plan.time;
        // pgbench blocks, and nothing else runs meanwhile.
        let pgbench = |clients, executions| {
            tokio::task::block_in_place(|| self.floor.steps_per_second(clients, executions, time))
        };
        let floor = pgbench(16, 1);
        let mut lines = Vec::new();
        let mut line = |name: String, steps_per_second: f64, details| {
            eprintln!("{name}: {steps_per_second:.0} steps/s");
            lines.push(Line {
                name,
                steps_per_second,
                of_floor: steps_per_second / floor,
                details,
            });
        };
        line(
            "floor (a): one step a statement, 16 clients".into(),
            floor,
            None,
        );
        line("floor (a): one client".into(), pgbench(1, 1), None);
        line(
            "floor (b): 32 steps a statement, 4 clients".into(),
            pgbench(4, 32),
            None,
        );
        for (in_flight, workers) in LOADS {
            let name = format!("docg: {in_flight} in flight, {workers} workers");
            let (speed, details) = self.many(&name, memory(), (in_flight, workers), time).await;
            line(name, speed, Some(details));
        }
        let name = format!(
            "docg: {} in flight, {} workers, Redis as bus",
            MANY.0, MANY.1
        );
        let config = RedisConfig::new(&self.redis.url()).expect("a URL");
        let bus = RedisBus::open(config).expect("opens");
        bus.ready().await;
        let (speed, details) = self.many(&name, Arc::new(bus), MANY, time).await;
        line(name, speed, Some(details));
        for processes in [2, 4, 8] {
            let speed =
                processes::steps_per_second(&self.url, &self.pool, processes, MANY, time).await;
            let name = format!(
                "docg: {} in flight in {processes} processes together",
                MANY.0
            );
            line(name, speed, None);
        }
        let (speed, details) = self.alone(plan.alone).await;
        line("docg: one at a time".into(), speed, Some(details));
        if with_peers {
            for in_flight in [32, 256, 1] {
                let (speed, details) = peers::dbos(&self.url, &self.pool, in_flight, time).await;
                let name = match in_flight {
                    1 => "DBOS: one at a time".to_owned(),
                    more => format!("DBOS: {more} in flight"),
                };
                line(name, speed, Some(details));
            }
        }
        lines
    }

    async fn many(
        &self,
        name: &str,
        bus: Arc<dyn EventBus>,
        (in_flight, workers): (usize, usize),
        time: Duration,
    ) -> (f64, Details) {
        let load = Load::new(&self.url, bus, workers).await;
        load.run(in_flight, time / 4).await;
        counts::reset(&self.pool).await;
        let before = Counts::now(&self.pool, "docg").await;
        let (ended, took) = load.run(in_flight, time).await;
        let spent = Counts::now(&self.pool, "docg").await - before;
        self.print_statements(name).await;
        load.end().await;
        let speed = (ended * STEPS) as f64 / took.as_secs_f64();
        (speed, details(spent, ended, &mut []))
    }

    async fn alone(&self, executions: usize) -> (f64, Details) {
        let load = Load::new(&self.url, memory(), 64).await;
        for _ in 0..executions / 4 {
            load.run_one(0).await;
        }
        counts::reset(&self.pool).await;
        let before = Counts::now(&self.pool, "docg").await;
        let mut times = Vec::new();
        for _ in 0..executions {
            times.push(load.run_one(0).await.ended);
        }
        let spent = Counts::now(&self.pool, "docg").await - before;
        self.print_statements("one at a time").await;
        load.end().await;
        let total: Duration = times.iter().sum();
        let speed = (executions * STEPS) as f64 / total.as_secs_f64();
        (speed, details(spent, executions, &mut times))
    }

    async fn print_statements(&self, name: &str) {
        if self.with_statements {
            println!("{name}\n{}", counts::slowest_statements(&self.pool).await);
        }
    }
}

fn memory() -> Arc<dyn EventBus> {
    Arc::<MemoryBus>::default()
}

impl Measured {
    /// The round with the median ratio to the floor.
    fn median(mut self) -> Line {
        self.rounds
            .sort_by(|one, other| one.of_floor.total_cmp(&other.of_floor));
        let middle = self.rounds.len() / 2;
        let mut line = self.rounds.swap_remove(middle);
        line.name = self.name;
        line
    }
}

fn details(spent: Counts, executions: usize, times: &mut [Duration]) -> Details {
    let each = |number: f64| number / executions.max(1) as f64;
    times.sort_unstable();
    Details {
        p50_ms: percentile(times, 50),
        p99_ms: percentile(times, 99),
        statements: each(spent.statements),
        transactions: each(spent.transactions),
        wal_kb: each(spent.wal_bytes) / 1_000.0,
        wal_records: each(spent.wal_records),
        server_cpu_ms: each(spent.server_cpu_ms),
        own_cpu_ms: each(spent.own_cpu_ms),
    }
}

/// A percentile of sorted times, in milliseconds.
fn percentile(times: &[Duration], percent: usize) -> Option<f64> {
    let time = times.get(times.len() * percent / 100)?;
    Some(time.as_secs_f64() * 1_000.0)
}

/// The number of processes that wanted a core in the last minute, on average.
fn machine_load() -> String {
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    load.split(' ').next().unwrap_or_default().to_owned()
}
