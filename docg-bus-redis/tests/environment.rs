//! Tests of `RedisBus::faults`, by which an application checks its Redis server at start.

use std::time::Duration;

use docg_bus_redis::{RedisBus, RedisConfig, RedisFault};
use docg_test_servers::redis::PrivateServer;

const PATIENCE: Duration = Duration::from_secs(20);

async fn faults_of(server: &PrivateServer) -> Vec<RedisFault> {
    let bus = RedisBus::open(RedisConfig::new(&server.url()).expect("is a URL")).expect("opens");
    let asked = async {
        loop {
            match bus.faults().await {
                Ok(faults) => break faults,
                Err(_) => tokio::task::yield_now().await,
            }
        }
    };
    tokio::time::timeout(PATIENCE, asked)
        .await
        .expect("it answers")
}

#[tokio::test]
async fn an_eviction_policy_and_a_replica_are_told_and_a_plain_server_is_fine() {
    let plain = PrivateServer::start();
    assert_eq!(faults_of(&plain).await, []);
    let evicts = PrivateServer::start_with(|_| "maxmemory-policy allkeys-lru\n".to_owned());
    let expected = RedisFault::Eviction("allkeys-lru".to_owned());
    assert!(!expected.is_fatal());
    assert_eq!(faults_of(&evicts).await, [expected]);
    evicts.follow(&plain);
    let found = faults_of(&evicts).await;
    assert!(found.contains(&RedisFault::Replica), "{found:?}");
    assert!(found.iter().any(RedisFault::is_fatal));
}
