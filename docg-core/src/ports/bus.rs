use std::sync::Arc;

use async_trait::async_trait;
use futures::stream::BoxStream;

use crate::{event::Event, ids::ExecutionId};

/// Events of one execution: in order, without a repeat. It ends with an error where the bus can no
/// longer promise that; the reader then goes to the store.
pub type EventStream = BoxStream<'static, Result<Arc<Event>, BusError>>;

/// Executions that want a worker. Lossy: polling is what makes waking sure.
pub type WakeStream = BoxStream<'static, ExecutionId>;

/// Carries events to live readers, and wake-ups between processes. Fast, not durable: the store is
/// what makes reading right.
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait EventBus: Send + Sync + 'static {
    /// Publishes events, in order per execution. An event that was published before changes
    /// nothing.
    ///
    /// # Errors
    ///
    /// [`BusError::Unavailable`]; it fails fast and some of the events may be out.
    async fn publish(&self, events: &[Arc<Event>]) -> Result<(), BusError>;
    /// What the bus still has of an execution after `after`, then live. Of an execution that it
    /// does not know, or no longer, that is what is published from now on: a reader subscribes
    /// first and then looks into the store.
    ///
    /// # Errors
    ///
    /// [`BusError::TooOld`] where it no longer reaches back that far; [`BusError::Unavailable`].
    async fn subscribe(&self, execution: ExecutionId, after: u64) -> Result<EventStream, BusError>;
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
    /// The reader was too slow and has missed events.
    #[error("the reader fell behind and was cut off")]
    Lagged,
    /// It does not answer.
    #[error("the bus is unavailable: {0}")]
    Unavailable(String),
}
