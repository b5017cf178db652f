use std::sync::Arc;

use serde_json::json;

use super::desk::{Worker, all_executions, all_logs, at_once, create, pages, work};
use crate::{
    conformance::{
        StoreUnderTest,
        fixtures::{CommitFixture, RunFixture, at, workflow},
    },
    ids::{ExecutionId, OrganizationId, WorkflowId},
    observe::{LogDomain, LogLevel},
    ports::Store,
    query::{
        AuditQuery, ExecutionCounts, ExecutionFilter, ExecutionQuery, ExecutionRecord,
        ExecutionSort, LogQuery, Search,
    },
    run::{Status, WaitKind, WaitingFor},
    time::Timestamp,
};

fn place(record: &ExecutionRecord) -> (Timestamp, ExecutionId) {
    (record.execution.created_at, record.execution.id)
}

async fn list(
    store: &dyn Store,
    limit: usize,
    query: ExecutionQuery,
) -> Vec<(Timestamp, ExecutionId)> {
    let read = |after| {
        let query = query.clone().after(after).limit(limit);
        async move { store.executions(query).await.expect("reads") }
    };
    pages(limit, read, place).await.iter().map(place).collect()
}

/// Pages of any size add up to the whole list of executions, newest first. Executions of the same time are
/// ordered by id.
pub async fn executions_come_newest_first_without_loss_or_repeat(
    StoreUnderTest { store, .. }: StoreUnderTest,
) {
    let organization = OrganizationId::new();
    let mut created = Vec::new();
    for index in 0..24 {
        let run = RunFixture::of(organization)
            .created_at(at(index / 8))
            .build();
        created.push((at(index / 8), create(&*store, run).await));
    }
    create(&*store, RunFixture::of(OrganizationId::new()).build()).await;
    created.sort_by(|a, b| b.cmp(a));
    for limit in [1, 5, 8, 23, 24, 25] {
        assert_eq!(
            list(&*store, limit, all_executions(organization)).await,
            created,
            "pages of {limit}"
        );
    }
}

/// Each filter by workflow, by status or by both selects exactly the matching executions, over all pages.
pub async fn executions_are_filtered_by_workflow_and_status(
    StoreUnderTest { store, .. }: StoreUnderTest,
) {
    let organization = OrganizationId::new();
    let workflows = [(); 2].map(|()| Arc::new(workflow(organization, &["extract"])));
    let mut expected = Vec::new();
    for index in 0..20 {
        let run = RunFixture::with(Arc::clone(&workflows[index % 2]))
            .created_at(at(0))
            .build();
        let id = create(&*store, run).await;
        let status = if index % 5 < 2 {
            Status::Running
        } else {
            Status::NeedsReview
        };
        work(&*store, at(0), id, |it| {
            CommitFixture::on(it).status(Status::Running).build()
        })
        .await;
        work(&*store, at(2), id, |it| {
            CommitFixture::on(it).status(status).build()
        })
        .await;
        expected.push((workflows[index % 2].id, status, (at(0), id)));
    }
    expected.sort_by_key(|(.., place)| std::cmp::Reverse(*place));
    for workflow_id in [None, Some(workflows[0].id), Some(workflows[1].id)] {
        for status in [
            None,
            Some(Status::Running),
            Some(Status::NeedsReview),
            Some(Status::Queued),
        ] {
            let wanted = expected.iter().filter(|(workflow, its_status, _)| {
                workflow_id.is_none_or(|id| id == *workflow)
                    && status.is_none_or(|status| status == *its_status)
            });
            let wanted: Vec<_> = wanted.map(|(.., place)| *place).collect();
            for limit in [3, 50] {
                let query = all_executions(organization)
                    .workflow_id(workflow_id)
                    .status(status);
                assert_eq!(
                    list(&*store, limit, query).await,
                    wanted,
                    "{workflow_id:?} {status:?}"
                );
            }
        }
    }
}

/// Each filter and each order lists exactly the executions that the filter selects, over all pages, and counts
/// them.
pub async fn executions_are_filtered_ordered_and_counted(
    StoreUnderTest { store, .. }: StoreUnderTest,
) {
    let organization = OrganizationId::new();
    let workflows = [(); 2].map(|()| Arc::new(workflow(organization, &["extract"])));
    let kinds = [WaitKind::Review, WaitKind::Approval, WaitKind::Signature];
    let titles = [
        None,
        Some("Contrato Ação 12"),
        Some("Contract it's 7"),
        Some("Offer"),
    ];
    let ids = ["order-1", "it's \\ odd"];
    let mut all = Vec::new();
    for (index, moment) in (0_usize..24).zip(0_i64..) {
        let run = RunFixture::with(Arc::clone(&workflows[index % 2]))
            .created_at(at(moment / 5))
            .title(titles[index % 4])
            .correlation_id(ids[index % 3 % 2]);
        let id = create(&*store, run.build()).await;
        let waits = kinds.get(index % 5).map(|kind| WaitingFor {
            kind: *kind,
            since: at(60 - moment),
            until: None,
            detail: json!({}),
        });
        work(&*store, at(50), id, |it| {
            CommitFixture::on(it)
                .at(at(10 + (moment * 7) % 20))
                .status(match index % 3 {
                    0 => Status::Running,
                    1 => Status::NeedsReview,
                    _ => Status::Completed,
                })
                .with(|execution| execution.waiting_for = waits)
                .build()
        })
        .await;
        if index == 5 {
            // One of them stays leased.
            let claim = Worker::new().one(&*store, at(50), id).await;
            assert!(claim.is_some(), "is claimed");
        }
        let record = store.execution(organization, id).await.expect("reads");
        all.push(record.expect("is there").execution);
    }
    create(&*store, RunFixture::of(OrganizationId::new()).build()).await;
    for filter in filters(&workflows[0].id, &all[3].id.to_string()) {
        let mut counts = ExecutionCounts::default();
        let selected = all.iter().filter(|execution| filter.selects(execution));
        selected.clone().for_each(|execution| counts.add(execution));
        let counted = store.execution_counts(organization, &filter).await;
        assert_eq!(counted.expect("counts"), counts, "{filter:?}");
        for sort in ExecutionSort::ALL {
            let mut places: Vec<_> = selected.clone().map(|it| sort.place(it)).collect();
            places.sort_unstable();
            if sort.is_descending() {
                places.reverse();
            }
            for limit in [2, 50] {
                let read = |after| {
                    let query = ExecutionQuery::of(organization).filter(filter.clone());
                    let query = query.sort(sort).after(after).limit(limit);
                    async { store.executions(query).await.expect("reads") }
                };
                let place = |record: &ExecutionRecord| sort.place(&record.execution);
                let listed = pages(limit, read, place).await;
                let listed: Vec<_> = listed.iter().map(place).collect();
                assert_eq!(listed, places, "{filter:?} {sort:?}");
            }
        }
    }
}

/// Filters of all kinds, alone and combined.
fn filters(workflow: &WorkflowId, id: &str) -> Vec<ExecutionFilter> {
    let all = ExecutionFilter::default;
    let statuses = vec![Status::NeedsReview, Status::Completed];
    let waiting_for = vec![WaitKind::Review, WaitKind::Signature];
    let mut filters = vec![all(); 3];
    filters[1].statuses.clone_from(&statuses);
    filters[2].waiting_for.clone_from(&waiting_for);
    filters.push(ExecutionFilter {
        waiting_for: vec![WaitKind::Approval],
        ..all()
    });
    filters.push(ExecutionFilter {
        statuses: vec![Status::Paused],
        ..all()
    });
    filters.push(ExecutionFilter {
        created_from: Some(at(1)),
        created_to: Some(at(3)),
        ..all()
    });
    filters.push(ExecutionFilter {
        created_from: Some(at(2)),
        statuses,
        ..all()
    });
    for id in ["order-1", "it's \\ odd", "order"] {
        filters.push(ExecutionFilter {
            correlation_id: Some(id.to_owned()),
            ..all()
        });
    }
    for text in [
        "contr",
        "ação",
        "12 contrato",
        "it's",
        "it's \\ odd",
        "tract",
        "'",
        id,
    ] {
        filters.push(ExecutionFilter {
            search: Some(Search::of(text)),
            ..all()
        });
    }
    filters.push(ExecutionFilter {
        workflow_id: Some(*workflow),
        statuses: vec![Status::Running, Status::NeedsReview],
        waiting_for,
        correlation_id: Some("order-1".to_owned()),
        search: Some(Search::of("contr")),
        created_to: Some(at(4)),
        ..all()
    });
    filters
}

/// While executions are created and changed, a reader of all pages gets each execution that existed before
/// once.
pub async fn lists_stand_still_under_concurrent_creates_and_commits(under_test: StoreUnderTest) {
    let StoreUnderTest { store, peer, .. } = &under_test;
    let organization = OrganizationId::new();
    let mut there = Vec::new();
    for _ in 0..30 {
        there.push((
            at(5),
            create(
                &**store,
                RunFixture::of(organization).created_at(at(5)).build(),
            )
            .await,
        ));
    }
    there.sort_by(|a, b| b.cmp(a));
    let original = &there;
    at_once(store, peer, 8, |index, store| {
        let original = original.clone();
        async move {
            if index < 4 {
                for _ in 0..5 {
                    let mut found = list(&*store, 3, all_executions(organization)).await;
                    assert!(
                        found.is_sorted_by(|a, b| a > b),
                        "in order and without a repeat"
                    );
                    found.retain(|place| original.contains(place));
                    assert_eq!(found, original);
                }
            } else {
                for (_, id) in original.into_iter().skip(index - 4).step_by(4) {
                    create(
                        &*store,
                        RunFixture::of(organization).created_at(at(5)).build(),
                    )
                    .await;
                    work(&*store, at(6), id, |it| {
                        CommitFixture::on(it).status(Status::Running).build()
                    })
                    .await;
                }
            }
        }
    })
    .await;
}

/// The pages of a log add up to the whole log, even if all entries have the same time.
pub async fn logs_are_paged_without_loss_or_repeat(StoreUnderTest { store, .. }: StoreUnderTest) {
    let organization = OrganizationId::new();
    let id = create(&*store, RunFixture::of(organization).build()).await;
    let fixture = |it: &_| {
        (0..9).fold(CommitFixture::on(it), |it, _| {
            it.log(LogLevel::Ok, LogDomain::Step, None)
        })
    };
    work(&*store, at(0), id, |it| fixture(it).build()).await;
    for limit in [1, 3, 5, 10, 11] {
        assert_eq!(
            log_seqs(&*store, limit, all_logs(organization, id)).await,
            (1..=10).collect::<Vec<_>>()
        );
    }
}

/// Pages of a filtered log are full, and the last page is never empty.
pub async fn filtered_logs_are_paged_without_loss_or_repeat(
    StoreUnderTest { store, .. }: StoreUnderTest,
) {
    let organization = OrganizationId::new();
    let id = create(&*store, RunFixture::of(organization).build()).await;
    work(&*store, at(0), id, |it| {
        let levels = [LogLevel::Warn, LogLevel::Error, LogLevel::Error]
            .into_iter()
            .cycle()
            .take(12);
        levels
            .fold(CommitFixture::on(it), |it, level| {
                it.log(level, LogDomain::Step, None)
            })
            .build()
    })
    .await;
    for limit in [1, 2, 3, 4, 5] {
        let query = all_logs(organization, id).level(LogLevel::Warn);
        assert_eq!(
            log_seqs(&*store, limit, query).await,
            [2, 5, 8, 11],
            "pages of {limit}"
        );
    }
}

/// The pages of an audit trail add up to the whole trail.
pub async fn audit_rows_are_paged_without_loss_or_repeat(
    StoreUnderTest { store, .. }: StoreUnderTest,
) {
    let organization = OrganizationId::new();
    let id = create(&*store, RunFixture::of(organization).build()).await;
    work(&*store, at(0), id, |it| {
        (0..6)
            .fold(CommitFixture::on(it), |it, _| it.audit("document.saved"))
            .build()
    })
    .await;
    for limit in [1, 3, 7, 8] {
        assert_eq!(
            audit_seqs(&*store, limit, organization, id).await,
            (1..=7).collect::<Vec<_>>()
        );
    }
}

/// While commits add to a log and an audit trail, a reader of all pages gets each row once and in order.
pub async fn pages_stand_still_under_concurrent_commits(under_test: StoreUnderTest) {
    let StoreUnderTest { store, peer, .. } = &under_test;
    let organization = OrganizationId::new();
    let id = create(&**store, RunFixture::of(organization).build()).await;
    at_once(store, peer, 5, |index, store| async move {
        if index == 0 {
            for now in 0..40 {
                work(&*store, at(now), id, |it| {
                    let more = CommitFixture::on(it).log(LogLevel::Ok, LogDomain::Step, None);
                    more.log(LogLevel::Warn, LogDomain::Step, None)
                        .audit("document.saved")
                        .build()
                })
                .await;
            }
        } else {
            for _ in 0..10 {
                let logs = log_seqs(&*store, 4, all_logs(organization, id)).await;
                assert_eq!(logs, (1..=logs.len() as u64).collect::<Vec<_>>());
                let rows = audit_seqs(&*store, 4, organization, id).await;
                assert_eq!(rows, (1..=rows.len() as u64).collect::<Vec<_>>());
            }
        }
    })
    .await;
    assert_eq!(
        log_seqs(&**store, 100, all_logs(organization, id))
            .await
            .len(),
        81
    );
    assert_eq!(audit_seqs(&**store, 100, organization, id).await.len(), 41);
}

async fn log_seqs(store: &dyn Store, limit: usize, query: LogQuery) -> Vec<u64> {
    let read = |after: Option<u64>| {
        let query = query.clone().after(after.unwrap_or(0)).limit(limit);
        async move { store.logs(query).await.expect("reads") }
    };
    pages(limit, read, |entry| entry.seq)
        .await
        .iter()
        .map(|entry| entry.seq)
        .collect()
}

async fn audit_seqs(
    store: &dyn Store,
    limit: usize,
    organization_id: OrganizationId,
    execution_id: ExecutionId,
) -> Vec<u64> {
    let read = |after: Option<u64>| {
        let query = AuditQuery::of(organization_id, execution_id)
            .after(after.unwrap_or(0))
            .limit(limit);
        async move { store.audit(query).await.expect("reads") }
    };
    pages(limit, read, |row| row.seq)
        .await
        .iter()
        .map(|row| row.seq)
        .collect()
}
