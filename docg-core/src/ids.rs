//! Newtypes for identifiers, and the sources of new ones.

use std::{borrow::Borrow, fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

macro_rules! uuid_newtype {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl $name {
            /// Creates a new UUIDv7 (RFC 9562), for callers outside the engine's pure core.
            #[must_use]
            #[allow(clippy::new_without_default, reason = "a default would hide that each call differs")]
            pub fn new() -> Self {
                Self(Uuid::now_v7())
            }
        }
        impl From<Uuid> for $name {
            fn from(id: Uuid) -> Self {
                Self(id)
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }
        impl FromStr for $name {
            type Err = uuid::Error;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Uuid::parse_str(text).map(Self)
            }
        }
    )+};
}

uuid_newtype! {
    /// An execution: one run of a workflow.
    ExecutionId,
    /// A workflow definition, unique within its organization.
    WorkflowId,
    /// An organization, which is a tenant of the application.
    OrganizationId,
    /// An event of an execution.
    EventId,
    /// A step of an execution.
    StepId,
    /// A log entry.
    LogId,
    /// A row of the audit trail.
    AuditId,
    /// A signal in an execution's inbox.
    SignalId,
    /// A signature request.
    SignatureRequestId,
    /// An approval request.
    ApprovalId,
    /// A worker that holds leases. A process uses a new worker id for each call that may lease executions.
    WorkerId,
}

/// The id of a node within its workflow. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NodeId(Arc<str>);

impl NodeId {
    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<T: Into<Arc<str>>> From<T> for NodeId {
    fn from(id: T) -> Self {
        Self(id.into())
    }
}

impl Borrow<str> for NodeId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl PartialEq<str> for NodeId {
    fn eq(&self, other: &str) -> bool {
        &*self.0 == other
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeId({})", self.0)
    }
}

/// The source of ids and random bytes for the engine's pure core, which has no randomness of its own.
pub trait IdSource: Send {
    /// Returns a new time-ordered id.
    fn next_id(&mut self) -> Uuid;
    /// Returns unguessable bytes, for salts.
    fn next_random(&mut self) -> Uuid;
}

/// Creates UUIDv7 and UUIDv4 from the operating system's randomness.
#[derive(Debug, Default, Clone, Copy)]
pub struct SystemIds;

impl IdSource for SystemIds {
    fn next_id(&mut self) -> Uuid {
        Uuid::now_v7()
    }
    fn next_random(&mut self) -> Uuid {
        Uuid::new_v4()
    }
}

/// Ids that count up from 1, so that a test gets the same ids in every run.
#[derive(Debug, Default, Clone)]
pub struct CountingIds(u128);

impl IdSource for CountingIds {
    fn next_id(&mut self) -> Uuid {
        self.0 += 1;
        Uuid::from_u128(self.0)
    }
    fn next_random(&mut self) -> Uuid {
        self.next_id()
    }
}
