//! Errors as RFC 9457 problem details.
//!
//! A handler returns a [`Problem`]; the outermost layer renders it with the request's language and
//! correlation id. The layer also turns refusals of the web framework into problems.

use axum::{
    body::Body,
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use docg_core::{
    engine::{Command, EngineError, VoteRefusal},
    error::FieldFault,
    i18n::{Locale, Text},
    ports::StoreErrorKind,
    run::Status,
};
use serde_json::{Map, Value, json};

/// An error as clients see it.
#[derive(Debug, Clone)]
pub struct Problem {
    status: StatusCode,
    code: &'static str,
    /// A detail text that replaces the text that [`WORDS`] has for the code.
    detail: Option<Box<Text>>,
    errors: Vec<FieldFault>,
    members: Map<String, Value>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

/// The texts of a code: its constant English title, and its detail in both languages.
struct Words {
    title: &'static str,
    en: &'static str,
    pt: &'static str,
}

/// All codes of the API, with their texts.
#[rustfmt::skip]
const WORDS: &[(&str, (&str, &str, &str))] = &[
    ("malformed_json", ("Malformed JSON", "The body is not valid JSON.", "O corpo da requisição não é um JSON válido.")),
    ("bad_request", ("Bad request", "The request cannot be understood.", "A requisição não pode ser compreendida.")),
    ("organization_required", ("Organization required", "Choose an organization with the header X-Organization-ID.", "Escolha uma organização com o cabeçalho X-Organization-ID.")),
    ("unauthorized", ("Unauthorized", "Valid credentials are required.", "São necessárias credenciais válidas.")),
    ("organization_not_allowed", ("Organization not allowed", "You may not act for this organization.", "Você não pode agir por esta organização.")),
    ("missing_scope", ("Missing scope", "Your credentials do not allow this.", "Suas credenciais não permitem esta operação.")),
    ("token_for_another_stream", ("Token for another stream", "This token was given for another stream.", "Este token foi emitido para outro fluxo de eventos.")),
    ("not_found", ("Not found", "There is nothing at this address, or it is not yours.", "Não há nada neste endereço, ou não pertence a você.")),
    ("method_not_allowed", ("Method not allowed", "This address does not take this method.", "Este endereço não aceita este método.")),
    ("timeout", ("Timeout", "The request took too long. Nothing says that it did not take effect.", "A requisição demorou demais. Ela pode ter tido efeito.")),
    ("invalid_transition", ("Invalid transition", "The execution's status does not allow this.", "O estado da execução não permite esta operação.")),
    ("unreadable", ("Unreadable", "A part of what is stored cannot be read. Ask for technical help. An execution can still be canceled.", "Uma parte do que está armazenado não pode ser lida. Peça ajuda técnica. Uma execução ainda pode ser cancelada.")),
    ("approval_decided", ("Approval decided", "The decision has been made and stays as it is.", "A decisão já foi tomada e permanece como está.")),
    ("already_voted", ("Already voted", "You have already answered. The others have not decided yet.", "Você já respondeu. Os demais ainda não decidiram.")),
    ("approval_expired", ("Approval expired", "The time to decide is over.", "O prazo para decidir terminou.")),
    ("approval_canceled", ("Approval canceled", "There is nothing to decide any more: the execution has ended.", "Não há mais nada a decidir: a execução terminou.")),
    ("version_mismatch", ("Version mismatch", "It has changed since you last read it.", "Houve uma alteração desde a sua última leitura.")),
    ("payload_too_large", ("Payload too large", "The body is larger than what is accepted.", "O corpo da requisição é maior que o permitido.")),
    ("unsupported_media_type", ("Unsupported media type", "Send the body as application/json.", "Envie o corpo como application/json.")),
    ("validation_failed", ("Validation failed", "Some values are wrong. Each is named in errors.", "Alguns valores estão incorretos. Cada um é indicado em errors.")),
    ("idempotency_key_reused", ("Idempotency key reused", "This idempotency key came with another request before.", "Esta chave de idempotência já foi usada com outra requisição.")),
    ("too_many_streams", ("Too many streams", "Too many event streams are open. Close some, or try later.", "Há fluxos de eventos demais abertos. Feche alguns ou tente mais tarde.")),
    ("no_document", ("No document", "This execution has made no document that could be signed.", "Esta execução não gerou nenhum documento que possa ser assinado.")),
    ("signatures_not_configured", ("Signatures not configured", "This service is not set up to ask for signatures.", "Este serviço não está configurado para solicitar assinaturas.")),
    ("webhook_unauthenticated", ("Webhook not authenticated", "The webhook's signature is missing or wrong.", "A assinatura do webhook está ausente ou incorreta.")),
    ("storage_full", ("Storage full", "Nothing more can be kept at the moment. Try later.", "Não é possível armazenar mais dados no momento. Tente mais tarde.")),
    ("service_unavailable", ("Service unavailable", "A part that this needs does not answer. Try again.", "Um componente necessário não responde. Tente novamente.")),
    ("internal_error", ("Internal error", "Something went wrong on our side. It has been recorded.", "Ocorreu um erro do nosso lado. Ele foi registrado.")),
];

/// The texts of a code. A code that an application made up gets the texts of `internal_error`.
fn words(code: &str) -> Words {
    let known = WORDS.iter().find(|(known, _)| *known == code);
    let &(title, en, pt) = known
        .or(WORDS.last())
        .map_or(&("", "", ""), |(_, words)| words);
    Words { title, en, pt }
}

/// All codes of the API.
pub(crate) fn codes() -> impl Iterator<Item = &'static str> {
    WORDS.iter().map(|(code, _)| *code)
}

impl Problem {
    /// Creates a problem with the texts of its code.
    #[must_use]
    pub fn new(status: StatusCode, code: &'static str) -> Self {
        Self {
            status,
            code,
            detail: None,
            errors: Vec::new(),
            members: Map::new(),
            headers: Vec::new(),
        }
    }

    /// The code of the first wrong value, or else the problem's own.
    pub(crate) fn reason(&self) -> &'static str {
        self.errors.first().map_or(self.code, |error| error.code)
    }

    /// The same problem of a value within another, at this pointer.
    pub(crate) fn within(mut self, pointer: &str) -> Self {
        for error in &mut self.errors {
            error.pointer.insert_str(0, pointer);
        }
        self
    }

    /// 404: the resource does not exist, or belongs to another organization.
    #[must_use]
    pub fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found")
    }

    /// 422: values that are well formed but wrong.
    #[must_use]
    pub fn invalid(errors: Vec<FieldFault>) -> Self {
        Self {
            errors,
            ..Self::new(StatusCode::UNPROCESSABLE_ENTITY, "validation_failed")
        }
    }

    /// 422: one value that is well formed but wrong.
    pub fn invalid_field(
        pointer: impl Into<String>,
        code: &'static str,
        detail: impl Into<Text>,
    ) -> Self {
        Self::invalid(vec![FieldFault::new(pointer, code, detail)])
    }

    /// 409: a stored record cannot be read.
    pub(crate) fn unreadable() -> Self {
        Self::new(StatusCode::CONFLICT, "unreadable")
    }

    /// Adds the execution's status, and the calls that it allows.
    fn allowing(self, from: Status, allowed: &[Command]) -> Self {
        let allowed = allowed.iter().map(|call| call.as_str()).collect();
        self.member("from", json!(from)).member("allowed", allowed)
    }

    /// 500: a failure of the server. The cause is logged.
    pub fn internal(cause: impl std::fmt::Display) -> Self {
        tracing::error!("an unexpected failure: {cause}");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal_error")
    }

    /// Sets a detail text that replaces the default text of the code.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<Text>) -> Self {
        self.detail = Some(Box::new(detail.into()));
        self
    }

    /// Adds an extension member to the problem's JSON.
    #[must_use]
    pub fn member(mut self, name: &str, value: Value) -> Self {
        self.members.insert(name.to_owned(), value);
        self
    }

    /// Adds a header to the answer.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// The problem for a status with which the web framework itself refused a request.
    pub(crate) fn of_status(status: StatusCode) -> Self {
        let code = match status {
            StatusCode::NOT_FOUND => "not_found",
            StatusCode::METHOD_NOT_ALLOWED => "method_not_allowed",
            StatusCode::PAYLOAD_TOO_LARGE => "payload_too_large",
            StatusCode::UNSUPPORTED_MEDIA_TYPE => "unsupported_media_type",
            StatusCode::UNPROCESSABLE_ENTITY => "validation_failed",
            StatusCode::UNAUTHORIZED => "unauthorized",
            StatusCode::REQUEST_TIMEOUT | StatusCode::GATEWAY_TIMEOUT => "timeout",
            StatusCode::SERVICE_UNAVAILABLE => "service_unavailable",
            status if status.is_client_error() => "bad_request",
            _ => "internal_error",
        };
        Self::new(status, code)
    }

    /// The JSON body of the answer.
    pub(crate) fn body(&self, locale: Locale, correlation_id: &str) -> Value {
        let words = words(self.code);
        let own = match locale {
            Locale::En => words.en,
            Locale::PtBr => words.pt,
        };
        let detail = match &self.detail {
            Some(detail) => detail.render(locale),
            None => own.to_owned(),
        };
        let mut body = json!({
            "type": format!("urn:docg:problem:{}", self.code),
            "title": words.title,
            "status": self.status.as_u16(),
            "detail": detail,
            "code": self.code,
            "error": words.title,
            "message": detail,
            "correlation_id": correlation_id,
        });
        if let Some(members) = body.as_object_mut() {
            members.extend(self.members.clone());
            if !self.errors.is_empty() {
                let errors = self.errors.iter().map(|fault| {
                    json!({
                        "pointer": fault.pointer,
                        "code": fault.code,
                        "detail": fault.detail.render(locale),
                    })
                });
                members.insert("errors".to_owned(), errors.collect());
            }
        }
        body
    }

    pub(crate) fn render(&self, locale: Locale, correlation_id: &str) -> Response {
        let body = self.body(locale, correlation_id);
        let mut response = Response::new(Body::from(body.to_string()));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        for (name, value) in &self.headers {
            headers.insert(name.clone(), value.clone());
        }
        response
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.render(Locale::En, "");
        // The outermost layer renders the problem again, with the request's language and correlation id.
        response.extensions_mut().insert(self);
        response
    }
}

impl From<EngineError> for Problem {
    fn from(error: EngineError) -> Self {
        match error {
            EngineError::NotFound(_) => Self::not_found(),
            EngineError::InvalidTransition { from, allowed } => {
                Self::new(StatusCode::CONFLICT, "invalid_transition").allowing(from, &allowed)
            }
            EngineError::Unreadable { from, allowed } => {
                Self::unreadable().allowing(from, &allowed)
            }
            EngineError::VoteRefused(refusal) => vote_refused(&refusal),
            EngineError::VersionMismatch { expected, actual } => {
                Self::new(StatusCode::PRECONDITION_FAILED, "version_mismatch")
                    .member("expected", expected.into())
                    .member("actual", actual.into())
            }
            EngineError::KeyReused => {
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, "idempotency_key_reused")
            }
            EngineError::InvalidWorkflow(faults) | EngineError::InvalidInput(faults) => {
                Self::invalid(faults)
            }
            EngineError::NoDocument => Self::new(StatusCode::CONFLICT, "no_document"),
            EngineError::SignaturesNotConfigured => {
                Self::new(StatusCode::NOT_IMPLEMENTED, "signatures_not_configured")
            }
            EngineError::UnauthenticatedWebhook => {
                Self::new(StatusCode::UNAUTHORIZED, "webhook_unauthenticated").header(
                    header::WWW_AUTHENTICATE,
                    HeaderValue::from_static("Webhook-Signature"),
                )
            }
            EngineError::MalformedWebhook(why) => Self::invalid_field("", "malformed_webhook", why),
            EngineError::Store(error) => {
                tracing::error!("the store failed: {error}");
                match error.kind {
                    StoreErrorKind::NotFound => Self::not_found(),
                    StoreErrorKind::Full => {
                        Self::new(StatusCode::INSUFFICIENT_STORAGE, "storage_full")
                    }
                    StoreErrorKind::Unavailable
                    | StoreErrorKind::Conflict
                    | StoreErrorKind::Signaled => {
                        Self::new(StatusCode::SERVICE_UNAVAILABLE, "service_unavailable")
                            .header(header::RETRY_AFTER, HeaderValue::from_static("1"))
                    }
                    StoreErrorKind::Invalid => {
                        Self::invalid_field("", "not_storable", Text::key("fault-not-storable"))
                    }
                    StoreErrorKind::KeyReused => {
                        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "idempotency_key_reused")
                    }
                    // Only a signature request's name at a provider can be taken. No API call stores one.
                    StoreErrorKind::NameTaken => {
                        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal_error")
                    }
                    StoreErrorKind::Corrupt => Self::unreadable(),
                }
            }
            other => Self::internal(other),
        }
    }
}

/// The problem for a vote that does not count. The problem names the decision, its author and its time, so
/// that a page can show who decided first.
fn vote_refused(refusal: &VoteRefusal) -> Problem {
    let approval = &refusal.approval;
    let own = approval
        .approvers
        .iter()
        .find(|approver| approver.email == refusal.approver);
    Problem::new(StatusCode::CONFLICT, refusal.reason.as_str())
        .member("approval_id", json!(approval.id))
        .member("decision", json!(approval.decision))
        .member("decided_by", json!(approval.decided_by))
        .member("decided_at", json!(approval.decided_at))
        .member("expires_at", json!(approval.expires_at))
        .member("your_decision", json!(own.and_then(|own| own.vote)))
        .member("your_decision_at", json!(own.and_then(|own| own.voted_at)))
}
