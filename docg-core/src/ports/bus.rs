use std::sync::Arc;

use async_trait::async_trait;
use futures::stream::BoxStream;

use crate::{
    event::Event,
    ids::{ExecutionId, OrganizationId},
};

/// Events of one execution: in order, without a repeat. It ends with an error where the bus can no
/// longer promise that; the reader then goes to the store.
pub type EventStream = BoxStream<'static, Result<Arc<Event>, BusError>>;

/// List events of one organization's executions, until an error ends it.
pub type OrganizationStream = BoxStream<'static, Result<ListEvent, BusError>>;

/// An event in an organization's list.
#[derive(Debug, Clone, PartialEq)]
pub struct ListEvent {
    /// Where a reader goes on that has seen the event. Only the bus can read it.
    pub position: String,
    /// The event.
    pub event: Arc<Event>,
}

/// Executions that want a worker. Lossy: polling is what makes waking sure.
pub type WakeStream = BoxStream<'static, ExecutionId>;

/// Carries events to live readers, and wake-ups between processes. Fast, not durable: the store is
/// what makes reading right.
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait EventBus: Send + Sync + 'static {
    /// Publishes events, in order per execution. An event that was published before changes
    /// nothing; one that does not follow those that the bus has is refused, so that nobody can
    /// leave a hole. An execution that the bus does not know, or no longer, begins with 1.
    ///
    /// # Errors
    ///
    /// [`BusError::Behind`] where earlier events are missing; [`BusError::Unavailable`], which comes
    /// fast. With either some of the events may be out.
    async fn publish(&self, events: &[Arc<Event>]) -> Result<(), BusError>;
    /// Gives back events of one execution that were published before and that the bus has lost, so
    /// that it can go on after them. They are for who subscribes later, no news in lists. Where the
    /// bus has none of an execution's events, any may be the first; else they follow as in
    /// [`publish`](Self::publish).
    ///
    /// # Errors
    ///
    /// As [`publish`](Self::publish).
    async fn restore(&self, events: &[Arc<Event>]) -> Result<(), BusError>;
    /// What the bus still has of an execution after `after`, then live. Of an execution that it
    /// does not know, or no longer, that is what is published from now on: a reader subscribes
    /// first and then looks into the store.
    ///
    /// # Errors
    ///
    /// [`BusError::TooOld`] where it no longer reaches back that far; [`BusError::Unavailable`].
    async fn subscribe(&self, execution: ExecutionId, after: u64) -> Result<EventStream, BusError>;
    /// The events of all of an organization's executions that are
    /// [for lists](crate::event::EventData::is_for_lists), those of one execution in order: from now
    /// on, or those after a position and then live. Where the reader may miss some, the stream ends;
    /// where the bus itself may have lost some, positions that were given before are unknown too.
    ///
    /// # Errors
    ///
    /// [`BusError::UnknownPosition`], which also ends a stream; [`BusError::Unavailable`].
    async fn subscribe_organization(
        &self,
        organization: OrganizationId,
        after: Option<String>,
    ) -> Result<OrganizationStream, BusError>;
    /// Tells other processes that an execution wants a worker, or its holder has a signal.
    ///
    /// # Errors
    ///
    /// [`BusError::Unavailable`]; polling still finds the execution.
    async fn wake(&self, execution: ExecutionId) -> Result<(), BusError>;
    /// Wake-ups from all processes, this one included.
    ///
    /// # Errors
    ///
    /// [`BusError::Unavailable`].
    async fn wakes(&self) -> Result<WakeStream, BusError>;
}

/// Why a bus did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BusError {
    /// It no longer has the events after the given one.
    #[error("the bus no longer reaches back to event {after}")]
    TooOld {
        /// What was asked for.
        after: u64,
    },
    /// Events cannot be published before those from this one on, which it never had or has lost.
    #[error("the bus wants the events of execution {execution} from {from} on first")]
    Behind {
        /// Whose events.
        execution: ExecutionId,
        /// The last that it has; 0 where it does not know the execution.
        head: u64,
        /// The first that it wants. What lies before it would not be kept anyway.
        from: u64,
    },
    /// The position was not given by this bus, or what followed it is no longer kept or may be lost.
    #[error("the bus does not know this position, or no longer")]
    UnknownPosition,
    /// The reader was too slow and has missed events.
    #[error("the reader fell behind and was cut off")]
    Lagged,
    /// It does not answer.
    #[error("the bus is unavailable: {0}")]
    Unavailable(String),
}
