//! Effects that may have happened: asked about, picked up, settled by a person.

use serde_json::{Value, json};

use super::world::{Options, World, all_phases, blocking_issue};
use crate::{
    engine::decide::{Input, Next, Notes},
    error::{StepFailure, codes},
    i18n::Locale,
    ports::{ResumeSignal, Settlement, SignalKind},
    run::{Activity, Status, StepStatus, WaitKind},
    signature::{NewSignatureRequest, NewSigner, RequestStatus},
    workflow::{Probe, StepOutcome, Wait, handler::NewApproval},
};

const SIGN: usize = 4;

fn at_sign() -> World {
    let mut world = World::new(Options::default());
    world.run_to("sign");
    world
}

/// The request that an attempt has made whose answer was lost.
fn begun() -> Probe {
    let signers = [NewSigner::new("one@example.com")];
    let request = NewSignatureRequest::new("desk", "envelope", signers);
    Probe::Begun(Wait::Signatures(request))
}

fn probed(world: &mut World, index: usize, effect: Probe) {
    assert!(matches!(world.next, Next::Probe { .. }));
    let notes = Notes::default();
    world.apply(vec![Input::Probed {
        index,
        effect,
        notes,
        told: None,
    }]);
}

fn lost_answer() -> StepFailure {
    StepFailure::outcome_unknown("desk.service_unavailable", "The answer was lost.")
}

fn resume(settlement: Option<Settlement>) -> SignalKind {
    let mut signal = ResumeSignal::default();
    signal.settlement = settlement;
    SignalKind::Resume(signal)
}

#[test]
fn what_a_canceled_attempt_has_asked_for_is_noted_and_withdrawn() {
    let mut world = at_sign();
    let cancel = world.signal(SignalKind::Cancel { reason: None });
    let dropped = Input::StepDropped {
        index: SIGN,
        effect: begun(),
        notes: Notes::default(),
        failure: None,
    };
    world.apply(vec![dropped, cancel]);
    assert_eq!(world.status(), Status::Canceled);
    let request = world.state.signature.as_ref().expect("it is known");
    assert_eq!(request.envelope_id, "envelope");
    assert_eq!(
        request.status,
        RequestStatus::Canceled,
        "which withdraws it at its provider"
    );
    let log = format!("{:?}", world.logs);
    assert!(log.contains("error-canceled-effect-done"));
}

#[test]
fn what_has_begun_is_picked_up_without_using_an_attempt() {
    let mut world = at_sign();
    world.apply(vec![Input::TakenOver]);
    probed(&mut world, SIGN, begun());
    assert!(matches!(world.next, Next::Run { index: SIGN, .. }));
    assert_eq!(world.state.steps[SIGN].attempt, 1);
}

#[test]
fn what_the_last_attempt_has_asked_for_is_awaited() {
    let mut world = at_sign();
    world.finish_step(Err(lost_answer()));
    probed(&mut world, SIGN, begun());
    world.now = world.execution().wake_at.expect("tried again");
    world.apply(Vec::new());
    assert_eq!(world.state.steps[SIGN].attempt, 2);
    world.finish_step(Err(lost_answer()));
    probed(&mut world, SIGN, begun());
    assert_eq!(world.status(), Status::Signing);
    assert_eq!(world.state.steps[SIGN].activity, Activity::Waiting);
    let waiting = world.execution().waiting_for.as_ref().expect("waits");
    assert_eq!(waiting.kind, WaitKind::Signature);
}

#[test]
fn what_may_be_repeated_is_never_in_doubt() {
    for (node, index) in [("render", 1), ("save", 2)] {
        let mut world = World::new(Options::default());
        world.run_to(node);
        world.finish_step(Err(lost_answer()));
        assert_eq!(world.state.steps[index].status, StepStatus::Pending);
        let waiting = world.execution().waiting_for.as_ref().expect("waits");
        assert_eq!(waiting.kind, WaitKind::Retry);
    }
}

/// A run whose effect's workers died `times` times.
fn taken_over(times: u32) -> World {
    let mut world = World::new(Options::default());
    world.run_to("send");
    for _ in 0..times {
        world.apply(vec![Input::TakenOver]);
        if matches!(world.next, Next::Probe { .. }) {
            probed(&mut world, 3, Probe::NotDone);
        }
    }
    world
}

#[test]
fn the_twentieth_takeover_of_a_step_calls_for_a_person() {
    assert!(matches!(taken_over(19).next, Next::Run { index: 3, .. }));
    let world = taken_over(20);
    assert_eq!(world.status(), Status::NeedsReview);
    let error = world.execution().error.as_ref().expect("an error");
    assert_eq!(error.code, codes::TOO_MANY_TAKEOVERS);
}

#[test]
fn a_question_that_kills_its_workers_is_not_asked_for_ever() {
    let mut world = World::new(Options::default());
    world.run_to("send");
    world.finish_step(Err(lost_answer()));
    for _ in 0..19 {
        world.apply(vec![Input::TakenOver]);
        assert!(matches!(world.next, Next::Probe { index: 3, .. }));
    }
    world.apply(vec![Input::TakenOver]);
    assert_eq!(world.status(), Status::NeedsReview);
}

#[test]
fn an_effect_whose_workers_died_too_often_is_repeated_only_if_a_person_says_so() {
    let mut world = taken_over(20);
    world.send(resume(None));
    assert_eq!(world.status(), Status::NeedsReview);
    world.send(resume(Some(Settlement::RunAgain)));
    world.pass_preflight();
    assert!(matches!(world.next, Next::Run { index: 3, .. }));
    let mut world = taken_over(20);
    world.send(resume(Some(Settlement::ConfirmDone(json!({})))));
    assert_eq!(world.state.steps[3].status, StepStatus::Success);
}

/// A run that was taken over as it was created, up to where it comes to an effect.
fn taken_over_as_created(nodes: Value) -> World {
    let mut world = World::new(Options {
        nodes,
        ..Options::default()
    });
    world.apply(vec![Input::TakenOver]);
    world.pass_preflight();
    world
}

fn activities(world: &World) -> Vec<Activity> {
    world.state.steps.iter().map(|step| step.activity).collect()
}

#[test]
fn the_effect_that_a_run_begins_with_is_asked_about_when_it_was_taken_over_as_created() {
    let send = |id: &str| json!({"id": id, "type": "send"});
    let mut world = taken_over_as_created(json!([send("a"), send("b")]));
    assert!(matches!(world.next, Next::Probe { index: 0, .. }));
    probed(&mut world, 0, Probe::NotDone);
    assert!(matches!(world.next, Next::Run { index: 0, .. }));
    assert_eq!(world.state.steps[0].attempt, 1);
    world.finish_step(Ok(StepOutcome::Done(json!({}))));
    assert!(
        matches!(world.next, Next::Run { index: 1, .. }),
        "that cannot have begun"
    );
}

#[test]
fn no_effect_is_in_doubt_that_comes_after_another_step() {
    let world = taken_over_as_created(all_phases());
    assert!(activities(&world).iter().all(|it| *it != Activity::InDoubt));
}

#[test]
fn which_effect_came_first_conditions_may_have_decided() {
    let when = json!("trigger.deal.amount > 5");
    let mut world = taken_over_as_created(json!([
        {"id": "a", "type": "send", "when": when},
        {"id": "b", "type": "send"},
        {"id": "c", "type": "send"},
    ]));
    let (probing, in_doubt) = (Activity::ProbingTakeover, Activity::InDoubt);
    assert_eq!(activities(&world), [probing, in_doubt, Activity::Idle]);
    probed(&mut world, 0, Probe::NotDone);
    assert_eq!(world.state.steps[0].status, StepStatus::Skipped);
    assert_eq!(
        activities(&world),
        [Activity::Idle, probing, Activity::Idle]
    );
    probed(&mut world, 1, Probe::Done(json!({})));
    assert!(matches!(world.next, Next::Run { index: 2, .. }));
}

#[test]
fn what_is_not_wanted_any_more_is_left_out_once_it_is_known_not_to_have_begun() {
    let nodes = json!([{"id": "a", "type": "send", "when": "trigger.deal.amount > 4"}]);
    for (effect, status) in [
        (Probe::NotDone, StepStatus::Skipped),
        (Probe::Done(json!({})), StepStatus::Success),
    ] {
        let mut world = World::new(Options {
            nodes: nodes.clone(),
            ..Options::default()
        });
        world.apply(vec![Input::TakenOver]);
        world.apply(vec![Input::Preflight {
            issues: vec![blocking_issue()],
            started_at: world.now,
        }]);
        let mut repair = ResumeSignal::default();
        let data = json!({"deal": {"amount": 1}});
        repair.trigger_data = data.as_object().cloned();
        world.send(SignalKind::Resume(repair));
        world.pass_preflight();
        probed(&mut world, 0, effect);
        assert_eq!(world.state.steps[0].status, status);
        assert_eq!(world.status(), Status::Completed);
    }
}

#[test]
fn who_does_not_know_a_node_type_doubts_what_others_may_have_begun() {
    let mut world = World::new(Options {
        nodes: json!([{"id": "a", "type": "render"}, {"id": "b", "type": "send"}]),
        ..Options::default()
    });
    let all = std::mem::take(&mut world.registry);
    world
        .registry
        .add(all.get("send").expect("is there").clone());
    let pause = world.signal(SignalKind::Pause { reason: None });
    world.apply_as(vec![Input::TakenOver, pause], false);
    assert_eq!(activities(&world), [Activity::InDoubt; 2]);
    world.registry = all;
    world.send(resume(None));
    world.pass_preflight();
    assert!(
        matches!(world.next, Next::Run { index: 0, .. }),
        "it may be repeated"
    );
    world.finish_step(Ok(StepOutcome::Done(json!({}))));
    assert!(matches!(world.next, Next::Probe { index: 1, .. }));
}

#[test]
fn a_cancel_in_review_ends_an_approval_that_was_begun_unseen() {
    let mut world = World::new(Options {
        nodes: json!([{"id": "a", "type": "approval", "phase": "save"}]),
        ..Options::default()
    });
    world.apply(vec![Input::TakenOver]);
    world.apply(vec![Input::Preflight {
        issues: vec![blocking_issue()],
        started_at: world.now,
    }]);
    let cancel = world.signal(SignalKind::Cancel { reason: None });
    let approval = NewApproval::new(vec![("one@example.com".to_owned(), [0; 32])]);
    let dropped = Input::StepDropped {
        index: 0,
        effect: Probe::Begun(Wait::Approval(approval)),
        notes: Notes::default(),
        failure: None,
    };
    world.apply(vec![dropped, cancel]);
    assert_eq!(world.status(), Status::Canceled);
    assert_eq!(world.state.steps[0].status, StepStatus::Failed);
}

#[test]
fn a_doubt_outlasts_a_review() {
    let mut world = World::new(Options {
        nodes: json!([{"id": "a", "type": "send"}]),
        ..Options::default()
    });
    world.apply(vec![Input::TakenOver]);
    world.apply(vec![Input::Preflight {
        issues: vec![blocking_issue()],
        started_at: world.now,
    }]);
    assert_eq!(world.status(), Status::NeedsReview);
    world.send(resume(None));
    world.pass_preflight();
    assert!(matches!(world.next, Next::Probe { index: 0, .. }));
}

#[test]
fn a_run_that_ends_with_an_effect_in_doubt_says_so() {
    let mut world = World::new(Options {
        nodes: json!([{"id": "a", "type": "send"}]),
        ..Options::default()
    });
    let cancel = world.signal(SignalKind::Cancel { reason: None });
    world.apply_as(vec![Input::TakenOver, cancel], false);
    assert_eq!(world.status(), Status::Canceled);
    let error = world.state.steps[0].error.as_ref().expect("an error");
    assert!(error.human.render(Locale::En).contains("not known"));
}

#[test]
fn a_dry_run_has_nothing_in_doubt() {
    let mut world = World::new(Options {
        dry_run: true,
        ..Options::default()
    });
    world.apply(vec![Input::TakenOver]);
    world.pass_preflight();
    assert!(activities(&world).iter().all(|it| *it != Activity::InDoubt));
    world.run_well();
    assert_eq!(world.status(), Status::Completed);
}

#[test]
fn what_is_known_cannot_be_declared_otherwise() {
    let mut world = World::new(Options::default());
    world.run_to("send");
    world.finish_step(Err(StepFailure::review("smtp_refused", "Refused.")));
    for settlement in [Settlement::ConfirmDone(json!({})), Settlement::RunAgain] {
        world.send(resume(Some(settlement)));
        assert_eq!(world.status(), Status::NeedsReview);
        assert_eq!(world.state.steps[3].status, StepStatus::Failed);
    }
    world.send(resume(None));
    assert_eq!(world.status(), Status::Running);
    let mut world = World::new(Options::default());
    world.run_to("send");
    world.send(SignalKind::Pause { reason: None });
    world.send(resume(Some(Settlement::RunAgain)));
    assert_eq!(world.status(), Status::Paused);
    // A step that is done is confirmed by its handler.
    world.send(resume(None));
    world.finish_step(Ok(StepOutcome::Done(json!({}))));
    assert_eq!(world.state.steps[3].status, StepStatus::Success);
}
