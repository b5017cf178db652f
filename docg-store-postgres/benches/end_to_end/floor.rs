//! The floor: what pgbench reaches on the same server with one plain statement for a step. It writes what a step
//! of docg writes: a state that is replaced, a step, two events, a log entry and an audit row.

use std::{fmt::Write, fs, path::PathBuf, process::Command, time::Duration};

use docg_test_servers::postgres::program;
use sqlx::PgPool;

/// A row has as many bytes as docg's row of the kind for a step without data.
const SCHEMA: &str = "
    CREATE SCHEMA floor;
    CREATE TABLE floor.states (id int PRIMARY KEY, version bigint NOT NULL, body text NOT NULL)
        WITH (fillfactor = 75);
    INSERT INTO floor.states SELECT n, 0, repeat('s', 250) FROM generate_series(0, 2047) n;
    CREATE TABLE floor.steps (id int, seq bigint, body text, PRIMARY KEY (id, seq));
    CREATE TABLE floor.events (id int, seq bigint, body text, PRIMARY KEY (id, seq));
    CREATE TABLE floor.logs (id int, seq bigint, body text, PRIMARY KEY (id, seq));
    CREATE TABLE floor.audit (id int, seq bigint, body text, PRIMARY KEY (id, seq));";

/// The statement for one step of each of `executions` executions, which no other client has.
fn script(executions: u32) -> String {
    let mut script = format!("\\set first :client_id * {executions}\n");
    write!(
        script,
        "WITH moved AS (
            UPDATE floor.states SET version = version + 1, body = repeat('s', 250)
            WHERE id BETWEEN :first AND :first + {executions} - 1 RETURNING id, version),
        steps AS (INSERT INTO floor.steps SELECT id, version, repeat('t', 250) FROM moved),
        events AS (INSERT INTO floor.events
            SELECT id, version * 2 + n, repeat('e', 150) FROM moved, generate_series(0, 1) n),
        logs AS (INSERT INTO floor.logs SELECT id, version, repeat('l', 150) FROM moved)
        INSERT INTO floor.audit SELECT id, version, repeat('a', 250) FROM moved;"
    )
    .expect("a string takes all");
    script.replace('\n', " ").replacen(" WITH", "\nWITH", 1)
}

pub(crate) struct Floor {
    url: String,
    folder: PathBuf,
}

impl Floor {
    pub(crate) async fn new(pool: &PgPool, url: &str) -> Self {
        // pgbench refuses the parameters that are sqlx's own.
        let url = url.split('?').next().unwrap_or(url).to_owned();
        sqlx::raw_sql(SCHEMA)
            .execute(pool)
            .await
            .expect("makes the tables");
        let folder = std::env::temp_dir().join(format!("docg-bench-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("the temporary directory is writable");
        Self { url, folder }
    }

    /// Returns steps per second with so many clients and executions in a statement.
    pub(crate) fn steps_per_second(&self, clients: u32, executions: u32, time: Duration) -> f64 {
        let file = self.folder.join(format!("floor-{executions}.sql"));
        fs::write(&file, script(executions)).expect("the folder is ours");
        let output = Command::new(program("pgbench"))
            .args(["--no-vacuum", "--protocol=prepared", "--jobs=2"])
            .arg(format!("--client={clients}"))
            .arg(format!("--time={}", time.as_secs().max(1)))
            .arg("--file")
            .arg(file)
            .arg(&self.url)
            .output()
            .expect("pgbench runs");
        let text = String::from_utf8_lossy(&output.stdout);
        let transactions = text.lines().find_map(|line| {
            line.strip_prefix("tps = ")?
                .split(' ')
                .next()?
                .parse::<f64>()
                .ok()
        });
        let Some(transactions) = transactions else {
            let errors = String::from_utf8_lossy(&output.stderr);
            panic!("pgbench reports no rate: {text}{errors}");
        };
        transactions * f64::from(executions)
    }
}

impl Drop for Floor {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}
