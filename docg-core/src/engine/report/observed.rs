//! Reports the calls of the ports to observers.

use std::{sync::Arc, time::Instant};

use super::observer::{Fact, Observers};
use crate::ports::{BusError, Interceptor, StoreError};

/// Reports the calls of a port to observers.
pub(in crate::engine) struct Reports(pub(in crate::engine) Arc<Observers>);

impl Interceptor<StoreError> for Reports {
    async fn around<T: Send>(
        &self,
        operation: &'static str,
        call: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        let began = Instant::now();
        let answer = call.await;
        self.0.tell(&Fact::StoreCalled {
            operation,
            duration: began.elapsed(),
            error: answer.as_ref().err().map(|error| error.kind),
        });
        answer
    }
}

impl Interceptor<BusError> for Reports {
    async fn around<T: Send>(
        &self,
        operation: &'static str,
        call: impl Future<Output = Result<T, BusError>> + Send,
    ) -> Result<T, BusError> {
        let answer = call.await;
        // Any other error is an answer of a bus that works. The reader then reads the store.
        if matches!(answer, Err(BusError::Unavailable(_))) {
            self.0.tell(&Fact::BusUnavailable { operation });
        }
        answer
    }
}
