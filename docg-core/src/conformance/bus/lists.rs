use futures::StreamExt;

use super::listen::soon;
use crate::{
    conformance::{
        BusUnderTest,
        fixtures::{events, events_of, unlisted_event},
    },
    ids::{ExecutionId, OrganizationId},
    ports::{BusError, EventBus, OrganizationStream},
};

async fn list(
    bus: &dyn EventBus,
    organization: OrganizationId,
    after: Option<&str>,
) -> OrganizationStream {
    soon(bus.subscribe_organization(organization, after.map(str::to_owned)))
        .await
        .expect("subscribes")
}

/// Reads the next event. Returns its execution, its sequence number, and its position in the stream.
async fn next(stream: &mut OrganizationStream) -> (ExecutionId, u64, String) {
    let listed = soon(stream.next())
        .await
        .expect("goes on")
        .expect("is an event");
    (listed.event.execution_id, listed.event.seq, listed.position)
}

/// An organization's stream has the events of all the organization's executions, in order for each execution.
/// Events of some kinds, which no list shows, are left out.
pub async fn a_list_has_the_list_events_of_all_its_executions(
    BusUnderTest { bus, peer, .. }: BusUnderTest,
) {
    let organization = OrganizationId::new();
    let (one, two) = (events_of(organization, 3), events_of(organization, 2));
    let mut own = list(&*bus, organization, None).await;
    let mut other = list(&*peer, organization, None).await;
    bus.publish(&[unlisted_event(organization)])
        .await
        .expect("publishes");
    bus.publish(&one).await.expect("publishes");
    peer.publish(&two).await.expect("publishes");
    for stream in [&mut own, &mut other] {
        let mut seen = Vec::new();
        for _ in 0..5 {
            let (execution, seq, _) = next(stream).await;
            seen.push((execution, seq));
        }
        for events in [&one, &two] {
            let id = events[0].execution_id;
            let of_one: Vec<_> = seen.iter().filter(|(seen, _)| *seen == id).collect();
            let published: Vec<_> = events.iter().map(|event| (id, event.seq)).collect();
            assert_eq!(of_one, published.iter().collect::<Vec<_>>());
        }
    }
}

/// A reader that reconnects at any process with its last position misses no event and gets none twice.
pub async fn a_list_goes_on_after_a_position(BusUnderTest { bus, peer, .. }: BusUnderTest) {
    let organization = OrganizationId::new();
    let mut first = list(&*bus, organization, None).await;
    let events = events_of(organization, 10);
    let id = events[0].execution_id;
    bus.publish(&events[..6]).await.expect("publishes");
    let mut position = String::new();
    for seq in 1..=4 {
        let (execution, got, at) = next(&mut first).await;
        assert_eq!((execution, got), (id, seq));
        position = at;
    }
    drop(first);
    let mut back = list(&*peer, organization, Some(&position)).await;
    bus.publish(&events[6..]).await.expect("publishes");
    for seq in 5..=10 {
        let (_, got, at) = next(&mut back).await;
        assert_eq!(got, seq);
        position = at;
    }
    let mut at_the_end = list(&*bus, organization, Some(&position)).await;
    let more = events_of(organization, 1);
    bus.publish(&more).await.expect("publishes");
    assert_eq!(next(&mut at_the_end).await.0, more[0].execution_id);
}

/// A reader that subscribes without a position gets no earlier events.
pub async fn a_list_begins_now_without_a_position(BusUnderTest { bus, peer, .. }: BusUnderTest) {
    let organization = OrganizationId::new();
    let mut before = list(&*bus, organization, None).await;
    let (old, new) = (events_of(organization, 2), events_of(organization, 1));
    bus.publish(&old).await.expect("publishes");
    next(&mut before).await;
    next(&mut before).await;
    let mut now = list(&*peer, organization, None).await;
    bus.publish(&new).await.expect("publishes");
    assert_eq!(next(&mut now).await.0, new[0].execution_id);
}

/// A stream never holds another organization's events.
pub async fn organizations_lists_do_not_mix(BusUnderTest { bus, peer, .. }: BusUnderTest) {
    let (one, two) = (OrganizationId::new(), OrganizationId::new());
    let mut of_two = list(&*peer, two, None).await;
    let mut of_one = list(&*peer, one, None).await;
    let (first, second) = (events_of(one, 1), events_of(two, 1));
    bus.publish(&first).await.expect("publishes");
    bus.publish(&second).await.expect("publishes");
    assert_eq!(next(&mut of_two).await.0, second[0].execution_id);
    assert_eq!(next(&mut of_one).await.0, first[0].execution_id);
}

/// An event that is published twice is in the organization's stream once.
pub async fn what_is_published_twice_is_in_the_list_once(
    BusUnderTest { bus, peer, .. }: BusUnderTest,
) {
    let organization = OrganizationId::new();
    let mut stream = list(&*bus, organization, None).await;
    let events = events_of(organization, 4);
    bus.publish(&events[..3]).await.expect("publishes");
    peer.publish(&events[..3]).await.expect("publishes");
    peer.publish(&events[1..]).await.expect("publishes");
    for seq in 1..=4 {
        assert_eq!(next(&mut stream).await.1, seq);
    }
}

/// The bus refuses a position that it never gave, and a position after which it has dropped events.
pub async fn a_position_that_is_unknown_or_forgotten_is_refused(
    BusUnderTest {
        bus, capabilities, ..
    }: BusUnderTest,
) {
    let organization = OrganizationId::new();
    for position in [
        "",
        "0",
        "-",
        "0-1",
        "not a position",
        "18446744073709551615-1",
    ] {
        let refused =
            soon(bus.subscribe_organization(organization, Some(position.to_owned()))).await;
        assert_eq!(
            refused.err(),
            Some(BusError::UnknownPosition),
            "{position:?}"
        );
    }
    let mut stream = list(&*bus, organization, None).await;
    let first = events_of(organization, 1);
    bus.publish(&first).await.expect("publishes");
    let (_, _, position) = next(&mut stream).await;
    drop(stream);
    let mut flood = events(capabilities.forgets_after + capabilities.keeps);
    for event in &mut flood {
        std::sync::Arc::make_mut(event).organization_id = organization;
    }
    for some in flood.chunks(100) {
        bus.publish(some).await.expect("publishes");
    }
    let refused = soon(bus.subscribe_organization(organization, Some(position))).await;
    assert_eq!(refused.err(), Some(BusError::UnknownPosition));
}
