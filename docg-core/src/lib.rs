#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod actions;
pub mod address;
pub mod approval;
#[cfg(feature = "conformance")]
pub mod conformance;
pub mod engine;
pub mod error;
pub mod event;
pub mod i18n;
pub mod ids;
pub mod json;
pub mod limits;
pub mod observe;
pub mod ports;
pub mod preflight;
mod programs;
pub mod query;
pub mod repair;
pub mod run;
mod secrets;
pub mod signature;
pub mod storable;
pub mod time;
pub mod workflow;

pub mod prelude {
    //! The items that most programs that embed docg need.
    pub use crate::{
        engine::{Engine, StartRequest, WorkerOptions},
        error::{ErrorContext, StepFailure},
        ids::{ExecutionId, NodeId, OrganizationId, WorkflowId},
        observe::Actor,
        run::{Phase, Status},
        signature::{NewSignatureRequest, NewSigner, SignerFact},
        workflow::{
            EffectContext, Handler, NodeSpec, ParamKind, ParamSpec, Probe, StepContext,
            StepOutcome, StopReason, Wait, WorkflowDraft, compute, effect,
        },
    };
}
