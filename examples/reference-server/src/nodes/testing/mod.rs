//! Node types for tests, behind `--enable-test-nodes`: they wait, fail, panic, hang, and write to a ledger.
//! Each of them can be used in every phase.

mod faults;
mod ledger;

use std::path::Path;

use docg_core::workflow::Handler;

pub(super) fn handlers(folder: &Path) -> Vec<Handler> {
    vec![
        faults::delay(),
        faults::fail(),
        faults::panic(),
        faults::hang(),
        ledger::handler(folder.to_owned()),
        ledger::repeatable(folder.to_owned()),
    ]
}
