//! What a workflow is, and what an application writes to run its nodes.
//!
//! [`definition`] is the data, [`variables`] and [`condition`] what its parameters may say,
//! [`spec`] what a node type declares, [`handler`] the traits that do the work, [`context`] what
//! they are given, [`func`] how an async function becomes a handler, [`validate`] what is checked
//! before a definition is stored.

pub mod condition;
pub mod context;
pub mod definition;
pub mod func;
pub mod handler;
pub(crate) mod param;
pub mod registry;
pub(crate) mod size;
pub mod spec;
pub mod validate;
pub mod variables;

pub use context::{EffectContext, StepContext, StopReason, wait_for_place};
pub use definition::{Node, NodeDraft, OnError, RetryPolicy, Settings, Workflow, WorkflowDraft};
pub use func::{compute, effect, read_params};
pub use handler::{ComputeHandler, EffectHandler, Handler, Probe, Resolution, StepOutcome, Wait};
#[cfg(feature = "mock")]
pub use handler::{MockComputeHandler, MockEffectHandler};
pub use registry::{DryRegistry, Registry};
pub use spec::{EffectClass, NodeSpec, Outputs, ParamKind, ParamSpec};
