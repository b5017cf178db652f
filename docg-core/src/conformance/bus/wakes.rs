use futures::{StreamExt, future::join_all};

use super::listen::soon;
use crate::{conformance::BusUnderTest, ids::ExecutionId};

/// A wake reaches every listener in every process, the sender's included.
pub async fn a_wake_reaches_every_listener(BusUnderTest { bus, peer, .. }: BusUnderTest) {
    let mut listeners = Vec::new();
    for bus in [&bus, &bus, &peer] {
        listeners.push(bus.wakes().await.expect("listens"));
    }
    let wanted: Vec<_> = (0..5).map(|_| ExecutionId::new()).collect();
    for id in &wanted {
        bus.wake(*id).await.expect("wakes");
    }
    let heard = join_all(
        listeners
            .iter_mut()
            .map(|it| soon(it.take(5).collect::<Vec<_>>())),
    )
    .await;
    assert_eq!(heard, vec![wanted; 3]);
}

/// A wake without a listener succeeds.
pub async fn a_wake_that_nobody_hears_is_no_error(BusUnderTest { bus, .. }: BusUnderTest) {
    bus.wake(ExecutionId::new()).await.expect("wakes");
}

/// The other listeners get every wake, even if a listener has left or does not read.
pub async fn a_listener_that_left_disturbs_nobody(BusUnderTest { bus, peer, .. }: BusUnderTest) {
    let left = bus.wakes().await.expect("listens");
    let _idle = bus.wakes().await.expect("listens");
    let mut listens = peer.wakes().await.expect("listens");
    drop(left);
    for _ in 0..10 {
        let id = ExecutionId::new();
        bus.wake(id).await.expect("wakes");
        assert_eq!(soon(listens.next()).await, Some(id));
    }
}
