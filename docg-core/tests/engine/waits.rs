//! Waits for moments and for events from outside, and executions that start later.

use std::{sync::Arc, time::Duration};

use docg_core::{
    engine::{EngineError, NamedEvent, Resume},
    prelude::*,
    run::{StepState, WaitKind},
    time::{ManualClock, Timestamp},
    workflow::waits,
};
use serde_json::{Value, json};

use crate::world::{World, applied, builder, echo, soon, time_passes};

const START: Timestamp = Timestamp::from_millis(1_700_000_000_000);
const DAY: Duration = Duration::from_secs(86_400);

/// A process on the test's clock.
fn world(clock: &ManualClock) -> World {
    let spec = NodeSpec::new("echo", Phase::Save).param(ParamSpec::optional("in", ParamKind::Json));
    World::new(
        builder()
            .step(echo(spec))
            .step(waits::until())
            .step(waits::event())
            .clock(Arc::new(clock.clone())),
    )
}

fn event_then_echo(params: Value) -> Value {
    json!([
        {"id": "wait", "type": "wait-for-event", "phase": "save", "params": params},
        {"id": "echo", "type": "echo", "params": {"in": "{{steps.wait.payload}}"}},
    ])
}

fn paid() -> NamedEvent {
    NamedEvent::new("paid")
        .key("7")
        .payload(json!({"amount": 3}))
}

async fn output(world: &World, id: ExecutionId) -> Value {
    let steps = world.steps(id).await;
    let output = steps.last().expect("a step").output.clone();
    (*output.expect("an output")).clone()
}

/// Waits until the execution waits in this way.
async fn until_waits(world: &World, id: ExecutionId, kind: WaitKind) {
    soon(async {
        loop {
            let waiting = world.execution(id).await.waiting_for;
            if waiting.is_some_and(|it| it.kind == kind) {
                return;
            }
            time_passes().await;
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_step_waits_for_a_moment_without_changing_the_status() {
    let clock = ManualClock::new(START);
    let world = world(&clock);
    let _workers = world.workers();
    let until = START + 14 * DAY;
    let nodes =
        json!([{"id": "wait", "type": "wait-until", "phase": "save", "params": {"until": until}}]);
    let id = world.start(nodes).await;
    until_waits(&world, id, WaitKind::Timer).await;
    let execution = world.execution(id).await;
    assert_eq!(execution.status, Status::Running);
    assert_eq!(execution.wake_at, Some(until));
    clock.advance(14 * DAY);
    world.until_completed(id).await;
    assert_eq!(output(&world, id).await, json!({"until": until}));
}

#[tokio::test(start_paused = true)]
async fn a_moment_that_has_passed_does_not_delay_the_step() {
    let world = world(&ManualClock::new(START));
    let _workers = world.workers();
    let nodes =
        json!([{"id": "wait", "type": "wait-until", "phase": "save", "params": {"until": START}}]);
    let id = world.start(nodes).await;
    world.until_completed(id).await;
}

#[tokio::test(start_paused = true)]
async fn an_event_reaches_the_step_that_waits_for_it() {
    let world = world(&ManualClock::new(START));
    let _workers = world.workers();
    let id = world
        .start(event_then_echo(json!({"name": "paid", "key": "7"})))
        .await;
    until_waits(&world, id, WaitKind::Event).await;
    // Neither another key nor another name.
    for other in [paid().key("8"), NamedEvent::new("sent").key("7")] {
        let answer = world.engine.notify(world.control(id), other).await;
        assert_eq!(applied(answer.expect("is kept")).status, Status::Running);
    }
    let actor = Actor::user("somebody");
    let elsewhere = world.elsewhere().organization;
    let notify = async |organization| {
        let sent = world
            .engine
            .notify_by_key(organization, actor.clone(), paid());
        sent.await
    };
    let nobody = notify(elsewhere).await;
    assert!(
        matches!(nobody, Err(EngineError::NotFound(_))),
        "{nobody:?}"
    );
    assert_eq!(notify(world.organization).await.expect("sends"), [id]);
    world.until_completed(id).await;
    assert_eq!(output(&world, id).await, json!({"in": {"amount": 3}}));
}

#[tokio::test(start_paused = true)]
async fn an_event_that_comes_before_the_wait_is_kept() {
    let clock = ManualClock::new(START);
    let world = world(&clock);
    let nodes = event_then_echo(json!({"name": "paid"}));
    let workflow = world.put(nodes).await;
    let id = world.accept(world.request(workflow)).await;
    let sent = world.engine.notify(world.control(id), paid()).await;
    assert_eq!(applied(sent.expect("is kept")).status, Status::Queued);
    let _workers = world.workers();
    world.until_completed(id).await;
    assert_eq!(output(&world, id).await, json!({"in": {"amount": 3}}));
    let record = world.engine.execution(world.organization, id).await;
    assert_eq!(record.expect("stored").inputs.events, []);
    // A retry waits for an event of its own.
    let retried = world.engine.retry(world.control(id), Default::default());
    let retried = retried.await.expect("starts").record.execution.id;
    until_waits(&world, retried, WaitKind::Event).await;
    let late = world.engine.notify(world.control(id), paid()).await;
    assert!(
        matches!(late, Err(EngineError::InvalidTransition { .. })),
        "{late:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_wait_for_an_event_expires() {
    let clock = ManualClock::new(START);
    let world = world(&clock);
    let _workers = world.workers();
    let params = json!({"name": "paid", "expires_in_ms": 86_400_000});
    let id = world.start(event_then_echo(params)).await;
    until_waits(&world, id, WaitKind::Event).await;
    clock.advance(DAY);
    let failed = world.until_status(id, Status::Failed).await;
    assert_eq!(failed.error.expect("an error").code, "event_expired");
}

#[tokio::test(start_paused = true)]
async fn a_pause_keeps_what_a_step_waits_for() {
    let clock = ManualClock::new(START);
    let world = world(&clock);
    let _workers = world.workers();
    let until = START + DAY;
    let nodes = json!([
        {"id": "wait", "type": "wait-until", "phase": "save", "params": {"until": until}},
        {"id": "event", "type": "wait-for-event", "phase": "save", "params": {"name": "paid"}},
    ]);
    let id = world.start(nodes).await;
    until_waits(&world, id, WaitKind::Timer).await;
    let pause = async || {
        applied(
            world
                .engine
                .pause(world.control(id), None)
                .await
                .expect("allowed"),
        )
    };
    let resume = async || {
        let how = Resume::Continue(Default::default());
        applied(
            world
                .engine
                .resume(world.control(id), how)
                .await
                .expect("allowed"),
        )
    };
    pause().await;
    // A moment that comes during the pause ends the wait after the pause.
    clock.advance(2 * DAY);
    time_passes().await;
    assert_eq!(world.steps(id).await[0].state, StepState::Waiting);
    resume().await;
    until_waits(&world, id, WaitKind::Event).await;
    pause().await;
    let answer = world.engine.notify(world.control(id), paid()).await;
    assert_eq!(applied(answer.expect("arrives")).status, Status::Paused);
    assert_eq!(world.steps(id).await[1].state, StepState::Resuming);
    resume().await;
    world.until_completed(id).await;
}

#[tokio::test(start_paused = true)]
async fn a_cancel_ends_a_wait() {
    let world = world(&ManualClock::new(START));
    let _workers = world.workers();
    let id = world.start(event_then_echo(json!({"name": "paid"}))).await;
    until_waits(&world, id, WaitKind::Event).await;
    assert_eq!(world.cancel(id).await.status, Status::Canceled);
}

#[tokio::test(start_paused = true)]
async fn an_execution_starts_at_its_time_and_not_before() {
    let clock = ManualClock::new(START);
    let world = world(&clock);
    let _workers = world.workers();
    let workflow = world.put(json!([{"id": "echo", "type": "echo"}])).await;
    let at = START + DAY;
    let id = world.accept(world.request(workflow).start_at(at)).await;
    let resume = Resume::Continue(Default::default());
    world
        .engine
        .pause(world.control(id), None)
        .await
        .expect("allowed");
    world
        .engine
        .resume(world.control(id), resume)
        .await
        .expect("allowed");
    time_passes().await;
    let queued = world.execution(id).await;
    assert_eq!((queued.status, queued.wake_at), (Status::Queued, Some(at)));
    let waiting = queued.waiting_for.expect("waits");
    assert_eq!((waiting.kind, waiting.until), (WaitKind::Timer, Some(at)));
    clock.advance(DAY);
    world.until_completed(id).await;
    let ended = world.execution(id).await;
    assert!(ended.started_at >= Some(at) && ended.waiting_for.is_none());
    let late = world.request(workflow).start_at(START + 4_000 * DAY);
    let refused = world.engine.start(late).await;
    assert!(matches!(refused, Err(EngineError::InvalidInput(_))));
}
