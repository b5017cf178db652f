use std::sync::Arc;

use futures::StreamExt;

use super::listen::{next, seqs, soon, subscribe};
use crate::{
    conformance::{BusUnderTest, fixtures::events},
    event::Event,
    ports::{BusError, OrganizationStream},
};

/// The numbers in a `Behind` error: the last event that the bus has, and the first event that it needs before
/// it accepts the refused events.
fn wanted(result: Result<(), BusError>, events: &[Arc<Event>]) -> (u64, u64) {
    match result.expect_err("something is missing") {
        BusError::Behind {
            execution,
            head,
            from,
        } if execution == events[0].execution_id => (head, from),
        other => panic!("{other}"),
    }
}

/// The sequence numbers of the next `count` events in the organization's stream.
async fn listed(stream: &mut OrganizationStream, count: usize) -> Vec<u64> {
    let mut seqs = Vec::new();
    while seqs.len() < count {
        let next = soon(stream.next()).await.expect("goes on");
        seqs.push(next.expect("is an event").event.seq);
    }
    seqs
}

/// An event that is published before its predecessors is refused, and readers do not see it. If it is
/// published again after them, it arrives once.
pub async fn what_does_not_follow_is_refused(BusUnderTest { bus, peer, .. }: BusUnderTest) {
    let events = events(6);
    let (id, organization) = (events[0].execution_id, events[0].organization_id);
    let mut live = subscribe(&*peer, id, 0).await;
    let list = peer.subscribe_organization(organization, None);
    let mut list = soon(list).await.expect("subscribes");
    assert_eq!(wanted(bus.publish(&events[1..2]).await, &events), (0, 1));
    bus.publish(&events[..2]).await.expect("publishes");
    assert_eq!(wanted(peer.publish(&events[3..]).await, &events), (2, 3));
    assert_eq!(wanted(bus.publish(&events[4..]).await, &events), (2, 3));
    peer.publish(&events[2..]).await.expect("publishes");
    assert_eq!(next(&mut live, 6).await, seqs(1, 6));
    assert_eq!(listed(&mut list, 6).await, seqs(1, 6));
    let mut late = subscribe(&*bus, id, 0).await;
    assert_eq!(next(&mut late, 6).await, seqs(1, 6));
}

/// Two processes publish the pairs of an execution's events in turn, and retry a pair until the bus accepts
/// it. Readers get all events in order.
pub async fn of_publishers_in_any_order_none_leaves_a_hole(
    BusUnderTest { bus, peer, .. }: BusUnderTest,
) {
    let events = Arc::new(events(20));
    let (id, organization) = (events[0].execution_id, events[0].organization_id);
    let mut live = subscribe(&*bus, id, 0).await;
    let list = bus.subscribe_organization(organization, None);
    let mut list = soon(list).await.expect("subscribes");
    let publishers = [(&bus, 0), (&peer, 1)].map(|(bus, which)| {
        let (bus, events) = (Arc::clone(bus), Arc::clone(&events));
        tokio::spawn(async move {
            for some in events.chunks(2).skip(which).step_by(2) {
                while let Err(error) = bus.publish(some).await {
                    assert!(matches!(error, BusError::Behind { .. }), "{error}");
                    tokio::task::yield_now().await;
                }
            }
        })
    });
    for publisher in publishers {
        soon(publisher).await.expect("does not panic");
    }
    assert_eq!(next(&mut live, 20).await, seqs(1, 20));
    assert_eq!(listed(&mut list, 20).await, seqs(1, 20));
}

/// If the bus has lost an execution's events, the last of them can be restored, and later readers find them.
/// Organization streams do not deliver restored events, because they delivered those events before the loss.
pub async fn what_was_lost_is_given_back_in_silence(BusUnderTest { bus, peer, .. }: BusUnderTest) {
    let events = events(8);
    let (id, organization) = (events[0].execution_id, events[0].organization_id);
    let list = peer.subscribe_organization(organization, None);
    let mut list = soon(list).await.expect("subscribes");
    bus.restore(&events[2..5]).await.expect("takes it");
    peer.restore(&events[3..5]).await.expect("has it");
    assert_eq!(wanted(bus.publish(&events[6..]).await, &events), (5, 6));
    bus.publish(&events[4..]).await.expect("publishes");
    assert_eq!(listed(&mut list, 3).await, seqs(6, 8));
    let mut late = subscribe(&*peer, id, 2).await;
    assert_eq!(next(&mut late, 6).await, seqs(3, 8));
    assert_eq!(
        soon(peer.subscribe(id, 0)).await.err(),
        Some(BusError::TooOld { after: 0 })
    );
}

/// Restored events must follow the events that the bus has, and readers get each event once.
pub async fn what_is_given_back_follows_what_is_there(
    BusUnderTest { bus, peer, .. }: BusUnderTest,
) {
    let events = events(8);
    let id = events[0].execution_id;
    bus.publish(&events[..3]).await.expect("publishes");
    assert_eq!(wanted(peer.restore(&events[4..6]).await, &events), (3, 4));
    peer.restore(&events[..6]).await.expect("takes it");
    bus.publish(&events[6..]).await.expect("publishes");
    let mut late = subscribe(&*peer, id, 0).await;
    assert_eq!(next(&mut late, 8).await, seqs(1, 8));
}

/// If the bus has lost the events of a long execution, it asks only for as many events as it would keep.
pub async fn no_more_is_wanted_back_than_is_kept(
    BusUnderTest {
        bus, capabilities, ..
    }: BusUnderTest,
) {
    let (keeps, more) = (capabilities.keeps, capabilities.forgets_after);
    let last = keeps + more + 10;
    let events = events(last);
    let (head, from) = wanted(bus.publish(&events[last as usize - 1..]).await, &events);
    assert_eq!(head, 0);
    assert!(
        (last - keeps - more..=last - keeps).contains(&from),
        "{from}"
    );
    let lost = &events[from as usize - 1..last as usize - 1];
    for some in lost.chunks(100) {
        bus.restore(some).await.expect("takes it");
    }
    bus.publish(&events[last as usize - 1..])
        .await
        .expect("publishes");
    let mut late = subscribe(&*bus, events[0].execution_id, last - keeps).await;
    assert_eq!(next(&mut late, keeps).await, seqs(last - keeps + 1, last));
}
