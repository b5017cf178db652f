use docg_core::workflow::Workflow;
use serde_json::{Value, json};

pub(crate) fn workflow(workflow: &Workflow) -> Value {
    // A definition that is stored has a JSON form.
    serde_json::to_value(workflow).unwrap_or_else(|_| json!({"id": workflow.id}))
}
