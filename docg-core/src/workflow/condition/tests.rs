use serde_json::{Value as Json, json};

use super::*;
use crate::workflow::variables::tests::{execution, step};

fn trigger() -> Json {
    json!({
        "amount": 1200, "name": "Ann", "none": null, "off": false, "empty": "",
        "deal": {"stage": "won", "unit price": 7}, "items": [{"id": 1}, {"id": 2}], "email": "ann@example.com",
    })
}

fn evaluated(expr: &str) -> Result<bool, ConditionError> {
    let (trigger, execution) = (trigger(), execution());
    let steps = [
        step("extract", 0, Some(json!({"language": "en", "pages": 3}))),
        step("skipped", 1, None),
    ];
    evaluate(
        expr,
        &Scope {
            trigger: &trigger,
            steps: &steps,
            execution: &execution,
        },
    )
}

#[test]
fn expressions_are_worked_out_over_trigger_steps_and_execution() {
    for (expr, expected) in [
        ("trigger.amount > 0", true),
        ("trigger.amount > 5000", false),
        (
            "trigger.deal.stage == 'won' and trigger.amount >= 1200",
            true,
        ),
        ("trigger.deal[\"unit price\"] * 2 == 14", true),
        ("steps.extract.language == \"en\"", true),
        ("steps.extract.pages in [1, 2]", false),
        ("not execution.dry_run", true),
        ("execution.trigger_type == 'manual'", true),
        ("execution.id|length == 36", true),
        ("trigger.items|length == 2", true),
        ("trigger.items[1].id == 2", true),
        (
            "trigger.items|selectattr('id', '==', 2)|list|length == 1",
            true,
        ),
        ("trigger.items|map(attribute='id')|sum == 3", true),
        ("trigger.email|split('@')|last == 'example.com'", true),
        ("trigger.none == none", true),
        ("trigger.none is none", true),
        ("trigger.off", false),
        ("trigger.empty", false),
        ("trigger.name", true),
        ("trigger.absent is defined", false),
        ("trigger.absent is not defined or trigger.absent > 3", true),
        ("trigger.absent is defined and trigger.absent > 3", false),
        ("trigger.absent|default(5) > 3", true),
        ("steps.skipped.file is defined", false),
        ("steps.skipped is defined", false),
        (
            "steps.skipped is defined and steps.skipped.file is defined",
            false,
        ),
        ("trigger.absent.deeper.still is defined", false),
        ("trigger.absent.deeper|default('x') == 'x'", true),
        (
            "trigger.absent is defined and trigger.absent.deeper is defined",
            false,
        ),
        ("'n' in trigger.name", true),
        ("'name' in trigger", true),
        ("(trigger.amount + 1) * -2 < 0", true),
        ("trigger.amount|float * 2 > 2000", true),
        ("trigger.name if trigger.off else false", false),
        ("true", true),
    ] {
        assert_eq!(evaluated(expr), Ok(expected), "{expr}");
    }
}

#[test]
fn reading_what_is_not_there_is_an_error_that_names_it() {
    for (expr, path) in [
        ("trigger.absent == 1", "trigger.absent"),
        ("trigger.absent != 1", "trigger.absent"),
        ("trigger.absent > 1", "trigger.absent"),
        ("not trigger.absent", "trigger.absent"),
        ("trigger.absent", "trigger.absent"),
        ("-trigger.absent", "trigger.absent"),
        ("trigger.absent in [1]", "trigger.absent"),
        ("trigger.absent|length > 0", "trigger.absent"),
        ("trigger.absent is none", "trigger.absent"),
        (
            "trigger.amount is divisibleby(trigger.absent)",
            "trigger.absent",
        ),
        ("trigger.absent.deeper == 1", "trigger.absent.deeper"),
        ("trigger.deal.absent == 1", "trigger.deal.absent"),
        ("trigger.items[7].id == 1", "trigger.items.7.id"),
        ("steps.skipped.file == 'x'", "steps.skipped.file"),
        ("steps.nobody == 1", "steps.nobody"),
        ("execution.absent == 1", "execution.absent"),
        ("trigger['a b'] == 1", "trigger[\"a b\"]"),
        (
            "(trigger.other|default(1)) + trigger.absent > 1",
            "trigger.absent",
        ),
    ] {
        assert_eq!(
            evaluated(expr),
            Err(ConditionError::Absent(vec![path.to_owned()])),
            "{expr}"
        );
    }
}

#[test]
fn anything_but_a_harmless_expression_is_refused_before_it_runs() {
    for expr in [
        "",
        "trigger.a ==",
        "trigger.a = 1",
        "{{ trigger.a }}",
        "{% if true %}",
        "env.HOME == 'x'",
        "self",
        "loop.index",
        "foo",
        "steps",
        "steps[trigger.name].x",
        "range(10)|length > 1",
        "debug()",
        "dict(a=1)",
        "namespace()",
        "trigger.name.upper() == 'ANN'",
        "trigger.name|replace('a', 'b') == 'x'",
        "trigger.name|indent(100000000)",
        "trigger.name|join('aaaa')",
        "trigger.name|format(1)",
        "trigger.name|nothing",
        "trigger.name is nothing",
        "trigger.name is filter",
        "'a' * 100000000 == 'b'",
        "[0] * 100000000",
        "(trigger.name ~ 'x') * 5",
        "(trigger.name|lower) * 5",
        &"(".repeat(1_000),
        &format!("{}1{}", "(".repeat(900), ")".repeat(900)),
        &"trigger.a or ".repeat(1_000),
        &"x".repeat(1 << 20),
    ] {
        let short: String = expr.chars().take(60).collect();
        assert!(
            matches!(check(expr), Err(ConditionError::Syntax(_))),
            "{short}"
        );
        assert!(
            matches!(evaluated(expr), Err(ConditionError::Syntax(_))),
            "{short}"
        );
    }
}

#[test]
fn what_only_the_values_can_tell_is_bounded_too() {
    for expr in [
        "trigger.name * 100000000 == 'x'",
        "trigger.items * 100000000",
        "trigger.items|map('replace', '', 'aaaaaaaa')|list",
        "trigger.items|map('nothing')|list",
        "trigger.amount / 0 == 1",
        "trigger.name + 1 == 1",
        "trigger.amount ** 1000 > 1",
    ] {
        assert!(
            matches!(evaluated(expr), Err(ConditionError::Evaluation(_))),
            "{expr}: {:?}",
            evaluated(expr)
        );
    }
}

#[test]
fn the_paths_read_are_told() {
    let paths = check(
        "trigger.deal.amount > 0 and steps.x['a b'].c == trigger.items[0] and trigger.deal.amount < 9",
    );
    assert_eq!(
        paths,
        Ok(vec![
            "trigger.deal.amount".to_owned(),
            "steps.x[\"a b\"].c".to_owned(),
            "trigger.items.0".to_owned()
        ])
    );
    assert_eq!(
        check("trigger[trigger.key] == 1"),
        Ok(vec!["trigger".to_owned(), "trigger.key".to_owned()])
    );
    assert_eq!(check("true"), Ok(Vec::new()));
}

/// Knows the trigger data; steps come later.
struct Early(Json);

impl Source for Early {
    fn find(&self, path: &Path<'_>) -> Found<'_> {
        match path.root {
            Root::Trigger => crate::workflow::variables::descend(&self.0, &path.segments).into(),
            _ => Found::Later,
        }
    }
}

#[test]
fn a_condition_is_decided_early_only_where_nothing_later_can_change_it() {
    let early = Early(trigger());
    for (expr, expected) in [
        ("trigger.off", Some(false)),
        ("trigger.off and steps.x.y == 1", Some(false)),
        ("trigger.amount > 0 or steps.x.y == 1", Some(true)),
        ("steps.x.y == 1 or true", None),
        ("trigger.amount > 0 and steps.x.y", None),
        ("steps.x.y", None),
        ("not steps.x.y", None),
        ("steps.x.y is defined", None),
        ("steps.x.y|default(1) == 1", None),
        ("execution.dry_run", None),
        ("[steps.x.y]", None),
    ] {
        assert_eq!(decide(expr, &early), Ok(expected), "{expr}");
    }
    assert_eq!(
        decide("trigger.absent", &early),
        Err(ConditionError::Absent(vec!["trigger.absent".to_owned()]))
    );
}
