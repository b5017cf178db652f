//! Tests of the real program from outside: started as a process, called over HTTP, stopped by signals.

#[path = "../support/client.rs"]
mod client;
#[path = "../support/mail_server.rs"]
mod mail_server;
#[path = "../support/program.rs"]
mod program;
#[path = "../support/readme.rs"]
mod readme;

mod approvals;
mod bombs;
mod browser;
mod bucket;
mod commands;
mod contract;
mod facts;
mod faults;
mod layers;
mod mail_encryption;
mod operating;
mod process;
mod providers;
mod renders;
mod starting;
mod walkthrough;
