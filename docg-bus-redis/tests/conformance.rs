//! Runs the suite that every bus must pass, on two buses as two processes would have them: once with
//! small bounds, which the tests soon reach, and once with the default bounds.

use std::{sync::Arc, time::Duration};

use docg_bus_redis::{RedisBus, RedisConfig};
use docg_core::conformance::{BusCapabilities, BusUnderTest};
use docg_test_servers::redis::Keyspace;

fn buses(bounds: impl FnOnce(RedisConfig) -> RedisConfig) -> BusUnderTest {
    let keys = Keyspace::fresh();
    let config = RedisConfig::new(keys.url()).and_then(|config| config.prefix(keys.prefix()));
    // Use a long timeout: on a machine that is busy with tests, Redis may answer late.
    let config = config
        .expect("is a configuration")
        .timeout(Duration::from_secs(10))
        .stream_ttl(Duration::from_secs(120));
    let config = bounds(config);
    let bus = || Arc::new(RedisBus::open(config.clone()).expect("is a configuration"));
    BusUnderTest::from(bus()).peer(bus())
}

async fn small() -> BusUnderTest {
    let small = |config: RedisConfig| {
        config
            .stream_maxlen(100)
            .firehose_maxlen(100)
            .subscriber_buffer(20)
    };
    // Redis keeps up to about a hundred events more than the bound, because exact trimming costs more.
    let bounds = BusCapabilities::default().history(100, 150).backlog(20, 22);
    buses(small).capabilities(bounds)
}

docg_core::bus_conformance!(small);

mod with_default_bounds {
    use super::*;

    docg_core::bus_conformance!(async || buses(|config| config));
}
