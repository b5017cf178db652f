//! Three processes share a database and a Redis. All processes and both services are killed, suspended and
//! restarted at random. Afterwards all of docg's guarantees must hold.
//!
//! `DOCG_CHAOS_SECONDS` sets the duration, `DOCG_CHAOS_SEED` the seed of the random numbers. `scripts/chaos`
//! sets both.

#![expect(
    clippy::print_stdout,
    reason = "whoever starts it by hand wants to see what was broken and what was found"
)]

#[path = "../support/client.rs"]
mod client;
#[path = "../support/program.rs"]
mod program;
#[path = "../support/site.rs"]
mod site;

mod check;
mod clients;
mod cluster;
mod lists;
mod monkey;
mod random;

use std::{sync::Arc, time::Duration};

use clients::World;
use cluster::Cluster;
use random::Random;
use tokio_util::sync::CancellationToken;

fn number(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text
            .parse()
            .unwrap_or_else(|_| panic!("{name} is {text:?}, which is no number")),
        Err(_) => default,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_dies_nothing_that_was_told_is_lost() {
    let seconds = number("DOCG_CHAOS_SECONDS", 15);
    let seed = number("DOCG_CHAOS_SEED", 1);
    println!("chaos: {seconds} s, seed {seed}");
    // reqwest needs a TLS provider for the whole process.
    reference_server::tls::prepare();
    let cluster = Arc::new(Cluster::start().await);
    let world = Arc::new(World::new(Arc::clone(&cluster)).await);
    let end = CancellationToken::new();

    let mut random = Random::new(seed);
    let lists = lists::Lists::read(&world, &mut random).await;
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..4 {
        tasks.spawn(clients::start_runs(
            Arc::clone(&world),
            random.fork(),
            end.clone(),
        ));
    }
    for _ in 0..2 {
        tasks.spawn(clients::control_runs(
            Arc::clone(&world),
            random.fork(),
            end.clone(),
        ));
    }
    let readers = clients::Readers::default();
    tasks.spawn(clients::read_runs(
        Arc::clone(&world),
        readers.clone(),
        random.fork(),
        end.clone(),
    ));
    let faults = monkey::rage(
        &cluster,
        &mut random,
        Duration::from_secs(seconds),
        Duration::from_millis(500),
    )
    .await;
    end.cancel();
    while let Some(ended) = tasks.join_next().await {
        ended.expect("no client gives up");
    }

    cluster.heal().await;
    println!("chaos: {faults}; {}", world.told());
    let runs = world.come_to_rest().await;
    let read = readers.finish().await;
    let report = check::everything(&world, &runs, &read, lists).await;
    println!("chaos: {report}");
}
