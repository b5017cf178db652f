//! Signals that were sent for a version of the execution, and changes while the execution waits for people.

use serde_json::{Value, json};

use super::world::{Options, World, blocking_issue};
use crate::{
    engine::machine::{Input, Next},
    observe::actions,
    ports::{ResumeSignal, SignalKind},
    run::{Status, WaitKind},
    signature::{NewSignatureRequest, NewSigner, SignerFact},
    workflow::{StepOutcome, Wait},
};

fn on_version(input: Input, version: u64) -> Input {
    let Input::Signal(mut signal) = input else {
        panic!("{input:?} is no signal")
    };
    signal.if_version = Some(version);
    Input::Signal(signal)
}

fn ignored(world: &World) -> usize {
    let rows = world.audit.iter();
    rows.filter(|row| row.action == actions::SIGNAL_IGNORED)
        .count()
}

#[test]
fn of_two_signals_on_one_version_only_the_first_is_applied() {
    for at_once in [false, true] {
        let mut world = World::new(Options::default());
        world.run_to("render");
        let version = world.execution().version;
        let pause = world.signal(SignalKind::Pause { reason: None });
        let cancel = world.signal(SignalKind::Cancel { reason: None });
        let (pause, cancel) = (on_version(pause, version), on_version(cancel, version));
        if at_once {
            world.apply(vec![pause, cancel]);
        } else {
            world.apply(vec![pause]);
            world.apply(vec![cancel]);
        }
        assert_eq!(world.status(), Status::Paused);
        assert_eq!(ignored(&world), 1);
        let cancel = world.signal(SignalKind::Cancel { reason: None });
        let current = world.execution().version;
        world.apply(vec![on_version(cancel, current)]);
        assert_eq!(world.status(), Status::Canceled);
    }
}

fn asked() -> StepOutcome {
    let signers = [NewSigner::new("one@example.com")];
    StepOutcome::Wait(Wait::Signatures(NewSignatureRequest::new(
        "desk", "envelope", signers,
    )))
}

fn sign(world: &mut World) {
    let request = world.state.signature.as_ref().expect("a request");
    let kind = SignalKind::SignatureFacts {
        signature_request_id: request.id,
        facts: vec![SignerFact::signed("one@example.com", world.now)],
    };
    world.send(kind);
}

fn waits_for(world: &World) -> Option<WaitKind> {
    world.execution().waiting_for.as_ref().map(|it| it.kind)
}

#[test]
fn what_is_changed_while_signatures_are_awaited_is_checked_when_they_are_in() {
    let nodes = json!([{"id": "sign", "type": "sign"}, {"id": "send", "type": "send"}]);
    let mut world = World::new(Options {
        nodes,
        ..Options::default()
    });
    world.run_to("sign");
    world.finish_step(Ok(asked()));
    world.send(SignalKind::Pause { reason: None });
    let mut change = ResumeSignal::default();
    change.trigger_data = json!({"deal": {"amount": 6}}).as_object().cloned();
    world.send(SignalKind::Resume(change));
    assert_eq!(world.status(), Status::Signing);
    assert_eq!(waits_for(&world), Some(WaitKind::Signature));
    assert!(matches!(world.next, Next::Rest));
    sign(&mut world);
    assert!(matches!(world.next, Next::Resume { index: 0, .. }));
    world.finish_step(Ok(StepOutcome::Done(json!({}))));
    assert!(
        matches!(world.next, Next::Preflight),
        "before the next step"
    );
    world.apply(vec![Input::Preflight {
        issues: vec![blocking_issue()],
        started_at: world.now,
    }]);
    assert_eq!(waits_for(&world), Some(WaitKind::Review));
}

#[test]
fn signatures_that_are_asked_for_with_checks_due_are_awaited_first() {
    let mut world = World::new(Options::default());
    world.run_to("sign");
    world.send(SignalKind::Pause { reason: None });
    let mut change = ResumeSignal::default();
    change.trigger_data = json!({"deal": {"amount": 6}}).as_object().cloned();
    world.send(SignalKind::Resume(change));
    world.finish_step(Ok(asked()));
    assert_eq!(waits_for(&world), Some(WaitKind::Signature));
    sign(&mut world);
    world.run_well();
    assert_eq!(world.status(), Status::Completed);
}

#[test]
fn a_parameter_that_is_changed_again_is_merged_and_null_removes() {
    let mut world = World::new(Options::default());
    world.run_to("render");
    let mut change = |params: Value| {
        world.send(SignalKind::Pause { reason: None });
        let mut signal = ResumeSignal::default();
        signal.nodes.insert("save".to_owned(), params);
        world.send(SignalKind::Resume(signal));
        world.state.inputs.node_overrides["save"].clone()
    };
    change(json!({"in": {"a": 1}, "other": 1}));
    let now = change(json!({"in": {"a": null, "b": 2}}));
    assert_eq!(now, json!({"in": {"b": 2}, "other": 1}));
    let now = change(json!({"in": null}));
    assert_eq!(now, json!({"other": 1}));
}
