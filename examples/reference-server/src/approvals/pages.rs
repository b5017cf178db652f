//! The approvers' pages. They work without scripts and load nothing from other sites. The token in the link
//! is the only credential: there is no cookie that a form on another site could use.

use axum::{
    Router,
    extract::{DefaultBodyLimit, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use docg_core::{
    approval::{ApprovalStatus, Decision},
    engine::{EngineError, OpenApproval, VoteAnswer},
};
use minijinja::{Value, context, value::Serde};
use serde::{Deserialize, Serialize};

use super::{
    Approvals,
    texts::{Notice, Words, notice},
};
use crate::{
    charset::{Form, Unreadable},
    files::Document,
    html::{self, Token, common_headers, moment},
};

/// The largest form, in bytes: a comment of 2000 characters, each in its longest encoding.
const MAX_FORM: usize = 32 * 1024;

const PAGE_POLICY: &str = "default-src 'none'; style-src 'self'; form-action 'self'; \
    base-uri 'none'; frame-ancestors 'none'";

/// The content security policy of the document. It only forbids frames: browsers wrap a PDF in a viewer of
/// their own, which a stricter policy could block.
const DOCUMENT_POLICY: &str = "frame-ancestors 'none'";

/// The routes of the approvers' pages, relative to the public URL.
pub fn routes(approvals: Approvals) -> Router {
    Router::new()
        .route("/approvals/{token}", get(page))
        .route("/approvals/{token}/approve", post(approve))
        .route("/approvals/{token}/reject", post(reject))
        .route("/approvals/{token}/document.pdf", get(document))
        .layer(DefaultBodyLimit::max(MAX_FORM))
        .with_state(approvals)
}

#[derive(Debug, Deserialize)]
struct DecisionForm {
    #[serde(default)]
    comment: String,
}

/// A request to a page: the link's token and the visitor's language.
struct Visit {
    approvals: Approvals,
    token: String,
    words: &'static Words,
}

impl Visit {
    fn new(approvals: Approvals, token: String, headers: &HeaderMap) -> Self {
        Self {
            approvals,
            token,
            words: Words::of(html::locale(headers)),
        }
    }

    async fn open(&self) -> Result<OpenApproval, Response> {
        let opened = async { self.approvals.engine()?.approval(&self.token).await };
        let open = opened.await.map_err(|e| self.closed(&e))?;
        if open.approval.unreadable {
            tracing::error!("the approval {} cannot be read", open.approval.id);
            return Err(self.bare(StatusCode::SERVICE_UNAVAILABLE, notice(self.words.broken)));
        }
        Ok(open)
    }

    /// The page for a link that does not open.
    fn closed(&self, error: &EngineError) -> Response {
        if matches!(error, EngineError::NotFound(_)) {
            return self.bare(StatusCode::NOT_FOUND, notice(self.words.not_found));
        }
        tracing::error!("the page of an approval could not be shown: {error}");
        self.bare(StatusCode::SERVICE_UNAVAILABLE, notice(self.words.broken))
    }

    /// A page that shows only a notice.
    fn bare(&self, status: StatusCode, notice: Notice) -> Response {
        self.respond(status, context! { notice => notice.to_vec() })
    }

    /// The page of an approval, with a notice or an error if there is one.
    async fn page(
        &self,
        status: StatusCode,
        open: &OpenApproval,
        said: Option<Notice>,
        error: Option<&str>,
    ) -> Response {
        #[derive(Serialize)]
        struct Line<'p> {
            email: &'p str,
            answer: &'p str,
            at: Option<String>,
            comment: Option<&'p str>,
        }
        let approval = &open.approval;
        let lines: Vec<_> = approval
            .approvers
            .iter()
            .map(|approver| Line {
                email: &approver.email,
                answer: self.words.answer(approver.vote),
                at: approver.voted_at.map(moment),
                comment: approver.comment.as_deref(),
            })
            .collect();
        let own = approval
            .approvers
            .iter()
            .find(|approver| approver.email == open.approver);
        let own_vote = own.and_then(|own| own.vote);
        let pending = open.status == ApprovalStatus::Pending;
        let standing = || self.words.standing(approval, open.status, own_vote);
        let document = if pending {
            let (organization, execution) = (approval.organization_id, approval.execution_id);
            self.approvals
                .document(organization, execution, &approval.node_id)
                .await
        } else {
            None
        };
        let values = context! {
            notice => said.or_else(standing).map(|notice| notice.to_vec()),
            token => self.token.as_str(),
            workflow => open.workflow_name.as_str(),
            message => approval.message.as_deref(),
            until => approval.expires_at.filter(|_| pending).map(moment),
            document => document.as_ref().map(Document::title),
            quorum => approval.quorum,
            approvers => Value::from(Serde(lines)),
            form => pending && own_vote.is_none(),
            error => error,
        };
        self.respond(status, values)
    }

    fn respond(&self, status: StatusCode, values: Value) -> Response {
        let shared = context! {
            base => html::base(&self.approvals.0.public_url),
            words => Value::from(Serde(self.words)),
        };
        let values = context! { ..values, ..shared };
        html::page(status, PAGE_POLICY, include_str!("page.html"), values)
    }

    async fn vote(
        &self,
        decision: Decision,
        form: Result<Form<DecisionForm>, Unreadable>,
    ) -> Response {
        let comment = match form {
            // Browsers send CRLF as the line end in forms.
            Ok(Form(form)) => form.comment.replace("\r\n", "\n"),
            Err(Unreadable(status)) => {
                return match self.open().await {
                    Ok(open) => {
                        self.page(status, &open, None, Some(self.words.unreadable_form))
                            .await
                    }
                    Err(closed) => closed,
                };
            }
        };
        let voted = async {
            let engine = self.approvals.engine()?;
            engine.vote(&self.token, decision, Some(comment)).await
        };
        match voted.await {
            Ok(VoteAnswer::Counted(open)) => self.page(StatusCode::OK, &open, None, None).await,
            Ok(VoteAnswer::Pending) => self.bare(StatusCode::ACCEPTED, notice(self.words.sent)),
            Err(EngineError::VoteRefused(refusal)) => {
                let said = self.words.refused(refusal.reason, &refusal.approval);
                match self.open().await {
                    Ok(open) => {
                        self.page(StatusCode::CONFLICT, &open, Some(said), None)
                            .await
                    }
                    Err(closed) => closed,
                }
            }
            Err(EngineError::InvalidInput(faults)) => match self.open().await {
                Ok(open) => {
                    let is_long = faults.iter().any(|fault| fault.code == "too_long");
                    let error = Some(match is_long {
                        true => self.words.comment_too_long,
                        false => self.words.comment_unfit,
                    });
                    self.page(StatusCode::UNPROCESSABLE_ENTITY, &open, None, error)
                        .await
                }
                Err(closed) => closed,
            },
            Err(error) => self.closed(&error),
        }
    }
}

async fn page(
    State(approvals): State<Approvals>,
    Token(token): Token,
    headers: HeaderMap,
) -> Response {
    let visit = Visit::new(approvals, token, &headers);
    match visit.open().await {
        Ok(open) => visit.page(StatusCode::OK, &open, None, None).await,
        Err(closed) => closed,
    }
}

async fn approve(
    State(approvals): State<Approvals>,
    Token(token): Token,
    headers: HeaderMap,
    form: Result<Form<DecisionForm>, Unreadable>,
) -> Response {
    let visit = Visit::new(approvals, token, &headers);
    visit.vote(Decision::Approved, form).await
}

async fn reject(
    State(approvals): State<Approvals>,
    Token(token): Token,
    headers: HeaderMap,
    form: Result<Form<DecisionForm>, Unreadable>,
) -> Response {
    let visit = Visit::new(approvals, token, &headers);
    visit.vote(Decision::Rejected, form).await
}

/// Serves the document to approve, as long as the decision is pending.
async fn document(
    State(approvals): State<Approvals>,
    Token(token): Token,
    headers: HeaderMap,
) -> Response {
    let visit = Visit::new(approvals, token, &headers);
    let open = match visit.open().await {
        Ok(open) => open,
        Err(closed) => return closed,
    };
    if open.status != ApprovalStatus::Pending {
        return visit.page(StatusCode::GONE, &open, None, None).await;
    }
    let approval = &open.approval;
    let organization = approval.organization_id;
    let found = visit
        .approvals
        .document(organization, approval.execution_id, &approval.node_id);
    let Some(document) = found.await else {
        return visit.bare(StatusCode::NOT_FOUND, notice(visit.words.not_found));
    };
    let files = &visit.approvals.0.files;
    match files.read_document(organization, &document).await {
        Ok(content) => {
            let headers = [
                (header::CONTENT_TYPE, "application/pdf".to_owned()),
                (
                    header::CONTENT_DISPOSITION,
                    crate::downloads::disposition("inline", &document.filename),
                ),
                (header::CONTENT_SECURITY_POLICY, DOCUMENT_POLICY.to_owned()),
            ];
            (common_headers(), headers, content).into_response()
        }
        Err(error) => {
            tracing::error!("the document of an approval could not be read: {error}");
            visit.bare(StatusCode::SERVICE_UNAVAILABLE, notice(visit.words.broken))
        }
    }
}
