//! `save-file`: saves a document in a folder for people.

use docg_core::{
    run::Phase,
    workflow::{EffectContext, Handler, NodeSpec, ParamKind, ParamSpec, StepOutcome, effect},
};
use serde::Deserialize;
use serde_json::json;

use super::origin;
use crate::files::{Document, Files};

#[derive(Deserialize)]
struct Params {
    file: Document,
    folder: Option<String>,
    filename: Option<String>,
}

/// The handler of the node type `save-file`. It is safe to repeat: execution and parameters determine the
/// path.
pub(super) fn handler(files: Files) -> Handler {
    let spec = NodeSpec::new("save-file", Phase::Save)
        .param(ParamSpec::required("file", ParamKind::File))
        .param(ParamSpec::optional("folder", ParamKind::Folder))
        .param(ParamSpec::optional("filename", ParamKind::Text))
        .outputs(["url", "bytes", "sha256"])
        .safe_to_repeat();
    effect(spec, move |context: EffectContext, params: Params| {
        let files = files.clone();
        async move {
            let label = context.label.clone();
            let document = params.file;
            let organization = context.organization_id;
            let content = files
                .read_document(organization, &document)
                .await
                .map_err(|e| e.failure(&label, "file"))?;
            let filename = params.filename.as_deref().unwrap_or(&document.filename);
            let saved = files
                .save(
                    &origin(&context),
                    params.folder.as_deref().unwrap_or_default(),
                    filename,
                    content,
                )
                .await
                .map_err(|e| e.failure(&label, "folder"))?;
            let output = json!({"url": saved.url, "bytes": saved.bytes, "sha256": saved.sha256});
            Ok(StepOutcome::Done(output))
        }
    })
    .into()
}
