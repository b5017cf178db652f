//! `extract`: a node type that gives values a name, by which later nodes refer to them.

use docg_core::{
    run::Phase,
    workflow::{Handler, NodeSpec, ParamKind, ParamSpec, compute},
};
use serde::Deserialize;
use serde_json::{Map, Value};

#[derive(Deserialize)]
struct Params {
    fields: Map<String, Value>,
}

/// The handler of the node type `extract`.
pub(super) fn handler() -> Handler {
    let spec = NodeSpec::new("extract", Phase::Trigger)
        .param(ParamSpec::required("fields", ParamKind::Object))
        .outputs_of_param("fields");
    // The engine has already replaced the variables in the fields by their values.
    compute(
        spec,
        |_context, params: Params| async move { Ok(params.fields) },
    )
}
