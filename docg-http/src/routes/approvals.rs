//! What approvers do. The token in the path is their proof: these routes take no credentials.

use axum::{
    extract::State,
    http::{HeaderMap, StatusCode},
    response::Response,
};
use docg_core::{approval::Decision, engine::VoteAnswer};
use serde_json::json;

use crate::{
    dto::{self, Comment},
    extract::{Json, NoQuery, Token},
    idempotency::{self, answer},
    problem::Problem,
    router::AppState,
};

/// What is to be decided, and what has been.
pub(crate) async fn get(
    State(state): State<AppState>,
    Token(token): Token,
    _: NoQuery,
) -> Result<Response, Problem> {
    let open = state.engine.approval(&token).await?;
    Ok(answer(StatusCode::OK, &dto::approval(&open)))
}

/// Approves, in the name of the approver whose token it is.
pub(crate) async fn approve(
    State(state): State<AppState>,
    Token(token): Token,
    _: NoQuery,
    headers: HeaderMap,
    body: Json<Comment>,
) -> Result<Response, Problem> {
    vote(state, token, Decision::Approved, headers, body).await
}

/// Refuses, in the name of the approver whose token it is.
pub(crate) async fn reject(
    State(state): State<AppState>,
    Token(token): Token,
    _: NoQuery,
    headers: HeaderMap,
    body: Json<Comment>,
) -> Result<Response, Problem> {
    vote(state, token, Decision::Rejected, headers, body).await
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
        Ok(match voted.await? {
            VoteAnswer::Counted(open) => (StatusCode::OK, dto::approval(&open)),
            VoteAnswer::Sent => (StatusCode::ACCEPTED, json!({"status": "signal_sent"})),
        })
    };
    idempotency::once_for_token(&state, &owner, key, call).await
}
