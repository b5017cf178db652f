//! The wake-ups that processes send each other over the bus.

use std::time::Duration;

use futures::StreamExt;

use crate::engine::Inner;

/// The pause after the bus did not answer.
const PAUSE: Duration = Duration::from_secs(1);

/// Receives the wake-ups of all processes.
pub(super) async fn receive(inner: &Inner) {
    loop {
        match inner.bus.wakes().await {
            Ok(mut wakes) => {
                inner.warnings.wakes.is_over();
                // Wake-ups may have been lost before this subscription.
                inner.wake_workers();
                while let Some(execution) = wakes.next().await {
                    if !inner.active.notify(execution) {
                        inner.wake_workers();
                    }
                }
            }
            Err(error) => inner.warnings.wakes.happened(&error),
        }
        inner.clock.sleep(PAUSE).await;
    }
}
