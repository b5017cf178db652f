//! The commands in the README.

// Every test binary uses some of it.
#![allow(dead_code)]

use std::path::{Path, PathBuf};

/// The top of the repository, where its commands are typed.
pub(crate) fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// What stands under a heading.
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
