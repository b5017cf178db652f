//! Both adapters against the suites that every adapter must pass.

use std::sync::Arc;

use docg_core::conformance::{BusCapabilities, BusUnderTest, StoreCapabilities, StoreUnderTest};
use docg_store_memory::{BusConfig, MemoryBus, MemoryStore};

async fn store() -> StoreUnderTest {
    StoreUnderTest::from(Arc::new(MemoryStore::default()))
        .capabilities(StoreCapabilities::default().takes_turns())
}

async fn bus() -> BusUnderTest {
    let bus = MemoryBus::new(BusConfig::default().events_per_execution(50).subscriber_buffer(20));
    BusUnderTest::from(Arc::new(bus)).capabilities(BusCapabilities::default().history(50, 1).backlog(20, 22))
}

docg_core::store_conformance!(store);
docg_core::bus_conformance!(bus);
