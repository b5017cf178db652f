//! An engine is built of parts that go by names of their own.

use std::sync::Arc;

use docg_core::{actions::ActionTemplate, engine::EngineBuilder, prelude::*, workflow::compute};
use docg_store_memory::{MemoryBus, MemoryStore};
use serde_json::{Value, json};

fn builder() -> EngineBuilder {
    Engine::builder(
        Arc::new(MemoryStore::default()),
        Arc::new(MemoryBus::default()),
    )
}

fn computes(name: &'static str) -> Handler {
    let spec = NodeSpec::new(name, Phase::Render);
    compute(spec, |_, _: Value| async { Ok(json!({})) })
}

#[test]
fn what_is_added_twice_by_one_name_is_named_by_an_error() {
    let action = || ActionTemplate::new("call_us", "Call us", "Call us.");
    let built = |second| {
        builder()
            .step(computes("fold"))
            .step(computes(second))
            .try_build()
    };
    let told = built("fold").expect_err("one would be lost").to_string();
    assert!(told.contains("the node type \"fold\""), "{told}");
    assert!(built("cut").is_ok());
    let built = builder()
        .action("odd", action())
        .action("odd", action())
        .try_build();
    let told = built.expect_err("one would be lost").to_string();
    assert!(told.contains("the action for \"odd\""), "{told}");
}

#[test]
#[should_panic(expected = "the node type \"fold\"")]
fn building_it_all_the_same_panics_and_names_it() {
    let _engine = builder()
        .step(computes("fold"))
        .step(computes("fold"))
        .build();
}
