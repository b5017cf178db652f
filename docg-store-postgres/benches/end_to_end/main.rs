//! Five effects from start to end through the whole engine, on a PostgreSQL server that waits for its disk, next to
//! what pgbench reaches on the same server. `scripts/bench` runs it and explains the arguments.
#![expect(clippy::print_stdout, reason = "the figures are what it is run for")]

use std::{env, fs, path::Path, time::Duration};

use docg_test_servers::postgres::PrivateServer;
use sqlx::postgres::PgPoolOptions;

mod counts;
mod floor;
mod load;
mod report;

use counts::Counts;
use floor::Floor;
use load::{Load, STEPS};
use report::{Details, Line};

/// How much is measured.
struct Plan {
    rounds: usize,
    time: Duration,
    alone: usize,
}

impl Plan {
    const LONG: Self = Self {
        rounds: 3,
        time: Duration::from_secs(5),
        alone: 200,
    };
    /// Shows that the benchmark works; its figures mean nothing.
    const SHORT: Self = Self {
        rounds: 1,
        time: Duration::from_millis(500),
        alone: 5,
    };
}

/// Executions in flight and workers. With fewer workers than executions, the others are claimed.
const LOADS: [(usize, usize); 3] = [(32, 64), (256, 64), (256, 256)];

/// The figures of one kind of work, one for each round.
struct Measured {
    name: String,
    rounds: Vec<Line>,
}

#[tokio::main(worker_threads = 2)]
async fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let has = |name: &str| arguments.iter().any(|argument| argument == name);
    let plan = if has("--test") {
        Plan::SHORT
    } else {
        Plan::LONG
    };
    let server = PrivateServer::start_durable().await;
    let pool = PgPoolOptions::new()
        .max_connections(1)
        .connect(&server.url())
        .await
        .expect("connects");
    sqlx::raw_sql("CREATE EXTENSION pg_stat_statements")
        .execute(&pool)
        .await
        .expect("the server has pg_stat_statements (Debian: postgresql-contrib)");
    let store = docg_store_postgres::PgStore::connect(&server.url(), Default::default()).await;
    store.expect("connects").migrate().await.expect("migrates");
    let floor = Floor::new(&pool, &server.url()).await;

    let mut all: Vec<Measured> = Vec::new();
    for round in 0..plan.rounds {
        let mut lines = Vec::new();
        // pgbench blocks, and nothing else runs meanwhile.
        let pgbench = |clients, executions| {
            tokio::task::block_in_place(|| floor.steps_per_second(clients, executions, plan.time))
        };
        let of_floor = pgbench(16, 1);
        let mut line = |name: String, steps_per_second: f64, details| {
            lines.push(Line {
                name,
                steps_per_second,
                of_floor: steps_per_second / of_floor,
                details,
            });
        };
        line(
            "floor (a): one step a statement, 16 clients".into(),
            of_floor,
            None,
        );
        line("floor (a): one client".into(), pgbench(1, 1), None);
        line(
            "floor (b): 32 steps a statement, 4 clients".into(),
            pgbench(4, 32),
            None,
        );
        for (in_flight, workers) in LOADS {
            let load = Load::new(&server.url(), workers).await;
            load.run(in_flight, plan.time / 4).await;
            counts::reset(&pool).await;
            let before = Counts::now(&pool).await;
            let (ended, took) = load.run(in_flight, plan.time).await;
            let details = details(Counts::now(&pool).await - before, ended, &mut []);
            let name = format!("docg: {in_flight} in flight, {workers} workers");
            if has("--statements") {
                println!("{name}\n{}", counts::slowest_statements(&pool).await);
            }
            load.end().await;
            line(
                name,
                (ended * STEPS) as f64 / took.as_secs_f64(),
                Some(details),
            );
        }
        let load = Load::new(&server.url(), 64).await;
        for _ in 0..plan.alone / 4 {
            load.run_alone().await;
        }
        counts::reset(&pool).await;
        let before = Counts::now(&pool).await;
        let mut times = Vec::new();
        for _ in 0..plan.alone {
            times.push(load.run_alone().await);
        }
        let total: Duration = times.iter().sum();
        let details = details(Counts::now(&pool).await - before, plan.alone, &mut times);
        if has("--statements") {
            println!("alone\n{}", counts::slowest_statements(&pool).await);
        }
        load.end().await;
        let speed = (plan.alone * STEPS) as f64 / total.as_secs_f64();
        line("docg: one at a time".into(), speed, Some(details));
        println!(
            "{}",
            report::table(
                &lines,
                &format!("Round {}, load {}", round + 1, machine_load())
            )
        );
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
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let version: String = sqlx::query_scalar("SELECT current_setting('server_version')")
        .fetch_one(&pool)
        .await
        .expect("reads");
    let rounds = plan.rounds;
    let title = format!(
        "Medians of {rounds} rounds by ratio to the floor; PostgreSQL {version} with fsync, {cores} cores for all, \
         load {} at the end.",
        machine_load()
    );
    let table = report::table(&lines, &title);
    println!("{table}");
    if has("--store") {
        let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
        report::store(&docs, &table, &report::picture(&lines));
    }
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
    let percentile = |percent: usize| {
        let time = times.get(times.len() * percent / 100)?;
        Some(time.as_secs_f64() * 1_000.0)
    };
    Details {
        p50_ms: percentile(50),
        p99_ms: percentile(99),
        statements: each(spent.statements),
        transactions: each(spent.transactions),
        wal_kb: each(spent.wal_bytes) / 1_000.0,
        wal_records: each(spent.wal_records),
        server_cpu_ms: each(spent.server_cpu_ms),
        own_cpu_ms: each(spent.own_cpu_ms),
    }
}

/// The number of processes that wanted a core in the last minute, on average.
fn machine_load() -> String {
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    load.split(' ').next().unwrap_or_default().to_owned()
}
