use super::listen::{next, seqs, soon, subscribe};
use crate::{
    conformance::{BusUnderTest, fixtures::events},
    ports::BusError,
};

/// A late reader gets all events that the bus still has, in order and as they were published.
pub async fn a_late_reader_gets_what_was_published_in_order(
    BusUnderTest { bus, peer, .. }: BusUnderTest,
) {
    use futures::StreamExt;
    let events = events(10);
    for some in events.chunks(3) {
        bus.publish(some).await.expect("publishes");
    }
    let mut stream = subscribe(&*peer, events[0].execution_id, 0).await;
    for event in events {
        assert_eq!(
            soon(stream.next())
                .await
                .expect("goes on")
                .expect("is an event"),
            event
        );
    }
}

/// A reader that has some events gets the following events, also if it subscribes before their publication.
pub async fn a_reader_goes_on_after_what_it_has(BusUnderTest { bus, peer, .. }: BusUnderTest) {
    let events = events(12);
    bus.publish(&events[..10]).await.expect("publishes");
    let id = events[0].execution_id;
    let mut from_the_middle = subscribe(&*peer, id, 6).await;
    let mut from_the_end = subscribe(&*peer, id, 10).await;
    bus.publish(&events[10..]).await.expect("publishes");
    assert_eq!(next(&mut from_the_middle, 6).await, seqs(7, 12));
    assert_eq!(next(&mut from_the_end, 2).await, seqs(11, 12));
}

/// Late and live readers get an event once, even if it is published twice.
pub async fn what_is_published_twice_comes_once(BusUnderTest { bus, peer, .. }: BusUnderTest) {
    let events = events(8);
    let id = events[0].execution_id;
    let mut live = subscribe(&*bus, id, 0).await;
    bus.publish(&events[..3]).await.expect("publishes");
    peer.publish(&events[..3]).await.expect("publishes");
    peer.publish(&events[1..5]).await.expect("publishes");
    let mut late = subscribe(&*peer, id, 0).await;
    bus.publish(&events[..5]).await.expect("publishes");
    bus.publish(&events[4..]).await.expect("publishes");
    assert_eq!(next(&mut live, 8).await, seqs(1, 8));
    assert_eq!(next(&mut late, 8).await, seqs(1, 8));
}

/// Each reader gets only the events of the execution to which it subscribed, even if events of several
/// executions were published in one call.
pub async fn executions_do_not_mix(BusUnderTest { bus, peer, .. }: BusUnderTest) {
    use futures::StreamExt;
    let (one, two) = (events(4), events(4));
    let mut live = subscribe(&*peer, one[0].execution_id, 0).await;
    let mixed: Vec<_> = one
        .iter()
        .zip(&two)
        .flat_map(|(a, b)| [a.clone(), b.clone()])
        .collect();
    bus.publish(&mixed).await.expect("publishes");
    let mut late = subscribe(&*peer, two[0].execution_id, 0).await;
    for (a, b) in one.into_iter().zip(two) {
        assert_eq!(
            soon(live.next())
                .await
                .expect("goes on")
                .expect("is an event"),
            a
        );
        assert_eq!(
            soon(late.next())
                .await
                .expect("goes on")
                .expect("is an event"),
            b
        );
    }
}

/// A reader that read unpublished events in the store does not get them again from the bus.
pub async fn a_reader_that_is_ahead_waits_for_what_is_new(
    BusUnderTest { bus, peer, .. }: BusUnderTest,
) {
    let events = events(8);
    bus.publish(&events[..3]).await.expect("publishes");
    let mut stream = subscribe(&*peer, events[0].execution_id, 5).await;
    bus.publish(&events[3..]).await.expect("publishes");
    assert_eq!(next(&mut stream, 3).await, seqs(6, 8));
}

/// A reader that asks for dropped events gets an error, not a silent gap. The events that the bus still has
/// can be read.
pub async fn what_is_forgotten_is_too_old(
    BusUnderTest {
        bus,
        peer,
        capabilities,
        ..
    }: BusUnderTest,
) {
    let last = capabilities.keeps + capabilities.forgets_after;
    let events = events(last);
    let id = events[0].execution_id;
    for some in events.chunks(100) {
        bus.publish(some).await.expect("publishes");
    }
    assert_eq!(
        soon(peer.subscribe(id, 0)).await.err(),
        Some(BusError::TooOld { after: 0 })
    );
    let first_kept = last - capabilities.keeps;
    let mut stream = subscribe(&*peer, id, first_kept).await;
    assert_eq!(
        next(&mut stream, capabilities.keeps).await,
        seqs(first_kept + 1, last)
    );
}
