//! Errors of calls to Redis. Only their texts leave the crate, and the texts contain no secret.

use std::sync::Arc;

use docg_core::{ids::ExecutionId, ports::BusError};
use redis::{ErrorKind, RedisError, ServerError, ServerErrorKind};

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{}", describe(.0))]
    Redis(#[from] RedisError),
    #[error("Redis does not answer")]
    TimedOut,
    /// Redis is known to be down, or the command's connection was abandoned.
    #[error("{0}")]
    Down(Arc<str>),
    /// The server is a replica, so it may be behind its primary or cut off from it.
    #[error("Redis is a replica")]
    Replica,
    /// The events to publish would leave a gap after the stream's last event.
    #[error("the events of execution {execution} from {from} on are missing")]
    Behind {
        execution: ExecutionId,
        head: u64,
        from: u64,
    },
    /// The firehose is not the one that was read before, so events may be lost.
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

/// Describes an error without the server's own words, which may quote data that was sent.
fn describe(error: &RedisError) -> String {
    if let Some(refused) = refused(error) {
        let code = refused.code();
        return match missing_right(refused.details().unwrap_or_default()) {
            Some(right) => format!("Redis refuses: {code}: {right}"),
            None => format!("Redis refuses: {code}"),
        };
    }
    match error.is_io_error() {
        true => format!("no connection to Redis: {error}"),
        false => format!("Redis: {}", error.category()),
    }
}

/// The server's refusal, if the error is one. If several commands were refused at once, the first refusal.
fn refused(error: &RedisError) -> Option<ServerError> {
    let errors = error.clone().into_server_errors()?;
    errors.first().map(|(_, error)| error.clone())
}

/// The right that the user's ACL lacks, if this caused the refusal. Only names are repeated from the
/// server's text.
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

/// True if a new connection may help: the current one is broken, or its server cannot be used, for
/// example because the server has become a replica.
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
        || refused(error).is_some_and(|it| ["NOAUTH", "UNBLOCKED"].contains(&it.code()))
}
