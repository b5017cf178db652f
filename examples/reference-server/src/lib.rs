#![doc = include_str!("../README.md")]
// Tests may unwrap: a panic fails the test.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod approvals;
pub mod auth_file;
pub mod backend;
pub mod builtin_signature;
pub mod charset;
pub mod checkpoints;
pub mod checks;
pub mod cli;
pub mod downloads;
pub mod files;
mod html;
mod in_use;
pub mod mail;
pub mod nodes;
pub mod options;
pub mod pdf;
pub mod private;
pub mod probe;
pub mod renders;
pub mod serve;
pub mod signature_providers;
pub mod tls;
mod welcome;
pub mod workflows;
