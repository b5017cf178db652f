use super::desk::{create, take, work};
use crate::{
    conformance::{
        StoreUnderTest,
        fixtures::{CommitFixture, RunFixture, at},
    },
    ids::{ExecutionId, OrganizationId},
    ports::{Store, Unpublished},
};

async fn unpublished(store: &dyn Store) -> Vec<Unpublished> {
    let mut found = store
        .unpublished(at(1_000), None, 100)
        .await
        .expect("reads");
    found.sort_by_key(|it| it.execution_id);
    found
}

fn expected(
    organization_id: OrganizationId,
    execution_id: ExecutionId,
    published: u64,
    head: u64,
) -> Unpublished {
    Unpublished {
        organization_id,
        execution_id,
        published,
        head,
    }
}

/// An execution is in the list of unpublished executions until all its events are marked as published, and
/// again after new events. The list has the numbers of its last published event and of its last event.
pub async fn what_was_not_published_is_listed_until_it_is(
    StoreUnderTest { store, .. }: StoreUnderTest,
) {
    let organization = OrganizationId::new();
    let first = create(&*store, RunFixture::of(organization).build()).await;
    let second = create(&*store, RunFixture::of(organization).build()).await;
    work(&*store, at(0), first, |it| {
        CommitFixture::on(it).events(3).build()
    })
    .await;
    let both = [
        expected(organization, first, 0, 4),
        expected(organization, second, 0, 1),
    ];
    assert_eq!(unpublished(&*store).await, both);
    store
        .mark_published(&[(first, 2), (second, 1)])
        .await
        .expect("marks");
    assert_eq!(
        unpublished(&*store).await,
        [expected(organization, first, 2, 4)]
    );
    store.mark_published(&[(first, 4)]).await.expect("marks");
    assert_eq!(unpublished(&*store).await, []);
    work(&*store, at(2), second, |it| {
        CommitFixture::on(it).events(1).build()
    })
    .await;
    assert_eq!(
        unpublished(&*store).await,
        [expected(organization, second, 1, 2)]
    );
}

/// The list of unpublished executions leaves out those that changed recently, because their drivers are
/// about to publish.
pub async fn what_changed_of_late_is_not_listed(StoreUnderTest { store, .. }: StoreUnderTest) {
    let organization = OrganizationId::new();
    let old = create(
        &*store,
        RunFixture::of(organization).created_at(at(0)).build(),
    )
    .await;
    let changed = create(
        &*store,
        RunFixture::of(organization).created_at(at(0)).build(),
    )
    .await;
    work(&*store, at(0), changed, |it| {
        CommitFixture::on(it).at(at(50)).events(1).build()
    })
    .await;
    let listed = store.unpublished(at(50), None, 100).await.expect("reads");
    assert_eq!(listed, [expected(organization, old, 0, 1)]);
    assert_eq!(unpublished(&*store).await.len(), 2);
}

/// If events are marked as published up to a lower number than before, nothing changes. Marking events of an
/// unknown execution is no error.
pub async fn published_never_goes_back(StoreUnderTest { store, .. }: StoreUnderTest) {
    let organization = OrganizationId::new();
    let id = create(&*store, RunFixture::of(organization).build()).await;
    work(&*store, at(0), id, |it| {
        CommitFixture::on(it).events(4).build()
    })
    .await;
    store
        .mark_published(&[(id, 3), (id, 2), (ExecutionId::new(), 9)])
        .await
        .expect("marks");
    store.mark_published(&[(id, 1)]).await.expect("marks");
    work(&*store, at(2), id, |it| {
        CommitFixture::on(it)
            .but(|commit| commit.published = Some(2))
            .build()
    })
    .await;
    assert_eq!(
        unpublished(&*store).await,
        [expected(organization, id, 3, 5)]
    );
}

/// A commit can record up to which event the worker has published.
pub async fn a_commit_can_say_what_was_published(StoreUnderTest { store, .. }: StoreUnderTest) {
    let organization = OrganizationId::new();
    let id = create(&*store, RunFixture::of(organization).build()).await;
    let made = |it: &_| {
        CommitFixture::on(it)
            .events(1)
            .but(|commit| commit.published = Some(1))
            .build()
    };
    work(&*store, at(0), id, made).await;
    assert_eq!(
        unpublished(&*store).await,
        [expected(organization, id, 1, 2)]
    );
}

/// The list of unpublished executions is at most as long as requested. If its entries are marked as
/// published, the next list has the rest.
pub async fn no_more_is_listed_than_asked_for(StoreUnderTest { store, .. }: StoreUnderTest) {
    let organization = OrganizationId::new();
    for _ in 0..10 {
        create(&*store, RunFixture::of(organization).build()).await;
    }
    let mut marked = 0;
    loop {
        let listed = store.unpublished(at(1_000), None, 3).await.expect("reads");
        assert!(listed.len() <= 3);
        if listed.is_empty() {
            break;
        }
        marked += listed.len();
        let all: Vec<_> = listed.iter().map(|it| (it.execution_id, it.head)).collect();
        store.mark_published(&all).await.expect("marks");
    }
    assert_eq!(marked, 10);
}

/// A claim reports up to which event the execution's events are marked as published.
pub async fn a_claim_says_what_was_published(StoreUnderTest { store, .. }: StoreUnderTest) {
    let id = create(&*store, RunFixture::of(OrganizationId::new()).build()).await;
    let claimed = take(&*store, at(0), id).await;
    assert_eq!(claimed.published, 0);
    let commit = CommitFixture::on(&claimed)
        .events(4)
        .but(|commit| commit.published = Some(1));
    store.commit(commit.build()).await.expect("commits");
    assert_eq!(take(&*store, at(2), id).await.published, 1);
    store.mark_published(&[(id, 3)]).await.expect("marks");
    let lapsed = at(10_000_000);
    assert_eq!(take(&*store, lapsed, id).await.published, 3);
}

/// The list of unpublished executions is in order of ids and can be continued after any id, so that entries
/// that stay unpublished do not hide the rest.
pub async fn the_list_of_what_was_not_published_goes_on_after_an_execution(
    StoreUnderTest { store, .. }: StoreUnderTest,
) {
    let organization = OrganizationId::new();
    let mut all = Vec::new();
    for _ in 0..7 {
        all.push(create(&*store, RunFixture::of(organization).build()).await);
    }
    all.sort();
    let mut listed = Vec::new();
    loop {
        let page = store
            .unpublished(at(1_000), listed.last().copied(), 3)
            .await;
        let page = page.expect("reads");
        assert!(page.len() <= 3);
        listed.extend(page.iter().map(|it| it.execution_id));
        if page.len() < 3 {
            break;
        }
    }
    assert_eq!(listed, all);
}
