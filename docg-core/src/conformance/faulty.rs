//! Decorators that make the calls of a store or a bus fail as a test has planned.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use crate::ports::{
    BusError, EventBus, Intercepted, Interceptor, Store, StoreError, StoreErrorKind,
};

/// The way in which a call fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The decorated port is not called, and the caller gets an error.
    Before,
    /// The decorated port is called, but its answer is lost: the caller gets an error.
    After,
    /// The decorated port is not called, and the caller gets an error after this time.
    Hang(Duration),
    /// The decorated port is called, and the caller gets its answer after this time.
    Slow(Duration),
}

/// A call that may fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call {
    /// The number of the call at this decorator, from 1.
    pub number: u64,
    /// The name of the method.
    pub operation: &'static str,
}

/// A store whose calls fail as planned, with `Unavailable`.
pub type FaultyStore = Intercepted<dyn Store, Faults>;

/// A bus whose calls fail as planned, with `Unavailable`.
pub type FaultyBus = Intercepted<dyn EventBus, Faults>;

impl<P: ?Sized> Intercepted<P, Faults> {
    /// Creates a decorator that fails the calls chosen by the closure.
    pub fn new(port: Arc<P>, plan: impl Fn(Call) -> Option<Fault> + Send + Sync + 'static) -> Self {
        let faults = Faults {
            calls: AtomicU64::new(0),
            plan: Box::new(plan),
        };
        Self::wrap(port, faults)
    }

    /// Creates a decorator that fails one call: call `number`, counted from 1.
    #[must_use]
    pub fn failing_nth(port: Arc<P>, number: u64, fault: Fault) -> Self {
        Self::new(port, move |call| (call.number == number).then_some(fault))
    }

    /// The number of calls so far.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.interceptor.calls.load(Ordering::Relaxed)
    }
}

/// Numbers the calls of a port, and fails those that a plan chooses.
pub struct Faults {
    calls: AtomicU64,
    plan: Box<dyn Fn(Call) -> Option<Fault> + Send + Sync>,
}

impl fmt::Debug for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Faults")
            .field("calls", &self.calls)
            .finish_non_exhaustive()
    }
}

impl Faults {
    /// Makes one call, with the fault that is planned for it. `lost` is the error that the caller then gets.
    async fn make<T, E>(
        &self,
        operation: &'static str,
        call: impl Future<Output = Result<T, E>>,
        lost: E,
    ) -> Result<T, E> {
        let number = self.calls.fetch_add(1, Ordering::Relaxed) + 1;
        match (self.plan)(Call { number, operation }) {
            None => call.await,
            Some(Fault::Before) => Err(lost),
            Some(Fault::After) => call.await.and(Err(lost)),
            Some(Fault::Hang(time)) => {
                tokio::time::sleep(time).await;
                Err(lost)
            }
            Some(Fault::Slow(time)) => {
                let answer = call.await;
                tokio::time::sleep(time).await;
                answer
            }
        }
    }
}

impl Interceptor<StoreError> for Faults {
    async fn around<T: Send>(
        &self,
        operation: &'static str,
        call: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        let lost = StoreError::new(StoreErrorKind::Unavailable, operation, "planned");
        self.make(operation, call, lost).await
    }
}

impl Interceptor<BusError> for Faults {
    async fn around<T: Send>(
        &self,
        operation: &'static str,
        call: impl Future<Output = Result<T, BusError>> + Send,
    ) -> Result<T, BusError> {
        let lost = BusError::Unavailable(format!("{operation}: planned"));
        self.make(operation, call, lost).await
    }
}
