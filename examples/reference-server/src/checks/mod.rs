//! The checks that the server makes before it starts. Each finding has a verdict and says what to do.
//!
//! A check changes nothing. If it tries an operation, such as writing a file, it removes the result. Only the
//! data directory, which a check creates, stays.

mod environment;
mod folder;
mod services;

use std::fmt;

use futures::{FutureExt, future::BoxFuture};

use crate::options::Options;

pub(crate) use environment::public_url;
pub use folder::LockError;
pub(crate) use folder::{Lock, opened};

/// One check before the start.
pub struct Check {
    /// The name of the check, in one or two words.
    pub name: &'static str,
    /// The things that the check examines, as a text for people.
    pub looks_at: &'static str,
    run: for<'a> fn(&'a Options) -> BoxFuture<'a, Vec<Finding>>,
}

/// The consequence of a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The server starts and logs a warning.
    Warned,
    /// The server does not start.
    Refused,
}

/// A fault that a check has found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The consequence of the fault.
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

/// Makes the `run` function of a check that is synchronous.
macro_rules! at_once {
    ($check:path) => {
        |options| futures::future::ready($check(options)).boxed()
    };
}

/// Makes the `run` function of a check that is asynchronous: it waits for a service or a storage.
macro_rules! waiting {
    ($check:path) => {
        |options| $check(options).boxed()
    };
}

/// All checks, in the order in which they are made.
pub const CHECKS: &[Check] = &[
    Check {
        name: "environment",
        looks_at: "variables that are misspelt, begin with DOCG_ and are not known, or are set and empty",
        run: at_once!(environment::variables),
    },
    Check {
        name: "options",
        looks_at: "options that do not go together, and links that are not encrypted or lead nowhere",
        run: at_once!(environment::options),
    },
    Check {
        name: "open files",
        looks_at: "the limit on open files (ulimit -n), which bounds connections",
        run: at_once!(environment::open_files),
    },
    Check {
        name: "data directory",
        looks_at: "the folder, which has to be created, written and synced",
        run: at_once!(folder::data_dir),
    },
    Check {
        name: "files",
        looks_at: "the storage of documents, which has to keep one note where two servers write it at once",
        run: waiting!(folder::files),
    },
    Check {
        name: "key",
        looks_at: "signature.key, which has to be there if documents are, to be a key, and to be private",
        run: waiting!(folder::key),
    },
    Check {
        name: "auth file",
        looks_at: "the file's form, short tokens, and who may read it",
        run: at_once!(folder::auth_file),
    },
    Check {
        name: "workflows",
        looks_at: "the folder, and the form of every file in it",
        run: at_once!(folder::workflows),
    },
    Check {
        name: "database",
        looks_at: "version, encoding, rights, schema, standby, durability, clock",
        run: waiting!(services::database),
    },
    Check {
        name: "Redis",
        looks_at: "version, part in replication, eviction",
        run: waiting!(services::redis),
    },
    Check {
        name: "mail server",
        looks_at: "its URL, the connection, and the sign-in",
        run: waiting!(services::mail),
    },
];

/// The faults that keep the server from starting, one sentence a line.
#[derive(Debug)]
pub struct Refusals(Vec<String>);

impl fmt::Display for Refusals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

impl std::error::Error for Refusals {}

/// Makes all checks and logs their warnings.
///
/// # Errors
///
/// [`Refusals`] with every fault that keeps the server from starting.
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
    /// Makes the check, and returns the faults that it finds.
    pub async fn look(&self, options: &Options) -> Vec<Finding> {
        (self.run)(options).await
    }
}
