//! The errors of this crate, and their mapping to the engine's [`StoreError`].

use std::{sync::Arc, time::Duration};

use docg_core::ports::{StoreError, StoreErrorKind};

use crate::environment::DatabaseFault;

/// A failure within this crate. It is `Clone` because one statement can serve many callers, each of which
/// gets the error.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Driver(Arc<sqlx::Error>),
    /// The server refused the connection; the text says how to correct that.
    #[error("{0}: {1}")]
    NotLetIn(Arc<sqlx::Error>, &'static str),
    /// The database did not answer in time.
    #[error("the database did not answer within {0:?}")]
    TimedOut(Duration),
    /// No connection could be made in time, and no error tells why.
    #[error(
        "no connection to {0} in time: the server does not answer, or lets this role connect no more often \
         (max_connections, CONNECTION LIMIT, the pooler's size)"
    )]
    Silent(String),
    /// The task that ran the statement ended before the statement: its runtime shut down, or the task
    /// panicked.
    #[error("the statement was left while it was under way")]
    GivenUp,
    #[error("{0}")]
    NotFound(String),
    #[error("{0}")]
    Conflict(String),
    #[error("{0}")]
    Signaled(String),
    #[error("the idempotency key was used for something else")]
    KeyReused,
    #[error("{0}")]
    Invalid(String),
    #[error("{0}")]
    Full(String),
    #[error("{0}")]
    Corrupt(String),
    /// The database has a fatal fault, so the store refuses it.
    #[error(transparent)]
    Environment(DatabaseFault),
}

/// The meaning of a driver error for the caller that sent the statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// The transaction lost a race and was rolled back. The same statement may succeed at once.
    Again,
    /// The connection is unusable, even if it looks healthy.
    Gone,
    /// Another session holds a required row for longer than the lock timeout.
    Held,
    /// The database is reachable and refuses the statement for now.
    Busy,
    /// The disk is full.
    Full,
    /// The row exists already.
    Duplicate,
    /// Another execution has this approval link or envelope, which may lead to one execution only.
    NameTaken,
    /// A value cannot be stored.
    Refused,
    /// The stored value cannot be read.
    Unreadable,
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        Self::Driver(Arc::new(error))
    }
}

impl Error {
    /// The meaning of a driver error or a timeout; `None` for other errors.
    pub(crate) fn meaning(&self) -> Option<Meaning> {
        match self {
            Self::Driver(error) | Self::NotLetIn(error, _) => Some(meaning(error)),
            Self::TimedOut(_) => Some(Meaning::Gone),
            _ => None,
        }
    }

    /// True if the stored value cannot be read, by this program or by the server. Reading it again will
    /// fail in the same way.
    pub(crate) fn is_unreadable(&self) -> bool {
        let meaning = self.meaning();
        matches!(self, Self::Corrupt(_))
            || matches!(meaning, Some(Meaning::Unreadable | Meaning::Refused))
    }

    /// Adds advice to an error of connecting, if the server refused the connection.
    pub(crate) fn of_connecting(error: sqlx::Error) -> Self {
        let code = error.as_database_error().and_then(|error| error.code());
        match code.as_deref().and_then(to_be_let_in) {
            Some(to_do) => Self::NotLetIn(Arc::new(error), to_do),
            None => error.into(),
        }
    }

    /// Turns the error into the [`StoreError`] that the engine sees.
    pub(crate) fn at(self, operation: &'static str) -> StoreError {
        let kind = match &self {
            Self::Driver(error) | Self::NotLetIn(error, _) => kind(meaning(error)),
            Self::TimedOut(_) | Self::Silent(_) | Self::GivenUp => StoreErrorKind::Unavailable,
            Self::NotFound(_) => StoreErrorKind::NotFound,
            Self::Conflict(_) => StoreErrorKind::Conflict,
            Self::Signaled(_) => StoreErrorKind::Signaled,
            Self::KeyReused => StoreErrorKind::KeyReused,
            Self::Invalid(_) | Self::Environment(_) => StoreErrorKind::Invalid,
            Self::Full(_) => StoreErrorKind::Full,
            Self::Corrupt(_) => StoreErrorKind::Corrupt,
        };
        let error = StoreError::new(kind, operation, self.to_string());
        match self {
            Self::Driver(source) | Self::NotLetIn(source, _) => error.caused_by(source),
            Self::Environment(fault) => error.caused_by(fault),
            _ => error,
        }
    }
}

fn kind(meaning: Meaning) -> StoreErrorKind {
    match meaning {
        Meaning::Again | Meaning::Gone | Meaning::Held | Meaning::Busy => {
            StoreErrorKind::Unavailable
        }
        Meaning::Full => StoreErrorKind::Full,
        Meaning::Duplicate => StoreErrorKind::Conflict,
        Meaning::NameTaken => StoreErrorKind::NameTaken,
        Meaning::Refused => StoreErrorKind::Invalid,
        Meaning::Unreadable => StoreErrorKind::Corrupt,
    }
}

fn meaning(error: &sqlx::Error) -> Meaning {
    match error {
        sqlx::Error::Database(error) if error.constraint() == Some("request_names_pkey") => {
            Meaning::NameTaken
        }
        sqlx::Error::Database(error) => error
            .code()
            .map_or(Meaning::Busy, |code| of_sqlstate(&code)),
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::WorkerCrashed => Meaning::Gone,
        sqlx::Error::Encode(_) | sqlx::Error::InvalidArgument(_) => Meaning::Refused,
        sqlx::Error::RowNotFound
        | sqlx::Error::TypeNotFound { .. }
        | sqlx::Error::ColumnIndexOutOfBounds { .. }
        | sqlx::Error::ColumnNotFound(_)
        | sqlx::Error::ColumnDecode { .. }
        | sqlx::Error::Decode(_) => Meaning::Unreadable,
        // The pool's own errors: no connection came free in time, or the pool is closed.
        _ => Meaning::Busy,
    }
}

/// The advice for a connection that the server refused with this SQLSTATE.
fn to_be_let_in(code: &str) -> Option<&'static str> {
    match code {
        "28P01" => Some("correct the user or the password in the URL, or create the role"),
        "28000" => Some(
            "create the role, name another one in the URL, or let it connect from here (pg_hba.conf)",
        ),
        "3D000" => Some("create the database (createdb), or name another one in the URL"),
        "42501" => Some("let the role connect (GRANT CONNECT ON DATABASE)"),
        _ => None,
    }
}

/// The meaning of a SQLSTATE, by the classes and codes of PostgreSQL's appendix A.
fn of_sqlstate(code: &str) -> Meaning {
    match code {
        // Serialization failure, deadlock.
        "40001" | "40P01" => Meaning::Again,
        // Foreign key violation: the definition existed a moment ago and has just been purged.
        "23503" => Meaning::Again,
        "53100" => Meaning::Full,
        "55P03" => Meaning::Held,
        "23505" => Meaning::Duplicate,
        // The server is a standby after a failover; the next connection may reach the new primary.
        "25006" => Meaning::Gone,
        // The session's prepared statements belong to another schema or, behind some poolers, to another
        // session. A new connection prepares them again.
        "0A000" | "26000" => Meaning::Gone,
        // The session was ended by an administrator or a crash, or the server is starting up.
        "57P01" | "57P02" | "57P03" | "57P05" => Meaning::Gone,
        _ if code.starts_with("08") => Meaning::Gone,
        // Data exceptions, integrity constraints, program limits.
        _ if ["22", "23", "54"]
            .iter()
            .any(|class| code.starts_with(class)) =>
        {
            Meaning::Refused
        }
        "XX001" | "XX002" => Meaning::Unreadable,
        _ => Meaning::Busy,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sqlstates_mean_what_the_manual_says() {
        for (code, expected) in [
            ("40001", StoreErrorKind::Unavailable),
            ("53100", StoreErrorKind::Full),
            ("53300", StoreErrorKind::Unavailable),
            ("25006", StoreErrorKind::Unavailable),
            ("26000", StoreErrorKind::Unavailable),
            ("55P03", StoreErrorKind::Unavailable),
            ("57014", StoreErrorKind::Unavailable),
            ("57P01", StoreErrorKind::Unavailable),
            ("08006", StoreErrorKind::Unavailable),
            ("22P05", StoreErrorKind::Invalid),
            ("23514", StoreErrorKind::Invalid),
            ("54000", StoreErrorKind::Invalid),
            ("23505", StoreErrorKind::Conflict),
            ("XX001", StoreErrorKind::Corrupt),
            ("42P01", StoreErrorKind::Unavailable),
        ] {
            assert_eq!(kind(of_sqlstate(code)), expected, "{code}");
        }
    }

    #[test]
    fn whoever_is_not_let_in_is_told_what_to_do() {
        for (code, word) in [
            ("28P01", "password"),
            ("28000", "role"),
            ("3D000", "createdb"),
            ("42501", "GRANT"),
        ] {
            assert!(
                to_be_let_in(code).is_some_and(|text| text.contains(word)),
                "{code}"
            );
        }
        assert_eq!(to_be_let_in("57P03"), None);
    }

    #[test]
    fn a_pool_that_is_exhausted_may_have_room_later() {
        let error = Error::from(sqlx::Error::PoolTimedOut).at("commit");
        assert_eq!(error.kind, StoreErrorKind::Unavailable);
        assert!(error.kind.may_pass());
    }
}
