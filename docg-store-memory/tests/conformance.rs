//! Both adapters against the suites that every adapter must pass; the bus with small bounds, so
//! that they are met soon, and with its own.

use std::sync::Arc;

use docg_core::conformance::{BusCapabilities, BusUnderTest, StoreCapabilities, StoreUnderTest};
use docg_store_memory::{BusConfig, MemoryBus, MemoryStore};

async fn store() -> StoreUnderTest {
    StoreUnderTest::from(Arc::new(MemoryStore::default()))
        .capabilities(StoreCapabilities::default().takes_turns())
}

async fn small_bus() -> BusUnderTest {
    let bus = MemoryBus::new(
        BusConfig::default()
            .events_per_execution(50)
            .events_per_organization(50)
            .subscriber_buffer(20),
    );
    let bounds = BusCapabilities::default().history(50, 1).backlog(20, 22);
    BusUnderTest::from(Arc::new(bus)).capabilities(bounds)
}

docg_core::store_conformance!(store);
docg_core::bus_conformance!(small_bus);

mod with_default_bounds {
    use super::*;

    docg_core::bus_conformance!(async || Arc::new(MemoryBus::default()));
}
