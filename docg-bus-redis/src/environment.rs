//! Checks a Redis server before a bus relies on it.

use docg_core::ports::BusError;
use redis::InfoDict;

use crate::{RedisBus, error::Error};

/// The oldest version of Redis that has all commands that the bus sends.
const OLDEST: (u32, u32) = (6, 2);

/// A fault of a Redis server, with the way to correct it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RedisFault {
    /// The server is too old: commands would fail.
    #[error("the server is Redis {0}: version 6.2 or later is needed")]
    Version(String),
    /// The server is a replica: nothing can be written.
    #[error("the server is a read-only replica: give the address of its primary")]
    Replica,
    /// The eviction policy may remove events that are still to be read.
    #[error(
        "maxmemory-policy is {0}: Redis may remove events that are still to be read, and readers then \
         fall back on the store. Set it to noeviction, or where memory is short to volatile-ttl"
    )]
    Eviction(String),
}

impl RedisFault {
    /// True if a bus cannot work with this fault. Other faults are worth a warning.
    #[must_use]
    pub fn is_fatal(&self) -> bool {
        match self {
            Self::Version(_) | Self::Replica => true,
            Self::Eviction(_) => false,
        }
    }
}

impl RedisBus {
    /// Checks the server's version, its role in replication and its eviction policy. A cluster is not
    /// checked, because its servers may differ.
    ///
    /// # Errors
    ///
    /// [`BusError::Unavailable`] if Redis does not answer.
    pub async fn faults(&self) -> Result<Vec<RedisFault>, BusError> {
        if self.shared.config.is_cluster {
            return Ok(Vec::new());
        }
        match self.shared.link.ask::<InfoDict>(&redis::cmd("INFO")).await {
            Ok(info) => Ok(faults_of(&info)),
            // The link refuses to connect to a replica, and keeps the reason as a text.
            Err(error) if error.to_string() == Error::Replica.to_string() => {
                Ok(vec![RedisFault::Replica])
            }
            Err(error) => Err(error.into()),
        }
    }
}

fn faults_of(info: &InfoDict) -> Vec<RedisFault> {
    let text = |field: &str| info.get::<String>(field);
    let mut faults = Vec::new();
    // Read only `redis_version`: other servers that speak Redis's protocol have version numbers of their own.
    if let Some(version) = text("redis_version") {
        let mut parts = version.split('.').map(|part| part.parse().unwrap_or(0));
        let number = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
        if number < OLDEST {
            faults.push(RedisFault::Version(version));
        }
    }
    if text("role").as_deref() == Some("slave") {
        faults.push(RedisFault::Replica);
    }
    let suits = |policy: &String| ["noeviction", "volatile-ttl"].contains(&policy.as_str());
    if let Some(policy) = text("maxmemory_policy").filter(|policy| !suits(policy)) {
        faults.push(RedisFault::Eviction(policy));
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_old_a_replica_or_evicts() {
        let faults = |text: &str| faults_of(&InfoDict::new(text));
        for policy in ["noeviction", "volatile-ttl"] {
            let fine = format!("redis_version:6.2.0\r\nrole:master\r\nmaxmemory_policy:{policy}");
            assert_eq!(faults(&fine), []);
        }
        assert_eq!(faults(""), []);
        assert_eq!(faults("redis_version:10.0.1"), []);
        assert_eq!(
            faults("redis_version:6.0.16\r\nrole:slave\r\nmaxmemory_policy:allkeys-lru"),
            [
                RedisFault::Version("6.0.16".to_owned()),
                RedisFault::Replica,
                RedisFault::Eviction("allkeys-lru".to_owned())
            ]
        );
    }
}
