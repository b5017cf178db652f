//! The web console: a page and its files, which call the API with the reader's own token.

use axum::{
    Router,
    extract::Path,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use sha2::{Digest, Sha256};

use crate::{problem::Problem, router::AppState};

/// The policy of the page: only its own files, and no code within it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

struct File {
    name: &'static str,
    content_type: &'static str,
    bytes: &'static [u8],
}

macro_rules! files {
    ($($name:literal $content_type:literal)+) => {
        &[$(File {
            name: $name,
            content_type: $content_type,
            bytes: include_bytes!(concat!("../console/", $name)),
        }),+]
    };
}

const PAGE: &str = "text/html; charset=utf-8";

const FILES: &[File] = files! {
    "index.html" "text/html; charset=utf-8"
    "style.css" "text/css; charset=utf-8"
    "icon.svg" "image/svg+xml"
    "api.js" "text/javascript; charset=utf-8"
    "app.js" "text/javascript; charset=utf-8"
    "form.js" "text/javascript; charset=utf-8"
    "html.js" "text/javascript; charset=utf-8"
    "parts.js" "text/javascript; charset=utf-8"
    "texts.js" "text/javascript; charset=utf-8"
    "pages/execution.js" "text/javascript; charset=utf-8"
    "pages/executions.js" "text/javascript; charset=utf-8"
    "pages/inbox.js" "text/javascript; charset=utf-8"
    "pages/sign_in.js" "text/javascript; charset=utf-8"
    "pages/start.js" "text/javascript; charset=utf-8"
    "pages/system.js" "text/javascript; charset=utf-8"
    "pages/workflows.js" "text/javascript; charset=utf-8"
    "vendor/preact.js" "text/javascript; charset=utf-8"
    "vendor/hooks.js" "text/javascript; charset=utf-8"
    "vendor/htm.js" "text/javascript; charset=utf-8"
    "vendor/LICENSE-preact" "text/plain; charset=utf-8"
    "vendor/LICENSE-htm" "text/plain; charset=utf-8"
};

/// The routes of the console. It needs no credentials, because everything that it shows comes from the API.
pub(crate) fn routes() -> Router<AppState> {
    Router::new()
        .route(
            "/console",
            get(|headers: HeaderMap| async move { file("index.html", &headers) }),
        )
        .route(
            "/console/{*file}",
            get(
                |Path(name): Path<String>, headers: HeaderMap| async move { file(&name, &headers) },
            ),
        )
}

fn file(name: &str, headers: &HeaderMap) -> Response {
    let Some(file) = FILES.iter().find(|file| file.name == name) else {
        return Problem::not_found().into_response();
    };
    let tag = format!("\"{}\"", hex::encode(&Sha256::digest(file.bytes)[..12]));
    // Ask again each time, so that a new version of the server never meets old files.
    let common = [
        (header::CACHE_CONTROL, "no-cache".to_owned()),
        (header::ETAG, tag.clone()),
    ];
    let known = headers.get(header::IF_NONE_MATCH);
    if known.is_some_and(|known| known.as_bytes() == tag.as_bytes()) {
        return (StatusCode::NOT_MODIFIED, common).into_response();
    }
    let mut response = (common, file.bytes).into_response();
    let content_type = header::HeaderValue::from_static(file.content_type);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, content_type);
    if file.content_type == PAGE {
        let policy = header::HeaderValue::from_static(POLICY);
        headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    }
    response
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;

    fn names(folder: &Path, root: &Path, found: &mut Vec<String>) {
        for entry in fs::read_dir(folder).expect("reads").flatten() {
            let path = entry.path();
            if path.is_dir() {
                names(&path, root, found);
            } else {
                let name = path.strip_prefix(root).expect("is within");
                found.push(name.to_str().expect("is text").to_owned());
            }
        }
    }

    #[test]
    fn every_file_of_the_console_is_served() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("console");
        let mut there = Vec::new();
        names(&root, &root, &mut there);
        there.sort_unstable();
        let mut served: Vec<_> = FILES.iter().map(|file| file.name).collect();
        served.sort_unstable();
        assert_eq!(there, served);
    }

    #[test]
    fn the_console_names_no_other_host_and_has_no_code_in_its_page() {
        for file in FILES {
            let Ok(text) = std::str::from_utf8(file.bytes) else {
                continue;
            };
            if file.name.starts_with("vendor/") {
                continue;
            }
            let text = text.replace("http://www.w3.org/2000/svg", "");
            assert!(
                !text.contains("http://") && !text.contains("https://"),
                "{}",
                file.name
            );
            if file.content_type == PAGE {
                assert!(!text.contains("<script>") && !text.contains("style="));
            }
        }
    }
}
