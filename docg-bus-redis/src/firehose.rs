//! The connection that waits: one per process, for all readers and listeners. It reads every event
//! of every execution and each wake-up, and notices where something may have been lost.

use std::convert::Infallible;

use redis::Cmd;

use crate::{
    backoff::Backoff,
    bus::Shared,
    codec::{Entry, EntryId},
    connect::{Connection, Connector},
    error::Error,
};

/// Entries that are read at once.
const BATCH: usize = 1_000;

/// Reads until it is dropped.
pub(crate) async fn read(shared: &Shared, connector: &Connector) {
    let mut reader = Reader {
        shared,
        events: EntryId::default(),
        wakes: None,
        was_up: false,
        backoff: Backoff::default(),
    };
    let mut is_told = false;
    loop {
        let Err(error) = reader.session(connector).await;
        shared.hub.down(&error);
        // Once for each time that it is down.
        if std::mem::take(&mut reader.was_up) || !is_told {
            tracing::warn!("live readers are sent to the store, until Redis is back: {error}");
            is_told = true;
        }
        if !matches!(error, Error::Reset) {
            tokio::time::sleep(reader.backoff.next()).await;
        }
    }
}

struct Reader<'a> {
    shared: &'a Shared,
    /// The last event that was read.
    events: EntryId,
    /// The last wake-up that was read. Kept while the connection is down: they lie in wait.
    wakes: Option<EntryId>,
    was_up: bool,
    backoff: Backoff,
}

impl Reader<'_> {
    /// From connecting to whatever ends the connection.
    async fn session(&mut self, connector: &Connector) -> Result<Infallible, Error> {
        let Shared {
            keys, config, hub, ..
        } = self.shared;
        let mut connection = connector.connect(config.block).await?;
        self.events = self.last(&mut connection, &keys.firehose).await?;
        let last_wake = self.last(&mut connection, &keys.wakes).await?;
        let mut wakes = self
            .wakes
            .filter(|id| *id <= last_wake)
            .unwrap_or(last_wake);
        hub.up();
        self.was_up = true;
        loop {
            self.wakes = Some(wakes);
            let cmd = self.wait_for_more(wakes);
            type Streams = Option<Vec<(String, Vec<Entry>)>>;
            let streams: Streams = cmd.query_async(&mut connection).await?;
            self.backoff.reset();
            let Some(streams) = streams else {
                // Nothing for a while: because there is nothing?
                if self.last(&mut connection, &keys.firehose).await? < self.events {
                    return Err(Error::Reset);
                }
                continue;
            };
            for (key, entries) in streams {
                if key == keys.wakes {
                    wakes = entries.last().map_or(wakes, |entry| entry.id);
                    let executions = entries.iter().filter_map(Entry::execution);
                    executions.for_each(|execution| hub.wake(execution));
                } else {
                    self.take(&entries)?;
                }
            }
        }
    }

    fn wait_for_more(&self, wakes: EntryId) -> Cmd {
        let Shared { keys, config, .. } = self.shared;
        let mut cmd = redis::cmd("XREAD");
        cmd.arg("COUNT")
            .arg(BATCH)
            .arg("BLOCK")
            .arg(u64::try_from(config.block.as_millis()).unwrap_or(u64::MAX))
            .arg("STREAMS")
            .arg(&keys.firehose)
            .arg(&keys.wakes)
            .arg(self.events.to_string())
            .arg(wakes.to_string());
        cmd
    }

    fn take(&mut self, entries: &[Entry]) -> Result<(), Error> {
        for entry in entries {
            if !self.events.is_followed_by(entry.id) {
                return Err(Error::Reset);
            }
            self.events = entry.id;
            self.shared.hub.dispatch(entry);
        }
        Ok(())
    }

    async fn last(&self, connection: &mut Connection, key: &str) -> Result<EntryId, Error> {
        let last: Vec<Entry> = last_entry(key).query_async(connection).await?;
        Ok(last.first().map_or(EntryId::default(), |entry| entry.id))
    }
}

/// Asks for a stream's last entry.
pub(crate) fn last_entry(key: &str) -> Cmd {
    let mut cmd = redis::cmd("XREVRANGE");
    cmd.arg(key).arg("+").arg("-").arg("COUNT").arg(1);
    cmd
}
