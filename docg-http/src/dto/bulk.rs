//! The request and the answer of a call on many executions.

use docg_core::ids::ExecutionId;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::ExecutionsQuery;
use crate::openapi::names;

/// A call on many executions: those with these ids, or those that a filter selects. One of both is needed.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct BulkBody {
    /// The call.
    #[schema(required, value_type = BulkAction)]
    #[serde(default)]
    pub(crate) action: Option<BulkAction>,
    /// The executions, at most 1,000.
    #[schema(max_items = 1000)]
    #[serde(default)]
    pub(crate) ids: Option<Vec<Uuid>>,
    /// The executions that this filter selects, at most 1,000; with `ids`, those of them that it selects.
    #[serde(default)]
    pub(crate) filter: Option<BulkFilter>,
    /// The reason for a pause or a cancel, which the audit trail keeps.
    #[serde(default)]
    pub(crate) reason: Option<String>,
    /// True to change nothing, and to answer the same.
    #[serde(default)]
    pub(crate) dry_run: Option<bool>,
}

/// A call that can be made on many executions.
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum BulkAction {
    Cancel,
    Pause,
    Resume,
    Retry,
}

/// A filter of executions, as lists have it.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct BulkFilter {
    /// Only executions in one of these statuses.
    #[schema(value_type = Option<Vec<names::Status>>)]
    #[serde(default)]
    status: Option<Vec<String>>,
    /// Only executions that wait for one of these.
    #[schema(value_type = Option<Vec<names::WaitKind>>)]
    #[serde(default)]
    waiting_for: Option<Vec<String>>,
    /// Only executions of this workflow.
    #[serde(default)]
    workflow_id: Option<Uuid>,
    /// Only executions created at this moment or later.
    #[schema(value_type = Option<String>, format = DateTime)]
    #[serde(default)]
    created_from: Option<String>,
    /// Only executions created before this moment.
    #[schema(value_type = Option<String>, format = DateTime)]
    #[serde(default)]
    created_to: Option<String>,
    /// Only executions with this correlation id.
    #[serde(default)]
    correlation_id: Option<String>,
    /// Only executions whose title has words that begin like these, or whose id or correlation id this is.
    #[serde(default)]
    q: Option<String>,
}

impl From<BulkFilter> for ExecutionsQuery {
    fn from(filter: BulkFilter) -> Self {
        let joined = |names: Option<Vec<String>>| {
            let names = names.filter(|names| !names.is_empty());
            names.map(|names| names.join(","))
        };
        Self {
            status: joined(filter.status),
            waiting_for: joined(filter.waiting_for),
            workflow_id: filter.workflow_id.map(|id| id.to_string()),
            created_from: filter.created_from,
            created_to: filter.created_to,
            correlation_id: filter.correlation_id,
            q: filter.q,
            ..Self::default()
        }
    }
}

/// The result of a call on many executions.
#[derive(Serialize, ToSchema)]
pub(crate) struct Bulked {
    /// The number of executions that the call was for.
    pub(crate) matched: usize,
    /// The number of executions that took the call.
    pub(crate) applied: usize,
    /// The executions that refused the call.
    pub(crate) refused: Vec<Refused>,
}

/// An execution that refused a call.
#[derive(Serialize, ToSchema)]
pub(crate) struct Refused {
    #[schema(value_type = Uuid)]
    pub(crate) id: ExecutionId,
    /// Why: the code of the problem that the call on this execution alone would get, or of its first error.
    pub(crate) code: &'static str,
}
