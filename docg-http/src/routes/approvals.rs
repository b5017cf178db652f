//! Routes for approvers. The token in the path proves who the approver is; no other credentials are needed.

use axum::{
    extract::State,
    http::{HeaderMap, StatusCode},
    response::Response,
};
use docg_core::{
    approval::Decision,
    engine::{EngineError, VoteAnswer},
    i18n::Text,
};

use crate::{
    dto::{self, Approval, Comment, Keyed, SignalSent},
    extract::{Json, NoQuery, Token},
    idempotency::{self, answer},
    problem::Problem,
    router::AppState,
};

/// Reads an approval
#[utoipa::path(
    get,
    path = "/api/v1/approvals/{token}",
    operation_id = "getApproval",
    tag = "approvals",
    params(("token" = String, Path, description = "The token of the approver's link.")),
    responses(
        (status = 200, description = "What is to be decided, and what has been.", body = Approval),
    ),
)]
pub(crate) async fn get(
    State(state): State<AppState>,
    Token(token): Token,
    _: NoQuery,
) -> Result<Response, Problem> {
    let open = state.engine.approval(&token).await.map_err(refused)?;
    Ok(answer(StatusCode::OK, &dto::json(&dto::approval(&open))))
}

/// Approves, in the name of the approver to whom the token belongs
#[utoipa::path(
    post,
    path = "/api/v1/approvals/{token}/approve",
    operation_id = "approve",
    tag = "approvals",
    params(("token" = String, Path, description = "The token of the approver's link."), Keyed),
    request_body = Option<Comment>,
    responses(
        (status = 200, description = "The vote counts.", body = Approval),
        (status = 202, description = "Passed on to the process that has the execution at hand.", body = SignalSent),
        (status = 409),
    ),
)]
pub(crate) async fn approve(
    State(state): State<AppState>,
    Token(token): Token,
    _: NoQuery,
    headers: HeaderMap,
    body: Json<Comment>,
) -> Result<Response, Problem> {
    vote(state, token, Decision::Approved, headers, body).await
}

/// Rejects, in the name of the approver to whom the token belongs
#[utoipa::path(
    post,
    path = "/api/v1/approvals/{token}/reject",
    operation_id = "reject",
    tag = "approvals",
    params(("token" = String, Path, description = "The token of the approver's link."), Keyed),
    request_body = Option<Comment>,
    responses(
        (status = 200, description = "The vote counts.", body = Approval),
        (status = 202, description = "Passed on to the process that has the execution at hand.", body = SignalSent),
        (status = 409),
    ),
)]
pub(crate) async fn reject(
    State(state): State<AppState>,
    Token(token): Token,
    _: NoQuery,
    headers: HeaderMap,
    body: Json<Comment>,
) -> Result<Response, Problem> {
    vote(state, token, Decision::Rejected, headers, body).await
}

/// Converts an error. Invitations are sent before the approval is stored, so that no invitation can be
/// missing. A link that is opened too early is therefore not found yet, and the text says so.
fn refused(error: EngineError) -> Problem {
    match error {
        EngineError::NotFound(_) => Problem::not_found().detail(Text::key("problem-no-approval")),
        other => other.into(),
    }
}

async fn vote(
    state: AppState,
    token: String,
    decision: Decision,
    headers: HeaderMap,
    body: Json<Comment>,
) -> Result<Response, Problem> {
    let route = match decision {
        Decision::Approved => "approve",
        Decision::Rejected => "reject",
    };
    let key = idempotency::of(&headers, route, &body.sent)?;
    let (inner, owner) = (state.clone(), token.clone());
    let call = async move {
        let voted = inner.engine.vote(&token, decision, body.value.comment);
        Ok(match voted.await.map_err(refused)? {
            VoteAnswer::Counted(open) => (StatusCode::OK, dto::json(&dto::approval(&open))),
            VoteAnswer::Pending => (StatusCode::ACCEPTED, dto::json(&dto::SIGNAL_SENT)),
        })
    };
    idempotency::once_for_token(&state, &owner, key, call).await
}
