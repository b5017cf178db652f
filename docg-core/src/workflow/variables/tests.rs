use std::sync::Arc;

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::{
    ids::{ExecutionId, NodeId, OrganizationId, StepId, WorkflowId},
    observe::Actor,
    run::{DeliveryState, Heads, Phase, PhaseMetrics, SignatureState, Status, StepState},
    time::Timestamp,
};

/// A running execution with fixed ids, for the tests of several modules.
pub(crate) fn execution() -> Execution {
    Execution {
        title: None,
        id: ExecutionId(uuid::Uuid::from_u128(1)),
        workflow_id: WorkflowId(uuid::Uuid::from_u128(2)),
        workflow_version: 1,
        organization_id: OrganizationId(uuid::Uuid::from_u128(3)),
        status: Status::Running,
        progress: 0,
        current_step: None,
        waiting_for: None,
        error: None,
        preflight: None,
        delivery_state: DeliveryState::Pending,
        signature_state: SignatureState::Pending,
        phase_metrics: PhaseMetrics::default(),
        correlation_id: "chain".into(),
        traceparent: None,
        created_by: Arc::new(Actor::user("ops")),
        trigger_type: "manual".into(),
        retry_of: None,
        follows: None,
        dry_run: false,
        until_phase: None,
        attempt: 2,
        version: 1,
        created_at: Timestamp::from_millis(0),
        started_at: None,
        completed_at: None,
        updated_at: Timestamp::from_millis(0),
        paused_from: None,
        preflight_due: false,
        delivery_confirmed: false,
        priority: 0,
        wake_at: None,
        heads: Heads::default(),
    }
}

/// A step of the execution from [`execution`]. With an output the step has succeeded, else it is pending.
pub(crate) fn step(node: &str, position: u32, output: Option<Value>) -> Step {
    Step {
        id: StepId(uuid::Uuid::from_u128(100 + u128::from(position))),
        execution_id: ExecutionId(uuid::Uuid::from_u128(1)),
        node_id: NodeId::from(node),
        node_type: "any".into(),
        label: node.into(),
        phase: Phase::Trigger,
        position,
        state: if output.is_some() {
            StepState::Succeeded
        } else {
            StepState::Pending
        },
        attempt: 0,
        attempts_before: 0,
        takeovers: 0,
        waiting_ms: 0,
        started_at: None,
        completed_at: None,
        error: None,
        data_in: None,
        data_out: None,
        output: output.map(Arc::new),
        awaits: None,
        reused_from: None,
    }
}

fn params(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(fields) => fields,
        other => panic!("{other} is no object"),
    }
}

fn trigger() -> Value {
    json!({
        "name": "Ann", "amount": 12.5, "count": 3, "none": null, "yes": true, "empty": "",
        "customer": {"email": "ann@example.com", "unit price": 7, "ação": "olá"},
        "items": [{"id": "a"}, {"id": "b"}],
        "hostile": "{{execution.id}}",
    })
}

fn resolve_one(text: impl Into<Value>) -> Result<Value, Unresolved> {
    let (trigger, execution) = (trigger(), execution());
    let steps = [
        step(
            "render",
            0,
            Some(json!({"file": {"name": "a.pdf"}, "pages": 3})),
        ),
        step("later", 1, None),
    ];
    let scope = Scope {
        trigger: &trigger,
        steps: &steps,
        execution: &execution,
    };
    let mut fields = Map::new();
    fields.insert("p".to_owned(), text.into());
    resolve(&fields, &scope).map(|resolved| resolved["p"].clone())
}

#[test]
fn a_variable_alone_keeps_its_json_type() {
    for (text, expected) in [
        ("{{trigger.count}}", json!(3)),
        ("{{ trigger.amount }}", json!(12.5)),
        ("{{trigger.yes}}", json!(true)),
        ("{{trigger.none}}", Value::Null),
        ("{{trigger.customer.email}}", json!("ann@example.com")),
        ("{{trigger.items}}", json!([{"id": "a"}, {"id": "b"}])),
        ("{{trigger.items.1.id}}", json!("b")),
        ("{{trigger.items[0].id}}", json!("a")),
        ("{{trigger.items[0]}}", json!({"id": "a"})),
        ("{{trigger.customer[\"unit price\"]}}", json!(7)),
        ("{{trigger.customer['unit price']}}", json!(7)),
        ("{{trigger.customer.ação}}", json!("olá")),
        ("{{trigger}}", trigger()),
        ("{{steps.render.pages}}", json!(3)),
        ("{{steps.render.file.name}}", json!("a.pdf")),
        (
            "{{steps.render}}",
            json!({"file": {"name": "a.pdf"}, "pages": 3}),
        ),
        (
            "{{execution.id}}",
            json!("00000000-0000-0000-0000-000000000001"),
        ),
        (
            "{{execution.created_at}}",
            json!("1970-01-01T00:00:00.000Z"),
        ),
        ("{{execution.attempt}}", json!(2)),
        ("{{execution.dry_run}}", json!(false)),
    ] {
        assert_eq!(resolve_one(text), Ok(expected), "{text}");
    }
}

#[test]
fn a_variable_within_a_text_becomes_text() {
    for (text, expected) in [
        ("Dear {{trigger.name}}!", "Dear Ann!"),
        ("{{trigger.count}} of {{trigger.amount}}", "3 of 12.5"),
        ("[{{trigger.none}}]", "[]"),
        ("{{trigger.yes}} ", "true "),
        ("x{{trigger.items}}", "x[{\"id\":\"a\"},{\"id\":\"b\"}]"),
        ("{{trigger.name}}{{trigger.name}}", "AnnAnn"),
        ("{ {{trigger.name}} } }}", "{ Ann } }}"),
        ("ñ{{trigger.customer.ação}}→", "ñolá→"),
        ("", ""),
    ] {
        assert_eq!(resolve_one(text), Ok(json!(expected)), "{text}");
    }
}

#[test]
fn variables_are_found_at_any_depth() {
    let nested =
        json!({"a": [{"b": ["{{trigger.count}}", "plain", 1]}], "c": {"d": "{{trigger.name}}"}});
    let expected = json!({"a": [{"b": [3, "plain", 1]}], "c": {"d": "Ann"}});
    assert_eq!(resolve_one(nested), Ok(expected));
    let deep = (0..100).fold(json!("{{trigger.count}}"), |inner, _| json!([inner]));
    let expected = (0..100).fold(json!(3), |inner, _| json!([inner]));
    assert_eq!(resolve_one(deep), Ok(expected));
}

#[test]
fn what_is_put_in_is_not_read_for_variables_again() {
    assert_eq!(
        resolve_one("{{trigger.hostile}}"),
        Ok(json!("{{execution.id}}"))
    );
    assert_eq!(
        resolve_one("a{{trigger.hostile}}"),
        Ok(json!("a{{execution.id}}"))
    );
}

#[test]
fn all_paths_that_lead_nowhere_are_named_once() {
    let value = json!([
        "{{trigger.absent}}",
        "{{trigger.absent}} {{steps.later.x}}",
        "{{steps.nobody.x}}",
        "{{trigger.name}}"
    ]);
    let error = resolve_one(value).expect_err("three are absent");
    let paths = ["steps.later.x", "steps.nobody.x", "trigger.absent"];
    assert_eq!(error, Unresolved::Absent(paths.map(str::to_owned).into()));
    assert_eq!(
        error.to_string(),
        "there is nothing at steps.later.x, steps.nobody.x, trigger.absent"
    );
}

#[test]
fn nothing_but_the_three_roots_can_be_reached() {
    for hostile in [
        "{{env.HOME}}",
        "{{environ}}",
        "{{self}}",
        "{{files[\"/etc/passwd\"]}}",
        "{{trigger.__class__}}",
        "{{ trigger.name | upper }}",
        "{{trigger.items[-1]}}",
        "{{trigger.items[99]}}",
        "{{trigger.name.length}}",
        "{{trigger..name}}",
        "{{trigger.}}",
        "{{.trigger}}",
        "{{trigger[name]}}",
        "{{trigger['name}}",
        "{{trigger name}}",
        "{{{{trigger.name}}}}",
        "{{{trigger.name}}}",
        "{{steps}}",
        "{{execution.inputs}}",
        "{{execution.id.x}}",
        "{{}}",
        "{{ }}",
        "{{trigger.name",
        "a {{",
        "{{TRIGGER.name}}",
        "{{trigger.\u{202e}name}}",
    ] {
        assert!(resolve_one(hostile).is_err(), "{hostile}");
    }
}

#[test]
fn a_megabyte_of_braces_is_read_in_one_pass() {
    let start = std::time::Instant::now();
    for text in [
        "{".repeat(1 << 20),
        "{{".repeat(1 << 19) + "}}",
        "{{}}".repeat(1 << 18),
        "}}".repeat(1 << 19),
        "{{a".repeat(1 << 18),
    ] {
        if text.contains("{{") {
            let Err(Unresolved::Absent(paths)) = resolve_one(text.as_str()) else {
                panic!("no path in it");
            };
            assert!(
                paths.len() <= MAX_LISTED && paths.iter().all(|path| path.chars().count() < 200)
            );
        }
        assert!(references(&json!(text)).len() <= 1 << 18);
    }
    let plain = "x".repeat(1 << 20);
    assert_eq!(resolve_one(plain.as_str()), Ok(json!(plain)));
    assert!(
        start.elapsed().as_secs() < 20,
        "quadratic work would take hours"
    );
}

#[test]
fn a_small_text_cannot_grow_without_bounds() {
    let trigger = json!({"big": "x".repeat(1 << 20)});
    let execution = execution();
    let scope = Scope {
        trigger: &trigger,
        steps: &[],
        execution: &execution,
    };
    let many = vec![json!("{{trigger.big}}"); 10_000];
    let error = resolve(&params(json!({"p": many})), &scope).expect_err("10 GB");
    assert_eq!(error, Unresolved::TooLarge(vec!["trigger.big".to_owned()]));
    let once = resolve(
        &params(json!({"p": "{{trigger.big}}{{trigger.big}}"})),
        &scope,
    )
    .expect("2 MB");
    assert_eq!(once["p"].as_str().map(str::len), Some(2 << 20));
}

#[test]
fn trigger_data_alone_fills_in_what_it_can() {
    let given = params(json!({
        "to": "{{trigger.customer.email}}",
        "text": "{{trigger.name}}: {{steps.render.file}}, {{trigger.absent}}",
        "file": "{{steps.render.file}}",
        "id": "{{execution.id}}",
        "broken": "{{",
    }));
    let expected = json!({
        "to": "ann@example.com",
        "text": "Ann: {{steps.render.file}}, {{trigger.absent}}",
        "file": "{{steps.render.file}}",
        "id": "{{execution.id}}",
        "broken": "{{",
    });
    assert_eq!(Value::Object(resolve_partial(&given, &trigger())), expected);
}

#[test]
fn references_have_their_place_and_say_what_is_wrong() {
    let found = references(
        &json!({"a/b": ["x", "{{trigger.a}} {{steps.r[0]}}"], "c~": "{{env.HOME}}", "d": "{{ }}", "e": "{{x"}),
    );
    let target = |root, segments: &[&str]| OwnedPath {
        root,
        segments: segments.iter().map(|&s| s.to_owned()).collect(),
    };
    let summary: Vec<_> = found
        .iter()
        .map(|r| (r.pointer.as_str(), r.path.as_str(), r.target.clone()))
        .collect();
    assert_eq!(
        summary,
        [
            ("/a~1b/1", "trigger.a", Ok(target(Root::Trigger, &["a"]))),
            (
                "/a~1b/1",
                "steps.r[0]",
                Ok(target(Root::Steps, &["r", "0"]))
            ),
            (
                "/c~0",
                "env.HOME",
                Err(PathError::UnknownRoot("env".to_owned()))
            ),
            ("/d", "", Err(PathError::Empty)),
            ("/e", "{{x", Err(PathError::Unclosed)),
        ]
    );
    assert_eq!(
        target(Root::Trigger, &["a", "0", "unit price"]).to_string(),
        "trigger.a.0[\"unit price\"]"
    );
}

#[test]
fn a_person_s_changes_replace_single_parameters() {
    let node: Node = serde_json::from_value(json!({
        "id": "mail", "type": "send", "label": "Send", "phase": "delivery", "when": null, "params": {"to": "a", "subject": "s"},
        "retry": {}, "timeout_ms": 1, "on_error": "fail",
    }))
    .expect("a node");
    let changed = effective_params(
        &node,
        &params(json!({"mail": {"to": "b"}, "other": {"subject": "no"}})),
    )
    .into_owned();
    assert_eq!(Value::Object(changed), json!({"to": "b", "subject": "s"}));
    assert!(matches!(
        effective_params(&node, &Map::new()),
        Cow::Borrowed(_)
    ));
    assert!(matches!(
        effective_params(&node, &params(json!({"mail": 5}))),
        Cow::Borrowed(_)
    ));
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "[^{]*".prop_map(Value::from),
        "(\\{[^{]){0,3}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 64, 8, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..8).prop_map(Value::from),
            prop::collection::hash_map("[^{]{0,8}", inner, 0..8)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn a_value_without_double_braces_is_left_as_it_is(value in any_json()) {
        prop_assert_eq!(resolve_one(value.clone()), Ok(value.clone()));
        prop_assert!(references(&value).is_empty());
    }

    #[test]
    fn any_value_of_the_trigger_data_comes_back_unchanged(value in any_json()) {
        let (trigger, execution) = (json!({"v": value}), execution());
        let scope = Scope { trigger: &trigger, steps: &[], execution: &execution };
        let resolved = resolve(&params(json!({"p": "{{trigger.v}}"})), &scope).expect("it is there");
        prop_assert_eq!(&resolved["p"], &trigger["v"]);
    }

    #[test]
    fn no_text_makes_it_panic_and_references_agree_with_resolving(text in "[{}a-z.\\[\\]0-9\" é]{0,40}") {
        let unresolvable = references(&json!(text)).iter().any(|reference| reference.target.is_err());
        if unresolvable {
            prop_assert!(resolve_one(text.as_str()).is_err());
        }
    }
}
