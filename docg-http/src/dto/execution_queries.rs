//! The queries of lists and counts of executions.

use serde::Deserialize;
use utoipa::IntoParams;

use crate::openapi::names;

/// Declares a query with the filters that lists and counts share, and further fields.
macro_rules! filters {
    ($(#[$doc:meta])* $name:ident { $($(#[$attribute:meta])* $field:ident,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Default, Deserialize, IntoParams)]
        #[serde(deny_unknown_fields)]
        #[into_params(parameter_in = Query)]
        pub(crate) struct $name {
            /// Only executions in one of these statuses, separated by commas.
            #[param(value_type = Option<Vec<names::Status>>, min_items = 1, style = Form, explode = false)]
            #[serde(default)]
            pub(crate) status: Option<String>,
            /// Only executions that wait for one of these, separated by commas.
            #[param(value_type = Option<Vec<names::WaitKind>>, min_items = 1, style = Form, explode = false)]
            #[serde(default)]
            pub(crate) waiting_for: Option<String>,
            /// Only executions created at this moment or later.
            #[param(value_type = Option<String>, format = DateTime)]
            #[serde(default)]
            pub(crate) created_from: Option<String>,
            /// Only executions created before this moment.
            #[param(value_type = Option<String>, format = DateTime)]
            #[serde(default)]
            pub(crate) created_to: Option<String>,
            /// Only executions with this correlation id.
            #[param(max_length = 128)]
            #[serde(default)]
            pub(crate) correlation_id: Option<String>,
            /// Only executions whose title has words that begin like these, or whose id or correlation id this is.
            #[param(max_length = 200)]
            #[serde(default)]
            pub(crate) q: Option<String>,
            $(
                $(#[$attribute])*
                #[serde(default)]
                pub(crate) $field: Option<String>,
            )*
        }
    };
}

filters! {
    /// The query of a list of executions.
    ExecutionsQuery {
        /// Only executions of this workflow.
        #[param(value_type = Option<uuid::Uuid>)]
        workflow_id,
        /// The order: by creation or by the last change; `-` for the latest first.
        #[param(value_type = Option<names::ExecutionOrder>, default = "-created_at")]
        sort,
        /// `summary` leaves out `trigger_data`, `preflight_summary` and `phase_metrics`.
        #[param(value_type = Option<names::View>, default = "full")]
        view,
        /// The `next_cursor` of the previous page. It is valid only for the same list with the same filters and
        /// order.
        cursor,
        /// The number of rows on a page.
        #[param(value_type = Option<u32>, minimum = 1, maximum = 100, default = 50)]
        limit,
    }
}

filters! {
    /// The query of a list of one workflow's executions.
    WorkflowExecutionsQuery {
        /// The order: by creation or by the last change; `-` for the latest first.
        #[param(value_type = Option<names::ExecutionOrder>, default = "-created_at")]
        sort,
        /// `summary` leaves out `trigger_data`, `preflight_summary` and `phase_metrics`.
        #[param(value_type = Option<names::View>, default = "full")]
        view,
        /// The `next_cursor` of the previous page. It is valid only for the same list with the same filters and
        /// order.
        cursor,
        /// The number of rows on a page.
        #[param(value_type = Option<u32>, minimum = 1, maximum = 100, default = 50)]
        limit,
    }
}

filters! {
    /// The query of a count of executions.
    CountsQuery {
        /// Only executions of this workflow.
        #[param(value_type = Option<uuid::Uuid>)]
        workflow_id,
    }
}

impl WorkflowExecutionsQuery {
    /// The same query of the list of all executions.
    pub(crate) fn of(self, workflow: uuid::Uuid) -> ExecutionsQuery {
        ExecutionsQuery {
            status: self.status,
            waiting_for: self.waiting_for,
            created_from: self.created_from,
            created_to: self.created_to,
            correlation_id: self.correlation_id,
            q: self.q,
            workflow_id: Some(workflow.to_string()),
            sort: self.sort,
            view: self.view,
            cursor: self.cursor,
            limit: self.limit,
        }
    }
}

impl From<CountsQuery> for ExecutionsQuery {
    fn from(query: CountsQuery) -> Self {
        Self {
            status: query.status,
            waiting_for: query.waiting_for,
            created_from: query.created_from,
            created_to: query.created_to,
            correlation_id: query.correlation_id,
            q: query.q,
            workflow_id: query.workflow_id,
            ..Self::default()
        }
    }
}

/// The names of the orders of a list of executions.
pub(crate) const SORTS: [&str; 4] = ["-created_at", "created_at", "-updated_at", "updated_at"];
/// The names of the views of a list of executions.
pub(crate) const VIEWS: [&str; 2] = ["full", "summary"];
