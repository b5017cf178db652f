//! Workflows, and the handlers that an application writes to run their nodes.
//!
//! - [`definition`]: the data of a workflow
//! - [`variables`] and [`condition`]: the expressions in parameters and conditions
//! - [`spec`]: the declaration of a node type
//! - [`handler`]: the traits that do the work
//! - [`context`]: the context of a handler's call
//! - [`func`]: handlers made of async functions
//! - [`waits`]: ready node types that wait
//! - [`validate`]: the checks before a definition is stored

pub(crate) mod answer;
pub mod condition;
pub mod context;
pub mod definition;
pub mod func;
pub mod handler;
pub(crate) mod param;
pub mod registry;
pub(crate) mod size;
pub mod spec;
pub(crate) mod title;
pub mod validate;
pub mod variables;
pub mod waits;

pub use context::{EffectContext, StepContext, StopReason, wait_for_place};
pub use definition::{Node, NodeDraft, OnError, RetryPolicy, Settings, Workflow, WorkflowDraft};
pub use func::{compute, effect, read_params};
pub use handler::{ComputeHandler, EffectHandler, Handler, Probe, Resolution, StepOutcome, Wait};
#[cfg(feature = "mock")]
pub use handler::{MockComputeHandler, MockEffectHandler};
pub use registry::{DryRegistry, Registry};
pub use spec::{EffectClass, NodeSpec, Outputs, ParamKind, ParamSpec};
pub use title::MAX_TITLE;
