use super::desk::{all_executions, all_logs, commit, create, everything, take, work};
use crate::{
    conformance::{
        StoreUnderTest,
        fixtures::{self, CommitFixture, RunFixture, at},
    },
    ids::{ExecutionId, NodeId, OrganizationId, SignalId, SignatureRequestId},
    observe::{LogDomain, LogLevel, verify_chain},
    query::{AwaitingQuery, EventQuery, LogQuery},
    run::StepState,
};

/// No read returns any data of another organization's execution.
pub async fn another_organization_sees_nothing(StoreUnderTest { store, .. }: StoreUnderTest) {
    let (organization, other) = (OrganizationId::new(), OrganizationId::new());
    let id = create(&*store, RunFixture::of(organization).build()).await;
    let claimed = take(&*store, at(0), id).await;
    let request =
        fixtures::signature_request(&claimed.state.execution, &SignalId::new().to_string());
    commit(
        &*store,
        CommitFixture::on(&claimed)
            .events(1)
            .signature(request.clone())
            .build(),
    )
    .await;

    let seen = everything(&*store, other, id).await;
    assert_eq!(seen.record, None);
    assert_eq!(seen.steps, []);
    assert_eq!(seen.events, []);
    assert_eq!(seen.logs, []);
    assert_eq!(seen.audit, []);
    assert_eq!(store.snapshot(other, id).await.expect("reads"), None);
    assert_eq!(
        store
            .signature_request(other, request.id)
            .await
            .expect("reads"),
        None
    );
    assert!(
        store
            .executions(all_executions(other))
            .await
            .expect("reads")
            .items
            .is_empty()
    );
}

/// A read of an unknown id returns an empty result, not an error.
pub async fn what_is_not_there_is_empty_not_an_error(StoreUnderTest { store, .. }: StoreUnderTest) {
    let organization = OrganizationId::new();
    let seen = everything(&*store, organization, ExecutionId::new()).await;
    assert_eq!(seen.record, None);
    assert_eq!(
        (seen.steps, seen.events, seen.signals),
        (vec![], vec![], vec![])
    );
    assert_eq!((seen.logs, seen.audit), (vec![], vec![]));
    let page = store
        .executions(all_executions(organization))
        .await
        .expect("reads");
    assert!(page.items.is_empty() && !page.has_more);
    assert_eq!(
        store
            .signature_request(organization, SignatureRequestId::new())
            .await
            .expect("reads"),
        None
    );
    assert_eq!(
        store
            .signature_by_envelope("builtin", "none")
            .await
            .expect("reads"),
        None
    );
    assert_eq!(
        store
            .approval_by_token(fixtures::token_hash())
            .await
            .expect("reads"),
        None
    );
}

/// Events can be read after any sequence number, up to the limit. After the last event a read returns none.
pub async fn events_are_read_on_from_a_number(StoreUnderTest { store, .. }: StoreUnderTest) {
    let organization = OrganizationId::new();
    let id = create(&*store, RunFixture::of(organization).build()).await;
    work(&*store, at(0), id, |it| {
        CommitFixture::on(it).events(9).build()
    })
    .await;
    let read = async |after: u64, limit: usize| {
        let query = EventQuery::of(organization, id).after(after).limit(limit);
        store
            .events(query)
            .await
            .expect("reads")
            .iter()
            .map(|event| event.seq)
            .collect::<Vec<_>>()
    };
    assert_eq!(read(0, 3).await, [1, 2, 3]);
    assert_eq!(read(3, 100).await, [4, 5, 6, 7, 8, 9, 10]);
    assert_eq!(read(9, 1).await, [10]);
    assert_eq!(read(10, 5).await, [0; 0]);
    assert_eq!(read(u64::from(u32::MAX), 5).await, [0; 0]);
}

/// Each filter of logs by level, domain and step, alone or combined, selects exactly the matching entries.
pub async fn logs_are_filtered_by_level_domain_and_step(
    StoreUnderTest { store, .. }: StoreUnderTest,
) {
    let organization = OrganizationId::new();
    let id = create(&*store, RunFixture::of(organization).build()).await;
    work(&*store, at(0), id, |it| {
        CommitFixture::on(it)
            .log(LogLevel::Warn, LogDomain::Step, Some("n0"))
            .log(LogLevel::Error, LogDomain::Delivery, Some("n1"))
            .log(LogLevel::Warn, LogDomain::Delivery, Some("n1"))
            .log(LogLevel::Ok, LogDomain::Step, Some("n1"))
            .build()
    })
    .await;
    let read = async |query: LogQuery| {
        store
            .logs(query)
            .await
            .expect("reads")
            .items
            .iter()
            .map(|entry| entry.seq)
            .collect::<Vec<_>>()
    };
    let all = || all_logs(organization, id);
    assert_eq!(read(all()).await, [1, 2, 3, 4, 5]);
    assert_eq!(read(all().level(LogLevel::Warn)).await, [2, 4]);
    assert_eq!(read(all().domain(LogDomain::Delivery)).await, [3, 4]);
    assert_eq!(read(all().step_id(NodeId::from("n1"))).await, [3, 4, 5]);
    let both = all().level(LogLevel::Warn).step_id(NodeId::from("n1"));
    assert_eq!(read(both).await, [4]);
    assert_eq!(read(all().level(LogLevel::Error).after(3)).await, [0; 0]);
}

/// Audit rows are read back byte for byte as they were hashed, so that the chain verifies.
pub async fn the_audit_trail_verifies(StoreUnderTest { store, .. }: StoreUnderTest) {
    let organization = OrganizationId::new();
    let id = create(&*store, RunFixture::of(organization).build()).await;
    for now in 0..4 {
        work(&*store, at(now), id, |it| {
            CommitFixture::on(it)
                .audit("execution.paused")
                .audit("execution.resumed")
                .build()
        })
        .await;
    }
    let found = everything(&*store, organization, id).await;
    let heads = found.record.expect("is there").execution.heads;
    let report = verify_chain(&found.audit, heads.audit_seq, heads.audit_hash);
    assert_eq!((report.count, report.fault), (9, None));
}

/// An event finds the executions of its organization with a step that waits for exactly its name and key.
pub async fn an_event_finds_the_steps_that_wait_for_its_key(
    StoreUnderTest { store, .. }: StoreUnderTest,
) {
    let organization = OrganizationId::new();
    let mut waiting = Vec::new();
    let waits = [
        (organization, Some("7"), StepState::Waiting, true),
        (organization, Some("7"), StepState::Waiting, true),
        (organization, Some("8"), StepState::Waiting, false),
        (organization, None, StepState::Waiting, false),
        (organization, Some("7"), StepState::Resuming, false),
        (OrganizationId::new(), Some("7"), StepState::Waiting, false),
    ];
    for (owner, key, state, is_found) in waits {
        let id = create(&*store, RunFixture::of(owner).build()).await;
        let claimed = take(&*store, at(0), id).await;
        let mut step = claimed.state.steps[0].clone();
        step.state = state;
        step.started_at = Some(at(1));
        step.awaits = Some(fixtures::awaited("paid", key));
        if let Some(awaited) = &mut step.awaits {
            awaited.is_over = state == StepState::Resuming;
        }
        let made = CommitFixture::on(&claimed)
            .events(1)
            .but(|commit| commit.steps.push(step.clone()));
        commit(&*store, made.build()).await;
        if is_found {
            waiting.push(id);
        }
    }
    waiting.sort_unstable();
    let found = async |name: &str, limit| {
        let query = AwaitingQuery::new(organization, name, "7", limit);
        store.awaiting(query).await.expect("reads")
    };
    assert_eq!(found("paid", 10).await, waiting);
    assert_eq!(found("paid", 1).await, waiting[..1]);
    assert_eq!(found("sent", 10).await, []);
}
