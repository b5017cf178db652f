use serde_json::json;

use super::{faults::MAX_FAULTS, *};
use crate::{
    error::StepFailure,
    run::Phase,
    workflow::{NodeSpec, ParamKind, ParamSpec, RetryPolicy, StepContext, compute},
};

fn registry() -> Registry {
    let handler = |spec: NodeSpec| {
        compute(spec, async |_: StepContext, _: Value| {
            Ok::<_, StepFailure>(json!({}))
        })
    };
    let mut registry = Registry::default();
    registry.add(handler(
        NodeSpec::new("extract", Phase::Trigger)
            .param(ParamSpec::required("fields", ParamKind::Object))
            .outputs_of_param("fields"),
    ));
    registry.add(handler(
        NodeSpec::new("render", Phase::Render)
            .param(ParamSpec::required("template", ParamKind::Template))
            .param(ParamSpec::required("data", ParamKind::Json))
            .param(ParamSpec::optional("pages", ParamKind::Integer))
            .param(ParamSpec::optional(
                "mode",
                ParamKind::OneOf(vec!["fast", "fine"]),
            ))
            .outputs(["file", "pages"])
            .timeout_ms(7_000),
    ));
    registry.add(handler(
        NodeSpec::new("send", Phase::Delivery)
            .param(ParamSpec::required("to", ParamKind::EmailList))
            .param(ParamSpec::optional("signers", ParamKind::Signers))
            .param(ParamSpec::optional("url", ParamKind::Url))
            .param(ParamSpec::optional("flag", ParamKind::Boolean)),
    ));
    registry.add(handler(
        NodeSpec::new("approve", Phase::Trigger).any_phase(),
    ));
    registry
}

fn checked(draft: Value) -> Result<Validated, Vec<(String, &'static str)>> {
    let draft = serde_json::from_value(draft).expect("a draft");
    validate(draft, &registry()).map_err(|faults| {
        faults
            .into_iter()
            .map(|fault| (fault.pointer, fault.code))
            .collect()
    })
}

/// The faults of a workflow whose second node is `node`; the first node is valid.
fn faults_of_node(node: Value) -> Vec<(String, &'static str)> {
    let first = json!({"id": "extract", "type": "extract", "params": {"fields": {"name": "{{trigger.name}}"}}});
    checked(json!({"name": "n", "nodes": [first, node]}))
        .err()
        .unwrap_or_default()
}

fn one(pointer: &str, code: &'static str) -> Vec<(String, &'static str)> {
    vec![(pointer.to_owned(), code)]
}

fn render(params: Value) -> Value {
    json!({"id": "r", "type": "render", "params": params})
}

#[test]
fn a_definition_in_order_takes_the_defaults_of_its_node_types() {
    let valid = checked(json!({
        "name": " Contract ",
        "nodes": [
            {"id": "extract", "type": "extract", "params": {"fields": {"name": "{{trigger.name}}"}}},
            {"id": "r-1", "type": "render", "label": "Render", "when": "steps.extract.name != ''",
             "params": {"template": "a.typ", "data": {"n": "{{steps.extract.name}} {{execution.id}}"}}},
            {"id": "ok", "type": "approve", "phase": "delivery", "timeout_ms": 5},
            {"id": "s", "type": "send", "params": {"to": "{{trigger.to}}", "signers": []}, "on_error": "review"},
        ],
    }))
    .expect("in order");
    assert_eq!(valid.name, "Contract");
    let summary: Vec<_> = valid
        .nodes
        .iter()
        .map(|n| (n.id.as_str(), &*n.label, n.phase, n.timeout_ms))
        .collect();
    assert_eq!(
        summary,
        [
            ("extract", "extract", Phase::Trigger, 60_000),
            ("r-1", "Render", Phase::Render, 7_000),
            ("ok", "ok", Phase::Delivery, 5),
            ("s", "s", Phase::Delivery, 60_000),
        ]
    );
    assert_eq!(valid.nodes[0].retry, RetryPolicy::default());
}

#[test]
fn a_workflow_needs_a_name_and_nodes() {
    let faults = checked(json!({"name": " ", "nodes": []})).expect_err("empty");
    assert_eq!(
        faults,
        [
            ("/name".to_owned(), "required"),
            ("/nodes".to_owned(), "required")
        ]
    );
}

#[test]
fn there_are_no_more_nodes_than_a_workflow_may_have() {
    let node =
        |index: usize| json!({"id": format!("n{index}"), "type": "approve", "phase": "save"});
    let draft =
        |count: usize| json!({"name": "n", "nodes": (0..count).map(node).collect::<Vec<_>>()});
    assert!(checked(draft(MAX_NODES)).is_ok());
    assert_eq!(
        checked(draft(MAX_NODES + 1)).expect_err("one too many"),
        one("/nodes", "too_many")
    );
}

#[test]
fn node_types_ids_and_phases_are_checked() {
    let unknown = json!({"id": "x", "type": "nothing", "params": {"a": 1}});
    assert_eq!(
        faults_of_node(unknown),
        one("/nodes/1/type", "unknown_node_type")
    );
    let twice = json!({"id": "extract", "type": "approve", "phase": "save"});
    assert_eq!(
        faults_of_node(twice),
        one("/nodes/1/id", "duplicate_node_id")
    );
    for id in ["", "a.b", "a b", "é", &"x".repeat(65), "a/b", "a\0"] {
        let node = json!({"id": id, "type": "approve", "phase": "save"});
        assert_eq!(
            faults_of_node(node),
            one("/nodes/1/id", "invalid_node_id"),
            "{id}"
        );
    }
    let none = json!({"id": "a", "type": "approve"});
    assert_eq!(
        faults_of_node(none),
        one("/nodes/1/phase", "phase_required")
    );
    let other = json!({"id": "a", "type": "send", "phase": "save"});
    assert_eq!(
        faults_of_node(other),
        one("/nodes/1/phase", "phase_not_allowed")
    );
    let preflight = json!({"id": "a", "type": "approve", "phase": "preflight"});
    assert_eq!(
        faults_of_node(preflight),
        one("/nodes/1/phase", "phase_not_allowed")
    );
}

#[test]
fn parameters_must_be_declared_and_constants_of_their_kind() {
    assert_eq!(
        faults_of_node(render(json!({"a/b": 1}))),
        one("/nodes/1/params/a~1b", "unknown_parameter")
    );
    for (name, value) in [
        ("template", json!(5)),
        ("pages", json!("3")),
        ("pages", json!(-1)),
        ("mode", json!("slow")),
        ("template", json!({"x": "{{trigger.a}}"})),
    ] {
        let faults = faults_of_node(render(json!({name: value})));
        assert_eq!(
            faults,
            one(&format!("/nodes/1/params/{name}"), "wrong_kind"),
            "{value}"
        );
    }
    let send = json!({"id": "s", "type": "send", "params": {"signers": "a@b", "flag": "yes", "url": 5, "to": {}}});
    let mut pointers: Vec<_> = faults_of_node(send)
        .into_iter()
        .map(|(pointer, _)| pointer)
        .collect();
    pointers.sort();
    let expected = ["flag", "signers", "to", "url"].map(|name| format!("/nodes/1/params/{name}"));
    assert_eq!(pointers, expected);
}

#[test]
fn blank_and_malformed_values_are_left_to_preflight() {
    for params in [
        json!({}),
        json!({"to": ""}),
        json!({"to": null}),
        json!({"to": "no address"}),
        json!({"to": ["no address", "{{trigger.a}}"]}),
        json!({"to": "a@b", "signers": [{"name": "x"}]}),
        json!({"to": "a@b", "url": "not yet a url", "flag": "{{trigger.flag}}"}),
    ] {
        assert_eq!(
            faults_of_node(json!({"id": "s", "type": "send", "params": params})),
            [],
            "{params}"
        );
    }
}

#[test]
fn variables_that_no_earlier_node_can_give_are_faults_where_they_stand() {
    for variable in [
        "{{steps.nobody.x}}",
        "{{steps.r.file}}",
        "{{steps.later.x}}",
        "{{steps.extract.other}}",
        "{{execution.secret}}",
        "{{execution.id.x}}",
    ] {
        let later = json!({"id": "later", "type": "approve", "phase": "save"});
        let first = json!({"id": "extract", "type": "extract", "params": {"fields": {"name": 1}}});
        let node = render(json!({"data": {"a": ["x", format!("a {variable}")]}}));
        let faults =
            checked(json!({"name": "n", "nodes": [first, node, later]})).expect_err(variable);
        assert_eq!(
            faults,
            one("/nodes/1/params/data/a/1", "unresolved_variable"),
            "{variable}"
        );
    }
    for variable in [
        "{{steps.extract}}",
        "{{steps.extract.name.first}}",
        "{{trigger.anything}}",
        "{{execution.attempt}}",
    ] {
        assert_eq!(
            faults_of_node(render(json!({"data": variable}))),
            [],
            "{variable}"
        );
    }
    let unknown_keys =
        json!({"id": "e", "type": "extract", "params": {"fields": "{{trigger.fields}}"}});
    let reader = render(json!({"data": "{{steps.e.any}}"}));
    assert!(
        checked(json!({"name": "n", "nodes": [unknown_keys, reader]})).is_ok(),
        "its keys are not known"
    );
}

#[test]
fn environment_files_and_broken_braces_are_faults() {
    for variable in [
        "{{env.HOME}}",
        "{{file('/etc/passwd')}}",
        "{{",
        "{{}}",
        "{{ trigger.a | upper }}",
        "{{steps}}",
    ] {
        let faults = faults_of_node(render(json!({"data": variable})));
        assert_eq!(
            faults,
            one("/nodes/1/params/data", "invalid_variable"),
            "{variable}"
        );
    }
}

#[test]
fn conditions_are_checked_with_their_paths() {
    let node = |when: &str| json!({"id": "a", "type": "approve", "phase": "save", "when": when});
    for bad in [
        "trigger.a ==",
        "env.HOME",
        "range(3)",
        "",
        "trigger.a|join('x')",
    ] {
        assert_eq!(
            faults_of_node(node(bad)),
            one("/nodes/1/when", "invalid_condition"),
            "{bad}"
        );
    }
    for absent in [
        "steps.nobody.x == 1",
        "steps.a.x == 1",
        "steps.extract.other == 1",
        "execution.secret",
    ] {
        assert_eq!(
            faults_of_node(node(absent)),
            one("/nodes/1/when", "unresolved_variable"),
            "{absent}"
        );
    }
    assert_eq!(
        faults_of_node(node(
            "steps.extract.name == trigger.x and not execution.dry_run"
        )),
        []
    );
}

#[test]
fn retry_and_time_limits_have_bounds() {
    let node = |extra: Value| {
        let mut node = json!({"id": "a", "type": "approve", "phase": "save"});
        node.as_object_mut()
            .expect("an object")
            .extend(extra.as_object().expect("an object").clone());
        faults_of_node(node)
    };
    for (retry, field) in [
        (json!({"max_attempts": 0}), "max_attempts"),
        (json!({"max_attempts": 101}), "max_attempts"),
        (json!({"multiplier": 0.5}), "multiplier"),
        (json!({"multiplier": -1e308}), "multiplier"),
        (json!({"multiplier": 1000.5}), "multiplier"),
        (
            json!({"multiplier": 9_007_199_254_740_993_u64}),
            "multiplier",
        ),
        (json!({"initial_ms": 10, "max_ms": 5}), "initial_ms"),
        (json!({"max_ms": u64::MAX}), "max_ms"),
    ] {
        assert_eq!(
            node(json!({"retry": retry})),
            one(&format!("/nodes/1/retry/{field}"), "out_of_range"),
            "{retry}"
        );
    }
    for timeout in [0, MAX_TIMEOUT_MS + 1, u64::MAX] {
        assert_eq!(
            node(json!({"timeout_ms": timeout})),
            one("/nodes/1/timeout_ms", "out_of_range")
        );
    }
    assert_eq!(
        node(
            json!({"timeout_ms": MAX_TIMEOUT_MS, "retry": {"max_attempts": 100, "multiplier": 1000}})
        ),
        []
    );
    let mut draft: WorkflowDraft =
        serde_json::from_value(json!({"name": "n", "nodes": []})).expect("a draft");
    draft.settings.review_expires_ms = Some(0);
    let faults = validate(draft, &registry()).expect_err("expires at once");
    assert!(faults.iter().any(
        |fault| fault.pointer == "/settings/review_expires_ms" && fault.code == "out_of_range"
    ));
}

#[test]
fn a_schema_is_refused_only_where_nothing_can_check_data_against_it() {
    let node = json!({"id": "a", "type": "approve", "phase": "save"});
    let schema = json!({"type": "object", "required": ["name"]});
    let stored = checked(json!({"name": "n", "input_schema": schema, "nodes": [node]}));
    if cfg!(feature = "json-schema") {
        assert!(stored.is_ok());
    } else {
        assert_eq!(
            stored.expect_err("no checker"),
            one("/input_schema", "invalid_schema")
        );
    }
}

#[cfg(feature = "json-schema")]
#[test]
fn a_schema_must_be_one_and_stay_within_itself() {
    for (schema, pointer) in [
        (json!({"type": "objct"}), "/input_schema/type"),
        (
            json!({"properties": {"a/b": {"type": 5}}}),
            "/input_schema/properties/a~1b/type",
        ),
        (json!({"pattern": "("}), "/input_schema/pattern"),
        (
            json!({"properties": {"a": {"pattern": "(?=x)"}}}),
            "/input_schema/properties/a/pattern",
        ),
        (
            json!({"$ref": "http://example.com/schema.json"}),
            "/input_schema",
        ),
        (json!({"$ref": "file:///etc/passwd"}), "/input_schema"),
        (
            json!({"$schema": "http://example.com/other"}),
            "/input_schema",
        ),
        (json!({"$ref": "#/$defs/nowhere"}), "/input_schema"),
    ] {
        let node = json!({"id": "a", "type": "approve", "phase": "save"});
        let faults = checked(json!({"name": "n", "input_schema": schema, "nodes": [node]}))
            .expect_err("broken");
        assert_eq!(faults, one(pointer, "invalid_schema"), "{schema}");
    }
}

#[test]
fn a_label_that_is_given_shows_something() {
    for blank in ["", "   ", "\u{200b}"] {
        let faults = checked(json!({
            "name": "n",
            "nodes": [{"id": "a", "type": "approve", "phase": "save", "label": blank}],
        }));
        let faults = faults.expect_err("shows nothing");
        assert_eq!(faults, one("/nodes/0/label", "required"), "{blank:?}");
    }
}

#[test]
fn the_character_nul_is_a_fault_wherever_it_hides() {
    let faults = checked(json!({
        "name": "a\0",
        "nodes": [{"id": "r", "type": "render", "label": "x\0", "params": {"data": {"k": ["\0"]}}}],
    }));
    let pointers: Vec<_> = faults
        .expect_err("three")
        .into_iter()
        .map(|(pointer, code)| format!("{pointer} {code}"))
        .collect();
    assert_eq!(
        pointers,
        [
            "/name invalid_text",
            "/nodes/0/label invalid_text",
            "/nodes/0/params/data invalid_text"
        ]
    );
}

#[test]
fn all_faults_come_at_once_and_there_is_an_end_to_them() {
    let faults = checked(json!({
        "name": "",
        "nodes": [
            {"id": "a b", "type": "render", "params": {"template": 5, "no": 1, "data": "{{steps.x.y}}"}, "timeout_ms": 0},
            {"id": "a b", "type": "nothing", "when": "("},
        ],
    }));
    assert_eq!(faults.expect_err("many").len(), 10);
    let many = vec!["{{}}"; 5_000].concat();
    assert_eq!(
        faults_of_node(render(json!({"data": many}))).len(),
        MAX_FAULTS
    );
}

#[test]
fn changes_of_a_person_are_held_to_the_same_rules() {
    let valid = checked(json!({
        "name": "n",
        "nodes": [
            {"id": "extract", "type": "extract", "params": {"fields": {"name": 1}}},
            {"id": "s", "type": "send", "params": {"to": "a@b.example"}},
        ],
    }))
    .expect("in order");
    let check = |overrides: Value| {
        let Value::Object(overrides) = overrides else {
            panic!("an object")
        };
        check_overrides(&valid.nodes, &overrides, &registry())
            .err()
            .unwrap_or_default()
            .into_iter()
            .map(|fault| (fault.pointer, fault.code))
            .collect::<Vec<_>>()
    };
    assert_eq!(check(json!({"s": {"to": "{{steps.extract.name}}"}})), []);
    assert_eq!(check(json!({"x": {}})), one("/x", "unknown_node"));
    assert_eq!(check(json!({"s": 5})), one("/s", "wrong_kind"));
    assert_eq!(
        check(json!({"s": {"no": 5}})),
        one("/s/no", "unknown_parameter")
    );
    assert_eq!(
        check(json!({"s": {"flag": 5}})),
        one("/s/flag", "wrong_kind")
    );
    assert_eq!(
        check(json!({"s": {"to": "{{env.HOME}}"}})),
        one("/s/to", "invalid_variable")
    );
    assert_eq!(
        check(json!({"extract": {"fields": {"a": "{{steps.s.x}}"}}})),
        one("/extract/fields/a", "unresolved_variable")
    );
}
