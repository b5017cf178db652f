//! `render-pdf`: makes a PDF from a bundled Typst template and data.

use std::sync::Arc;

use async_trait::async_trait;
use chrono::NaiveDate;
use docg_core::{
    error::{StepFailure, codes},
    i18n::{Locale, Text},
    observe::{AuditDraft, actions},
    preflight::{Domain, Issue},
    run::Phase,
    workflow::{
        ComputeHandler, Handler, NodeSpec, ParamKind, ParamSpec, StepContext,
        handler::CheckRequest, read_params,
    },
};
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{origin, text};
use crate::{
    files::{Files, FilesError, RecordKind},
    pdf::{RENDER_TOO_LARGE, RenderError},
    renders::{RenderFailure, Renderer},
};

/// The maximum number of issues that a check reports: empty data would fill the screen.
const MAX_ISSUES: usize = 20;

#[derive(Deserialize)]
struct Params {
    template: String,
    data: Value,
    filename: Option<String>,
}

struct RenderPdf {
    spec: NodeSpec,
    files: Files,
    renderer: Renderer,
}

/// The handler of the node type `render-pdf`.
pub(super) fn handler(files: Files, renderer: Renderer) -> Handler {
    let spec = NodeSpec::new("render-pdf", Phase::Render)
        .param(ParamSpec::required("template", ParamKind::Template))
        .param(ParamSpec::required("data", ParamKind::Object))
        .param(ParamSpec::optional("filename", ParamKind::Text))
        .outputs(["file", "pages", "bytes", "sha256"])
        .timeout_ms(300_000);
    Handler::Compute(Arc::new(RenderPdf {
        spec,
        files,
        renderer,
    }))
}

impl RenderPdf {
    /// Writes an audit row if the template has changed since the organization last used it.
    async fn note_template(&self, context: &StepContext, template: &str) -> Result<(), FilesError> {
        let digest = |text: &str| hex::encode(Sha256::digest(text));
        let Some(now) = self.renderer.templates().source(template).map(digest) else {
            return Ok(());
        };
        let note = digest(&format!("{}/{template}", context.organization_id));
        let kind = RecordKind::Template;
        let before: Option<String> = self.files.record(kind, &note).await?;
        if before.as_ref() == Some(&now) {
            return Ok(());
        }
        self.files.put_record(kind, &note, &now).await?;
        if let Some(before) = before {
            let facts = json!({"from_sha256": before, "to_sha256": now});
            let row = AuditDraft::new(actions::TEMPLATE_VERSION_UPDATED, facts);
            context.audit(row.on("template", template));
        }
        Ok(())
    }
}

#[async_trait]
impl ComputeHandler for RenderPdf {
    fn spec(&self) -> &NodeSpec {
        &self.spec
    }

    /// Checks that the data have all fields that the template requires. Data from a step that has not run yet
    /// are placeholder text here; they are checked after that step.
    async fn check(&self, request: CheckRequest) -> Vec<Issue> {
        let template = request.params.get("template").and_then(Value::as_str);
        let data = request.params.get("data").filter(|data| data.is_object());
        let (Some(template), Some(data)) = (template, data) else {
            return Vec::new();
        };
        if let Err(error) = self.renderer.check_size(data) {
            let text = Text::key("issue-render-too-large").with("label", &request.label);
            let issue = Issue::blocking(Domain::Template, RENDER_TOO_LARGE, text);
            return vec![
                issue
                    .at(request.node_id)
                    .field("data")
                    .tech(error.to_string()),
            ];
        }
        let missing = self.renderer.templates().missing_fields(template, data);
        let issue = |path: &String| {
            let text = Text::key("issue-template-tag-unfilled")
                .with("label", &request.label)
                .with("field", path);
            Issue::blocking(Domain::Template, codes::TEMPLATE_INVALID_TAGS, text)
                .at(request.node_id.clone())
                .field(format!("data.{path}"))
                .tech(format!("{template} needs `{path}`, which nothing fills"))
        };
        missing.iter().take(MAX_ISSUES).map(issue).collect()
    }

    async fn run(&self, context: StepContext, params: Value) -> Result<Value, StepFailure> {
        let params: Params = read_params(params)?;
        let language = params.data.get("language").and_then(Value::as_str);
        let known = |tag: &&str| tag.parse::<Locale>().is_ok();
        let language = language.filter(known).map(str::to_owned);
        let stem = params.template.trim_end_matches(".typ").to_owned();
        let filename = params.filename.unwrap_or(stem);
        let template = params.template.clone();
        let rendering = self.renderer.render(
            context.organization_id,
            params.template,
            params.data,
            day_of(&context),
        );
        let pdf = tokio::select! {
            rendered = rendering => rendered.map_err(|error| failure(&error, &context))?,
            () = context.cancellation.cancelled() => return Err(StepFailure::stopped()),
        };
        let document = self
            .files
            .put_document(&origin(&context), &filename, pdf.bytes.into(), language)
            .await
            .map_err(|e| e.failure(&context.label, "filename"))?;
        if let Err(error) = self.note_template(&context, &template).await {
            // Do not fail the step: its document exists, and is worth more than the note.
            tracing::warn!(
                template,
                "whether a template has changed is not known: {error}"
            );
        }
        Ok(json!({
            "pages": pdf.pages,
            "bytes": document.bytes,
            "sha256": document.sha256,
            "file": document,
        }))
    }
}

/// The date for the template: the day on which the execution was created. So every attempt makes the same
/// bytes.
fn day_of(context: &StepContext) -> NaiveDate {
    let made = context.execution_id.0.get_timestamp();
    let made = made.and_then(|time| {
        let (seconds, nanos) = time.to_unix();
        chrono::DateTime::from_timestamp(i64::try_from(seconds).ok()?, nanos)
    });
    made.unwrap_or_else(|| context.started_at.into())
        .date_naive()
}

/// Converts a render failure to the failure of the step. If data or templates are the cause, a person has to
/// repair them.
fn failure(failure: &RenderFailure, context: &StepContext) -> StepFailure {
    let told = match failure {
        RenderFailure::Document(error) => {
            let refusal = error.refusal().or_else(|| error.misfit());
            let (key, field) = match error {
                RenderError::UnknownTemplate { .. } => ("issue-template-not-found", "template"),
                RenderError::InvalidTemplate { .. } if refusal.is_some() => {
                    ("issue-template-refuses-data", "data")
                }
                RenderError::MissingFields { .. } | RenderError::InvalidTemplate { .. } => {
                    ("issue-template-invalid-tags", "data")
                }
                RenderError::TooLarge(_) => ("issue-render-too-large", "data"),
                RenderError::Export { .. }
                | RenderError::UnusableOriginal { .. }
                | RenderError::HashMismatch { .. } => ("error-render-failed", "template"),
            };
            let text = text(key, context, field);
            let text = match refusal {
                Some(message) => text.with("message", message),
                None => text,
            };
            StepFailure::review(error.code(), text)
        }
        RenderFailure::TimedOut(_) => StepFailure::retryable(
            codes::TIMEOUT,
            text("error-render-unavailable", context, "template"),
        ),
        RenderFailure::Unavailable(_) => StepFailure::retryable(
            codes::SERVICE_UNAVAILABLE,
            text("error-render-unavailable", context, "template"),
        ),
    };
    told.tech(failure)
}
