//! The event feed of one execution. The bus makes it fast, the store makes it complete.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures::{
    Stream, StreamExt, TryStreamExt,
    stream::{self, BoxStream},
};

use crate::{
    engine::{Engine, EngineError, Inner},
    event::{Event, EventData},
    ids::{ExecutionId, OrganizationId},
    ports::{BusError, EventStream},
    query::EventQuery,
};

/// Events that are read from the store per query.
const BATCH: usize = 500;
/// How long the bus may be silent before the feed reads the store.
const SILENCE: Duration = Duration::from_secs(15);
/// How often the store is read while the bus is down.
const POLL: Duration = Duration::from_millis(500);

/// All events of one execution after a given `seq`, once and in order: first stored events, then live events.
/// The feed ends after the execution's last event.
///
/// If the bus has a hole, does not reach back far enough or is down, the feed reads the store. Dropping the
/// feed ends its subscription.
pub struct EventFeed(BoxStream<'static, Result<Arc<Event>, EngineError>>);

impl Stream for EventFeed {
    type Item = Result<Arc<Event>, EngineError>;
    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.as_mut().poll_next(context)
    }
}

impl std::fmt::Debug for EventFeed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("EventFeed")
    }
}

impl Engine {
    /// A feed of an execution's events with a `seq` greater than `after`.
    ///
    /// # Errors
    ///
    /// `NotFound`. If the store fails, the feed itself reports an error and ends.
    pub async fn feed(
        &self,
        organization: OrganizationId,
        execution: ExecutionId,
        after: u64,
    ) -> Result<EventFeed, EngineError> {
        let record = self.execution(organization, execution).await?;
        let over = record.execution.status.is_terminal();
        let reader = Reader {
            inner: Arc::clone(&self.inner),
            organization,
            execution,
            last: after,
            over,
            ended: over && after >= record.execution.heads.event_seq,
            live: None,
        };
        let events = stream::try_unfold(reader, |mut reader| async move {
            let batch = reader.next().await?;
            Ok::<_, EngineError>(
                (!batch.is_empty()).then_some((stream::iter(batch).map(Ok), reader)),
            )
        });
        Ok(EventFeed(events.try_flatten().boxed()))
    }
}

struct Reader {
    inner: Arc<Inner>,
    organization: OrganizationId,
    execution: ExecutionId,
    /// The `seq` of the last event that was returned.
    last: u64,
    /// True if the execution has ended; the store then has all its events.
    over: bool,
    ended: bool,
    live: Option<EventStream>,
}

impl Reader {
    /// The next events; none after the execution's last event.
    async fn next(&mut self) -> Result<Vec<Arc<Event>>, EngineError> {
        loop {
            if self.ended {
                return Ok(Vec::new());
            }
            let batch = match &mut self.live {
                Some(live) => match tokio::time::timeout(SILENCE, live.next()).await {
                    Ok(Some(Ok(event))) if event.seq <= self.last => continue,
                    Ok(Some(Ok(event))) if event.seq == self.last + 1 => vec![event],
                    // The bus lost events that this feed already read from the store: subscribe after them.
                    Ok(Some(Err(BusError::TooOld { after }))) if after < self.last => {
                        self.catch_up().await?
                    }
                    // The bus has a hole, or the subscription has ended: read the store.
                    Ok(Some(Ok(_) | Err(_)) | None) => {
                        self.live = None;
                        self.stored().await?
                    }
                    // Silence: either nothing happened, or the bus never got the events.
                    Err(_) => self.stored().await?,
                },
                // The last event may have been purged; then no event marks the end.
                None if self.over => {
                    let batch = self.stored().await?;
                    self.ended = batch.is_empty();
                    batch
                }
                None => self.catch_up().await?,
            };
            if let Some(last) = batch.last() {
                self.last = last.seq;
                self.ended = is_last(last);
                return Ok(batch);
            }
        }
    }

    /// Subscribes if the bus reaches back far enough, else reads the store.
    async fn catch_up(&mut self) -> Result<Vec<Arc<Event>>, EngineError> {
        match self.inner.bus.subscribe(self.execution, self.last).await {
            Ok(live) => {
                self.live = Some(live);
                // Events that were committed while the bus was down may never have reached it.
                self.stored().await
            }
            Err(reason) => {
                let batch = self.stored().await?;
                if batch.is_empty() {
                    tracing::debug!(execution_id = %self.execution, "reading from the store: {reason}");
                    tokio::time::sleep(POLL).await;
                }
                Ok(batch)
            }
        }
    }

    async fn stored(&mut self) -> Result<Vec<Arc<Event>>, EngineError> {
        let query = EventQuery::of(self.organization, self.execution)
            .after(self.last)
            .limit(BATCH);
        let events = self.inner.store.events(query).await?;
        // Return events with a damaged `seq` only if an intact event follows them. Otherwise the feed would
        // not advance, and would return them for ever.
        let leads_on = events.last().is_some_and(|event| event.seq > self.last);
        Ok(if leads_on { events } else { Vec::new() })
    }
}

/// True if no event can follow this one.
fn is_last(event: &Event) -> bool {
    matches!(
        event.data,
        EventData::Completed { .. } | EventData::Failed { .. } | EventData::Canceled { .. }
    )
}
