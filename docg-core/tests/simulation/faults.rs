//! The planned faults of calls to the store and to the bus.

use std::sync::{
    Mutex,
    atomic::{AtomicBool, Ordering},
};

use docg_core::conformance::Fault;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Port {
    Store,
    Bus,
}

/// A fault, and the number of calls, by any process, between it and the previous fault.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Planned {
    pub(crate) after: u64,
    pub(crate) kind: Fault,
}

/// The faults of one port (store or bus) for all processes together.
#[derive(Debug)]
pub(crate) struct Faults {
    plan: Mutex<Counting>,
    stopped: AtomicBool,
}

#[derive(Debug)]
struct Counting {
    calls: u64,
    since_last: u64,
    /// The faults that are still to come, in reverse order: the next fault is the last item.
    left: Vec<Planned>,
}

impl Faults {
    pub(crate) fn new(planned: &[Planned]) -> Self {
        Self {
            plan: Mutex::new(Counting {
                calls: 0,
                since_last: 0,
                left: planned.iter().rev().copied().collect(),
            }),
            stopped: AtomicBool::new(false),
        }
    }

    /// Stops the faults: from now on every call succeeds.
    pub(crate) fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    pub(crate) fn next(&self) -> Option<Fault> {
        let mut plan = self.plan.lock().expect("no panic");
        if self.stopped.load(Ordering::Relaxed) {
            return None;
        }
        plan.calls += 1;
        if plan.left.last()?.after > plan.since_last {
            plan.since_last += 1;
            return None;
        }
        plan.since_last = 0;
        plan.left.pop().map(|planned| planned.kind)
    }

    /// The number of calls that were made before the faults were stopped.
    pub(crate) fn calls(&self) -> u64 {
        self.plan.lock().expect("no panic").calls
    }
}
