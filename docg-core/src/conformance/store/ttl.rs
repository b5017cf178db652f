use super::desk::at_once;
use crate::{
    conformance::{
        StoreUnderTest,
        fixtures::{at, fact},
    },
    ids::OrganizationId,
    ports::{TtlEntry, TtlKey},
};

fn entry(key: &TtlKey) -> TtlEntry {
    TtlEntry {
        key: key.clone(),
        value: fact(),
        expires_at: at(100),
    }
}

fn key() -> TtlKey {
    TtlKey {
        organization_id: Some(OrganizationId::new()),
        kind: "test",
        key: "k".to_owned(),
    }
}

/// The second call of `remember` for a key stores nothing, and gets the entry that the first call stored.
pub async fn a_name_is_remembered_once(StoreUnderTest { store, .. }: StoreUnderTest) {
    let key = key();
    let (first, second) = (entry(&key), entry(&key));
    assert_eq!(store.recall(&key, at(0)).await.expect("reads"), None);
    assert_eq!(
        store.remember(first.clone(), at(0)).await.expect("stores"),
        None
    );
    assert_eq!(
        store.remember(second, at(1)).await.expect("answers"),
        Some(first.clone())
    );
    assert_eq!(store.recall(&key, at(2)).await.expect("reads"), Some(first));
}

/// Of many concurrent calls of `remember` with one key, one stores its entry and the others get that entry.
pub async fn of_concurrent_entries_one_is_remembered(under_test: StoreUnderTest) {
    let StoreUnderTest { store, peer, .. } = &under_test;
    let key = key();
    let results = at_once(store, peer, 16, |_, store| {
        let mine = entry(&key);
        async move {
            (
                mine.clone(),
                store.remember(mine, at(0)).await.expect("answers"),
            )
        }
    })
    .await;
    let first: Vec<_> = results
        .iter()
        .filter(|(_, there)| there.is_none())
        .collect();
    assert_eq!(first.len(), 1, "one is first");
    let fact = &first[0].0;
    assert!(
        results
            .iter()
            .filter_map(|(_, there)| there.as_ref())
            .all(|there| there == fact)
    );
    assert_eq!(
        store.recall(&key, at(0)).await.expect("reads").as_ref(),
        Some(fact)
    );
}

/// An entry can be read until it expires, and not longer.
pub async fn an_entry_is_forgotten_when_it_expires(StoreUnderTest { store, .. }: StoreUnderTest) {
    let key = key();
    let it = entry(&key);
    store.remember(it.clone(), at(0)).await.expect("stores");
    assert_eq!(store.recall(&key, at(99)).await.expect("reads"), Some(it));
    assert_eq!(store.recall(&key, at(100)).await.expect("reads"), None);
}

/// The key of an expired entry can be used again.
pub async fn an_expired_name_is_free_again(StoreUnderTest { store, .. }: StoreUnderTest) {
    let key = key();
    store.remember(entry(&key), at(0)).await.expect("stores");
    let new = TtlEntry {
        expires_at: at(200),
        ..entry(&key)
    };
    assert_eq!(
        store.remember(new.clone(), at(100)).await.expect("stores"),
        None
    );
    assert_eq!(store.recall(&key, at(150)).await.expect("reads"), Some(new));
}

/// Replacing changes an entry's value and expiry. If the key has no entry, the new entry is stored.
pub async fn replacing_changes_the_fact(StoreUnderTest { store, .. }: StoreUnderTest) {
    let key = key();
    let first = entry(&key);
    store.replace(first.clone()).await.expect("stores");
    assert_eq!(store.recall(&key, at(0)).await.expect("reads"), Some(first));
    let second = TtlEntry {
        expires_at: at(300),
        ..entry(&key)
    };
    store.replace(second.clone()).await.expect("stores");
    assert_eq!(
        store.recall(&key, at(200)).await.expect("reads"),
        Some(second)
    );
}

/// Entries with the same key text are separate if they differ in organization (or have none) or in kind.
pub async fn names_differ_by_organization_and_kind(StoreUnderTest { store, .. }: StoreUnderTest) {
    let key = key();
    let keys = [
        key.clone(),
        TtlKey {
            organization_id: Some(OrganizationId::new()),
            ..key.clone()
        },
        TtlKey {
            organization_id: None,
            ..key.clone()
        },
        TtlKey {
            kind: "other",
            ..key.clone()
        },
        TtlKey {
            key: "K".to_owned(),
            ..key
        },
    ];
    for key in &keys {
        assert_eq!(
            store.remember(entry(key), at(0)).await.expect("stores"),
            None
        );
    }
}
