use std::sync::Arc;

use futures::future::join_all;

use super::listen::{next, rest, seqs, soon, subscribe};
use crate::{
    conformance::{BusUnderTest, fixtures::events},
    ports::BusError,
};

/// A reader may subscribe before the first event is published.
pub async fn an_unknown_execution_is_waited_for(BusUnderTest { bus, peer, .. }: BusUnderTest) {
    let events = events(3);
    let mut stream = subscribe(&*peer, events[0].execution_id, 0).await;
    bus.publish(&events).await.expect("publishes");
    assert_eq!(next(&mut stream, 3).await, seqs(1, 3));
}

/// A subscribed reader gets new events in order, whether they are published one by one or many at once.
pub async fn what_is_published_later_arrives_in_order(
    BusUnderTest { bus, peer, .. }: BusUnderTest,
) {
    let events = events(20);
    bus.publish(&events[..5]).await.expect("publishes");
    let mut stream = subscribe(&*peer, events[0].execution_id, 0).await;
    assert_eq!(next(&mut stream, 5).await, seqs(1, 5));
    for event in &events[5..10] {
        bus.publish(std::slice::from_ref(event))
            .await
            .expect("publishes");
        assert_eq!(next(&mut stream, 1).await, [event.seq]);
    }
    for some in events[10..].chunks(4) {
        bus.publish(some).await.expect("publishes");
    }
    assert_eq!(next(&mut stream, 10).await, seqs(11, 20));
}

/// While two processes publish the same events, readers subscribe at different positions. Each reader gets
/// every event after its position once.
pub async fn readers_that_come_at_any_time_miss_and_repeat_nothing(under_test: BusUnderTest) {
    let BusUnderTest {
        bus,
        peer,
        capabilities,
        ..
    } = &under_test;
    let last = capabilities.keeps.min(capabilities.buffers).min(200);
    let events = Arc::new(events(last));
    let id = events[0].execution_id;
    let start = Arc::new(tokio::sync::Barrier::new(18));
    let publishers = [(bus, 1), (peer, 3)].map(|(bus, at_once)| {
        let (bus, events, start) = (Arc::clone(bus), Arc::clone(&events), Arc::clone(&start));
        tokio::spawn(async move {
            start.wait().await;
            for some in events.chunks(at_once) {
                bus.publish(some).await.expect("publishes");
                tokio::task::yield_now().await;
            }
        })
    });
    let readers = (0..16).map(|index: u64| {
        let bus = Arc::clone(if index.is_multiple_of(2) { bus } else { peer });
        let start = Arc::clone(&start);
        tokio::spawn(async move {
            start.wait().await;
            for _ in 0..index * 4 {
                tokio::task::yield_now().await;
            }
            let after = index % 4 * (last / 8);
            let mut stream = subscribe(&*bus, id, after).await;
            assert_eq!(next(&mut stream, last - after).await, seqs(after + 1, last));
        })
    });
    let readers: Vec<_> = readers.collect();
    for task in join_all(publishers)
        .await
        .into_iter()
        .chain(join_all(readers).await)
    {
        task.expect("does not panic");
    }
}

/// Every reader gets all events, also after another reader of the same execution has left.
pub async fn readers_do_not_disturb_one_another(BusUnderTest { bus, peer, .. }: BusUnderTest) {
    let events = events(6);
    let id = events[0].execution_id;
    let mut stays = subscribe(&*bus, id, 0).await;
    let mut leaves = subscribe(&*bus, id, 0).await;
    let mut elsewhere = subscribe(&*peer, id, 0).await;
    bus.publish(&events[..3]).await.expect("publishes");
    assert_eq!(next(&mut leaves, 3).await, seqs(1, 3));
    drop(leaves);
    bus.publish(&events[3..]).await.expect("publishes");
    assert_eq!(next(&mut stays, 6).await, seqs(1, 6));
    assert_eq!(next(&mut elsewhere, 6).await, seqs(1, 6));
}

/// A reader that does not read gets the first events without gaps, then the error `Lagged`. A reader that
/// keeps up gets all events.
pub async fn a_slow_reader_is_cut_off_and_the_others_are_not(
    BusUnderTest {
        bus, capabilities, ..
    }: BusUnderTest,
) {
    let last = capabilities.cuts_off_after;
    let events = events(last);
    let id = events[0].execution_id;
    let mut slow = subscribe(&*bus, id, 0).await;
    let mut quick = subscribe(&*bus, id, 0).await;
    let mut read = 0;
    for some in events.chunks(8) {
        bus.publish(some).await.expect("publishes");
        let count = some.len() as u64;
        assert_eq!(next(&mut quick, count).await, seqs(read + 1, read + count));
        read += count;
    }
    let (got, error) = rest(&mut slow).await;
    let count = got.len() as u64;
    assert_eq!(got, seqs(1, count));
    assert!(
        count >= capabilities.buffers.min(last) && count < last,
        "{count} of {last}"
    );
    assert_eq!(error, Some(BusError::Lagged));
}

/// A reader that was cut off can subscribe again after its last event, and gets all later events that the bus
/// still has.
pub async fn a_reader_that_was_cut_off_can_come_back(
    BusUnderTest {
        bus,
        peer,
        capabilities,
        ..
    }: BusUnderTest,
) {
    let last = capabilities.cuts_off_after;
    let events = events(last);
    let id = events[0].execution_id;
    let mut slow = subscribe(&*peer, id, 0).await;
    // Read one live event first, so that the subscription is live before the flood.
    bus.publish(&events[..1]).await.expect("publishes");
    assert_eq!(next(&mut slow, 1).await, [1]);
    for some in events[1..].chunks(8) {
        bus.publish(some).await.expect("publishes");
    }
    let after = last - capabilities.keeps.min(last).min(10);
    let mut again = subscribe(&*peer, id, after).await;
    assert_eq!(next(&mut again, last - after).await, seqs(after + 1, last));
    drop(slow);
    assert!(soon(bus.publish(&events[..1])).await.is_ok());
}
