//! The real program, as others meet it: started as a process, called over HTTP, stopped by signals.

mod approvals;
mod browser;
mod commands;
mod contract;
mod faults;
mod process;
mod starting;
mod walkthrough;
