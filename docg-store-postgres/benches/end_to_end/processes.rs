//! Several processes that work on one database. Each is this program, started again.

use std::{env, process::Stdio, time::Duration};

use sqlx::PgPool;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    process::{Child, Command},
};

use crate::{
    load::{Load, STEPS},
    memory,
};

/// The first argument of a process that is one of many. The URL, executions in flight, workers, and milliseconds
/// follow.
const ONE_OF_MANY: &str = "--one-of-many";

/// Runs as one of many if the arguments say so. It is ready when it prints a line, begins when it is sent one,
/// prints how many executions ended, and works until its input ends.
#[expect(clippy::print_stdout, reason = "another process reads the figures")]
pub(crate) async fn is_one_of_many(arguments: &[String]) -> bool {
    let [first, url, in_flight, workers, time] = arguments else {
        return false;
    };
    if first != ONE_OF_MANY {
        return false;
    }
    let number = |text: &String| text.parse::<usize>().expect("a number");
    let (in_flight, time) = (
        number(in_flight),
        Duration::from_millis(number(time) as u64),
    );
    let load = Load::new(url, memory(), number(workers)).await;
    println!("ready");
    let mut told = BufReader::new(tokio::io::stdin()).lines();
    told.next_line().await.expect("is told to begin");
    println!("{}", load.run_beside_others(in_flight, time).await);
    told.next_line().await.expect("is told to end");
    load.end().await;
    true
}

/// Shares the load between so many processes, and returns their steps per second together.
pub(crate) async fn steps_per_second(
    url: &str,
    pool: &PgPool,
    processes: usize,
    (in_flight, workers): (usize, usize),
    time: Duration,
) -> f64 {
    let program = env::current_exe().expect("this program");
    let mut running = Vec::new();
    for _ in 0..processes {
        let mut child = Command::new(&program)
            .args([ONE_OF_MANY, url])
            .args([in_flight / processes, workers / processes].map(|share| share.to_string()))
            .arg(time.as_millis().to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("starts this program");
        let output = BufReader::new(child.stdout.take().expect("is piped")).lines();
        running.push((child, output));
    }
    for (_, output) in &mut running {
        let line = output.next_line().await.expect("reads");
        assert_eq!(line.as_deref(), Some("ready"));
    }
    for (child, _) in &mut running {
        begin(child).await;
    }
    let mut ended = 0;
    for (_, output) in &mut running {
        let line = output.next_line().await.expect("reads").expect("a figure");
        ended += line.parse::<usize>().expect("a number");
    }
    let open = "SELECT count(*) FROM docg.executions WHERE ended_at IS NULL";
    while sqlx::query_scalar::<_, i64>(open)
        .fetch_one(pool)
        .await
        .expect("counts")
        > 0
    {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    for (mut child, _) in running {
        drop(child.stdin.take());
        child.wait().await.expect("ends");
    }
    (ended * STEPS) as f64 / time.as_secs_f64()
}

async fn begin(child: &mut Child) {
    let input = child.stdin.as_mut().expect("is piped");
    input.write_all(b"begin\n").await.expect("listens");
}
