//! Everything that is looked at before the server starts: one list of checks, each with its verdict and
//! what to do.
//!
//! A check only looks. It may try what the server would do, as writing a file, and leaves nothing behind
//! but the data directory.

mod environment;
mod folder;
mod services;

use std::fmt;

use futures::future::BoxFuture;

use crate::options::Options;

pub(crate) use environment::public_url;
pub use folder::LockError;
pub(crate) use folder::{Lock, opened};

/// Something to look at.
pub struct Check {
    /// Its name, in one or two words.
    pub name: &'static str,
    /// What is looked at.
    pub looks_at: &'static str,
    run: for<'a> fn(&'a Options) -> BoxFuture<'a, Vec<Finding>>,
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The server starts, and somebody should look into it.
    Warned,
    /// The server does not start.
    Refused,
}

/// Something that a check has found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub verdict: Verdict,
    /// The option, what is wrong with it, and what to do.
    pub text: String,
}

impl Finding {
    fn warned(text: impl Into<String>) -> Self {
        Self {
            verdict: Verdict::Warned,
            text: text.into(),
        }
    }

    fn refused(text: impl Into<String>) -> Self {
        Self {
            verdict: Verdict::Refused,
            text: text.into(),
        }
    }
}

/// All checks, in the order in which they are made.
pub const CHECKS: &[Check] = &[
    Check {
        name: "environment",
        looks_at: "variables that are misspelt, begin with DOCG_ and are not known, or are set and empty",
        run: |options| Box::pin(async move { environment::variables(options) }),
    },
    Check {
        name: "options",
        looks_at: "options that do not go together, and links that are not encrypted or lead nowhere",
        run: |options| Box::pin(async move { environment::options(options) }),
    },
    Check {
        name: "open files",
        looks_at: "the limit on open files (ulimit -n), which bounds connections",
        run: |options| Box::pin(async move { environment::open_files(options) }),
    },
    Check {
        name: "data directory",
        looks_at: "whether it can be made, written and synced",
        run: |options| Box::pin(async move { folder::data_dir(options) }),
    },
    Check {
        name: "files",
        looks_at: "whether documents can be kept, and a note is written once where two write it",
        run: |options| Box::pin(folder::files(options)),
    },
    Check {
        name: "key",
        looks_at: "signature.key: whether it is there if documents are, is a key, and is private",
        run: |options| Box::pin(folder::key(options)),
    },
    Check {
        name: "auth file",
        looks_at: "its form, short tokens, and who may read it",
        run: |options| Box::pin(async move { folder::auth_file(options) }),
    },
    Check {
        name: "workflows",
        looks_at: "the folder, and the form of every file in it",
        run: |options| Box::pin(async move { folder::workflows(options) }),
    },
    Check {
        name: "database",
        looks_at: "version, encoding, rights, schema, standby, durability, clock",
        run: |options| Box::pin(services::database(options)),
    },
    Check {
        name: "Redis",
        looks_at: "version, part in replication, eviction",
        run: |options| Box::pin(services::redis(options)),
    },
    Check {
        name: "mail server",
        looks_at: "its URL, and whether it can be reached",
        run: |options| Box::pin(services::mail(options)),
    },
];

/// What stands against starting: one sentence on each line.
#[derive(Debug)]
pub struct Refusals(Vec<String>);

impl fmt::Display for Refusals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

impl std::error::Error for Refusals {}

/// Makes all checks, logs what is worth a warning, and refuses what cannot be.
///
/// # Errors
///
/// [`Refusals`], all that there are.
pub async fn pass(options: &Options) -> Result<(), Refusals> {
    let mut refusals = Vec::new();
    for check in CHECKS {
        for finding in check.look(options).await {
            match finding.verdict {
                Verdict::Warned => tracing::warn!(check = check.name, "{}", finding.text),
                Verdict::Refused => refusals.push(finding.text),
            }
        }
    }
    if refusals.is_empty() {
        Ok(())
    } else {
        Err(Refusals(refusals))
    }
}

impl Check {
    /// Looks.
    pub async fn look(&self, options: &Options) -> Vec<Finding> {
        (self.run)(options).await
    }
}
