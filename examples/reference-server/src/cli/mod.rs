//! The commands besides `serve`. Commands about executions call a server over HTTP, as every client does;
//! without `--url`, `run` starts its own server. Commands about the database open it directly.

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

/// The reason why a command failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CliError {
    /// No server answers.
    #[error(
        "nothing answers at {url} ({why}): start a server there, or give the --url of one that runs"
    )]
    Unanswered {
        /// The URL.
        url: Url,
        /// The reason.
        why: String,
    },
    /// The connection failed, or broke off.
    #[error("{0}")]
    Http(String),
    /// The server rejected the request.
    #[error("{status}: {detail}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// The server's explanation.
        detail: String,
    },
    /// A file cannot be read.
    #[error("{file}: {why}")]
    File {
        /// The file.
        file: String,
        /// The reason.
        why: String,
    },
    /// The options are incomplete or contradict each other.
    #[error("{0}")]
    Usage(String),
    /// The server that `run` starts failed to start.
    #[error(transparent)]
    Serve(#[from] crate::serve::ServeError),
}
