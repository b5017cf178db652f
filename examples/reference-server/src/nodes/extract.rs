//! `extract`: gives names to values that later nodes need.

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

/// The node type.
pub(super) fn handler() -> Handler {
    let spec = NodeSpec::new("extract", Phase::Trigger)
        .param(ParamSpec::required("fields", ParamKind::Object))
        .outputs_of_param("fields");
    // Variables have been put in by now.
    compute(
        spec,
        |_context, params: Params| async move { Ok(params.fields) },
    )
}
