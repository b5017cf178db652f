//! Open signature requests and pending approvals, as lists show them.

use std::sync::Arc;

use docg_core::{
    ids::{ExecutionId, NodeId, SignatureRequestId, WorkflowId},
    run::Execution,
    signature::{self, SignatureRequest, SignerStatus},
    time::Timestamp,
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::openapi::names;

/// Declares the query of a list of open waits, with the only status that the list has.
macro_rules! waits_query {
    ($(#[$doc:meta])* $name:ident, $status:ty) => {
        $(#[$doc])*
        #[derive(Debug, Default, Deserialize, IntoParams)]
        #[serde(deny_unknown_fields)]
        #[into_params(parameter_in = Query)]
        pub(crate) struct $name {
            /// The only status that the list has.
            #[param(value_type = Option<$status>, inline)]
            #[serde(default)]
            pub(crate) status: Option<String>,
            /// The `next_cursor` of the previous page. It is valid only for the same list.
            #[serde(default)]
            pub(crate) cursor: Option<String>,
            /// The number of rows on a page.
            #[param(value_type = Option<u32>, minimum = 1, maximum = 100, default = 50)]
            #[serde(default)]
            pub(crate) limit: Option<String>,
        }
    };
}

waits_query! {
    /// The query of the list of open signature requests.
    SignaturesQuery, names::OpenSignature
}
waits_query! {
    /// The query of the list of pending approvals.
    ApprovalsQuery, names::PendingApproval
}

impl From<ApprovalsQuery> for SignaturesQuery {
    fn from(query: ApprovalsQuery) -> Self {
        Self {
            status: query.status,
            cursor: query.cursor,
            limit: query.limit,
        }
    }
}

/// Signature requests, newest execution first.
#[derive(Serialize, ToSchema)]
pub(crate) struct OpenSignatures {
    pub(crate) signatures: Vec<OpenSignature>,
    /// The cursor of the next page; null at the end.
    pub(crate) next_cursor: Option<String>,
    pub(crate) has_more: bool,
}

/// A signature request that is open.
#[derive(Serialize, ToSchema)]
pub(crate) struct OpenSignature {
    #[schema(value_type = Uuid)]
    id: SignatureRequestId,
    #[schema(value_type = Uuid)]
    execution_id: ExecutionId,
    /// The execution's title.
    #[schema(value_type = Option<String>)]
    title: Option<Arc<str>>,
    #[schema(value_type = Uuid)]
    workflow_id: WorkflowId,
    #[schema(value_type = names::SignatureStatus)]
    status: signature::RequestStatus,
    provider: String,
    /// When the wait began.
    #[schema(value_type = names::Timestamp)]
    since: Timestamp,
    /// When the request expires; null for never.
    #[schema(value_type = Option<names::Timestamp>)]
    until: Option<Timestamp>,
    /// The signers who have not signed.
    waiting_for: Vec<AwaitedSigner>,
}

/// A signer who has not signed.
#[derive(Serialize, ToSchema)]
struct AwaitedSigner {
    email: String,
    name: Option<String>,
    #[schema(value_type = names::SignerStatus)]
    status: SignerStatus,
}

pub(crate) fn open_signature(execution: &Execution, request: &SignatureRequest) -> OpenSignature {
    let awaited = request.signers.iter();
    let awaited = awaited.filter(|signer| signer.status != SignerStatus::Signed);
    let waiting = execution.waiting_for.as_ref();
    OpenSignature {
        id: request.id,
        execution_id: execution.id,
        title: execution.title.clone(),
        workflow_id: execution.workflow_id,
        status: request.status,
        provider: request.provider.clone(),
        since: waiting.map_or(request.created_at, |waiting| waiting.since),
        until: request.expires_at,
        waiting_for: awaited
            .map(|signer| AwaitedSigner {
                email: signer.email.clone(),
                name: signer.name.clone(),
                status: signer.status,
            })
            .collect(),
    }
}

/// Approvals, newest execution first.
#[derive(Serialize, ToSchema)]
pub(crate) struct OpenApprovals {
    pub(crate) approvals: Vec<OpenApproval>,
    /// The cursor of the next page; null at the end.
    pub(crate) next_cursor: Option<String>,
    pub(crate) has_more: bool,
}

/// An approval that is pending.
#[derive(Serialize, ToSchema)]
pub(crate) struct OpenApproval {
    id: Uuid,
    #[schema(value_type = Uuid)]
    execution_id: ExecutionId,
    /// The execution's title.
    #[schema(value_type = Option<String>)]
    title: Option<Arc<str>>,
    #[schema(value_type = Uuid)]
    workflow_id: WorkflowId,
    /// The node that asks.
    #[schema(value_type = Option<String>)]
    node_id: Option<NodeId>,
    /// The addresses of the people who are asked.
    approvers: Vec<String>,
    /// When the wait began.
    #[schema(value_type = names::Timestamp)]
    since: Timestamp,
    /// When the approval expires; null for never.
    #[schema(value_type = Option<names::Timestamp>)]
    until: Option<Timestamp>,
}

/// The pending approval of an execution; `None` if the execution does not wait.
pub(crate) fn open_approval(execution: &Execution, id: Uuid) -> Option<OpenApproval> {
    let waiting = execution.waiting_for.as_ref()?;
    let approvers = waiting.detail["approvers"].as_array();
    let approvers = approvers.into_iter().flatten();
    Some(OpenApproval {
        id,
        execution_id: execution.id,
        title: execution.title.clone(),
        workflow_id: execution.workflow_id,
        node_id: execution
            .current_step
            .as_ref()
            .map(|step| step.node_id.clone()),
        approvers: approvers
            .filter_map(|email| email.as_str().map(str::to_owned))
            .collect(),
        since: waiting.since,
        until: waiting.until,
    })
}
