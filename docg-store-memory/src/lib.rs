#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod bus;
mod config;
mod hash;
mod store;
mod weight;

pub use bus::MemoryBus;
pub use config::{BusConfig, StoreConfig};
pub use store::MemoryStore;

/// Runs the quickstart of the root README as a documentation test.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct RootReadme;
