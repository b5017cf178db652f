//! Node types for tests that wait, fail, panic or hang.

use std::time::Duration;

use docg_core::{
    error::StepFailure,
    run::Phase,
    workflow::{Handler, NodeSpec, ParamKind, ParamSpec, StepContext, compute},
};
use serde::Deserialize;
use serde_json::{Value, json};

#[derive(Deserialize)]
struct Delay {
    ms: u64,
}

/// `test-delay`: waits, and stops if it is cancelled.
pub(super) fn delay() -> Handler {
    let spec = NodeSpec::new("test-delay", Phase::Trigger)
        .any_phase()
        .param(ParamSpec::required("ms", ParamKind::Integer))
        .outputs(["ms"]);
    compute(spec, |context: StepContext, params: Delay| async move {
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(params.ms)) => Ok(json!({"ms": params.ms})),
            () = context.cancellation.cancelled() => Err(StepFailure::stopped()),
        }
    })
}

#[derive(Deserialize)]
struct Fail {
    times: u32,
    #[serde(default = "default_code")]
    code: String,
    #[serde(default = "default_retryable")]
    retryable: bool,
}

fn default_code() -> String {
    "test_failure".to_owned()
}

fn default_retryable() -> bool {
    true
}

/// `test-fail`: fails in the first `times` attempts.
pub(super) fn fail() -> Handler {
    let spec = NodeSpec::new("test-fail", Phase::Trigger)
        .any_phase()
        .param(ParamSpec::required("times", ParamKind::Integer))
        .param(ParamSpec::optional("code", ParamKind::Text))
        .param(ParamSpec::optional("retryable", ParamKind::Boolean))
        .outputs(["attempt"]);
    compute(spec, |context: StepContext, params: Fail| async move {
        if context.attempt > params.times {
            return Ok(json!({"attempt": context.attempt}));
        }
        let text = format!("Attempt {} fails, as it should.", context.attempt);
        Err(if params.retryable {
            StepFailure::retryable(params.code, text)
        } else {
            StepFailure::fatal(params.code, text)
        })
    })
}

#[derive(Deserialize)]
struct Nothing {}

/// `test-panic`: panics.
pub(super) fn panic() -> Handler {
    let spec = NodeSpec::new("test-panic", Phase::Trigger).any_phase();
    compute::<Nothing, Value, _, _>(spec, |_context, _params| async move {
        panic!("test-panic does what it is for")
    })
}

#[derive(Deserialize)]
struct Hang {
    #[serde(default)]
    ignore_cancel: bool,
}

/// `test-hang`: never ends by itself. With `ignore_cancel`, it also ignores a cancellation.
pub(super) fn hang() -> Handler {
    let spec = NodeSpec::new("test-hang", Phase::Trigger)
        .any_phase()
        .param(ParamSpec::optional("ignore_cancel", ParamKind::Boolean));
    compute::<Hang, Value, _, _>(spec, |context: StepContext, params: Hang| async move {
        if params.ignore_cancel {
            std::future::pending::<()>().await;
        }
        context.cancellation.cancelled().await;
        Err(StepFailure::stopped())
    })
}
