//! Idempotency keys: a repeated request gets the first request's answer, and a different request with the
//! same key is refused.

use docg_core::{
    engine::{EngineError, IdempotencyKey, RetryRequest, StepRef},
    prelude::*,
};
use serde_json::json;

use crate::world::{World, builder, echo};

#[tokio::test(start_paused = true)]
async fn the_same_request_with_the_same_idempotency_key_gives_the_same_execution() {
    let world = World::new(builder().step(echo(NodeSpec::new("echo", Phase::Render))));
    let _workers = world.workers();
    let workflow = world.put(json!([{"id": "a", "type": "echo"}])).await;
    let request = || {
        let data = json!({"a": 1, "b": {"c": 2, "d": 3}});
        world.request(workflow).trigger_data(data)
    };
    let start = |request: StartRequest| world.engine.start(request.idempotency_key("k"));
    let first = start(request()).await.expect("accepted");
    let id = first.record.execution.id;
    assert!(first.created);
    // Requests count as the same if only the actor, the correlation id, the trace parent or the order of
    // fields differ.
    let mut other = request().correlation_id("other").traceparent("other");
    other.actor = Actor::user("other");
    let reordered = request().trigger_data(json!({"b": {"d": 3, "c": 2}, "a": 1}));
    for same in [request(), other, reordered] {
        let again = start(same).await.expect("the same");
        assert_eq!((again.created, again.record.execution.id), (false, id));
    }
    for another in [
        world.request(workflow),
        request().trigger_data(json!({"a": 1})),
        request().trigger_type("other"),
        request().dry_run(),
        request().until_phase(Phase::Render),
    ] {
        let refused = start(another.clone()).await;
        assert!(
            matches!(refused, Err(EngineError::KeyReused)),
            "{another:?}"
        );
    }

    // A retry never counts as the same request as a start. Two retries are compared by their own fields.
    world.until_rest(id).await;
    let retry = |how: RetryRequest| world.engine.retry(world.control(id), how);
    let taken = retry(RetryRequest::default().idempotency_key("k")).await;
    assert!(matches!(taken, Err(EngineError::KeyReused)));
    let keyed = || RetryRequest::default().idempotency_key("r");
    let first = retry(keyed()).await.expect("it has ended");
    let again = retry(keyed().correlation_id("other")).await.expect("again");
    assert_eq!((first.created, again.created), (true, false));
    assert_eq!(first.record.execution.id, again.record.execution.id);
    for another in [
        keyed().trigger_data(json!({})),
        keyed().from_step(StepRef::Position(0)),
        keyed().dry_run(true),
        keyed().until_phase(Phase::Render),
    ] {
        let refused = retry(another.clone()).await;
        assert!(
            matches!(refused, Err(EngineError::KeyReused)),
            "{another:?}"
        );
    }

    // A caller may give the content to compare (`of_content`) instead of the request's fields.
    let start = |content: &str, data| {
        let key = IdempotencyKey::of_content("c", content);
        let request = world.request(workflow).trigger_data(data);
        world.engine.start(request.idempotency_key(key))
    };
    let first = start("same", json!({"a": 1})).await.expect("accepted");
    let again = start("same", json!({"a": 2})).await.expect("the first");
    assert_eq!((first.created, again.created), (true, false));
    let other = start("other", json!({"a": 1})).await;
    assert!(matches!(other, Err(EngineError::KeyReused)));
}
