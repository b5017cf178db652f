//! Breaks server processes, the database and Redis at random.

use std::{
    fmt,
    time::{Duration, Instant},
};

use crate::{
    cluster::{Cluster, LEASE},
    random::Random,
};

/// The number of faults of each kind.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    kills: u32,
    freezes: u32,
    flushes: u32,
    redis_restarts: u32,
    postgres_restarts: u32,
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            kills,
            freezes,
            flushes,
            redis_restarts,
            postgres_restarts,
        } = self;
        write!(
            f,
            "{kills} processes killed, {freezes} frozen past their lease; Redis flushed {flushes} and \
             restarted {redis_restarts} times, Postgres {postgres_restarts}"
        )
    }
}

/// Breaks parts of the cluster for the time `during`. Each turn causes one fault at most: it kills a process
/// or, less often, breaks something else.
pub(crate) async fn rage(
    cluster: &Cluster,
    random: &mut Random,
    during: Duration,
    turn: Duration,
) -> Faults {
    let mut faults = Faults::default();
    let end = Instant::now() + during;
    let mut frozen: Option<(usize, Instant)> = None;
    while Instant::now() < end {
        tokio::time::sleep(turn).await;
        if let Some((number, _)) = frozen.take_if(|(_, until)| *until < Instant::now()) {
            cluster.signal(number, "CONT");
        }
        cluster.supervise();
        let victim = random.index(cluster.size());
        let is_frozen = |number| frozen.is_some_and(|(it, _)| it == number);
        match random.below(24) {
            0..2 => {
                cluster.redis.flush();
                faults.flushes += 1;
            }
            2 => {
                cluster.redis.kill();
                tokio::time::sleep(random.millis(1_000)).await;
                cluster.redis.start_again();
                faults.redis_restarts += 1;
            }
            3 => {
                cluster.postgres.stop();
                tokio::time::sleep(random.millis(500)).await;
                cluster.postgres.start_again().await;
                faults.postgres_restarts += 1;
            }
            4..6 if frozen.is_none() => {
                cluster.signal(victim, "STOP");
                frozen = Some((victim, Instant::now() + LEASE * 2));
                faults.freezes += 1;
            }
            _ if is_frozen(victim) => {}
            _ => {
                cluster.kill(victim);
                faults.kills += 1;
            }
        }
    }
    faults
}
