use std::sync::Arc;

use docg_core::workflow::Workflow;
use serde::Serialize;
use utoipa::ToSchema;

use crate::openapi::wire;

/// An organization's workflows, oldest first.
#[derive(Serialize, ToSchema)]
pub(crate) struct Workflows {
    #[schema(value_type = Vec<wire::Workflow>)]
    pub(crate) workflows: Vec<Arc<Workflow>>,
    /// Gives the next page; null at the end.
    pub(crate) next_cursor: Option<String>,
    pub(crate) has_more: bool,
}
