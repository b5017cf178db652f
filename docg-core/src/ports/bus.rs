use std::sync::Arc;

use async_trait::async_trait;
use futures::stream::BoxStream;

use crate::{
    event::Event,
    ids::{ExecutionId, OrganizationId},
};

/// The events of one execution, in order and without repeats. If the bus can no longer promise that, the
/// stream ends with an error, and the reader continues from the store.
pub type EventStream = BoxStream<'static, Result<Arc<Event>, BusError>>;

/// An organization stream: events of all executions of an organization. It ends only with
/// an error, its last item: the reader may have missed events, or the bus is unavailable.
pub type OrganizationStream = BoxStream<'static, Result<ListEvent, BusError>>;

/// An event in an organization stream.
#[derive(Debug, Clone, PartialEq)]
pub struct ListEvent {
    /// The event's position in the stream; a reader can resume after it. Only the bus can interpret it.
    pub position: String,
    /// The event.
    pub event: Arc<Event>,
}

/// The ids of executions that need a worker, or whose lease holder has a signal. Wake-ups can get lost;
/// polling finds these executions too.
pub type WakeStream = BoxStream<'static, ExecutionId>;

/// Carries events to live readers, and wake-ups between processes. The bus is fast but not durable: a reader
/// that must miss no event also reads the store.
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait EventBus: Send + Sync + 'static {
    /// Publishes events, in order per execution. Publishing an event again changes nothing. The bus refuses
    /// an event that does not follow its last event of the execution, so that no gap can arise. If the bus
    /// has no event of the execution, or no longer has any, the first event must have `seq` 1.
    ///
    /// # Errors
    ///
    /// [`BusError::Behind`] if earlier events are missing; [`BusError::Unavailable`], reported quickly. In
    /// both cases some of the events may have been published.
    async fn publish(&self, events: &[Arc<Event>]) -> Result<(), BusError>;
    /// Puts back events of one execution that were published before and that the bus has lost, so that later
    /// events can follow them. Only readers that subscribe later receive the restored events; organization
    /// streams do not. If the bus has no event of the execution, any event may be the first; else the events
    /// must follow the last one as in [`publish`](Self::publish).
    ///
    /// # Errors
    ///
    /// As [`publish`](Self::publish).
    async fn restore(&self, events: &[Arc<Event>]) -> Result<(), BusError>;
    /// Streams the execution's events after `after` that the bus still has, then live ones. If the bus has no
    /// event of the execution, the stream starts with the next event published. A reader therefore subscribes
    /// first, and then reads the earlier events from the store.
    ///
    /// # Errors
    ///
    /// [`BusError::TooOld`] if the bus no longer has the events after `after`; [`BusError::Unavailable`].
    async fn subscribe(&self, execution: ExecutionId, after: u64) -> Result<EventStream, BusError>;
    /// Streams an organization's events that are [for lists](crate::event::EventData::is_for_lists), in order
    /// within each execution. The stream starts with live events, or after the given position. If the reader
    /// may have missed events, the stream ends. If the bus itself may have lost events, it refuses all
    /// positions that it gave before.
    ///
    /// # Errors
    ///
    /// [`BusError::UnknownPosition`], which also ends a stream; [`BusError::Unavailable`].
    async fn subscribe_organization(
        &self,
        organization: OrganizationId,
        after: Option<String>,
    ) -> Result<OrganizationStream, BusError>;
    /// Notifies other processes that an execution needs a worker, or that its lease holder has a signal.
    ///
    /// # Errors
    ///
    /// [`BusError::Unavailable`]; workers that poll the store still find the execution.
    async fn wake(&self, execution: ExecutionId) -> Result<(), BusError>;
    /// Streams wake-ups from all processes, including this process.
    ///
    /// # Errors
    ///
    /// [`BusError::Unavailable`].
    async fn wakes(&self) -> Result<WakeStream, BusError>;
}

/// Why a call of the bus failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BusError {
    /// The bus no longer has the events after the given one.
    #[error("the bus no longer reaches back to event {after}")]
    TooOld {
        /// The event after which the reader asked to start.
        after: u64,
    },
    /// The bus lacks the events from `from` on, which must be published first. The bus never had these
    /// events or has lost them.
    #[error("the bus wants the events of execution {execution} from {from} on first")]
    Behind {
        /// The execution that the events belong to.
        execution: ExecutionId,
        /// The last event that the bus has; 0 if it does not know the execution.
        head: u64,
        /// The first event that the bus needs. The bus would not keep earlier events anyway.
        from: u64,
    },
    /// The bus did not give this position, no longer keeps the events after it, or may have lost them.
    #[error("the bus does not know this position, or no longer")]
    UnknownPosition,
    /// The reader was too slow and has missed events.
    #[error("the reader fell behind and was cut off")]
    Lagged,
    /// The bus does not answer.
    #[error("the bus is unavailable: {0}")]
    Unavailable(String),
}
