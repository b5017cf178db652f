//! The commands besides `serve`. Those about executions talk to a server over HTTP, as every client
//! does, and `run` brings one along where none is named; those about the database open it.

mod audit;
mod client;
mod database;
mod execution;
mod local;
mod progress;
mod run;
mod sse;

use url::Url;

pub use audit::{Verdict, verify};
pub use database::{erase, export, migrate, migrations, purge};
pub use execution::Ended;
pub use run::{run, watch};

/// Why a command could not do its work.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CliError {
    /// No server is there.
    #[error(
        "nothing answers at {url} ({why}): start a server there, or give the --url of one that runs"
    )]
    Unanswered {
        /// Where.
        url: Url,
        /// Why.
        why: String,
    },
    /// The server cannot be reached, or broke off.
    #[error("{0}")]
    Http(String),
    /// The server refused.
    #[error("{status}: {detail}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// What the server said.
        detail: String,
    },
    /// A file cannot be read.
    #[error("{file}: {why}")]
    File {
        /// Which.
        file: String,
        /// Why.
        why: String,
    },
    /// The options do not say enough.
    #[error("{0}")]
    Usage(String),
    /// The server that `run` brings along does not start.
    #[error(transparent)]
    Serve(#[from] crate::serve::ServeError),
}
