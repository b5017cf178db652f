//! Handlers' answers that no store can keep. The engine refuses or changes such an answer before the machine
//! decides on it, and repeats no effect because of it.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use docg_core::{
    approval::token_hash,
    conformance::fixtures::nested,
    engine::{ControlAnswer, EngineBuilder, EngineError, Repair, Resume},
    error::codes,
    i18n::Locale,
    observe::{AuditDraft, LogDraft, LogEntry, LogLevel},
    ports::Settlement,
    preflight::{Domain, Issue},
    prelude::*,
    query::{AuditQuery, LogQuery},
    run::Execution,
    storable::{MAX_DEPTH, MAX_STORED_DEPTH},
    workflow::{
        ComputeHandler,
        handler::{CheckRequest, NewApproval},
    },
};
use serde_json::{Value, json};

use crate::world::{World, bottomless, builder};

fn spec(name: &'static str) -> NodeSpec {
    NodeSpec::new(name, Phase::Save).any_phase()
}

/// An execution that waits for people or has ended.
struct Ran {
    world: World,
    execution: Execution,
}

async fn run(builder: EngineBuilder, node_type: &str) -> Ran {
    run_all(builder, &[node_type]).await
}

async fn run_all(builder: EngineBuilder, node_types: &[&str]) -> Ran {
    run_in("save", World::new(builder), node_types).await
}

async fn run_in(phase: &str, world: World, node_types: &[&str]) -> Ran {
    let _workers = world.workers();
    // Allow one attempt: if a probe then finds that people were asked, the step waits for them and does not
    // run again.
    let node = |(at, node_type)| json!({"id": format!("n{at}"), "type": node_type, "phase": phase, "retry": {"max_attempts": 1}});
    let id = world
        .start(node_types.iter().enumerate().map(node).collect())
        .await;
    world.until_rest(id).await;
    let execution = world.execution(id).await;
    Ran { world, execution }
}

impl Ran {
    fn error(&self) -> (&str, String, &str) {
        let error = self.execution.error.as_ref().expect("an error");
        let tech = error.tech.as_deref().unwrap_or_default();
        (&error.code, error.human.render(Locale::En), tech)
    }

    async fn resume(&self, resume: Resume) -> Result<ControlAnswer, EngineError> {
        let control = self.world.control(self.execution.id);
        self.world.engine.resume(control, resume).await
    }

    /// The first ten warnings in the execution's log.
    async fn warnings(&self) -> Vec<Arc<LogEntry>> {
        let query = LogQuery::of(self.world.organization, self.execution.id);
        let logs = self
            .world
            .engine
            .logs(query.level(LogLevel::Warn).limit(10));
        logs.await.expect("reads").items
    }
}

/// The error code of each case of [`unstorable`], in order.
const REFUSED: [&str; 10] = [
    codes::OUTPUT_NOT_STORABLE,
    codes::OUTPUT_NOT_STORABLE,
    codes::OUTPUT_NOT_STORABLE,
    codes::OUTPUT_NOT_STORABLE,
    codes::OUTPUT_NOT_STORABLE,
    codes::OUTPUT_NOT_STORABLE,
    codes::OUTPUT_NOT_STORABLE,
    codes::OUTPUT_TOO_LARGE,
    codes::INVALID_QUORUM,
    codes::WRONG_PHASE,
];

/// The handler's answer in this case, which no store can keep.
fn unstorable(case: usize) -> StepOutcome {
    let signers = [NewSigner::new("ana@example.com")];
    let request = |envelope: &str| NewSignatureRequest::new("builtin", envelope, signers.clone());
    let approvers = |count: u8| (0..count).map(|n| (format!("{n}@example.com"), [n; 32]));
    let signatures = |request| StepOutcome::Wait(Wait::Signatures(request));
    let approval = |change: fn(&mut NewApproval)| {
        let mut request = NewApproval::new(approvers(2).collect());
        change(&mut request);
        StepOutcome::Wait(Wait::Approval(request))
    };
    match case {
        0 => StepOutcome::Done(json!({"text": "a\0b"})),
        1 => StepOutcome::Done(json!({"k\0": 1})),
        2 => StepOutcome::Done(nested(MAX_DEPTH + 1)),
        3 => StepOutcome::Done(bottomless()),
        4 => signatures(request("envelope\0")),
        5 => signatures(request("envelope").file(bottomless())),
        6 => approval(|it| it.approvers[1].1 = it.approvers[0].1),
        7 => StepOutcome::Done("x".repeat(5_000_000).into()),
        8 => approval(|it| it.quorum = 3),
        _ => signatures(request("envelope")),
    }
}

#[tokio::test]
async fn an_effect_whose_answer_cannot_be_kept_is_settled_by_a_person_and_not_repeated() {
    for (case, code) in REFUSED.into_iter().enumerate() {
        let runs = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&runs);
        let builder = builder().step(effect(spec("bad"), move |_, _: Value| {
            counted.fetch_add(1, Ordering::SeqCst);
            async move { Ok(unstorable(case)) }
        }));
        let ran = run(builder, "bad").await;
        assert_eq!(ran.execution.status, Status::NeedsReview, "{case}");
        let (given, human, tech) = ran.error();
        assert_eq!(given, code, "{case}");
        assert!(human.contains("confirm that it did"), "{human}");
        assert!(tech.contains("cannot be kept"), "{tech}");
        let plain = ran.resume(Resume::default()).await;
        assert!(matches!(plain, Err(EngineError::InvalidInput(_))), "{case}");
        let done = Repair::default().settlement(Settlement::ConfirmDone(json!({})));
        let settled = ran.resume(done.into()).await;
        settled.unwrap_or_else(|error| panic!("{case}: {error}"));
        assert_eq!(runs.load(Ordering::SeqCst), 1, "{case}");
    }
}

#[tokio::test]
async fn a_wait_that_nobody_could_answer_is_refused() {
    let signatures = |provider: &str, envelope: &str, people: &[&str]| {
        let signers = people.iter().map(|email| NewSigner::new(*email));
        Wait::Signatures(NewSignatureRequest::new(provider, envelope, signers))
    };
    let approval = |people: &[&str]| {
        let tokens = (0..).map(|n| [n; 32]);
        let approvers = people.iter().map(ToString::to_string).zip(tokens);
        Wait::Approval(NewApproval::new(approvers.collect()))
    };
    let ann = ["ann@example.com"];
    let mut cases = vec![
        (signatures("", "e", &ann), codes::OUTPUT_NOT_STORABLE),
        (signatures(" ", "e", &ann), codes::OUTPUT_NOT_STORABLE),
        (signatures("desk\nx", "e", &ann), codes::OUTPUT_NOT_STORABLE),
        (signatures("desk", "", &ann), codes::OUTPUT_NOT_STORABLE),
        (
            signatures("desk", "\u{200b}", &ann),
            codes::OUTPUT_NOT_STORABLE,
        ),
        (signatures("desk", "e", &[]), codes::NO_SIGNERS),
    ];
    for people in [
        vec![""],
        vec!["ann at example.com"],
        vec!["ann@example.com", "ben"],
    ] {
        cases.push((
            signatures("desk", "e", &people),
            codes::INVALID_EMAIL_FORMAT,
        ));
        cases.push((approval(&people), codes::INVALID_EMAIL_FORMAT));
    }
    for again in [
        "ann@example.com",
        "Ann@Example.com",
        "Ann <ann@example.com>",
    ] {
        let people = [ann[0], again];
        cases.push((signatures("desk", "e", &people), codes::DUPLICATE_SIGNER));
        cases.push((approval(&people), codes::DUPLICATE_APPROVER));
    }
    for (wait, code) in cases {
        let name = format!("{wait:?}");
        let spec = NodeSpec::new("asks", Phase::Signature).safe_to_repeat();
        let answer = move |_, _: Value| {
            let wait = wait.clone();
            async move { Ok(StepOutcome::Wait(wait)) }
        };
        let world = World::new(builder().step(effect(spec, answer)));
        let ran = run_in("signature", world, &["asks"]).await;
        assert_eq!(ran.execution.status, Status::NeedsReview, "{name}");
        let (given, human, tech) = ran.error();
        assert_eq!(given, code, "{name}");
        assert!(!human.contains("error-wait"), "{human}");
        assert!(tech.contains("cannot be kept"), "{tech}");
    }
}

/// A wait whose envelope or link is the same in every execution, so that only one execution may have it.
fn constant_wait(kind: &str) -> Wait {
    if kind == "signatures" {
        let signers = [NewSigner::new("ann@example.com")];
        Wait::Signatures(NewSignatureRequest::new("desk", "the-envelope", signers))
    } else {
        let token = token_hash("the-token");
        Wait::Approval(NewApproval::new(vec![(
            "ann@example.com".to_owned(),
            token,
        )]))
    }
}

#[tokio::test]
async fn a_name_that_leads_to_another_execution_is_refused_and_its_effect_is_not_repeated() {
    for (kind, is_repeatable, is_probed) in [
        ("signatures", false, false),
        ("signatures", true, false),
        ("signatures", false, true),
        ("approval", false, false),
        ("approval", true, false),
        ("approval", false, true),
    ] {
        let case = format!("{kind} {is_repeatable} {is_probed}");
        let runs = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&runs);
        let spec = NodeSpec::new("asks", Phase::Signature);
        let spec = match is_repeatable {
            true => spec.safe_to_repeat(),
            false => spec,
        };
        let asks = effect(spec, move |_, _: Value| {
            counted.fetch_add(1, Ordering::SeqCst);
            async move {
                match is_probed {
                    true => Err(StepFailure::outcome_unknown("broke_off", "It broke off.")),
                    false => Ok(StepOutcome::Wait(constant_wait(kind))),
                }
            }
        });
        let asks = asks.probe(move |_, _| async move { Probe::Begun(constant_wait(kind)) });
        let world = World::new(builder().step(asks));
        let engine = &world.engine;
        let first = run_in("signature", world.clone(), &["asks"])
            .await
            .execution;
        let ran = run_in("signature", world.elsewhere(), &["asks"]).await;
        assert_eq!(ran.execution.status, Status::NeedsReview, "{case}");
        let (code, human, _) = ran.error();
        match is_probed {
            true => assert_eq!(code, codes::OUTCOME_UNKNOWN, "{case}"),
            false => {
                assert_eq!(code, codes::REQUEST_NAME_TAKEN, "{case}");
                assert!(human.contains("another request"), "{human}");
                let is_open = human.contains("confirm that it did");
                assert_eq!(is_open, !is_repeatable, "{human}");
            }
        }
        assert_eq!(runs.load(Ordering::SeqCst), 2, "once in each execution");
        // The link and the envelope still lead to the first execution.
        let owner = match kind {
            "signatures" => {
                engine
                    .signature_by_envelope("desk", "the-envelope")
                    .await
                    .expect("kept")
                    .execution_id
            }
            _ => {
                engine
                    .approval("the-token")
                    .await
                    .expect("kept")
                    .approval
                    .execution_id
            }
        };
        assert_eq!(owner, first.id);
    }
}

#[tokio::test]
async fn a_wait_for_a_provider_that_the_engine_does_not_know_is_logged() {
    let asks = effect(
        NodeSpec::new("asks", Phase::Signature),
        |_, _: Value| async { Ok(StepOutcome::Wait(constant_wait("signatures"))) },
    );
    let world = World::new(builder().step(asks));
    let ran = run_in("signature", world, &["asks"]).await;
    let status = ran.execution.status;
    assert_eq!(status, Status::Signing, "the application may report");
    let logs = ran.warnings().await;
    for locale in [Locale::En, Locale::PtBr] {
        let texts = logs.iter().map(|it| it.message_human.render(locale));
        assert_eq!(texts.filter(|it| it.contains("“desk”")).count(), 1);
    }
}

#[tokio::test]
async fn a_computed_output_that_cannot_be_kept_fails_its_step() {
    let builder = builder().step(compute(spec("deep"), |_, _: Value| async {
        Ok::<Value, StepFailure>(bottomless())
    }));
    let ran = run(builder, "deep").await;
    assert_eq!(ran.execution.status, Status::Failed);
    assert_eq!(ran.error().0, codes::OUTPUT_NOT_STORABLE);
}

#[tokio::test]
async fn an_output_that_is_too_large_beside_the_others_fails_its_step() {
    let (runs, text) = (Arc::new(AtomicUsize::new(0)), "x".repeat(40));
    let process = || {
        let (counted, text) = (Arc::clone(&runs), text.clone());
        let output = move || json!({"text": text});
        let computed = output.clone();
        builder()
            .options(|options| options.max_total_output_bytes = 120)
            .step(compute(spec("small"), |_, _: Value| async {
                Ok(json!({}))
            }))
            .step(compute(spec("computes"), move |_, _: Value| {
                let output = computed();
                async move { Ok(output) }
            }))
            .step(effect(spec("acts"), move |_, _: Value| {
                counted.fetch_add(1, Ordering::SeqCst);
                let output = output();
                async move { Ok(StepOutcome::Done(output)) }
            }))
    };
    let fits = run_all(process(), &["computes", "computes", "small"]).await;
    assert_eq!(fits.execution.status, Status::Completed);

    let computed = run_all(process(), &["computes", "computes", "computes"]).await;
    assert_eq!(computed.execution.status, Status::Failed);
    assert_eq!(computed.error().0, codes::TOTAL_OUTPUT_TOO_LARGE);

    let acted = run_all(process(), &["computes", "computes", "acts"]).await;
    assert_eq!(acted.execution.status, Status::NeedsReview);
    let (code, human, tech) = acted.error();
    assert_eq!(code, codes::TOTAL_OUTPUT_TOO_LARGE);
    assert!(human.contains("confirm that it did"), "{human}");
    assert!(tech.contains("exceed 120 bytes"), "{tech}");
    let confirm = async |output| {
        let done = Repair::default().settlement(Settlement::ConfirmDone(output));
        acted.resume(done.into()).await
    };
    match confirm(json!({"text": text})).await {
        Err(EngineError::InvalidInput(faults)) => assert_eq!(faults[0].pointer, "/output"),
        other => panic!("{other:?}"),
    }
    confirm(json!({})).await.expect("it fits");
    assert_eq!(runs.load(Ordering::SeqCst), 1);
}

#[derive(serde::Serialize)]
struct Measured {
    note: Option<String>,
    by_name: HashMap<String, Vec<f64>>,
    small: f32,
}

#[tokio::test]
async fn a_number_that_json_does_not_have_is_refused_and_not_made_null() {
    let measured = |value: f64, small: f32| Measured {
        note: None,
        by_name: HashMap::from([("a".to_owned(), vec![1.5, value])]),
        small,
    };
    for (value, small) in [
        (f64::NAN, 0.0),
        (f64::INFINITY, 0.0),
        (0.0, f32::NEG_INFINITY),
    ] {
        let computes = compute(spec("computes"), move |_, _: Value| async move {
            Ok(measured(value, small))
        });
        let ran = run(builder().step(computes), "computes").await;
        assert_eq!(ran.execution.status, Status::Failed);
        let (code, _, tech) = ran.error();
        assert_eq!(code, codes::OUTPUT_NOT_STORABLE);
        assert!(tech.contains("NaN"), "{tech}");

        let acts = effect(spec("acts"), move |_, _: Value| async move {
            StepOutcome::done(measured(value, small))
        });
        let ran = run(builder().step(acts), "acts").await;
        assert_eq!(ran.execution.status, Status::NeedsReview);
        assert_eq!(ran.error().0, codes::OUTPUT_NOT_STORABLE);
    }
    let fine = compute(spec("fine"), move |_, _: Value| async move {
        Ok(measured(f64::MAX, f32::MIN_POSITIVE))
    });
    let ran = run(builder().step(fine), "fine").await;
    assert_eq!(ran.execution.status, Status::Completed);
}

#[tokio::test]
async fn a_person_settles_an_effect_whose_probe_gives_an_answer_that_cannot_be_kept() {
    let founds: [fn() -> Probe; 3] = [
        || Probe::Done(json!("\0")),
        || Probe::Done(bottomless()),
        || {
            let signers = [NewSigner::new("ana@example.com")];
            let request = NewSignatureRequest::new("builtin", "envelope\0", signers);
            Probe::Begun(Wait::Signatures(request))
        },
    ];
    for found in founds {
        let lost = effect(spec("lost"), |_, _: Value| async {
            Err(StepFailure::outcome_unknown("broke_off", "It broke off."))
        });
        let lost = lost.probe(move |_, _| async move { found() });
        let ran = run(builder().step(lost), "lost").await;
        assert_eq!(ran.execution.status, Status::NeedsReview);
        assert_eq!(ran.error().0, codes::OUTCOME_UNKNOWN);
    }
}

#[tokio::test]
async fn texts_of_handlers_are_kept_without_control_characters() {
    let builder = builder().step(effect(
        spec("talks"),
        |context: EffectContext, _: Value| async move {
            let entry = LogDraft::new(LogLevel::Warn, "it\0 said")
                .tech("one\n\ttwo\u{1b}\0")
                .details(json!({"body\0": ["\0x"], "deep": nested(MAX_STORED_DEPTH)}));
            context.log_entry(entry);
            context.log_entry(LogDraft::new(LogLevel::Ok, "deep").details(bottomless()));
            context.audit(AuditDraft::new("deep", bottomless()));
            let row = AuditDraft::new("thing.done\0".to_owned(), json!({"what\0": nested(500)}));
            context.audit(row.by(Actor::user("a\0na")).on("thing\0".to_owned(), "7\0"));
            Err::<StepOutcome, _>(StepFailure::fatal("bro\0ken".to_owned(), "No\0.").tech("te\0ch"))
        },
    ));
    let ran = run(builder, "talks").await;
    let error = ran.execution.error.as_ref().expect("an error");
    assert_eq!(
        (&*error.code, error.human.render(Locale::En)),
        ("broken", "No.".to_owned())
    );
    assert_eq!(error.tech.as_deref(), Some("tech"));

    let logs = ran.warnings().await;
    let said = logs
        .iter()
        .find(|it| it.message_human.render(Locale::En) == "it said");
    let said = said.expect("is kept");
    assert_eq!(said.message_tech.as_deref(), Some("one\n\ttwo"));
    let details = said.details_tech.as_ref().expect("are kept").to_value();
    assert_eq!(details["body"], json!(["x"]));
    assert!(details.to_string().contains("truncated"), "{details}");

    let audit = AuditQuery::of(ran.world.organization, ran.execution.id).limit(10);
    let rows = ran.world.engine.audit(audit).await.expect("reads").items;
    let row = rows
        .iter()
        .find(|row| row.action == "thing.done")
        .expect("is kept");
    assert_eq!(
        (&*row.actor.actor_id, &*row.target.kind, &*row.target.id),
        ("ana", "thing", "7")
    );
    assert!(row.metadata.to_value()["what"].is_object());
}

/// A handler whose check returns texts with control characters.
struct Checked(NodeSpec);

#[async_trait]
impl ComputeHandler for Checked {
    fn spec(&self) -> &NodeSpec {
        &self.0
    }
    async fn check(&self, _: CheckRequest) -> Vec<Issue> {
        vec![
            Issue::blocking(Domain::Data, "odd", "What\0?")
                .tech("th\0is")
                .field("in\0"),
        ]
    }
    async fn run(&self, _: StepContext, _: Value) -> Result<Value, StepFailure> {
        Ok(json!({}))
    }
}

#[tokio::test]
async fn issues_of_handlers_are_kept_without_control_characters() {
    let handler = Handler::Compute(Arc::new(Checked(spec("checked"))));
    let ran = run(builder().step(handler), "checked").await;
    assert_eq!(ran.execution.status, Status::NeedsReview);
    let preflight = ran.execution.preflight.as_ref().expect("was made");
    let issue = &preflight.issues[0];
    assert_eq!(issue.message_human.render(Locale::En), "What?");
    assert_eq!(
        (issue.message_tech.as_deref(), issue.field.as_deref()),
        (Some("this"), Some("/nodes/n0/in"))
    );
}
