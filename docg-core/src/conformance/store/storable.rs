//! The values that a store must keep, and those that it must refuse. All stores keep and refuse the same
//! values, so that an application can change its store.

use std::{iter, sync::Arc};

use serde_json::{Map, Value, json};

use super::desk::{all_executions, commit, create, everything, refused, take};
use crate::{
    conformance::{
        StoreUnderTest,
        fixtures::{self, CommitFixture, RunFixture, at, nested, signal},
    },
    error::ErrorContext,
    event::EventData,
    ids::OrganizationId,
    observe::{JsonText, LogDomain, LogLevel},
    ports::{Claimed, Commit, ResumeSignal, SignalKind, StoreErrorKind, TtlEntry, TtlKey},
    run::{Inputs, Step, WaitKind, WaitingFor},
    storable::{MAX_DEPTH, MAX_STORED_DEPTH},
    time::Timestamp,
};

/// Commits that hold the value, each in a different field.
fn commits_with(claimed: &Claimed, value: &Value) -> Vec<Commit> {
    let base = || {
        CommitFixture::on(claimed)
            .events(1)
            .log(LogLevel::Ok, LogDomain::Step, Some("n0"))
            .audit("document.generated")
            .keep(at(10_000))
    };
    let json = JsonText::from(value);
    let step = &claimed.state.steps[0];
    let steps = [
        Step {
            data_in: Some(json.clone()),
            ..step.clone()
        },
        Step {
            data_out: Some(json.clone()),
            ..step.clone()
        },
        Step {
            output: Some(Arc::new(value.clone())),
            ..step.clone()
        },
    ];
    let with_step = |step| base().but(|commit| commit.steps = vec![step]).build();
    let inputs = Inputs {
        trigger_data: Arc::new(value.clone()),
        node_overrides: Map::new(),
        ..Inputs::default()
    };
    let with_inputs = base().but(|commit| commit.inputs = Some(Arc::new(inputs)));
    let with_log = base().but(|commit| {
        Arc::make_mut(&mut commit.logs[0]).details_tech = Some(json.clone());
    });
    let with_audit = base().but(|commit| {
        Arc::make_mut(&mut commit.audit[0]).metadata = json.clone();
    });
    let with_event = base().but(|commit| {
        Arc::make_mut(&mut commit.events[0]).data = EventData::StepCompleted {
            node_id: "n0".into(),
            node_type: "extract".into(),
            duration_ms: 1,
            output_preview: Some(json.clone()),
        };
    });
    let mut request = fixtures::signature_request(&claimed.state.execution, "envelope");
    request.file = value.clone();
    let with_request = base().signature(request);
    let others = [with_inputs, with_log, with_audit, with_event, with_request];
    let others = others.map(CommitFixture::build);
    steps.map(with_step).into_iter().chain(others).collect()
}

/// Commits that hold the text, each in a different field.
fn commits_with_text(claimed: &Claimed, text: &str) -> Vec<Commit> {
    let base = || {
        CommitFixture::on(claimed)
            .log(LogLevel::Ok, LogDomain::Step, Some("n0"))
            .audit("document.generated")
            .keep(at(10_000))
    };
    let error = |human: &str, tech: &str| {
        Some(ErrorContext {
            code: "code".into(),
            human: human.into(),
            tech: Some(tech.to_owned()),
        })
    };
    let errors = [error(text, "tech"), error("human", text)];
    let with_error = |error| base().with(|execution| execution.error = error).build();
    let with_log = base().but(|commit| {
        Arc::make_mut(&mut commit.logs[0]).message_tech = Some(text.to_owned());
    });
    let with_words = base().but(|commit| {
        Arc::make_mut(&mut commit.logs[0]).message_human = text.into();
    });
    let with_target = base().but(|commit| {
        Arc::make_mut(&mut commit.audit[0]).target.id = text.to_owned();
    });
    let others = [with_log, with_words, with_target].map(CommitFixture::build);
    errors.map(with_error).into_iter().chain(others).collect()
}

/// A commit with a NUL anywhere, or with a value that could not be read back, changes nothing. The lease
/// stays, and a commit without the value is accepted.
pub async fn a_commit_that_cannot_be_kept_is_refused_whole(
    StoreUnderTest { store, .. }: StoreUnderTest,
) {
    let organization = OrganizationId::new();
    let id = create(&*store, RunFixture::of(organization).build()).await;
    let claimed = take(&*store, at(0), id).await;
    let before = everything(&*store, organization, id).await;
    let bad = [
        json!("\0"),
        json!({"k\0": 1}),
        json!([["a\\\0"]]),
        nested(MAX_STORED_DEPTH + 1),
    ];
    let bad = bad.iter().flat_map(|value| commits_with(&claimed, value));
    for commit in bad.chain(commits_with_text(&claimed, "a\0b")) {
        let told = format!("{commit:?}");
        assert_eq!(
            refused(store.commit(commit).await),
            StoreErrorKind::Invalid,
            "{told}"
        );
    }
    assert_eq!(everything(&*store, organization, id).await, before);
    commit(&*store, CommitFixture::on(&claimed).events(1).build()).await;
}

/// A creation, a signal or a TTL entry with a value that cannot be read back is refused too.
pub async fn what_comes_with_a_call_and_cannot_be_kept_is_refused(
    StoreUnderTest { store, .. }: StoreUnderTest,
) {
    let organization = OrganizationId::new();
    let id = create(&*store, RunFixture::of(organization).wake_at(None).build()).await;
    for value in [json!("a\0"), nested(MAX_STORED_DEPTH + 1)] {
        let mut run = RunFixture::of(organization).build();
        Arc::make_mut(&mut run.state.inputs).trigger_data = Arc::new(json!({"v": value}));
        assert_eq!(refused(store.create(run).await), StoreErrorKind::Invalid);

        let mut sent = signal(organization, id, at(1));
        sent.kind = SignalKind::Resume(ResumeSignal {
            trigger_data: Some(iter::once(("v".to_owned(), value.clone())).collect()),
            ..ResumeSignal::default()
        });
        assert_eq!(refused(store.signal(sent).await), StoreErrorKind::Invalid);

        let key = TtlKey {
            organization_id: Some(organization),
            kind: "kind",
            key: "key".to_owned(),
        };
        let entry = TtlEntry {
            key,
            value,
            expires_at: at(100),
        };
        assert_eq!(
            refused(store.remember(entry.clone(), at(0)).await),
            StoreErrorKind::Invalid
        );
        assert_eq!(refused(store.replace(entry).await), StoreErrorKind::Invalid);
    }
    assert_eq!(store.signals(id).await.expect("reads"), []);
}

/// Readers and claims get a value of the greatest allowed depth as it was stored.
pub async fn what_is_nested_as_deep_as_allowed_comes_back(
    StoreUnderTest { store, .. }: StoreUnderTest,
) {
    let organization = OrganizationId::new();
    let mut run = RunFixture::of(organization).build();
    let deep = nested(MAX_DEPTH);
    Arc::make_mut(&mut run.state.inputs).trigger_data = Arc::new(deep.clone());
    let id = create(&*store, run).await;
    let mut sent = signal(organization, id, at(0));
    sent.kind = SignalKind::Resume(ResumeSignal {
        nodes: iter::once(("n0".to_owned(), deep.clone())).collect(),
        ..ResumeSignal::default()
    });
    store.signal(sent.clone()).await.expect("signals");

    let mut claimed = take(&*store, at(0), id).await;
    assert_eq!(*claimed.state.inputs.trigger_data, deep);
    assert_eq!(claimed.signals, std::slice::from_ref(&sent));
    for (n, _) in commits_with(&claimed, &deep).iter().enumerate() {
        let made = commits_with(&claimed, &deep).swap_remove(n);
        claimed.state.execution = made.execution.clone();
        commit(&*store, made).await;
    }
    store
        .release(&[claimed.lease], at(1))
        .await
        .expect("releases");
    let again = take(&*store, at(1), id).await;
    assert_eq!(again.state.steps[0].output.as_deref(), Some(&deep));
    assert_eq!(again.state.signature.map(|it| it.file), Some(deep.clone()));
    assert_eq!(again.signals, [sent]);
    let read = everything(&*store, organization, id).await;
    assert_eq!(read.events.len(), 9);
    assert!(
        read.logs
            .iter()
            .any(|it| it.details_tech.as_ref().is_some_and(|it| *it == deep))
    );
    assert!(read.audit.iter().any(|row| row.metadata == deep));
}

/// The earliest and the latest timestamp can be stored in every field and read back, and every list with such
/// timestamps can be read.
pub async fn the_first_and_the_last_moment_come_back(StoreUnderTest { store, .. }: StoreUnderTest) {
    let organization = OrganizationId::new();
    for end in [Timestamp::MIN, Timestamp::MAX] {
        let run = RunFixture::of(organization).created_at(end).build();
        let id = create(&*store, run).await;
        let claimed = take(&*store, at(0), id).await;
        let mut request =
            fixtures::signature_request(&claimed.state.execution, &format!("of {id}"));
        (request.created_at, request.expires_at) = (end, Some(end));
        request.completed_at = Some(end);
        (request.follow_up.remind_at, request.follow_up.check_at) = (Some(end), Some(end));
        let mut approval = fixtures::approval(&claimed.state.execution, &[fixtures::token_hash()]);
        (approval.created_at, approval.expires_at) = (end, Some(end));
        approval.decided_at = Some(end);
        let step = Step {
            started_at: Some(end),
            completed_at: Some(end),
            ..claimed.state.steps[0].clone()
        };
        let waiting = WaitingFor {
            kind: WaitKind::Retry,
            since: end,
            until: Some(end),
            detail: json!({}),
        };
        let made = CommitFixture::on(&claimed)
            .at(end)
            .with(|execution| {
                execution.started_at = Some(end);
                execution.waiting_for = Some(waiting.clone());
            })
            .wake_at(end)
            .keep(at(10_000))
            .events(1)
            .log(LogLevel::Ok, LogDomain::Step, Some("n0"))
            .audit("document.generated")
            .signature(request.clone())
            .approval(approval.clone())
            .but(|commit| commit.steps = vec![step.clone()])
            .build();
        let (rows, execution) = (
            (made.events.clone(), made.audit.clone()),
            made.execution.clone(),
        );
        commit(&*store, made).await;
        store
            .release(&[claimed.lease], at(1))
            .await
            .expect("releases");

        let again = take(&*store, at(2), id).await;
        assert_eq!(again.state.execution.waiting_for, Some(waiting));
        assert_eq!(again.state.execution.started_at, execution.started_at);
        assert_eq!(again.state.signature, Some(request));
        assert_eq!(again.state.approval, Some(approval));
        assert_eq!(again.state.steps[0], step);
        let read = everything(&*store, organization, id).await;
        assert_eq!(read.events.last(), rows.0.last());
        assert_eq!(read.audit.last(), rows.1.last());
    }
    let list = store.executions(all_executions(organization)).await;
    let ends: Vec<_> = list
        .expect("reads")
        .items
        .iter()
        .map(|record| (record.execution.created_at, record.execution.updated_at))
        .collect();
    let [first, last] = [Timestamp::MIN, Timestamp::MAX].map(|end| (end, end));
    assert_eq!(ends, [last, first], "newest first");
}
