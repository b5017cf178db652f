//! Reads the commands in the README.

// Each test binary uses a part of this module.
#![allow(dead_code)]

use std::path::{Path, PathBuf};

/// The top folder of the repository, in which the README's commands are run.
pub(crate) fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The text under a heading.
pub(crate) fn section(heading: &str) -> String {
    let readme = std::fs::read_to_string(repository().join("README.md")).expect("a README");
    let (_, rest) = readme
        .split_once(&format!("\n## {heading}\n"))
        .unwrap_or_else(|| panic!("the README has no section {heading:?}"));
    rest.split("\n## ").next().unwrap_or_default().to_owned()
}

/// The blocks of commands under a heading.
pub(crate) fn blocks(heading: &str) -> Vec<String> {
    let section = section(heading);
    let fenced = section.split("\n```sh\n").skip(1);
    let blocks = fenced.map(|rest| rest.split("\n```").next().unwrap_or_default());
    blocks.map(str::to_owned).collect()
}
