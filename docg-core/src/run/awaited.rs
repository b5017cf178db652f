//! The moments and events that steps and executions wait for.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::time::Timestamp;

/// A step's wait for a moment, or for an event from outside.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Awaited {
    /// The thing that the step waits for.
    #[serde(flatten)]
    pub what: AwaitedThing,
    /// The moment that the step waits for, or the end of its wait for an event; `None` if that never ends.
    pub until: Option<Timestamp>,
    /// True if the moment has come, or the event has arrived.
    #[serde(default)]
    pub is_over: bool,
    /// The payload of the event that arrived; null before that, and for a moment.
    #[serde(default)]
    pub payload: Arc<Value>,
}

/// The thing that a step waits for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum AwaitedThing {
    /// A moment.
    Timer,
    /// An event with this name.
    Event {
        /// The event's name.
        name: String,
        /// The key that the event must have; `None` accepts every key.
        key: Option<String>,
    },
}

impl Awaited {
    /// True if the step still waits for an event with this name and key.
    #[must_use]
    pub fn is_met_by(&self, event_name: &str, event_key: Option<&str>) -> bool {
        match &self.what {
            AwaitedThing::Event { name, key } if !self.is_over => {
                name == event_name && (key.is_none() || key.as_deref() == event_key)
            }
            _ => false,
        }
    }

    /// True if the step still waits for the event with exactly this name and key.
    #[must_use]
    pub fn is_for_event(&self, event_name: &str, event_key: &str) -> bool {
        match &self.what {
            AwaitedThing::Event { name, key } => {
                !self.is_over && name == event_name && key.as_deref() == Some(event_key)
            }
            AwaitedThing::Timer => false,
        }
    }

    /// The details that a UI shows while the execution waits.
    #[must_use]
    pub fn detail(&self) -> Value {
        match &self.what {
            AwaitedThing::Timer => json!({}),
            AwaitedThing::Event { name, key } => json!({"name": name, "key": key}),
        }
    }
}

/// An event that has arrived before a step waited for it. It is kept until a step takes it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct KeptEvent {
    /// The event's name.
    pub name: String,
    /// The event's key.
    pub key: Option<String>,
    /// The event's content.
    pub payload: Arc<Value>,
    /// When the event arrived.
    pub received_at: Timestamp,
}
