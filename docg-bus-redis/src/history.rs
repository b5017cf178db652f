//! Names the history of a server's data. Data written in one history may be missing in another.

use std::sync::{Arc, Once};

use redis::{InfoDict, Pipeline};

use crate::error::Error;

/// The `INFO` commands for a server's replication and for the server itself. Redis 6.2 takes only one
/// section in a command.
pub(crate) fn info() -> Pipeline {
    let mut info = redis::pipe();
    info.cmd("INFO")
        .arg("replication")
        .cmd("INFO")
        .arg("server");
    info
}

/// The name of the history of a server's data: its replication id. Each restart and each failover starts a
/// new history, in which the latest data may be missing. A replica has its primary's id but may lack data, so
/// a replica is refused. If the server has no replication id, its run id is used, which also changes at a
/// restart.
pub(crate) fn replication_id(replication: &InfoDict, itself: &InfoDict) -> Result<Arc<str>, Error> {
    if replication
        .get("role")
        .is_some_and(|role: String| role == "slave")
    {
        return Err(Error::Replica);
    }
    let id: Option<String> = replication
        .get("master_replid")
        .or_else(|| itself.get("run_id"));
    if id.is_none() {
        static IS_TOLD: Once = Once::new();
        IS_TOLD.call_once(|| {
            tracing::warn!(
                "Redis has neither a replication id nor a run id: readers of lists may miss what a \
                 restart or a failover loses"
            );
        });
    }
    Ok(id.unwrap_or_default().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_has_a_name_where_the_server_tells_one() {
        let id = |replication: &str, itself: &str| {
            let id = replication_id(&InfoDict::new(replication), &InfoDict::new(itself));
            id.map(|id| id.to_string())
                .map_err(|error| error.to_string())
        };
        let itself = "run_id:b";
        assert_eq!(
            id("role:master\r\nmaster_replid:a", itself),
            Ok("a".to_owned())
        );
        assert_eq!(id("role:master", itself), Ok("b".to_owned()));
        assert_eq!(id("", ""), Ok(String::new()));
        let is_replica = Err("Redis is a replica".to_owned());
        assert_eq!(id("role:slave\r\nmaster_replid:a", itself), is_replica);
    }
}
