#![doc = include_str!("../README.md")]
#![allow(
    clippy::missing_panics_doc,
    clippy::panic,
    reason = "a test that cannot reach its server must fail, and say why"
)]

mod process;
pub mod redis;
