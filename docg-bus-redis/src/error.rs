//! What can go wrong between here and Redis. Only its text leaves this crate, and no secret is in
//! it.

use std::sync::Arc;

use docg_core::{ids::ExecutionId, ports::BusError};
use redis::{ErrorKind, RedisError, ServerErrorKind};

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{}", describe(.0))]
    Redis(#[from] RedisError),
    #[error("Redis does not answer")]
    TimedOut,
    /// Nothing was tried: it is known not to answer.
    #[error("{0}")]
    Down(Arc<str>),
    /// It may be behind its primary, or cut off from it.
    #[error("Redis is a replica")]
    Replica,
    /// Events do not follow those that are there.
    #[error("the events of execution {execution} from {from} on are missing")]
    Behind {
        execution: ExecutionId,
        head: u64,
        from: u64,
    },
    /// The firehose is not what it was: events may be lost.
    #[error("the firehose was reset")]
    Reset,
}

impl From<Error> for BusError {
    fn from(error: Error) -> Self {
        match error {
            Error::Behind {
                execution,
                head,
                from,
            } => Self::Behind {
                execution,
                head,
                from,
            },
            error => Self::Unavailable(error.to_string()),
        }
    }
}

/// Without the server's own words, which may quote what was sent.
fn describe(error: &RedisError) -> String {
    // Of several commands that were sent at once, each may be refused.
    let refused = error.clone().into_server_errors();
    let refused = refused.as_deref().and_then(|errors| errors.first());
    let words = refused.and_then(|(_, error)| error.details());
    match (error.code(), error.is_io_error()) {
        (Some(code), _) => match missing_right(words.unwrap_or_default()) {
            Some(right) => format!("Redis refuses: {code}: {right}"),
            None => format!("Redis refuses: {code}"),
        },
        (None, true) => format!("no connection to Redis: {error}"),
        (None, false) => format!("Redis: {}", error.category()),
    }
}

/// What the user's ACL lacks, where it does. Of the server's words only a command's name is repeated.
fn missing_right(words: &str) -> Option<String> {
    let is_name = |name: &&str| {
        name.bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"|-_.".contains(&byte))
    };
    let command = words
        .split_once("permissions to run the '")
        .and_then(|(_, rest)| rest.split('\'').next())
        .filter(is_name);
    if let Some(command) = command {
        let name = command.replace('|', " ").to_uppercase();
        Some(format!(
            "the user may not call {name}, the ACL needs +{command}"
        ))
    } else if words.contains("permissions to access") {
        Some("the user may not use docg's keys, the ACL needs ~ and their prefix".to_owned())
    } else if words.contains("executing the script can't run") {
        Some("the ACL lacks a command that docg's scripts call".to_owned())
    } else {
        None
    }
}

/// Whether another connection may do better: this one is broken, or leads to a server that will not
/// do, such as a primary that has become a replica.
pub(crate) fn wants_reconnect(error: &RedisError) -> bool {
    error.is_io_error()
        || error.is_timeout()
        || error.is_connection_dropped()
        || error.is_unrecoverable_error()
        || matches!(
            error.kind(),
            ErrorKind::AuthenticationFailed
                | ErrorKind::ClusterConnectionNotFound
                | ErrorKind::Server(
                    ServerErrorKind::ReadOnly
                        | ServerErrorKind::BusyLoading
                        | ServerErrorKind::MasterDown
                        | ServerErrorKind::ClusterDown
                )
        )
        || matches!(error.code(), Some("NOAUTH" | "UNBLOCKED"))
}
