//! What the server and this process spent, from the server's statistics and `/proc`.

use std::{fs, ops::Sub};

use sqlx::{PgPool, Row};

/// Counts since the server's start.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Counts {
    pub(crate) statements: f64,
    /// Transactions that wrote. Each statement of the store is a transaction of its own.
    pub(crate) transactions: f64,
    pub(crate) wal_bytes: f64,
    pub(crate) wal_records: f64,
    pub(crate) server_cpu_ms: f64,
    /// Of this process, and of programs that it started and that have ended.
    pub(crate) own_cpu_ms: f64,
}

impl Sub for Counts {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self {
            statements: self.statements - other.statements,
            transactions: self.transactions - other.transactions,
            wal_bytes: self.wal_bytes - other.wal_bytes,
            wal_records: self.wal_records - other.wal_records,
            server_cpu_ms: self.server_cpu_ms - other.server_cpu_ms,
            own_cpu_ms: self.own_cpu_ms - other.own_cpu_ms,
        }
    }
}

impl Counts {
    /// `schema` is that of the tables whose statements are counted.
    pub(crate) async fn now(pool: &PgPool, schema: &str) -> Self {
        // A statement counts as writing if each of its calls wrote: a reading one may clean up a page.
        let row = sqlx::query(
            "SELECT sum(calls)::float8, (sum(calls) FILTER (WHERE wal_records >= calls))::float8,
                sum(wal_bytes)::float8, sum(wal_records)::float8,
                split_part(pg_read_file('postmaster.pid'), E'\\n', 1)::int
             FROM pg_stat_statements WHERE query LIKE $1",
        );
        let row = row
            .bind(format!("%{schema}%"))
            .fetch_one(pool)
            .await
            .expect("reads");
        let number = |index: usize| row.get::<Option<f64>, _>(index).unwrap_or_default();
        Self {
            statements: number(0),
            transactions: number(1),
            wal_bytes: number(2),
            wal_records: number(3),
            server_cpu_ms: server_cpu_ms(row.get(4)),
            own_cpu_ms: cpu("self").map_or(0.0, |it| it.own + it.ended_children),
        }
    }
}

/// The statements that took most of the server's time, for whoever wants to know why.
pub(crate) async fn slowest_statements(pool: &PgPool) -> String {
    let rows = sqlx::query(
        "SELECT calls, total_exec_time, mean_exec_time, wal_records,
            left(regexp_replace(query, '\\s+', ' ', 'g'), 70)
         FROM pg_stat_statements WHERE query LIKE '%docg.%'
         ORDER BY total_exec_time DESC LIMIT 8",
    );
    let lines = rows.fetch_all(pool).await.expect("reads").into_iter().map(|row| {
        let (calls, wal): (i64, i64) = (row.get(0), row.get(3));
        let (total, mean): (f64, f64) = (row.get(1), row.get(2));
        let query: String = row.get(4);
        format!("{total:9.0} ms  {calls:7} calls  {mean:7.3} ms each  {wal:8} WAL records  {query}\n")
    });
    lines.collect()
}

pub(crate) async fn reset(pool: &PgPool) {
    sqlx::raw_sql("SELECT pg_stat_statements_reset(); CHECKPOINT")
        .execute(pool)
        .await
        .expect("resets");
}

/// The CPU time of a process in milliseconds.
struct Cpu {
    parent: i32,
    own: f64,
    ended_children: f64,
}

fn cpu(process: &str) -> Option<Cpu> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The fields after the name, which may contain spaces.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |index: usize| fields.get(index)?.parse::<f64>().ok();
    // Linux counts a hundred ticks a second for programs.
    Some(Cpu {
        parent: fields.get(1)?.parse().ok()?,
        own: (ticks(11)? + ticks(12)?) * 10.0,
        ended_children: (ticks(13)? + ticks(14)?) * 10.0,
    })
}

/// The CPU time of the server with all its processes, also of those that have ended.
fn server_cpu_ms(main: i32) -> f64 {
    let main_process = cpu(&main.to_string()).map_or(0.0, |it| it.own + it.ended_children);
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let children = processes
        .filter_map(|entry| cpu(entry.file_name().to_str()?))
        .filter(|process| process.parent == main)
        .map(|process| process.own);
    main_process + children.sum::<f64>()
}
