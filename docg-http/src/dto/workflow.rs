use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::openapi::wire;

/// An organization's workflows, newest first.
#[derive(Serialize, ToSchema)]
pub(crate) struct Workflows {
    #[schema(value_type = Vec<wire::Workflow>)]
    pub(crate) workflows: Vec<Value>,
    /// The cursor of the next page; null at the end.
    pub(crate) next_cursor: Option<String>,
    pub(crate) has_more: bool,
}
