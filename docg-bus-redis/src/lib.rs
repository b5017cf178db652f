#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod backoff;
mod bus;
mod cleanup;
#[cfg(feature = "cluster")]
mod cluster;
mod codec;
mod config;
mod connect;
mod environment;
mod error;
mod firehose;
mod history;
mod hub;
mod keys;
mod link;
mod lists;
mod publish;
mod subscription;

pub use bus::RedisBus;
pub use cleanup::CleanedUp;
pub use config::{ConfigError, RedisConfig};
pub use environment::RedisFault;
