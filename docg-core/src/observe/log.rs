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

/// Takes log entries. The engine's own keeps them with the execution and sends them to `tracing`.
pub trait ExecutionLogger: Send + Sync {
    /// Takes an entry. It must neither block nor panic.
    fn log(&self, entry: LogDraft);
}

/// How a thing went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogLevel {
    /// Well.
    Ok,
    /// Well, with something worth knowing.
    Warn,
    /// Not well.
    Error,
}

/// What a log entry is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogDomain {
    /// The checks before the run.
    Preflight,
    /// A step.
    Step,
    /// Delivery.
    Delivery,
    /// Signatures.
    Signature,
    /// The run as a whole.
    Execution,
}

macro_rules! names {
    ($type:ident { $($variant:ident = $name:literal),+ $(,)? }) => {
        impl $type {
            /// All of them.
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

/// A log entry as it is written, before it has its place.
#[derive(Debug, Clone, PartialEq)]
pub struct LogDraft {
    /// How it went.
    pub level: LogLevel,
    /// What it is about; `None` takes the domain of the step's phase.
    pub domain: Option<LogDomain>,
    /// Plain words.
    pub message_human: Text,
    /// For technicians.
    pub message_tech: Option<String>,
    /// Facts for technicians; redacted before they are kept.
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

    /// Bounded, without secrets in its texts, and without what no store keeps.
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

/// A log entry in its place.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LogEntry {
    /// Unique.
    pub id: LogId,
    /// 1, 2, 3 … within the execution; what pages are cut by.
    pub seq: u64,
    /// The run.
    pub execution_id: ExecutionId,
    /// The node of the step that it belongs to.
    pub step_id: Option<NodeId>,
    /// When.
    pub timestamp: Timestamp,
    /// How it went.
    pub level: LogLevel,
    /// What it is about.
    pub domain: LogDomain,
    /// Plain words.
    pub message_human: Text,
    /// For technicians.
    pub message_tech: Option<String>,
    /// Facts for technicians.
    pub details_tech: Option<JsonText>,
    /// Names the chain of calls.
    pub correlation_id: Arc<str>,
}
