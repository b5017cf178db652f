//! An engine is built only if no two of its parts (node types, actions and so on) have the same name.

use docg_core::{actions::ActionTemplate, prelude::*};
use serde_json::{Value, json};

use crate::world::builder;

fn computes(name: &'static str) -> Handler {
    let spec = NodeSpec::new(name, Phase::Render);
    compute(spec, |_, _: Value| async { Ok(json!({})) })
}

#[test]
fn an_error_names_a_node_type_or_action_that_is_added_twice() {
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
fn build_panics_and_names_a_node_type_that_is_added_twice() {
    let _engine = builder()
        .step(computes("fold"))
        .step(computes("fold"))
        .build();
}
