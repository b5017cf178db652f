//! Runs DBOS workflows of five steps on a PostgreSQL server, for docg's benchmark.
//!
//! `dbos-peer URL IN_FLIGHT SECONDS` keeps so many workflows in flight for so long, and prints one JSON object:
//! `executions` that ended, the `seconds` that they took, the `times_ms` from the start of each to its result, and
//! `warm_up`, how many ended before the measurement.

use std::{
    env,
    error::Error,
    sync::Arc,
    time::{Duration, Instant},
};

use dbos::{Config, DBOS, step};
use tokio::{sync::Mutex, task::JoinSet};

async fn five_steps(_: ()) -> dbos::Result<()> {
    for _ in 0..5 {
        step("effect", || async { Ok::<_, dbos::Error>(()) }).await?;
    }
    Ok(())
}

#[tokio::main(worker_threads = 2)]
async fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let mut arguments = env::args().skip(1);
    let url = arguments.next().ok_or("the URL is missing")?;
    let in_flight: usize = arguments.next().ok_or("the number in flight is missing")?.parse()?;
    let time = Duration::from_secs_f64(arguments.next().ok_or("the seconds are missing")?.parse()?);
    let dbos = DBOS::new(Config {
        app_version: Some("1".to_owned()),
        ..Config::new("peer", url)
    });
    let workflow = Arc::new(dbos.register_workflow("five", five_steps)?);
    dbos.launch().await?;

    let run = async |time: Duration| -> dbos::Result<_> {
        let (began, times) = (Instant::now(), Arc::new(Mutex::new(Vec::new())));
        let mut clients = JoinSet::new();
        for _ in 0..in_flight {
            let (workflow, times) = (Arc::clone(&workflow), Arc::clone(&times));
            clients.spawn(async move {
                while began.elapsed() < time {
                    let start = Instant::now();
                    workflow.run(()).await?;
                    times.lock().await.push(start.elapsed().as_secs_f64() * 1_000.0);
                }
                Ok::<_, dbos::Error>(())
            });
        }
        while let Some(ended) = clients.join_next().await {
            ended.expect("a client does not panic")?;
        }
        let times = std::mem::take(&mut *times.lock().await);
        Ok((times, began.elapsed()))
    };
    // The first ones make connections and plans.
    let (warm_up, _) = run(time / 4).await?;
    let (times_ms, took) = run(time).await?;
    let figures = serde_json::json!({
        "executions": times_ms.len(),
        "warm_up": warm_up.len(),
        "seconds": took.as_secs_f64(),
        "times_ms": times_ms,
    });
    println!("{figures}");
    dbos.shutdown().await;
    Ok(())
}
