//! The six phases of an execution, in the order in which it passes through them.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// The kind of work that a node does. The node declares it; nothing guesses it from the node's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Checks before anything happens.
    Preflight,
    /// Extracting and preparing data.
    Trigger,
    /// Rendering documents.
    Render,
    /// Saving documents.
    Save,
    /// Delivering documents.
    Delivery,
    /// Collecting signatures.
    Signature,
}

impl Phase {
    /// All six phases, in order.
    pub const ALL: [Self; 6] = [
        Self::Preflight,
        Self::Trigger,
        Self::Render,
        Self::Save,
        Self::Delivery,
        Self::Signature,
    ];

    /// The name on the wire and in the database.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Preflight => "preflight",
            Self::Trigger => "trigger",
            Self::Render => "render",
            Self::Save => "save",
            Self::Delivery => "delivery",
            Self::Signature => "signature",
        }
    }

    /// True if a dry run includes this phase.
    #[must_use]
    pub const fn runs_dry(self) -> bool {
        matches!(self, Self::Preflight | Self::Trigger | Self::Render)
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The error for a name that is not one of the six phases.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown phase {0:?}: preflight, trigger, render, save, delivery or signature")]
pub struct UnknownPhase(pub String);

impl FromStr for Phase {
    type Err = UnknownPhase;
    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|phase| phase.as_str() == name)
            .ok_or_else(|| UnknownPhase(name.to_owned()))
    }
}
