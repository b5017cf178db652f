//! The names of the keys in Redis.
//!
//! A cluster keeps all keys with the same part in braces in one slot, so that one command may use several
//! such keys. The streams of single executions are spread over all slots.

use docg_core::ids::ExecutionId;

#[derive(Debug, Clone)]
pub(crate) struct Keys {
    prefix: String,
    /// The stream of all executions' events, for live readers and organization streams.
    pub(crate) firehose: String,
    /// The stream of wake-ups, each with an execution that needs a worker.
    pub(crate) wakes: String,
    /// A stream to which health checks write, and which nobody reads.
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

    /// The stream of one execution's events.
    pub(crate) fn execution(&self, id: ExecutionId) -> String {
        format!("{}exec:{id}", self.prefix)
    }

    /// The key that holds the `seq` of an execution's last event in the firehose.
    #[cfg(feature = "cluster")]
    pub(crate) fn head(&self, id: ExecutionId) -> String {
        format!("{}:head:{id}", self.firehose)
    }

    /// A pattern that matches the streams of all executions. The prefix has no characters with a special
    /// meaning in a pattern.
    pub(crate) fn executions(&self) -> String {
        format!("{}exec:*", self.prefix)
    }
}
