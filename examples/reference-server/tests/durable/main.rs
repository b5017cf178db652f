//! Processes that are killed, stopped and replaced, and servers behind them that go away: what was
//! told stays true, and the work goes on.
//!
//! Each test breaks one thing and looks closely; the chaos test breaks everything at once.

#[path = "../support/client.rs"]
mod client;
#[path = "../support/program.rs"]
mod program;
#[path = "../support/readme.rs"]
mod readme;
#[path = "../support/site.rs"]
mod site;

mod commands;
mod compose;
mod connections;
mod drain;
mod follower;
mod forgotten;
mod outages;
mod redis_settings;
mod refused;
mod restart;
mod roles;
mod server;
mod takeover;
mod two_servers;
