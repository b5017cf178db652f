//! The bus, and its two tasks: one keeps a connection for commands, the other reads the firehose.

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use docg_core::{
    event::Event,
    ids::{ExecutionId, OrganizationId},
    ports::{BusError, EventBus, EventStream, OrganizationStream, WakeStream},
};
use futures::{StreamExt, stream};
use tokio::{
    sync::{Semaphore, broadcast::error::RecvError},
    task::JoinHandle,
};

use crate::{
    cleanup::{CleanedUp, clean_up},
    codec::{Entry, EntryId},
    config::{ConfigError, RedisConfig},
    connect::Connector,
    error::Error,
    firehose,
    hub::Hub,
    keys::Keys,
    link::Link,
    lists, publish, subscription,
};

/// The number of wake-ups that Redis keeps for processes whose connection is down.
const WAKES_KEPT: usize = 1_000;

/// The maximum number of concurrent reads of past events. More reads at once would delay one another and
/// publishing, until calls time out.
const RANGES: usize = 4;

/// A bus that carries events and wake-ups between processes, on Redis Streams.
///
/// The bus has two connections, however many callers read and publish. In a cluster it has one to each
/// server, and one more that reads. If Redis is down, calls fail at once and streams end with
/// [`BusError::Unavailable`]. The bus reconnects by itself.
pub struct RedisBus {
    pub(crate) shared: Arc<Shared>,
    tasks: [JoinHandle<()>; 2],
}

/// The state that the bus, its tasks and its readers share. Readers may outlive the bus.
pub(crate) struct Shared {
    pub(crate) config: RedisConfig,
    pub(crate) keys: Keys,
    pub(crate) link: Link,
    pub(crate) hub: Arc<Hub>,
    ranges: Semaphore,
}

impl Shared {
    /// The first `count` entries of a stream from `from` on.
    pub(crate) async fn range(
        &self,
        key: &str,
        from: EntryId,
        count: usize,
    ) -> Result<Vec<Entry>, Error> {
        // This cannot fail, because the semaphore is never closed.
        let _turn = self.ranges.acquire().await;
        let mut cmd = redis::cmd("XRANGE");
        cmd.arg(key)
            .arg(from.to_string())
            .arg("+")
            .arg("COUNT")
            .arg(count);
        self.link.ask(&cmd).await
    }
}

impl RedisBus {
    /// Opens a bus on the configured server, which need not answer yet. The bus connects in tasks of the
    /// current runtime. The tasks end when the bus is dropped.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] if the configuration is not valid.
    ///
    /// # Panics
    ///
    /// If it is called outside a tokio runtime.
    pub fn open(config: RedisConfig) -> Result<Self, ConfigError> {
        let connector = Arc::new(Connector::new(&config)?);
        let hub = Hub::new(config.subscriber_buffer, config.wake_buffer, config.timeout);
        let shared = Arc::new(Shared {
            keys: Keys::new(&config.prefix),
            link: Link::new(config.timeout),
            hub: Arc::new(hub),
            ranges: Semaphore::new(RANGES),
            config,
        });
        let link = {
            let (shared, connector) = (Arc::clone(&shared), Arc::clone(&connector));
            tokio::spawn(async move { shared.link.keep(&connector).await })
        };
        let reader = {
            let shared = Arc::clone(&shared);
            tokio::spawn(async move { firehose::read(&shared, &connector).await })
        };
        Ok(Self {
            shared,
            tasks: [link, reader],
        })
    }

    /// Waits until Redis answers and readers can be served. Callers need not wait: until then, calls on the
    /// bus fail fast.
    pub async fn ready(&self) {
        self.shared.hub.is_up().await;
        self.shared.link.up().await;
    }

    /// Checks that Redis can be reached and written to, for health checks. Each step of the check may take as
    /// long as the configured timeout.
    ///
    /// # Errors
    ///
    /// [`BusError::Unavailable`], also if only live readers are cut off, or if Redis is full.
    pub async fn check(&self) -> Result<(), BusError> {
        self.shared.hub.check().await?;
        // Write, because a server that is out of memory answers PING and refuses every write.
        self.append(&self.shared.keys.checks, 1, ["", ""]).await
    }

    /// Appends an entry with one field to a stream, and trims the stream to about `most` entries.
    async fn append(&self, stream: &str, most: usize, entry: [&str; 2]) -> Result<(), BusError> {
        let mut pipeline = redis::pipe();
        pipeline
            .cmd("XADD")
            .arg(stream)
            .arg("MAXLEN")
            .arg("~")
            .arg(most)
            .arg("*")
            .arg(&entry)
            .ignore()
            .cmd("EXPIRE")
            .arg(stream)
            .arg(self.shared.config.stream_ttl.as_secs())
            .ignore();
        let appended = self
            .shared
            .link
            .run(|mut connection| async move { pipeline.query_async::<()>(&mut connection).await });
        Ok(appended.await?)
    }

    /// Sets the configured TTL on executions' streams that have no TTL or a longer one. Such streams were
    /// restored from a backup, or written before the configuration changed. The cleanup goes through all
    /// keys, a few hundred at a time; once a day is enough.
    ///
    /// # Errors
    ///
    /// [`BusError::Unavailable`]; streams that were changed before the error stay changed.
    pub async fn cleanup(&self) -> Result<CleanedUp, BusError> {
        clean_up(&self.shared).await
    }
}

impl Drop for RedisBus {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
        self.shared
            .hub
            .down(&Error::Down("the bus was closed".into()));
    }
}

impl fmt::Debug for RedisBus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisBus")
            .field("config", &self.shared.config)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl EventBus for RedisBus {
    async fn publish(&self, events: &[Arc<Event>]) -> Result<(), BusError> {
        Ok(publish::publish(&self.shared, events).await?)
    }

    async fn restore(&self, events: &[Arc<Event>]) -> Result<(), BusError> {
        Ok(publish::restore(&self.shared, events).await?)
    }

    async fn subscribe(&self, execution: ExecutionId, after: u64) -> Result<EventStream, BusError> {
        subscription::subscribe(Arc::clone(&self.shared), execution, after).await
    }

    async fn subscribe_organization(
        &self,
        organization: OrganizationId,
        after: Option<String>,
    ) -> Result<OrganizationStream, BusError> {
        lists::subscribe(Arc::clone(&self.shared), organization, after).await
    }

    async fn wake(&self, execution: ExecutionId) -> Result<(), BusError> {
        let execution = execution.to_string();
        let wakes = &self.shared.keys.wakes;
        self.append(wakes, WAKES_KEPT, ["execution", &execution])
            .await
    }

    async fn wakes(&self) -> Result<WakeStream, BusError> {
        // Subscribe before the check, so that no wake-up after the check is missed.
        let wakes = self.shared.hub.wakes();
        self.shared.hub.check().await?;
        let wakes = stream::unfold(wakes, |mut wakes| async move {
            loop {
                match wakes.recv().await {
                    Ok(execution) => return Some((execution, wakes)),
                    // Ignore missed wake-ups: workers also poll the store, and so find those executions.
                    Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return None,
                }
            }
        });
        Ok(wakes.boxed())
    }
}
