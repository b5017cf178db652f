use std::sync::Arc;

use super::desk::{at_once, create, pages, refused};
use crate::{
    conformance::{
        StoreUnderTest,
        fixtures::{RunFixture, at, workflow},
    },
    ids::OrganizationId,
    ports::StoreErrorKind,
    query::WorkflowQuery,
    workflow::Workflow,
};

fn next(current: &Workflow) -> Workflow {
    let version = current.version + 1;
    Workflow {
        version,
        name: format!("Version {version}"),
        updated_at: at(i64::from(version)),
        ..current.clone()
    }
}

/// A workflow's first version must be 1, and each later version must follow the version before it.
pub async fn versions_follow_one_another(StoreUnderTest { store, .. }: StoreUnderTest) {
    let organization = OrganizationId::new();
    let first = workflow(organization, &["extract"]);
    assert_eq!(
        store
            .latest_version(organization, first.id)
            .await
            .expect("reads"),
        0
    );
    for version in [0, 2] {
        let wrong = Workflow {
            version,
            ..first.clone()
        };
        assert_eq!(
            refused(store.put_workflow(wrong).await),
            StoreErrorKind::Conflict
        );
    }
    assert_eq!(
        store.workflow(organization, first.id).await.expect("reads"),
        None
    );

    store.put_workflow(first.clone()).await.expect("stores");
    let second = next(&first);
    assert_eq!(
        refused(store.put_workflow(next(&second)).await),
        StoreErrorKind::Conflict
    );
    store.put_workflow(second.clone()).await.expect("stores");
    assert_eq!(
        refused(store.put_workflow(second.clone()).await),
        StoreErrorKind::Conflict
    );
    let current = store.workflow(organization, first.id).await.expect("reads");
    assert_eq!(current.as_deref(), Some(&second));
    assert_eq!(
        store
            .latest_version(organization, first.id)
            .await
            .expect("reads"),
        2
    );
}

/// Of many concurrent calls that store the same version, one succeeds.
pub async fn of_concurrent_versions_one_is_stored(under_test: StoreUnderTest) {
    let StoreUnderTest { store, peer, .. } = &under_test;
    let organization = OrganizationId::new();
    let first = workflow(organization, &["extract"]);
    store.put_workflow(first.clone()).await.expect("stores");
    let results = at_once(store, peer, 8, |index, store| {
        let mine = Workflow {
            name: format!("Mine {index}"),
            ..next(&first)
        };
        async move { store.put_workflow(mine).await.map_err(|error| error.kind) }
    })
    .await;
    let winner = results
        .iter()
        .position(Result::is_ok)
        .expect("one is stored");
    assert_eq!(
        results
            .iter()
            .filter(|result| **result == Err(StoreErrorKind::Conflict))
            .count(),
        7
    );
    let current = store
        .workflow(organization, first.id)
        .await
        .expect("reads")
        .expect("is there");
    assert_eq!(
        (current.version, &*current.name),
        (2, &*format!("Mine {winner}"))
    );
}

/// A deleted workflow is not found and not listed. If it is stored again, its version numbers continue.
pub async fn a_deleted_workflow_is_hidden_and_its_versions_go_on(
    StoreUnderTest { store, .. }: StoreUnderTest,
) {
    let organization = OrganizationId::new();
    let first = workflow(organization, &["extract"]);
    assert!(
        !store
            .delete_workflow(organization, first.id)
            .await
            .expect("answers")
    );
    store.put_workflow(first.clone()).await.expect("stores");
    assert!(
        store
            .delete_workflow(organization, first.id)
            .await
            .expect("deletes")
    );
    assert!(
        !store
            .delete_workflow(organization, first.id)
            .await
            .expect("answers")
    );
    assert_eq!(
        store.workflow(organization, first.id).await.expect("reads"),
        None
    );
    let query = WorkflowQuery::of(organization).limit(10);
    assert!(
        store
            .workflows(query)
            .await
            .expect("reads")
            .items
            .is_empty()
    );
    assert_eq!(
        store
            .latest_version(organization, first.id)
            .await
            .expect("reads"),
        1
    );

    assert_eq!(
        refused(store.put_workflow(first.clone()).await),
        StoreErrorKind::Conflict
    );
    let second = next(&first);
    store.put_workflow(second.clone()).await.expect("stores");
    assert_eq!(
        store
            .workflow(organization, first.id)
            .await
            .expect("reads")
            .as_deref(),
        Some(&second)
    );
    assert_eq!(
        store.workflows(query).await.expect("reads").items,
        [Arc::new(second)]
    );
}

/// An execution keeps the workflow version with which it was created, even if the workflow is changed or
/// deleted.
pub async fn an_execution_keeps_its_version(StoreUnderTest { store, .. }: StoreUnderTest) {
    let organization = OrganizationId::new();
    let first = workflow(organization, &["extract"]);
    store.put_workflow(first.clone()).await.expect("stores");
    let id = create(&*store, RunFixture::with(Arc::new(first.clone())).build()).await;
    store.put_workflow(next(&first)).await.expect("stores");
    assert!(
        store
            .delete_workflow(organization, first.id)
            .await
            .expect("deletes")
    );
    assert_eq!(
        store
            .snapshot(organization, id)
            .await
            .expect("reads")
            .as_deref(),
        Some(&first)
    );
}

/// An organization cannot see, count, delete or block another's workflows.
pub async fn another_organizations_workflows_are_hidden(
    StoreUnderTest { store, .. }: StoreUnderTest,
) {
    let (organization, other) = (OrganizationId::new(), OrganizationId::new());
    let mine = workflow(organization, &["extract"]);
    store.put_workflow(mine.clone()).await.expect("stores");
    assert_eq!(store.workflow(other, mine.id).await.expect("reads"), None);
    assert_eq!(
        store.latest_version(other, mine.id).await.expect("reads"),
        0
    );
    assert!(
        !store
            .delete_workflow(other, mine.id)
            .await
            .expect("answers")
    );
    let query = WorkflowQuery::of(other).limit(10);
    assert!(
        store
            .workflows(query)
            .await
            .expect("reads")
            .items
            .is_empty()
    );
    assert_eq!(
        store
            .workflow(organization, mine.id)
            .await
            .expect("reads")
            .as_deref(),
        Some(&mine)
    );
}

/// Pages of any size add up to the list of all workflows in their current versions, also during concurrent
/// changes.
pub async fn workflows_come_newest_first_without_loss_or_repeat(under_test: StoreUnderTest) {
    let StoreUnderTest { store, peer, .. } = &under_test;
    let organization = OrganizationId::new();
    let mut stored = Vec::new();
    for index in 0..12 {
        let first = Workflow {
            created_at: at(index / 6),
            ..workflow(organization, &["extract"])
        };
        store.put_workflow(first.clone()).await.expect("stores");
        store.put_workflow(next(&first)).await.expect("stores");
        stored.push((first.created_at, first.id));
    }
    stored.sort_by(|a, b| b.cmp(a));
    let stored = &stored;
    at_once(store, peer, 4, |index, store| {
        let stored = stored.clone();
        async move {
            if index == 0 {
                for _ in 0..10 {
                    let newer = Workflow {
                        created_at: at(3),
                        ..workflow(organization, &["extract"])
                    };
                    store.put_workflow(newer).await.expect("stores");
                }
                return;
            }
            for limit in [1, 5, 6, 12] {
                let read = |after| {
                    let query = WorkflowQuery::of(organization).after(after).limit(limit);
                    let store = &store;
                    async move { store.workflows(query).await.expect("reads") }
                };
                let found = pages(limit, read, |it| (it.created_at, it.id)).await;
                assert!(
                    found
                        .iter()
                        .all(|it| it.version == 2 || it.created_at == at(3))
                );
                let mut places: Vec<_> = found.iter().map(|it| (it.created_at, it.id)).collect();
                assert!(
                    places.is_sorted_by(|a, b| a > b),
                    "in order and without a repeat"
                );
                places.retain(|place| place.0 < at(3));
                assert_eq!(places, stored);
            }
        }
    })
    .await;
}
