//! The event feed: what streams read. The bus makes it fast, the store makes it right.

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

use super::{Engine, EngineError, Inner};
use crate::{
    event::{Event, EventData},
    ids::{ExecutionId, OrganizationId},
    ports::{BusError, EventQuery, EventStream},
};

/// Events that are read from the store at once.
const BATCH: usize = 500;
/// After how long a silence of the bus the store is asked.
const SILENCE: Duration = Duration::from_secs(15);
/// How often the store is asked while the bus is down.
const POLL: Duration = Duration::from_millis(500);

/// Every event of one execution after a given one, once and in order: first what is stored, then
/// live. It ends after the execution's last event.
///
/// Where the bus has a hole, no longer reaches back or is down, the store is read. Dropping the
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
    /// Every event of an execution with a `seq` greater than `after`.
    ///
    /// # Errors
    ///
    /// `NotFound`. The feed itself gives an error, and ends, where the store fails.
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
    /// The last event that was given.
    last: u64,
    /// The execution has ended: what is stored is all that there will be.
    over: bool,
    ended: bool,
    live: Option<EventStream>,
}

impl Reader {
    /// The next events; none at the end.
    async fn next(&mut self) -> Result<Vec<Arc<Event>>, EngineError> {
        loop {
            if self.ended {
                return Ok(Vec::new());
            }
            let batch = match &mut self.live {
                Some(live) => match tokio::time::timeout(SILENCE, live.next()).await {
                    Ok(Some(Ok(event))) if event.seq <= self.last => continue,
                    Ok(Some(Ok(event))) if event.seq == self.last + 1 => vec![event],
                    // It cannot give again what was read from the store.
                    Ok(Some(Err(BusError::TooOld { after }))) if after < self.last => {
                        self.catch_up().await?
                    }
                    // A hole, or the end of what the bus can give: the store has it.
                    Ok(Some(Ok(_) | Err(_)) | None) => {
                        self.live = None;
                        self.stored().await?
                    }
                    // Perhaps nothing happens, and perhaps the bus was never told.
                    Err(_) => self.stored().await?,
                },
                // Its last event may have been purged: then nothing says that it was the last.
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

    /// Goes live where the bus reaches back to here; else reads the store.
    async fn catch_up(&mut self) -> Result<Vec<Arc<Event>>, EngineError> {
        match self.inner.bus.subscribe(self.execution, self.last).await {
            Ok(live) => {
                self.live = Some(live);
                // The bus may never have had what was published while it was down.
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
        let query = EventQuery {
            organization_id: self.organization,
            execution_id: self.execution,
            after: self.last,
            limit: BATCH,
        };
        let events = self.inner.store.events(query).await?;
        // Events whose place is damaged come with the first that has one: alone they would come for ever.
        let leads_on = events.last().is_some_and(|event| event.seq > self.last);
        Ok(if leads_on { events } else { Vec::new() })
    }
}

/// Whether nothing can follow an event.
fn is_last(event: &Event) -> bool {
    matches!(
        event.data,
        EventData::Completed { .. } | EventData::Failed { .. } | EventData::Canceled { .. }
    )
}
