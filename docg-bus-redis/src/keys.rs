//! What lies where.
//!
//! The part in braces makes a cluster keep all keys that have it in one slot, so that one command
//! may name several of them. The streams of single executions are spread over all slots.

use docg_core::ids::ExecutionId;

#[derive(Debug, Clone)]
pub(crate) struct Keys {
    prefix: String,
    /// Every event of every execution, for live readers and lists.
    pub(crate) firehose: String,
    /// Executions that want a worker.
    pub(crate) wakes: String,
    /// Written by health checks, and never read.
    pub(crate) checks: String,
}

impl Keys {
    pub(crate) fn new(prefix: &str) -> Self {
        Self {
            prefix: prefix.to_owned(),
            firehose: format!("{prefix}{{firehose}}"),
            wakes: format!("{prefix}{{firehose}}:wakes"),
            checks: format!("{prefix}{{firehose}}:checks"),
        }
    }

    /// The events of one execution.
    pub(crate) fn execution(&self, id: ExecutionId) -> String {
        format!("{}exec:{id}", self.prefix)
    }

    /// The `seq` of an execution's last event in the firehose.
    #[cfg(feature = "cluster")]
    pub(crate) fn head(&self, id: ExecutionId) -> String {
        format!("{}:head:{id}", self.firehose)
    }

    /// Matches the streams of all executions. The prefix is without characters that mean something
    /// in a pattern.
    pub(crate) fn executions(&self) -> String {
        format!("{}exec:*", self.prefix)
    }
}
