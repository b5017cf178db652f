#![doc = include_str!("../README.md")]
#![allow(
    clippy::missing_panics_doc,
    clippy::panic,
    reason = "a test that cannot reach its server must fail, and say why"
)]

pub mod ports;
pub mod postgres;
mod process;
pub mod redis;
