//! The reading connection, one per process. It reads all executions' events and all wake-ups, for all readers
//! and listeners of the process, and detects when events may be lost.

use std::{
    convert::Infallible,
    sync::{Arc, LazyLock},
    time::Instant,
};

use redis::{Cmd, InfoDict, Script, aio::MultiplexedConnection};

use crate::{
    backoff::Backoff,
    bus::Shared,
    codec::{Entry, EntryId},
    connect::Connector,
    error::Error,
    history::{info, replication_id},
};

static BEGIN_ANEW: LazyLock<Script> =
    LazyLock::new(|| Script::new(include_str!("scripts/begin_anew.lua")));

/// The maximum number of entries per read.
const BATCH: usize = 1_000;

/// Reads the firehose, reconnecting as needed, until the task is dropped.
pub(crate) async fn read(shared: &Shared, connector: &Connector) {
    let mut reader = Reader {
        shared,
        events: EntryId::default(),
        wakes: None,
        told: None,
        was_up: false,
        backoff: Backoff::default(),
    };
    let mut is_told = false;
    loop {
        let Err(error) = reader.session(connector).await;
        shared.hub.down(&error);
        // Warn once per outage.
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
    /// The entry id of the last event that was read.
    events: EntryId,
    /// The entry id of the last wake-up that was read. A new connection continues after this entry, because
    /// Redis keeps wake-ups for a while.
    wakes: Option<EntryId>,
    told: Option<Told>,
    was_up: bool,
    backoff: Backoff,
}

/// A gap that readers know of: readers in the history `replication_id` may lack events that this process
/// published in other histories before `until`.
struct Told {
    replication_id: Arc<str>,
    until: Instant,
}

impl Reader<'_> {
    /// Connects, and reads until an error occurs.
    async fn session(&mut self, connector: &Connector) -> Result<Infallible, Error> {
        let Shared {
            keys,
            config,
            hub,
            link,
            ..
        } = self.shared;
        let mut connection = connector
            .connect_to_owner(&keys.firehose, config.block)
            .await?;
        let mut found = self.look(&mut connection).await?;
        let here = Arc::clone(&found.replication_id);
        let before = self.told.as_ref().map(|told| &told.replication_id);
        if before.is_some_and(|before| *before != here) || link.is_elsewhere(&here) {
            // The server has restarted, or another one has taken over. The connection for commands (`link`) may
            // still lead to the old server, where commands would be lost. So it must reconnect.
            link.move_to(&here);
        }
        // The next check finds commands that end on another server after this time.
        let until = Instant::now();
        if let Some(last) = self.last_untold(&here) {
            self.begin_anew(&mut connection, &here, last).await?;
            found = self.look(&mut connection).await?;
            if found.replication_id != here {
                return Err(Error::Reset);
            }
        }
        let Found {
            replication_id,
            last_event,
            last_wake,
        } = found;
        self.told = Some(Told {
            replication_id: here,
            until,
        });
        self.events = last_event;
        let mut wakes = self
            .wakes
            .filter(|id| *id <= last_wake)
            .unwrap_or(last_wake);
        hub.up(Arc::clone(&replication_id));
        self.was_up = true;
        let mut looked = Instant::now();
        loop {
            self.wakes = Some(wakes);
            let cmd = self.wait_for_more(wakes);
            type Streams = Option<Vec<(String, Vec<Entry>)>>;
            let streams: Streams = cmd.query_async(&mut connection).await?;
            self.backoff.reset();
            let is_idle = streams.is_none();
            for (key, entries) in streams.into_iter().flatten() {
                if key == keys.wakes {
                    wakes = entries.last().map_or(wakes, |entry| entry.id);
                    let executions = entries.iter().filter_map(Entry::execution);
                    executions.for_each(|execution| hub.wake(execution));
                } else {
                    self.take(&entries)?;
                }
            }
            // If no entry came, or the last check is `block` ago, check that the firehose was neither lost
            // nor replaced.
            if is_idle || looked.elapsed() >= config.block {
                let now = self.look(&mut connection).await?;
                if now.last_event < self.events
                    || now.replication_id != replication_id
                    || link.is_elsewhere(&replication_id)
                    || self.last_untold(&replication_id).is_some()
                {
                    return Err(Error::Reset);
                }
                looked = Instant::now();
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

    /// The time of this process's last command in another history of the data, if readers in the history
    /// `here` do not know yet that its events may be missing.
    fn last_untold(&self, here: &Arc<str>) -> Option<Instant> {
        let before = self.told.as_ref();
        let last = self
            .shared
            .link
            .last_used_elsewhere(here, before.map(|told| &told.replication_id))?;
        let is_told = before.is_some_and(|told| told.replication_id == *here && last < told.until);
        (!is_told).then_some(last)
    }

    /// Restarts the firehose after another server has taken over, so that all its readers learn of a gap.
    /// Other processes may already read the new server's firehose, and cannot know that events which this
    /// process published on the previous server are missing.
    async fn begin_anew(
        &self,
        connection: &mut MultiplexedConnection,
        replication_id: &Arc<str>,
        last: Instant,
    ) -> Result<(), Error> {
        let Shared { keys, config, .. } = self.shared;
        let mut begin_anew = BEGIN_ANEW.key(&keys.firehose);
        begin_anew
            .arg(u64::try_from(last.elapsed().as_micros()).unwrap_or(u64::MAX))
            .arg(config.stream_ttl.as_secs())
            .arg(&**replication_id);
        Ok(begin_anew.invoke_async(connection).await?)
    }

    async fn look(&self, connection: &mut MultiplexedConnection) -> Result<Found, Error> {
        let Shared { keys, .. } = self.shared;
        let mut cmds = info();
        cmds.add_command(last_entry(&keys.firehose));
        cmds.add_command(last_entry(&keys.wakes));
        type Answers = (InfoDict, InfoDict, Vec<Entry>, Vec<Entry>);
        let (replication, itself, events, wakes): Answers = cmds.query_async(connection).await?;
        let id = |entries: &[Entry]| entries.first().map_or(EntryId::default(), |entry| entry.id);
        Ok(Found {
            replication_id: replication_id(&replication, &itself)?,
            last_event: id(&events),
            last_wake: id(&wakes),
        })
    }
}

/// The server's history, and the ids of its last event and its last wake-up.
struct Found {
    replication_id: Arc<str>,
    last_event: EntryId,
    last_wake: EntryId,
}

/// The command for a stream's last entry.
pub(crate) fn last_entry(key: &str) -> Cmd {
    let mut cmd = redis::cmd("XREVRANGE");
    cmd.arg(key).arg("+").arg("-").arg("COUNT").arg(1);
    cmd
}
