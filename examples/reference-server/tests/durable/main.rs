//! Servers are killed, suspended and replaced, and services go down. Everything that clients were told stays
//! true, and executions continue.
//!
//! Each test breaks one thing and checks the details; the chaos test breaks everything at once.

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
