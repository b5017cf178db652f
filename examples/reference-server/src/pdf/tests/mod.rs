//! Tests of making PDFs: with the bundled contract template, and its samples of good and broken data.

mod appended;
mod contract;
mod declared;
mod samples;
mod sandboxed;

use std::{fs, path::PathBuf};

use chrono::NaiveDate;
use lopdf::Document;
use serde_json::Value;

use super::{Pdf, RenderError, RenderRequest, Templates, render};

const CONTRACT: &str = "contract.typ";

fn folder(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn sample(name: &str) -> Value {
    let path = folder("samples").join(format!("contract.{name}.json"));
    serde_json::from_slice(&fs::read(&path).unwrap()).unwrap()
}

fn today() -> NaiveDate {
    NaiveDate::from_ymd_opt(2026, 1, 15).unwrap()
}

fn contract(data: &Value) -> Result<Pdf, RenderError> {
    render(
        &Templates::bundled(),
        RenderRequest::new(CONTRACT, data, today()),
    )
}

/// The text of the pages, with each run of whitespace replaced by one blank.
fn text(pdf: &Pdf) -> String {
    let document = Document::load_mem(&pdf.bytes).unwrap();
    let pages: Vec<u32> = document.get_pages().into_keys().collect();
    assert_eq!(pages.len(), pdf.pages);
    squeeze(&document.extract_text(&pages).unwrap())
}

fn squeeze(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
