use std::{fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{canonical::JsonText, redact::Redaction};
use crate::{
    i18n::Text,
    ids::{ExecutionId, LogId, NodeId},
    limits, storable,
    time::Timestamp,
};

/// Receives log entries. The engine's implementation stores them with the execution and sends them to
/// `tracing`.
pub trait ExecutionLogger: Send + Sync {
    /// Receives an entry. Must neither block nor panic.
    fn log(&self, entry: LogDraft);
}

/// The level of a log entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogLevel {
    /// The logged action went well.
    Ok,
    /// The logged action went well, but people should read the message.
    Warn,
    /// The logged action went wrong.
    Error,
}

/// The subject area of a log entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogDomain {
    /// The checks before the execution's steps.
    Preflight,
    /// A step of the execution.
    Step,
    /// The delivery of documents.
    Delivery,
    /// The collection of signatures.
    Signature,
    /// The execution as a whole.
    Execution,
}

macro_rules! names {
    ($type:ident { $($variant:ident = $name:literal),+ $(,)? }) => {
        impl $type {
            /// All variants.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The name on the wire and in the database.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name),+ }
            }
        }
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
        impl FromStr for $type {
            type Err = String;
            fn from_str(name: &str) -> Result<Self, String> {
                match name {
                    $($name => Ok(Self::$variant),)+
                    _ => Err(format!("{name:?} is none of {}", [$($name),+].join(", "))),
                }
            }
        }
    };
}

names!(LogLevel { Ok = "ok", Warn = "warn", Error = "error" });
names!(LogDomain {
    Preflight = "preflight",
    Step = "step",
    Delivery = "delivery",
    Signature = "signature",
    Execution = "execution",
});

/// A log entry before it gets its `seq`.
#[derive(Debug, Clone, PartialEq)]
pub struct LogDraft {
    /// The level.
    pub level: LogLevel,
    /// The subject area; if `None`, the entry gets the subject area of the step's phase.
    pub domain: Option<LogDomain>,
    /// The message in plain words.
    pub message_human: Text,
    /// The message for technicians.
    pub message_tech: Option<String>,
    /// Facts for technicians; redacted before they are stored.
    pub details_tech: Option<Value>,
}

impl LogDraft {
    /// An entry with a message for people.
    #[must_use]
    pub fn new(level: LogLevel, message: impl Into<Text>) -> Self {
        Self {
            level,
            domain: None,
            message_human: message.into(),
            message_tech: None,
            details_tech: None,
        }
    }

    /// Adds the text for technicians.
    #[must_use]
    pub fn tech(mut self, message: impl ToString) -> Self {
        self.message_tech = Some(message.to_string());
        self
    }

    /// Bounds the entry, redacts secrets in its texts, and removes characters that no store keeps.
    pub(crate) fn storable(self, redaction: &Redaction) -> Self {
        Self {
            message_human: self.message_human.printable(redaction),
            message_tech: self.message_tech.map(|tech| limits::tech(tech, redaction)),
            details_tech: self.details_tech.map(storable::fit_owned),
            ..self
        }
    }

    /// Adds facts for technicians.
    #[must_use]
    pub fn details(mut self, details: Value) -> Self {
        self.details_tech = Some(details);
        self
    }
}

/// A stored log entry.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LogEntry {
    /// The entry's id.
    pub id: LogId,
    /// The entry's number within its execution: 1, 2, 3 …. A query for a page starts after a `seq`.
    pub seq: u64,
    /// The execution.
    pub execution_id: ExecutionId,
    /// The node whose step logged the entry; `None` for the execution itself.
    pub step_id: Option<NodeId>,
    /// When the entry was logged.
    pub timestamp: Timestamp,
    /// The level.
    pub level: LogLevel,
    /// The subject area.
    pub domain: LogDomain,
    /// The message in plain words.
    pub message_human: Text,
    /// The message for technicians.
    pub message_tech: Option<String>,
    /// Facts for technicians.
    pub details_tech: Option<JsonText>,
    /// The correlation id of the chain of calls that the execution belongs to.
    pub correlation_id: Arc<str>,
}
