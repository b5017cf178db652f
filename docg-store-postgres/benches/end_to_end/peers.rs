//! Peers that are measured on the same server. Each is a program of its own with its own dependencies, in
//! `scripts/peers`.

use std::{path::Path, process::Stdio, time::Duration};

use serde::Deserialize;
use sqlx::{AssertSqlSafe, PgPool};
use tokio::process::Command;

use crate::{
    counts::{self, Counts},
    details,
    load::STEPS,
    report::Details,
};

/// The figures that a peer prints.
#[derive(Deserialize)]
struct Figures {
    executions: usize,
    warm_up: usize,
    seconds: f64,
    times_ms: Vec<f64>,
}

/// Steps per second of DBOS with so many workflows of five steps in flight.
pub(crate) async fn dbos(
    url: &str,
    pool: &PgPool,
    in_flight: usize,
    time: Duration,
) -> (f64, Details) {
    sqlx::raw_sql(AssertSqlSafe("DROP SCHEMA IF EXISTS dbos CASCADE"))
        .execute(pool)
        .await
        .expect("drops what the last one left");
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/peers/dbos");
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/peers");
    let build = Command::new("cargo")
        .args(["build", "--release", "--quiet", "--locked", "--target-dir"])
        .arg(&target)
        .current_dir(folder)
        .status();
    assert!(
        build.await.expect("cargo runs").success(),
        "DBOS does not build"
    );
    // The URL without the parameters that are sqlx's own.
    let url = url.split('?').next().unwrap_or(url);
    counts::reset(pool).await;
    let before = Counts::now(pool, "dbos").await;
    let output = Command::new(target.join("release/dbos-peer"))
        .args([url, &in_flight.to_string(), &time.as_secs_f64().to_string()])
        .stderr(Stdio::inherit())
        .output();
    let output = output.await.expect("runs");
    let spent = Counts::now(pool, "dbos").await - before;
    let figures: Figures = serde_json::from_slice(&output.stdout).expect("figures");
    let mut times: Vec<Duration> = figures
        .times_ms
        .iter()
        .map(|ms| Duration::from_secs_f64(ms / 1_000.0))
        .collect();
    if in_flight > 1 {
        // With many in flight, a time is mostly that of waiting for the others.
        times.clear();
    }
    let speed = (figures.executions * STEPS) as f64 / figures.seconds;
    (
        speed,
        details(spent, figures.executions + figures.warm_up, &mut times),
    )
}
