//! Input of applications and handlers that exceeds the limits. The engine refuses it with a typed error, cuts
//! it with a mark, or leaves it to a person; every list can still be read afterwards.

use std::time::Duration;

use docg_core::{
    conformance::fixtures::nested,
    engine::{EngineError, Repair, RequestSignature, RetryRequest},
    error::codes,
    limits::{self, CUT_MARK, TextLimit},
    observe::{LogDraft, LogLevel},
    ports::Settlement,
    prelude::*,
    query::{AuditQuery, ExecutionQuery, LogQuery},
    run::Execution,
    time::{MAX_DURATION_MS, Timestamp},
    workflow::{
        WorkflowDraft,
        handler::{NewApproval, OnExpiry},
    },
};
use proptest::{prelude::*, test_runner::Config};
use serde_json::{Value, json};

use crate::world::{World, bottomless, builder};

fn spec(name: &'static str) -> NodeSpec {
    NodeSpec::new(name, Phase::Save).any_phase()
}

/// A handler whose answer or logs exceed a limit, in the way that `what` names.
fn beyond(what: &'static str) -> Handler {
    effect(
        spec(what),
        move |context: EffectContext, _: Value| async move {
            let text = "x".repeat(10_000_000);
            let approver = || vec![("ann@example.com".to_owned(), [7; 32])];
            let mut approval = NewApproval::new(approver());
            let signer = NewSigner::new("ann@example.com");
            let mut signatures = NewSignatureRequest::new("desk", "envelope", [signer.clone()]);
            match what {
                "approval-without-end" => {
                    approval.expires_at = Some(Timestamp::from_millis(i64::MAX))
                }
                "approval-without-time" => {
                    approval.expires_at = Some(context.started_at);
                    approval.on_expiry = OnExpiry::Approve;
                }
                "approval-of-many" => {
                    approval.approvers = (0..=limits::PEOPLE)
                        .map(|n| (format!("{n}@example.com"), [7; 32]))
                        .collect();
                }
                "approval-of-many-words" => approval.message = Some(text[..500_000].to_owned()),
                "signatures-without-end" => {
                    signatures = signatures.expires_at(Timestamp::from_millis(i64::MAX));
                    return Ok(StepOutcome::Wait(Wait::Signatures(signatures)));
                }
                "signatures-without-time" => {
                    signatures = signatures.expires_at(context.started_at);
                    return Ok(StepOutcome::Wait(Wait::Signatures(signatures)));
                }
                "reminders-never" => {
                    signatures = signatures.remind_every_ms(u64::MAX);
                    return Ok(StepOutcome::Wait(Wait::Signatures(signatures)));
                }
                "signatures-of-many" => {
                    signatures.signers = vec![signer; limits::PEOPLE + 1];
                    return Ok(StepOutcome::Wait(Wait::Signatures(signatures)));
                }
                "retry-never" => {
                    let failure = StepFailure::retryable("busy", "Come back later.");
                    return Err(failure.retry_after_ms(u64::MAX));
                }
                "many-words" => {
                    return Err(StepFailure::fatal(text.clone(), text.clone()).tech(text));
                }
                "many-logs" => {
                    for _ in 0..2 * limits::LOGS_PER_ATTEMPT {
                        context.log(LogLevel::Ok, "A line.");
                    }
                    context.log_entry(LogDraft::new(LogLevel::Ok, "Never kept."));
                    return StepOutcome::done(json!({}));
                }
                _ => unreachable!("{what}"),
            }
            Ok(StepOutcome::Wait(Wait::Approval(approval)))
        },
    )
    .into()
}

const BEYOND: [(&str, Status, &str); 11] = [
    (
        "approval-without-time",
        Status::NeedsReview,
        codes::OUTPUT_NOT_STORABLE,
    ),
    (
        "signatures-without-time",
        Status::NeedsReview,
        codes::OUTPUT_NOT_STORABLE,
    ),
    (
        "approval-without-end",
        Status::NeedsReview,
        codes::OUTPUT_NOT_STORABLE,
    ),
    (
        "approval-of-many",
        Status::NeedsReview,
        codes::OUTPUT_NOT_STORABLE,
    ),
    (
        "approval-of-many-words",
        Status::NeedsReview,
        codes::OUTPUT_NOT_STORABLE,
    ),
    (
        "signatures-without-end",
        Status::NeedsReview,
        codes::OUTPUT_NOT_STORABLE,
    ),
    (
        "reminders-never",
        Status::NeedsReview,
        codes::OUTPUT_NOT_STORABLE,
    ),
    (
        "signatures-of-many",
        Status::NeedsReview,
        codes::OUTPUT_NOT_STORABLE,
    ),
    ("retry-never", Status::NeedsReview, "busy"),
    ("many-words", Status::Failed, ""),
    ("many-logs", Status::Completed, ""),
];

/// An organization with a workflow of one step, whose handler exceeds a limit.
struct Beyond {
    world: World,
    workflow: WorkflowId,
}

impl Beyond {
    async fn new(node_type: &str) -> Self {
        let mut builder = builder();
        for (what, ..) in BEYOND {
            builder = builder.step(beyond(what));
        }
        let world = World::new(builder.options(|options| {
            options.cancel_grace = Duration::MAX;
            options.probe_timeout = Duration::MAX;
            options.poll_interval = Duration::MAX;
            options.signature_check = Duration::MAX;
            options.lease = Duration::MAX;
        }));
        let nodes = json!([{"id": "n", "type": node_type, "phase": "save"}]);
        let workflow = world.put(nodes).await;
        Self { world, workflow }
    }

    fn request(&self) -> StartRequest {
        self.world.request(self.workflow)
    }

    async fn start(&self) -> ExecutionId {
        self.world.accept(self.request()).await
    }

    /// Starts an execution, and waits until it rests or has ended.
    async fn run(&self) -> Execution {
        let _workers = self.world.workers();
        let id = self.start().await;
        self.world.until_rest(id).await;
        self.world.execution(id).await
    }

    /// Reads every list about an execution, and returns the total length of the lists as text.
    async fn read_all(&self, id: ExecutionId) -> usize {
        let engine = &self.world.engine;
        let organization_id = self.world.organization;
        let executions = engine
            .executions(ExecutionQuery::of(organization_id))
            .await
            .expect("a list");
        let steps = engine.steps(organization_id, id).await.expect("steps");
        let logs = engine
            .logs(LogQuery::of(organization_id, id))
            .await
            .expect("logs");
        let audit = engine
            .audit(AuditQuery::of(organization_id, id))
            .await
            .expect("audit");
        let shown = json!([executions.items.len(), steps, logs.items, audit.items]);
        shown.to_string().len()
    }
}

#[tokio::test]
async fn an_answer_of_a_handler_beyond_all_bounds_is_cut_or_refused_and_every_list_is_readable() {
    for (what, status, code) in BEYOND {
        let it = Beyond::new(what).await;
        let execution = it.run().await;
        assert_eq!(
            execution.status,
            status,
            "{what}: {:?}",
            execution.error.map(|e| e.code)
        );
        let error = execution.error;
        if !code.is_empty() {
            assert_eq!(
                error.as_ref().map(|error| &*error.code),
                Some(code),
                "{what}"
            );
        }
        if what == "many-words" {
            let error = error.expect("an error");
            let human = error.human.render(docg_core::i18n::Locale::En);
            let tech = error.tech.expect("a text");
            for (text, most) in [
                (&*error.code, limits::CODE),
                (&human, limits::HUMAN),
                (&tech, limits::TECH),
            ] {
                assert!(text.ends_with(CUT_MARK) && text.chars().count() == most);
            }
        }
        let shown = it.read_all(execution.id).await;
        assert!(shown < 500_000, "{what}: lists show {shown} bytes");
    }
}

#[tokio::test]
async fn texts_of_an_application_have_the_same_limits_as_those_of_http_requests() {
    let it = Beyond::new("many-logs").await;
    let with = |limit: TextLimit, text: String| {
        let mut request = it.request();
        match limit {
            limits::TRIGGER_TYPE => request.trigger_type = text,
            limits::CORRELATION_ID => request.correlation_id = text,
            limits::TRACEPARENT => request.traceparent = Some(text),
            limits::ACTOR => request.actor = Actor::user(text),
            limits::IDEMPOTENCY_KEY => request.idempotency_key = Some(text.into()),
            _ => unreachable!("{limit:?}"),
        }
        request
    };
    let refused = |error: EngineError| match error {
        EngineError::InvalidInput(faults) => {
            let faults = faults.into_iter().map(|fault| (fault.pointer, fault.code));
            faults.collect::<Vec<_>>()
        }
        other => panic!("{other}"),
    };
    for limit in [
        limits::TRIGGER_TYPE,
        limits::CORRELATION_ID,
        limits::TRACEPARENT,
        limits::ACTOR,
        limits::IDEMPOTENCY_KEY,
    ] {
        let at = format!("/{}", limit.name);
        let good = it
            .world
            .engine
            .start(with(limit, "x".repeat(limit.max)))
            .await;
        good.unwrap_or_else(|error| panic!("{at}: {error}"));
        let blank = [String::new(), " ".to_owned()].map(|text| (text, "required"));
        let blank = blank.into_iter().filter(|_| limit != limits::ACTOR);
        for (text, code) in blank.chain([
            ("x".repeat(limit.max + 1), "too_long"),
            ("x".repeat(900_000), "too_long"),
            ("a\nb".to_owned(), "invalid_text"),
            ("a\0b".to_owned(), "invalid_text"),
            ("a\u{202e}b".to_owned(), "invalid_text"),
        ]) {
            let answer = it.world.engine.start(with(limit, text)).await;
            let faults = answer.map(drop).map_err(refused);
            assert_eq!(faults, Err(vec![(at.clone(), code)]));
        }
    }
    let id = it.start().await;
    let control = || it.world.control(id);
    let long = || Some("x".repeat(limits::REASON.max + 1));
    let expected = Err(vec![("/reason".to_owned(), "too_long")]);
    let paused = it.world.engine.pause(control(), long()).await;
    assert_eq!(paused.map(drop).map_err(refused), expected);
    let canceled = it.world.engine.cancel(control(), long()).await;
    assert_eq!(canceled.map(drop).map_err(refused), expected);
    let retry = RetryRequest::default().correlation_id("").traceparent("");
    let retried = it.world.engine.retry(control(), retry).await.map(drop);
    let asked = RequestSignature::new(Vec::new())
        .correlation_id("")
        .traceparent("");
    let asked = it.world.engine.request_signature(control(), asked).await;
    for answer in [retried, asked.map(drop)] {
        let faults = ["/correlation_id", "/traceparent"].map(|at| (at.to_owned(), "required"));
        assert_eq!(answer.map_err(refused), Err(faults.to_vec()));
    }
    it.read_all(id).await;
}

#[tokio::test]
async fn a_value_that_is_nested_too_deep_is_refused_in_every_call_of_an_application() {
    let it = Beyond::new("many-logs").await;
    let mut request = it.request();
    request.trigger_data["deep"] = bottomless();
    let mut refusals = vec![it.world.engine.start(request).await.map(drop)];
    let id = it.start().await;
    let control = || it.world.control(id);
    let mut again = RetryRequest::default();
    again.trigger_data = Some(bottomless());
    refusals.push(it.world.engine.retry(control(), again).await.map(drop));
    let signers = RequestSignature::new(vec![json!({}), bottomless(), bottomless()]);
    let asked = it.world.engine.request_signature(control(), signers).await;
    refusals.push(asked.map(drop));
    let mut node = Repair::default();
    node.nodes = [("deep".to_owned(), bottomless())].into_iter().collect();
    for repair in [
        Repair::default().trigger_data("deep", bottomless()),
        node,
        Repair::default().settlement(Settlement::ConfirmDone(bottomless())),
    ] {
        let resumed = it.world.engine.resume(control(), repair.into());
        refusals.push(resumed.await.map(drop));
    }
    for (place, refusal) in refusals.into_iter().enumerate() {
        let Err(EngineError::InvalidInput(faults)) = refusal else {
            panic!("{place}: {refusal:?}")
        };
        assert!(faults.iter().all(|it| it.code == "too_deep"), "{faults:?}");
    }
    let nodes = json!([{"id": "n", "type": "many-logs", "phase": "save"}]);
    let draft = json!({"name": "test", "nodes": nodes});
    let mut draft: WorkflowDraft = serde_json::from_value(draft).expect("readable");
    draft.input_schema.insert("x".to_owned(), bottomless());
    draft.nodes[0].params.insert("a/b".to_owned(), bottomless());
    let put = it
        .world
        .engine
        .put_workflow(it.world.organization, it.workflow, draft, None);
    let Err(EngineError::InvalidWorkflow(faults)) = put.await else {
        panic!("it is taken")
    };
    let places: Vec<_> = faults.iter().map(|it| (&*it.pointer, it.code)).collect();
    let expected = ["/input_schema/x", "/nodes/0/params/a~1b"].map(|at| (at, "too_deep"));
    assert_eq!(places, expected);
}

#[tokio::test]
async fn a_definition_with_durations_beyond_ten_years_is_refused() {
    let it = Beyond::new("many-logs").await;
    for (settings, node, pointer) in [
        (
            json!({"review_expires_ms": MAX_DURATION_MS + 1}),
            json!({}),
            "/settings/review_expires_ms",
        ),
        (
            json!({"review_expires_ms": u64::MAX}),
            json!({}),
            "/settings/review_expires_ms",
        ),
        (
            json!({}),
            json!({"timeout_ms": u64::MAX}),
            "/nodes/0/timeout_ms",
        ),
        (
            json!({}),
            json!({"retry": {"max_ms": u64::MAX}}),
            "/nodes/0/retry/max_ms",
        ),
        (
            json!({}),
            json!({"retry": {"multiplier": -1.0}}),
            "/nodes/0/retry/multiplier",
        ),
    ] {
        let mut first = json!({"id": "n", "type": "many-logs", "phase": "save"});
        first
            .as_object_mut()
            .expect("an object")
            .extend(node.as_object().cloned().unwrap_or_default());
        let draft = json!({"name": "test", "settings": settings, "nodes": [first]});
        let draft = serde_json::from_value(draft).expect("readable");
        let put = it
            .world
            .engine
            .put_workflow(it.world.organization, it.workflow, draft, None);
        let Err(EngineError::InvalidWorkflow(faults)) = put.await else {
            panic!("{pointer} is taken")
        };
        let faults: Vec<_> = faults
            .iter()
            .map(|fault| (&*fault.pointer, fault.code))
            .collect();
        assert_eq!(faults, [(pointer, "out_of_range")]);
    }
}

/// JSON with parts that a store may refuse: NULs, names that serde_json reserves, deep nesting.
fn odd_json() -> impl Strategy<Value = Value> {
    let text = prop_oneof![
        "[a-z{}\\u{0}\\u{1b}\\u{2028}]{0,6}",
        Just("$serde_json::private::Number".to_owned()),
    ];
    let leaf = prop_oneof![
        Just(json!(null)),
        any::<bool>().prop_map(|it| json!(it)),
        any::<f64>().prop_map(|it| json!(it)),
        any::<u64>().prop_map(|it| json!(it)),
        text.clone().prop_map(|it| json!(it)),
        (90..110_usize).prop_map(nested),
    ];
    leaf.prop_recursive(3, 12, 4, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(|it| json!(it)),
            prop::collection::hash_map(text.clone(), inner, 0..4).prop_map(|it| json!(it)),
        ]
    })
}

proptest! {
    #![proptest_config(Config { cases: 256, failure_persistence: None, ..Config::default() })]

    #[test]
    fn preflight_refuses_the_trigger_data_that_start_refuses(data in odd_json()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(async {
            let it = Beyond::new("many-logs").await;
            for workflow in [it.workflow, WorkflowId::new()] {
                let mut request = it.request();
                request.workflow_id = workflow;
                request.trigger_data = data.clone();
                let started = it.world.engine.start(request).await.map(drop);
                let checked = it.world.engine.preflight(it.world.organization, workflow, data.clone());
                let checked = checked.await.map(drop);
                prop_assert_eq!(format!("{:?}", checked), format!("{:?}", started));
            }
            Ok(())
        })?;
    }
}
