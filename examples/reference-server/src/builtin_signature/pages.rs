//! The signers' pages. They work without scripts and load nothing from other sites. The token in the link is
//! the only credential: there is no cookie that a form on another site could use.

use std::fmt;

use axum::{
    Router,
    extract::{DefaultBodyLimit, Request, State},
    http::{HeaderMap, Method, StatusCode, header},
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use docg_core::{
    address::person_name, engine::EngineError, signature::RequestStatus, storable::one_line,
    time::Timestamp,
};
use minijinja::{Value, context, value::Serde};
use serde::{Deserialize, Serialize};

use super::{
    Desk,
    envelope::{Decision, DecisionKind, Decisions, Envelope},
    link::SignerRef,
    texts::{Notice, Words},
};
use crate::{
    charset::{Form, Unreadable},
    files::FilesError,
    html::{self, Token, common_headers, moment},
};

const MAX_FORM: usize = 16 * 1024;
const MAX_REASON: usize = 1000;

const PAGE_POLICY: &str = "default-src 'none'; style-src 'self'; frame-src 'self'; \
    form-action 'self'; base-uri 'none'; frame-ancestors 'none'";
/// The content security policy of the document. Only the signing page may show the document in a frame.
/// Nothing else is restricted: browsers wrap a PDF in their own viewer, which a stricter policy could block.
const DOCUMENT_POLICY: &str = "frame-ancestors 'self'";

/// The routes of the signers' pages, relative to the public URL.
pub fn routes(desk: Desk) -> Router {
    Router::new()
        .route("/sign/assets/style.css", get(style))
        .route("/sign/{token}", get(page).post(sign))
        .route("/sign/{token}/decline", post(decline))
        .route("/sign/{token}/document.pdf", get(document))
        .layer(DefaultBodyLimit::max(MAX_FORM))
        .with_state(desk)
}

/// Turns every error under the pages' paths into a page, also errors from outside the handlers: an unknown
/// path, a body that is too large, a panic. The error for a wrong method becomes a page only for browsers,
/// because the pages' own forms never cause it.
pub fn with_error_pages(app: Router, desk: Desk) -> Router {
    app.layer(from_fn_with_state(desk, error_page))
}

async fn error_page(State(desk): State<Desk>, request: Request, next: Next) -> Response {
    let first = request.uri().path().split('/').nth(1);
    let is_page = matches!(first, Some("sign" | "approvals"));
    let words = words(request.headers());
    let is_browser = html::is_asked_for(request.headers());
    let response = next.run(request).await;
    let status = response.status();
    let is_error = status.is_client_error() || status.is_server_error();
    let is_for_program = status == StatusCode::METHOD_NOT_ALLOWED && !is_browser;
    if !is_page || !is_error || is_for_program || html::is_page(&response) {
        return response;
    }
    let told = if status.is_server_error() {
        Notice::Broken
    } else {
        Notice::NotFound
    };
    let mut page = notice(&desk, words, status, told);
    for name in [header::ALLOW, header::RETRY_AFTER] {
        if let Some(value) = response.headers().get(&name) {
            page.headers_mut().insert(name, value.clone());
        }
    }
    page
}

#[derive(Debug, Deserialize)]
struct SignForm {
    #[serde(default)]
    name: String,
    #[serde(default)]
    consent: String,
}

#[derive(Debug, Deserialize)]
struct DeclineForm {
    #[serde(default)]
    reason: String,
}

/// The state of a signer's link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    Open,
    NotYourTurn,
    /// Some signers are not invited yet. The list of signers may still be corrected, so nobody can decide.
    Preparing,
    Signed,
    Complete,
    DeclinedByYou,
    Declined,
    Expired,
    Canceled,
}

impl Standing {
    fn notice(self) -> Option<Notice> {
        match self {
            Self::Open => None,
            Self::NotYourTurn => Some(Notice::NotYourTurn),
            Self::Preparing => Some(Notice::Preparing),
            Self::Signed => Some(Notice::Signed),
            Self::Complete => Some(Notice::Complete),
            Self::DeclinedByYou => Some(Notice::DeclinedByYou),
            Self::Declined => Some(Notice::Declined),
            Self::Expired => Some(Notice::Expired),
            Self::Canceled => Some(Notice::Canceled),
        }
    }

    /// True if the request has ended, so that its document is no longer shown.
    fn is_over(self) -> bool {
        match self {
            Self::Open | Self::NotYourTurn | Self::Preparing | Self::Signed => false,
            Self::Complete
            | Self::DeclinedByYou
            | Self::Declined
            | Self::Expired
            | Self::Canceled => true,
        }
    }

    fn status(self) -> StatusCode {
        if self.is_over() {
            StatusCode::GONE
        } else {
            StatusCode::OK
        }
    }
}

/// A valid link that was opened.
struct Opened {
    desk: Desk,
    token: String,
    signer: SignerRef,
    envelope: Envelope,
    decisions: Decisions,
    standing: Standing,
    words: &'static Words,
}

/// The reason why a link does not open.
enum Closed {
    NotFound,
    /// The signer was removed from the request after the invitation.
    Withdrawn,
    Broken(String),
}

impl From<FilesError> for Closed {
    fn from(error: FilesError) -> Self {
        Self::Broken(error.to_string())
    }
}

impl From<EngineError> for Closed {
    fn from(error: EngineError) -> Self {
        Self::Broken(error.to_string())
    }
}

impl Opened {
    async fn new(desk: &Desk, token: String, words: &'static Words) -> Result<Self, Response> {
        match Self::find(desk, token, words).await {
            Ok(opened) => Ok(opened),
            Err(Closed::NotFound) => {
                Err(notice(desk, words, StatusCode::NOT_FOUND, Notice::NotFound))
            }
            Err(Closed::Withdrawn) => Err(notice(desk, words, StatusCode::GONE, Notice::Canceled)),
            Err(Closed::Broken(error)) => Err(broken(desk, words, &error)),
        }
    }

    async fn find(desk: &Desk, token: String, words: &'static Words) -> Result<Self, Closed> {
        let signer = SignerRef::from_token(&token, &desk.0.secret).ok_or(Closed::NotFound)?;
        let envelope = desk
            .envelope(&signer.envelope)
            .await?
            .ok_or(Closed::NotFound)?;
        if envelope.signer(&signer).is_none() {
            return Err(Closed::Withdrawn);
        }
        let decisions = desk.decisions(&envelope).await?;
        let status = desk.request_status(&envelope).await?;
        let standing = standing(&envelope, &signer, &decisions, status);
        let desk = desk.clone();
        Ok(Self {
            desk,
            token,
            signer,
            envelope,
            decisions,
            standing,
            words,
        })
    }

    /// Renders the page in its current state, with an error of the form if there is one.
    fn page(&self, status: StatusCode, typed: &str, error: Option<&str>) -> Response {
        self.render(status, self.standing.notice(), typed, error)
    }

    fn render(
        &self,
        status: StatusCode,
        notice: Option<Notice>,
        typed: &str,
        error: Option<&str>,
    ) -> Response {
        #[derive(Serialize)]
        struct Line<'p> {
            name: &'p str,
            signed: bool,
        }
        let lines: Vec<_> = self
            .envelope
            .signers
            .iter()
            .map(|signer| Line {
                name: signer.name.as_deref().unwrap_or(&signer.email),
                signed: self
                    .decisions
                    .of(&self.envelope, &signer.email)
                    .is_some_and(|decision| decision.kind == DecisionKind::Signed),
            })
            .collect();
        let over = self.standing.is_over();
        let form = (self.standing == Standing::Open).then(|| context! { name => typed });
        respond(
            status,
            context! {
                base => base(&self.desk),
                words => Value::from(Serde(self.words)),
                notice => notice.map(|notice| self.words.notice(notice).to_vec()),
                token => self.token.as_str(),
                document => (!over).then(|| Value::from(Serde(&self.envelope.document))),
                title => self.envelope.document.title(),
                message => self.envelope.message.as_deref(),
                until => self.envelope.expires_at.map(moment),
                signers => Value::from(Serde(lines)),
                form => form,
                error => error,
            },
        )
    }

    /// Records a signer's decision, and returns the page that shows the result.
    async fn decide(mut self, decision: Decision) -> Response {
        let kind = decision.kind;
        let recorded = async {
            // Write the outbox entry first, so that no recorded decision is left unreported.
            self.desk.announce_decision(&self.signer, kind).await?;
            self.desk.decide(&self.signer, &decision).await
        };
        match recorded.await {
            Ok(true) => {
                self.desk.wake_outbox();
                let (standing, notice) = match kind {
                    DecisionKind::Signed => (Standing::Signed, Notice::Thanks),
                    DecisionKind::Declined => (Standing::DeclinedByYou, Notice::DeclinedByYou),
                };
                self.standing = standing;
                if let Ok(decisions) = self.desk.decisions(&self.envelope).await {
                    self.decisions = decisions;
                }
                self.render(StatusCode::OK, Some(notice), "", None)
            }
            // An earlier click of this signer was recorded, perhaps on the other button.
            Ok(false) => match Self::new(&self.desk, self.token, self.words).await {
                Ok(now) => now
                    .refusal()
                    .unwrap_or_else(|| now.page(StatusCode::CONFLICT, "", None)),
                Err(closed) => closed,
            },
            Err(error) => broken(&self.desk, self.words, &error),
        }
    }

    /// The response to a signer who cannot decide now. `None` if they can.
    fn refusal(&self) -> Option<Response> {
        let (status, told) = match self.standing {
            Standing::Open => return None,
            Standing::Signed => (StatusCode::CONFLICT, Notice::AlreadySigned),
            Standing::NotYourTurn => (StatusCode::CONFLICT, Notice::NotYourTurn),
            Standing::Preparing => (StatusCode::CONFLICT, Notice::Preparing),
            over => (StatusCode::GONE, over.notice().unwrap_or(Notice::Broken)),
        };
        Some(notice(&self.desk, self.words, status, told))
    }
}

fn standing(
    envelope: &Envelope,
    signer: &SignerRef,
    decisions: &Decisions,
    status: Option<RequestStatus>,
) -> Standing {
    let person = envelope.signer(signer);
    let own = person.and_then(|person| decisions.of(envelope, &person.email));
    let own = own.map(|decision| decision.kind);
    if own == Some(DecisionKind::Declined) {
        return Standing::DeclinedByYou;
    }
    if decisions.any_declined() || status == Some(RequestStatus::Declined) {
        return Standing::Declined;
    }
    if decisions.all_signed(envelope) || status == Some(RequestStatus::Signed) {
        return Standing::Complete;
    }
    if status == Some(RequestStatus::Canceled) {
        return Standing::Canceled;
    }
    if status == Some(RequestStatus::Expired) || envelope.is_expired(Timestamp::now()) {
        return Standing::Expired;
    }
    if own == Some(DecisionKind::Signed) {
        return Standing::Signed;
    }
    if status.is_none() && !envelope.invited {
        return Standing::Preparing;
    }
    let due = envelope.due(decisions);
    if due
        .iter()
        .any(|due| SignerRef::new(&envelope.id, &due.email) == *signer)
    {
        Standing::Open
    } else {
        Standing::NotYourTurn
    }
}

async fn page(
    State(desk): State<Desk>,
    Token(token): Token,
    method: Method,
    headers: HeaderMap,
) -> Response {
    let opened = match Opened::new(&desk, token, words(&headers)).await {
        Ok(opened) => opened,
        Err(closed) => return closed,
    };
    // A HEAD request is no view: it shows nothing.
    if opened.standing == Standing::Open && method == Method::GET {
        let looked = async {
            if desk.viewed_at(&opened.signer).await?.is_none() {
                desk.announce_view(&opened.signer).await?;
                desk.view(&opened.signer, Timestamp::now()).await?;
                desk.wake_outbox();
            }
            Ok::<_, FilesError>(())
        };
        // If the view cannot be recorded, the signer can sign all the same.
        if let Err(e) = looked.await {
            tracing::warn!("that a signer has seen the document was not noted: {e}");
        }
    }
    opened.page(opened.standing.status(), "", None)
}

async fn sign(
    State(desk): State<Desk>,
    Token(token): Token,
    headers: HeaderMap,
    form: Result<Form<SignForm>, Unreadable>,
) -> Response {
    let opened = match Opened::new(&desk, token, words(&headers)).await {
        Ok(opened) => opened,
        Err(closed) => return closed,
    };
    if let Some(refusal) = opened.refusal() {
        return refusal;
    }
    let form = match form {
        Ok(Form(form)) => form,
        Err(Unreadable(status)) => {
            let error = opened.words.unreadable_form();
            return opened.page(status, "", Some(error));
        }
    };
    let name = match person_name(&form.name) {
        Ok(name) => name,
        Err(fault) => {
            let error = opened.words.name_fault(fault);
            // Show the typed name again in the form, as far as it can be shown.
            let typed = one_line(&form.name, usize::MAX);
            return opened.page(StatusCode::UNPROCESSABLE_ENTITY, &typed, Some(error));
        }
    };
    if form.consent != "yes" {
        let error = opened.words.consent_missing();
        return opened.page(StatusCode::UNPROCESSABLE_ENTITY, &name, Some(error));
    }
    let decision = Decision {
        kind: DecisionKind::Signed,
        at: Timestamp::now(),
        name: Some(name),
        reason: None,
    };
    opened.decide(decision).await
}

async fn decline(
    State(desk): State<Desk>,
    Token(token): Token,
    headers: HeaderMap,
    form: Result<Form<DeclineForm>, Unreadable>,
) -> Response {
    let opened = match Opened::new(&desk, token, words(&headers)).await {
        Ok(opened) => opened,
        Err(closed) => return closed,
    };
    if let Some(refusal) = opened.refusal() {
        return refusal;
    }
    let form = match form {
        Ok(Form(form)) => form,
        Err(Unreadable(status)) => {
            let error = opened.words.unreadable_form();
            return opened.page(status, "", Some(error));
        }
    };
    let reason = one_line(&form.reason, usize::MAX);
    if reason.chars().count() > MAX_REASON {
        let error = opened.words.too_long();
        return opened.page(StatusCode::UNPROCESSABLE_ENTITY, "", Some(error));
    }
    let decision = Decision {
        kind: DecisionKind::Declined,
        at: Timestamp::now(),
        name: None,
        reason: (!reason.is_empty()).then_some(reason),
    };
    opened.decide(decision).await
}

async fn document(State(desk): State<Desk>, Token(token): Token, headers: HeaderMap) -> Response {
    let opened = match Opened::new(&desk, token, words(&headers)).await {
        Ok(opened) => opened,
        Err(closed) => return closed,
    };
    if opened.standing.is_over() {
        return opened.page(StatusCode::GONE, "", None);
    }
    let (organization, document) = (opened.envelope.organization_id, &opened.envelope.document);
    match desk.0.files.read_document(organization, document).await {
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
        Err(error) => broken(&desk, opened.words, &error),
    }
}

async fn style() -> Response {
    let headers = [
        (header::CONTENT_TYPE, "text/css; charset=utf-8"),
        (header::CACHE_CONTROL, "public, max-age=3600"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (headers, include_str!("style.css")).into_response()
}

fn notice(desk: &Desk, words: &'static Words, status: StatusCode, notice: Notice) -> Response {
    let notice = words.notice(notice).to_vec();
    let words = Value::from(Serde(words));
    respond(
        status,
        context! { base => base(desk), words => words, notice => notice },
    )
}

fn broken(desk: &Desk, words: &'static Words, error: &impl fmt::Display) -> Response {
    tracing::error!("a signing page could not be shown: {error}");
    notice(desk, words, StatusCode::SERVICE_UNAVAILABLE, Notice::Broken)
}

fn respond(status: StatusCode, values: Value) -> Response {
    html::page(status, PAGE_POLICY, include_str!("page.html"), values)
}

fn base(desk: &Desk) -> Value {
    html::base(&desk.0.public_url)
}

fn words(headers: &HeaderMap) -> &'static Words {
    Words::of(html::locale(headers))
}
