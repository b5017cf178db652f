//! The model of executions: pure data and the rules over it. No async, no I/O, no clock.

mod awaited;
mod execution;
mod phase;
mod reason;
mod status;
mod step;

pub use awaited::{Awaited, AwaitedThing, KeptEvent};
pub use execution::{
    CurrentStep, DeliveryState, Execution, Heads, Inputs, PhaseMetrics, PhaseTimes, SignatureState,
    WaitKind, WaitingFor,
};
pub use phase::{Phase, UnknownPhase};
pub use status::{InvalidTransition, Status, TRANSITIONS, UnknownStatus, state_diagram};
pub use step::{Activity, Doubt, Outcome, Step, StepState, StepStatus};

#[cfg(test)]
mod tests;
