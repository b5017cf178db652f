use std::sync::Arc;

use serde_json::{Map, json};

use super::desk::{LEASE, at_once, commit, create, due, everything, refused, take, work};
use crate::{
    approval::Decision,
    conformance::{
        StoreUnderTest,
        fixtures::{self, CommitFixture, RunFixture, at},
    },
    ids::{OrganizationId, SignalId, WorkerId},
    observe::{LogDomain, LogLevel},
    ports::{Commit, Committed, LeaseAfter, StoreErrorKind},
    run::{Inputs, KeptEvent, Phase, PhaseTimes, Status, StepState},
    signature::{RequestStatus, SignerStatus},
};

/// A successful commit stores its run state, steps, inputs, events, logs and audit rows.
pub async fn a_commit_is_applied_whole(StoreUnderTest { store, .. }: StoreUnderTest) {
    let organization = OrganizationId::new();
    let id = create(&*store, RunFixture::of(organization).build()).await;
    let before = everything(&*store, organization, id).await;
    let claimed = take(&*store, at(0), id).await;
    let mut step = claimed.state.steps[1].clone();
    step.state = StepState::Running;
    step.attempt = 1;
    step.started_at = Some(at(1));
    step.waiting_ms = 7;
    step.awaits = Some(fixtures::awaited("paid", Some("7")));
    step.data_in = Some(json!({"template": "t1"}).into());
    let times = PhaseTimes {
        waiting_since: Some(at(2)),
        ..PhaseTimes::new(at(1))
    };
    let inputs = Arc::new(Inputs {
        trigger_data: Arc::new(json!({"customer": "Bia"})),
        node_overrides: Map::new(),
        start_at: claimed.state.inputs.start_at,
        events: vec![KeptEvent {
            name: "paid".into(),
            key: None,
            payload: Arc::new(json!({"amount": 1.5})),
            received_at: at(1),
        }],
    });
    let made = CommitFixture::on(&claimed)
        .status(Status::Running)
        .with(|execution| {
            execution.progress = 40;
            execution.phase_metrics.0[Phase::Render as usize] = Some(times);
        })
        .wake_at(at(50))
        .events(3)
        .log(LogLevel::Warn, LogDomain::Step, Some("n1"))
        .audit("execution.status_changed")
        .audit("document.generated")
        .but(|commit| {
            commit.steps.push(step.clone());
            commit.inputs = Some(Arc::clone(&inputs));
        })
        .build();
    assert_eq!(
        commit(&*store, made.clone()).await,
        Committed {
            signals_pending: false,
            share_awaited: false,
        }
    );

    let after = everything(&*store, organization, id).await;
    let record = after.record.expect("is there");
    assert_eq!(record.execution, made.execution);
    assert_eq!(record.inputs, inputs);
    assert_eq!(after.steps, [before.steps[0].clone(), step]);
    assert_eq!(after.events, [before.events, made.events].concat());
    assert_eq!(after.logs, [before.logs, made.logs].concat());
    assert_eq!(after.audit, [before.audit, made.audit].concat());

    let state = take(&*store, at(60), id).await.state;
    assert_eq!(
        (state.execution, state.inputs, state.steps),
        (record.execution, inputs, after.steps)
    );
}

/// If a commit has no inputs, steps or requests, the stored inputs, steps and requests stay as they are.
pub async fn a_commit_leaves_alone_what_it_does_not_name(
    StoreUnderTest { store, .. }: StoreUnderTest,
) {
    let id = create(&*store, RunFixture::of(OrganizationId::new()).build()).await;
    let claimed = take(&*store, at(0), id).await;
    let execution = &claimed.state.execution;
    let request = fixtures::signature_request(execution, &SignalId::new().to_string());
    let approval = fixtures::approval(execution, &[fixtures::token_hash()]);
    let first = CommitFixture::on(&claimed)
        .signature(request.clone())
        .approval(approval.clone())
        .wake_at(at(2))
        .build();
    commit(&*store, first).await;
    work(&*store, at(2), id, |it| {
        CommitFixture::on(it).events(1).build()
    })
    .await;
    let state = take(&*store, at(3), id).await.state;
    assert_eq!(state.inputs, claimed.state.inputs);
    assert_eq!(state.steps, claimed.state.steps);
    assert_eq!(state.signature, Some(request));
    assert_eq!(state.approval, Some(approval));
}

/// A commit on an old version is refused and changes nothing.
pub async fn a_stale_version_is_refused_whole(StoreUnderTest { store, .. }: StoreUnderTest) {
    let organization = OrganizationId::new();
    let id = create(&*store, RunFixture::of(organization).build()).await;
    let claimed = take(&*store, at(0), id).await;
    let keep = at(0).plus_millis(LEASE);
    commit(
        &*store,
        CommitFixture::on(&claimed).events(1).keep(keep).build(),
    )
    .await;
    let before = everything(&*store, organization, id).await;
    let stale = CommitFixture::on(&claimed)
        .status(Status::Running)
        .events(2)
        .log(LogLevel::Ok, LogDomain::Step, None)
        .audit("execution.started")
        .build();
    assert_eq!(refused(store.commit(stale).await), StoreErrorKind::Conflict);
    assert_eq!(everything(&*store, organization, id).await, before);
    assert_eq!(due(&*store, at(2)).await, [], "the lease is still held");
}

/// A commit by a worker that lost its lease changes nothing, whether the execution is free or leased by
/// another worker.
pub async fn a_lost_lease_is_refused_whole(StoreUnderTest { store, .. }: StoreUnderTest) {
    let organization = OrganizationId::new();
    let id = create(&*store, RunFixture::of(organization).build()).await;
    let claimed = take(&*store, at(0), id).await;
    let inbox = fixtures::signal(organization, id, at(1));
    store.signal(inbox.clone()).await.expect("signals");
    store
        .release(&[claimed.lease], at(1))
        .await
        .expect("releases");
    let before = everything(&*store, organization, id).await;
    let late = CommitFixture::on(&claimed)
        .status(Status::Running)
        .events(2)
        .log(LogLevel::Ok, LogDomain::Step, None)
        .audit("execution.started")
        .settle(&[inbox])
        .signature(fixtures::signature_request(
            &claimed.state.execution,
            "lost",
        ))
        .build();
    assert_eq!(
        refused(store.commit(late.clone()).await),
        StoreErrorKind::Conflict,
        "nobody holds it"
    );
    assert_eq!(everything(&*store, organization, id).await, before);
    take(&*store, at(2), id).await;
    assert_eq!(
        refused(store.commit(late).await),
        StoreErrorKind::Conflict,
        "another holds it"
    );
    assert_eq!(everything(&*store, organization, id).await, before);
    assert_eq!(
        store
            .signature_by_envelope("builtin", "lost")
            .await
            .expect("reads"),
        None
    );
}

/// The fencing token alone is not enough: the lease must belong to the worker that commits.
pub async fn another_workers_lease_is_refused(StoreUnderTest { store, .. }: StoreUnderTest) {
    let id = create(&*store, RunFixture::of(OrganizationId::new()).build()).await;
    let claimed = take(&*store, at(0), id).await;
    let other = CommitFixture::on(&claimed)
        .but(|commit| commit.lease.worker_id = WorkerId::new())
        .build();
    assert_eq!(refused(store.commit(other).await), StoreErrorKind::Conflict);
    let higher = CommitFixture::on(&claimed)
        .but(|commit| commit.lease.fence += 1)
        .build();
    assert_eq!(
        refused(store.commit(higher).await),
        StoreErrorKind::Conflict
    );
    commit(&*store, CommitFixture::on(&claimed).build()).await;
}

/// Of two commits on the same version, exactly one is applied.
pub async fn of_two_commits_on_one_version_one_wins(under_test: StoreUnderTest) {
    let StoreUnderTest { store, peer, .. } = &under_test;
    let organization = OrganizationId::new();
    for _ in 0..10 {
        let id = create(&**store, RunFixture::of(organization).build()).await;
        let claimed = take(&**store, at(0), id).await;
        let keep = at(0).plus_millis(LEASE);
        let results = at_once(store, peer, 2, |index, store| {
            let made = CommitFixture::on(&claimed)
                .events(index + 1)
                .keep(keep)
                .build();
            async move { store.commit(made).await.map_err(|error| error.kind) }
        })
        .await;
        let winner = results.iter().position(Result::is_ok).expect("one wins");
        assert_eq!(results[1 - winner], Err(StoreErrorKind::Conflict));
        let found = everything(&**store, organization, id).await;
        assert_eq!(
            found.events.len(),
            1 + winner + 1,
            "the winner's events and no others"
        );
        assert_eq!(found.record.expect("is there").execution.version, 2);
    }
}

/// A commit is refused as a whole if its events leave a gap or repeat stored events.
pub async fn events_that_do_not_follow_are_refused_whole(
    StoreUnderTest { store, .. }: StoreUnderTest,
) {
    let organization = OrganizationId::new();
    let id = create(&*store, RunFixture::of(organization).build()).await;
    let claimed = take(&*store, at(0), id).await;
    let before = everything(&*store, organization, id).await;
    let following = CommitFixture::on(&claimed)
        .status(Status::Running)
        .events(3)
        .audit("execution.started");
    let skipping_first = following
        .clone()
        .but(|commit| drop(commit.events.remove(0)));
    let skipping_one = following
        .clone()
        .but(|commit| drop(commit.events.remove(1)));
    let repeating = following
        .clone()
        .but(|commit| commit.events[0] = Arc::clone(&before.events[0]));
    let swapped = following.clone().but(|commit| commit.events.swap(0, 1));
    for broken in [skipping_first, skipping_one, repeating, swapped] {
        assert_eq!(
            refused(store.commit(broken.build()).await),
            StoreErrorKind::Invalid
        );
        assert_eq!(everything(&*store, organization, id).await, before);
    }
    commit(&*store, following.build()).await;
}

/// After a commit that releases the lease, the execution is due at the time that the commit names, whatever
/// its `wake_at`.
pub async fn a_release_makes_due_at_the_time_it_names(
    StoreUnderTest { store, .. }: StoreUnderTest,
) {
    let id = create(&*store, RunFixture::of(OrganizationId::new()).build()).await;
    work(&*store, at(0), id, |it| Commit {
        then: LeaseAfter::Release {
            due_at: Some(at(70)),
        },
        ..CommitFixture::on(it).wake_at(at(5)).build()
    })
    .await;
    assert_eq!(due(&*store, at(69)).await, []);
    assert_eq!(due(&*store, at(70)).await, [id]);
}

/// If a commit releases the lease and names no time, the execution is not due until it gets a signal,
/// whatever its `wake_at`.
pub async fn a_release_without_a_time_waits_for_a_signal(
    StoreUnderTest { store, .. }: StoreUnderTest,
) {
    let organization = OrganizationId::new();
    let id = create(&*store, RunFixture::of(organization).build()).await;
    work(&*store, at(0), id, |it| Commit {
        then: LeaseAfter::Release { due_at: None },
        ..CommitFixture::on(it).wake_at(at(5)).build()
    })
    .await;
    assert_eq!(due(&*store, at(1_000_000)).await, []);
    store
        .signal(fixtures::signal(organization, id, at(2)))
        .await
        .expect("signals");
    assert_eq!(due(&*store, at(2)).await, [id]);
}

/// A signature request is found by its id and by its envelope, in its latest state.
pub async fn signature_requests_are_found_and_change(StoreUnderTest { store, .. }: StoreUnderTest) {
    let organization = OrganizationId::new();
    let id = create(&*store, RunFixture::of(organization).build()).await;
    let claimed = take(&*store, at(0), id).await;
    let envelope = SignalId::new().to_string();
    let mut request = fixtures::signature_request(&claimed.state.execution, &envelope);
    commit(
        &*store,
        CommitFixture::on(&claimed)
            .signature(request.clone())
            .build(),
    )
    .await;
    let found = async || {
        (
            store
                .signature_request(organization, request.id)
                .await
                .expect("reads"),
            store
                .signature_by_envelope("builtin", &envelope)
                .await
                .expect("reads"),
        )
    };
    assert_eq!(
        found().await,
        (Some(request.clone()), Some(request.clone()))
    );
    assert_eq!(
        store
            .signature_by_envelope("other", &envelope)
            .await
            .expect("reads"),
        None
    );

    let request_id = request.id;
    request.status = RequestStatus::Signed;
    request.signers[0].status = SignerStatus::Signed;
    request.signers[0].signed_at = Some(at(5));
    request.completed_at = Some(at(5));
    let claimed = take(&*store, at(5), id).await;
    assert_eq!(
        claimed.state.signature.as_ref().map(|it| it.id),
        Some(request_id)
    );
    commit(
        &*store,
        CommitFixture::on(&claimed)
            .signature(request.clone())
            .build(),
    )
    .await;
    let by_id = store
        .signature_request(organization, request_id)
        .await
        .expect("reads");
    let by_envelope = store
        .signature_by_envelope("builtin", &envelope)
        .await
        .expect("reads");
    assert_eq!((by_id, by_envelope), (Some(request.clone()), Some(request)));
}

/// An execution's second signature request becomes its current request. The first request can still be found.
pub async fn a_later_signature_request_leaves_the_earlier_to_be_found(
    StoreUnderTest { store, .. }: StoreUnderTest,
) {
    let organization = OrganizationId::new();
    let id = create(&*store, RunFixture::of(organization).build()).await;
    let state = take(&*store, at(0), id).await;
    let requests = [(); 2].map(|()| {
        fixtures::signature_request(&state.state.execution, &SignalId::new().to_string())
    });
    commit(
        &*store,
        CommitFixture::on(&state)
            .signature(requests[0].clone())
            .build(),
    )
    .await;
    work(&*store, at(2), id, |it| {
        CommitFixture::on(it).signature(requests[1].clone()).build()
    })
    .await;
    for request in &requests {
        let found = store
            .signature_request(organization, request.id)
            .await
            .expect("reads");
        assert_eq!(found.as_ref(), Some(request));
    }
    assert_eq!(
        take(&*store, at(3), id).await.state.signature,
        Some(requests[1].clone())
    );
}

/// Each approver's token finds the approval, in its latest state.
pub async fn approvals_are_found_by_token_and_change(StoreUnderTest { store, .. }: StoreUnderTest) {
    let id = create(&*store, RunFixture::of(OrganizationId::new()).build()).await;
    let claimed = take(&*store, at(0), id).await;
    let tokens = [fixtures::token_hash(), fixtures::token_hash()];
    let mut approval = fixtures::approval(&claimed.state.execution, &tokens);
    commit(
        &*store,
        CommitFixture::on(&claimed)
            .approval(approval.clone())
            .build(),
    )
    .await;
    for token in tokens {
        assert_eq!(
            store.approval_by_token(token).await.expect("reads"),
            Some(approval.clone())
        );
    }
    assert_eq!(
        store
            .approval_by_token(fixtures::token_hash())
            .await
            .expect("reads"),
        None
    );

    approval.approvers[0].vote = Some(Decision::Approved);
    approval.approvers[0].voted_at = Some(at(4));
    approval.decision = Some(Decision::Approved);
    approval.decided_at = Some(at(4));
    work(&*store, at(4), id, |it| {
        CommitFixture::on(it).approval(approval.clone()).build()
    })
    .await;
    assert_eq!(
        store.approval_by_token(tokens[1]).await.expect("reads"),
        Some(approval.clone())
    );
    assert_eq!(
        take(&*store, at(5), id).await.state.approval,
        Some(approval)
    );
}

/// A token or an envelope belongs to one execution, across all organizations and also after the execution's
/// end. A commit that uses it for another execution is refused as a whole.
pub async fn a_name_that_leads_to_another_execution_is_refused_whole(
    StoreUnderTest { store, .. }: StoreUnderTest,
) {
    let owner = OrganizationId::new();
    let (token, envelope) = (fixtures::token_hash(), SignalId::new().to_string());
    let id = create(&*store, RunFixture::of(owner).build()).await;
    let claimed = take(&*store, at(0), id).await;
    let (request, approval) = (
        fixtures::signature_request(&claimed.state.execution, &envelope),
        fixtures::approval(&claimed.state.execution, &[token]),
    );
    let first = CommitFixture::on(&claimed)
        .signature(request)
        .approval(approval)
        .wake_at(at(2));
    commit(&*store, first.build()).await;
    // The execution itself may use its own token and envelope again.
    let mut again = None;
    work(&*store, at(2), id, |it| {
        let request = fixtures::signature_request(&it.state.execution, &envelope);
        let approval = fixtures::approval(&it.state.execution, &[token]);
        let ended = CommitFixture::on(it).status(Status::Canceled);
        let ended = ended.signature(request.clone()).approval(approval.clone());
        again = Some((request, approval));
        ended.build()
    })
    .await;
    let (request, approval) = again.expect("committed");
    for organization in [owner, OrganizationId::new()] {
        let other = create(&*store, RunFixture::of(organization).build()).await;
        let claimed = take(&*store, at(3), other).await;
        let execution = &claimed.state.execution;
        let before = everything(&*store, organization, other).await;
        let twice = [fixtures::token_hash(); 2];
        for refused_one in [
            CommitFixture::on(&claimed)
                .signature(fixtures::signature_request(execution, &envelope)),
            CommitFixture::on(&claimed).approval(fixtures::approval(
                execution,
                &[fixtures::token_hash(), token],
            )),
            CommitFixture::on(&claimed).approval(fixtures::approval(execution, &twice)),
        ] {
            let refused_one = refused_one.status(Status::Running).events(1).build();
            let kind = refused(store.commit(refused_one).await);
            assert_eq!(kind, StoreErrorKind::NameTaken);
            assert_eq!(everything(&*store, organization, other).await, before);
        }
        // The same envelope id of another provider is no conflict. The refused commits have not ended the
        // lease.
        let mut elsewhere = fixtures::signature_request(execution, &envelope);
        elsewhere.provider = SignalId::new().to_string();
        let kept = CommitFixture::on(&claimed)
            .signature(elsewhere)
            .approval(fixtures::approval(execution, &[fixtures::token_hash()]));
        commit(&*store, kept.build()).await;
    }
    let found = store.signature_by_envelope("builtin", &envelope).await;
    assert_eq!(found.expect("reads"), Some(request));
    let found = store.approval_by_token(token).await;
    assert_eq!(found.expect("reads"), Some(approval));
}
