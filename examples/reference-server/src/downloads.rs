//! Serves documents over HTTP: `GET /api/v1/executions/{id}/files` lists them, and
//! `GET /api/v1/executions/{id}/files/{node_id}` downloads one.

use axum::{
    Json, Router,
    extract::{Path, State, rejection::PathRejection},
    http::header,
    response::{IntoResponse, Response},
    routing::get,
};
use docg_core::{ids::ExecutionId, run::Step};
use docg_http::{AppState, Caller, Problem, Scope};
use serde_json::{Value, json};

use crate::files::{Document, Files, FilesError};

/// The routes of documents, to merge into the API's routes.
pub fn routes(files: Files) -> Router<AppState> {
    let download = move |caller, state, path| download(caller, state, path, files.clone());
    Router::new()
        .route("/api/v1/executions/{id}/files", get(list))
        .route("/api/v1/executions/{id}/files/{node_id}", get(download))
}

/// The documents that the steps of an execution have made.
async fn list(
    caller: Caller,
    State(state): State<AppState>,
    path: Result<Path<String>, PathRejection>,
) -> Result<Json<Value>, Problem> {
    caller.need(Scope::ExecutionsRead)?;
    let Path(id) = path.map_err(|_| Problem::not_found())?;
    let id: ExecutionId = id.parse().map_err(|_| Problem::not_found())?;
    let steps = state.engine.steps(caller.organization, id).await?;
    let file = |step: &Step| {
        let document = document_of(step)?;
        let pages = step
            .output
            .as_deref()
            .and_then(|output| output.get("pages"));
        Some(json!({
            "node_id": step.node_id,
            "name": document.filename,
            "content_type": document.content_type,
            "bytes": document.bytes,
            "sha256": document.sha256,
            "pages": pages.and_then(Value::as_u64),
            "href": format!("/api/v1/executions/{id}/files/{}", step.node_id),
        }))
    };
    let files: Vec<_> = steps.iter().filter_map(file).collect();
    Ok(Json(json!({"files": files})))
}

/// The document in a step's output. If it was signed, the signed form.
pub(crate) fn document_of(step: &Step) -> Option<Document> {
    let output = step.output.as_deref()?;
    let described = output.get("signed_file").or(output.get("file"))?;
    Document::from_value(described).ok()
}

async fn download(
    caller: Caller,
    State(state): State<AppState>,
    path: Result<Path<(String, String)>, PathRejection>,
    files: Files,
) -> Result<Response, Problem> {
    caller.need(Scope::ExecutionsRead)?;
    // A path that is not UTF-8 names no file.
    let Path((id, node)) = path.map_err(|_| Problem::not_found())?;
    let id: ExecutionId = id.parse().map_err(|_| Problem::not_found())?;
    let steps = state.engine.steps(caller.organization, id).await?;
    let step = steps.iter().find(|step| step.node_id == *node.as_str());
    let document = step.and_then(document_of).ok_or_else(Problem::not_found)?;
    let content = match files.read_document(caller.organization, &document).await {
        Ok(content) => content,
        Err(FilesError::NotFound(_)) => return Err(Problem::not_found()),
        Err(e) => return Err(Problem::internal(e)),
    };
    let headers = [
        (header::CONTENT_TYPE, "application/pdf".to_owned()),
        (
            header::CONTENT_DISPOSITION,
            disposition("attachment", &document.filename),
        ),
        (header::ETAG, format!("\"{}\"", document.sha256)),
        (header::CACHE_CONTROL, "private, no-store".to_owned()),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()),
    ];
    Ok((headers, content).into_response())
}

/// The value of `Content-Disposition` (RFC 6266): the name in ASCII, and the exact name.
#[must_use]
pub fn disposition(kind: &str, filename: &str) -> String {
    use std::fmt::Write as _;
    let plain: String = filename
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || " ._-()".contains(c) {
                c
            } else {
                '_'
            }
        })
        .collect();
    let mut encoded = String::with_capacity(filename.len());
    for byte in filename.bytes() {
        if byte.is_ascii_alphanumeric() || b"._-".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    format!("{kind}; filename=\"{plain}\"; filename*=UTF-8''{encoded}")
}

#[cfg(test)]
mod tests {
    use super::disposition;

    #[test]
    fn a_file_name_cannot_break_out_of_the_header() {
        let header = disposition("inline", "São \"x\"\r\nSet-Cookie: a.pdf");
        assert_eq!(
            header,
            "inline; filename=\"S_o _x___Set-Cookie_ a.pdf\"; filename*=UTF-8''S%C3%A3o%20%22x%22%0D%0ASet-Cookie%3A%20a.pdf"
        );
    }
}
