use serde_json::{Value as Json, json};

use super::*;
use crate::workflow::variables::{
    Found, Path, Root, descend,
    tests::{execution, step},
};

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
        ("trigger.empty != ''", false),
        ("trigger.name != ''", true),
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
        ("trigger.name == 'x' if trigger.off else true", true),
        ("1 < trigger.items|length <= 2", true),
        ("trigger.items[-1].id == 2", true),
        (
            "trigger.items|sum == 1 if trigger.items|length == 0 else true",
            true,
        ),
        ("[3, 1, 2]|sort == [1, 2, 3]", true),
        ("['b', 'a', 'b']|unique|list == ['b', 'a']", true),
        ("['A', 'b']|map('lower')|list == ['a', 'b']", true),
        ("[1, 2, 3]|select('in', [2, 3, 4])|list == [2, 3]", true),
        ("[1, 2, 3]|reject('>', 1)|list == [1]", true),
        ("'5'|float == 5 and '-7.9'|int == -7", true),
        ("'a' ~ 1 == 'a1'", true),
        ("2.5|round == 3 and 7 // 2 == 3 and -7 % 3 == 2", true),
        (
            "trigger.name is string and trigger.amount is divisibleby(100)",
            true,
        ),
        ("trigger.none != 5 and trigger.none != 'x'", true),
        ("none in [none, 1] and 1 in [none, 1]", true),
        ("true", true),
        (format!("true{}", " and true".repeat(200)).as_str(), true),
        (
            format!("false{} or true", " or false".repeat(180)).as_str(),
            true,
        ),
    ] {
        assert_eq!(evaluated(expr), Ok(expected), "{expr}");
    }
}

#[test]
fn an_expression_may_be_as_long_as_the_published_limit_of_when() {
    let of_length = |length: usize| {
        let frame = "'' != ''".chars().count();
        format!("'' != '{}'", "é".repeat(length - frame))
    };
    let limit = crate::limits::WHEN;
    assert_eq!(limit.fault("/when", &of_length(limit.max)), None);
    assert_eq!(evaluated(&of_length(limit.max)), Ok(true));
    let longer = of_length(limit.max + 1);
    assert!(limit.fault("/when", &longer).is_some());
    assert!(matches!(check(&longer), Err(ConditionError::Syntax(_))));
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
        ("(trigger.items|first).x == 1", "the field \"x\""),
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
        "trigger.name|round(1, 2)",
        "trigger.name|map('replace', '', 'a')|list",
        "trigger.name[1:2]",
        "{'a': 1} == trigger",
        "1 if true",
        &format!("1{} > 0", "|abs".repeat(100)),
        &format!("(1){}", ".a".repeat(900)),
        &format!("1{} > 0", " + 1".repeat(400)),
        "1 == 99999999999999999999999999999999999999999999",
        "trigger.name is nothing",
        "trigger.name is filter",
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
fn what_does_not_fit_together_is_an_error_and_never_true_or_false() {
    for expr in [
        "trigger.name * 100000000 == 'x'",
        "trigger.items * 100000000",
        "'a' * 100000000 == 'b'",
        "[0] * 100000000",
        "trigger.items|map('upper')|list",
        "trigger.amount / 0 == 1",
        "trigger.amount % 0 == 1",
        "trigger.name + 1 == 1",
        "trigger.name + trigger.name == 'AnnAnn'",
        "trigger.amount ** 1000 > 1",
        "2 ** 0.5 > 1",
        "((10 ** 64) ** 64) > 1",
        // Kinds are not converted into one another.
        "trigger.name > 1000",
        "'5' > 1000",
        "trigger.deal > 1000",
        "trigger.none > 1000",
        "trigger.off < 1",
        "trigger.items > trigger.items",
        "'5' == 5",
        "trigger.off == 0",
        "trigger.off == 'false'",
        "trigger.deal == trigger.items",
        "1 < 2 < '3'",
        "5 in '12345'",
        "'5' in [1, 2]",
        "trigger.items in trigger.name",
        "1 in trigger.deal",
        "trigger.name",
        "trigger.empty",
        "trigger.amount",
        "trigger.none",
        "trigger.items",
        "not trigger.empty",
        "not 0",
        "'false' and true",
        "'0' or true",
        "true and 1",
        "false or trigger.deal",
        "1 if trigger.name else 2",
        "[1, 'a']|sort == []",
        "[1, 'a']|max == 1",
        "'abc'|float == 1",
        "trigger.items|select|list",
    ] {
        assert!(
            matches!(evaluated(expr), Err(ConditionError::Evaluation(_))),
            "{expr}: {:?}",
            evaluated(expr)
        );
    }
}

/// Evaluates a condition over trigger data.
fn over(trigger: &Json, expr: &str) -> Result<bool, ConditionError> {
    let execution = execution();
    let scope = Scope {
        trigger,
        steps: &[],
        execution: &execution,
    };
    evaluate(expr, &scope)
}

#[test]
fn whatever_multiplies_runs_into_the_budget_and_not_into_the_minutes() {
    let numbers: Vec<_> = (0..100_000).collect();
    let texts: Vec<_> = (0..50_000).map(|index| format!("t{index}")).collect();
    let data = json!({
        "l": numbers, "m": numbers.iter().map(|it| it + 1_000_000).collect::<Vec<_>>(),
        "t": texts, "long": "x".repeat(900_000), "objects": vec![json!({"a": 1}); 50_000],
    });
    let joined = vec!["trigger.long"; 50].join(" ~ ");
    let selected = format!(
        "trigger.l{}|list|length > 0",
        "|select('in', trigger.l)".repeat(40)
    );
    for expr in [
        "trigger.l|select('in', trigger.m)|list|length > 0",
        "trigger.l|reject('in', trigger.m)|list|length > 0",
        "trigger.objects|selectattr('a', 'in', trigger.m)|list|length > 0",
        "trigger.t|select('in', trigger.long)|list|length > 0",
        "trigger.t|map('upper')|map('lower')|map('upper')|map('lower')|unique|sort|list|length > 0 \
         and trigger.l|sort|reverse|sort|reverse|sort|sum > 0",
        "trigger.long|split('x')|map('length')|sum > 0 and trigger.long|split('x')|unique|list == []",
        &format!("({joined})|length > 0"),
        &selected,
    ] {
        let short: String = expr.chars().take(80).collect();
        let started = std::time::Instant::now();
        let answer = over(&data, expr);
        assert!(
            matches!(&answer, Err(ConditionError::Evaluation(why)) if why.contains("too many operations")),
            "{short}: {answer:?}"
        );
        assert!(started.elapsed().as_secs() < 20, "{short}");
    }
    // Large data alone does not exceed the limit.
    assert_eq!(over(&data, "trigger.l|sum > 0"), Ok(true));
    assert_eq!(over(&data, "99999 in trigger.l"), Ok(true));
    assert_eq!(
        over(&data, "trigger.objects|map(attribute='a')|sum == 50000"),
        Ok(true)
    );
}

#[test]
fn numbers_are_compared_as_they_are_written() {
    let data = json!({
        "big": 9_007_199_254_740_993_u64, "bigger": u64::MAX, "tenth": 0.1, "huge": 1e300, "tiny": 1e-300,
    });
    for (expr, expected) in [
        ("trigger.big == 9007199254740993", true),
        ("trigger.big == 9007199254740992", false),
        ("trigger.big == 9007199254740992.0", false),
        ("trigger.big > 9007199254740992", true),
        ("trigger.bigger == 18446744073709551615", true),
        ("trigger.bigger + 1 == 18446744073709551616", true),
        ("trigger.tenth + 0.2 == 0.3", true),
        ("trigger.tenth == 0.10", true),
        (
            "trigger.tenth == 0.1000000000000000055511151231257827",
            false,
        ),
        ("1 / 3 * 3 == 1", true),
        ("trigger.huge > trigger.bigger", true),
        ("trigger.huge == 1e300", true),
        ("0 < trigger.tiny < 1e-299", true),
        ("1_000 == 1e3", true),
        ("-0.0 == 0", true),
    ] {
        assert_eq!(over(&data, expr), Ok(expected), "{expr}");
    }
}

proptest::proptest! {
    /// For numbers, each comparison has the result of integers in tenths. For other operands it has the
    /// expected result, or is an error.
    #[test]
    fn an_operator_does_what_mathematics_says_or_is_an_error(
        a in value(), b in value(), operator in 0..OPERATORS.len()
    ) {
        let (operator, mathematics) = OPERATORS[operator];
        let answer = over(&json!({"a": a, "b": b}), &format!("trigger.a {operator} trigger.b"));
        match (in_tenths(&a), in_tenths(&b)) {
            (Some(left), Some(right)) => {
                proptest::prop_assert_eq!(answer, Ok(mathematics(left.cmp(&right))));
            }
            _ => {
                let equality = matches!(operator, "==" | "!=");
                let same_kind = std::mem::discriminant(&a) == std::mem::discriminant(&b);
                let ordered = a.is_string() && b.is_string();
                let defined = ordered || equality && (same_kind || a.is_null() || b.is_null());
                proptest::prop_assert_eq!(answer.is_ok(), defined);
                if let Ok(holds) = answer {
                    let order = match (a.as_str(), b.as_str()) {
                        (Some(a), Some(b)) => a.cmp(b),
                        _ if a == b => std::cmp::Ordering::Equal,
                        _ => std::cmp::Ordering::Less,
                    };
                    proptest::prop_assert_eq!(holds, mathematics(order));
                }
            }
        }
    }
}

type Mathematics = fn(std::cmp::Ordering) -> bool;

const OPERATORS: [(&str, Mathematics); 6] = [
    ("==", std::cmp::Ordering::is_eq),
    ("!=", std::cmp::Ordering::is_ne),
    ("<", std::cmp::Ordering::is_lt),
    ("<=", std::cmp::Ordering::is_le),
    (">", std::cmp::Ordering::is_gt),
    (">=", std::cmp::Ordering::is_ge),
];

/// A number with at most one digit after the point, in tenths.
fn in_tenths(value: &Json) -> Option<i128> {
    let text = value.as_number()?.to_string();
    let (whole, tenths) = text.split_once('.').unwrap_or((&text, "0"));
    format!("{whole}{tenths}").parse().ok()
}

fn value() -> impl proptest::strategy::Strategy<Value = Json> {
    use proptest::prelude::*;
    prop_oneof![
        (-30_i64..30).prop_map(|tenths| json!(tenths as f64 / 10.0)),
        (-3_i64..3).prop_map(|whole| json!(whole)),
        any::<i64>().prop_map(|whole| json!(whole)),
        any::<u64>().prop_map(|whole| json!(whole)),
        "[0-9a]{0,2}".prop_map(|text| json!(text)),
        any::<bool>().prop_map(|it| json!(it)),
        Just(Json::Null),
        proptest::collection::vec(0..2, 0..2).prop_map(|list| json!(list)),
        (0..2).prop_map(|it| json!({"x": it})),
    ]
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

#[test]
fn a_node_id_with_a_hyphen_is_written_in_brackets() {
    let reads = Ok(vec!["steps.send-mail.ok".to_owned()]);
    assert_eq!(check("steps['send-mail'].ok"), reads);
    let error = check("steps.send-mail.ok").expect_err("a subtraction");
    assert!(error.to_string().contains("brackets"), "{error}");
    let error = check("mail.ok").expect_err("an unknown name");
    assert!(!error.to_string().contains("brackets"), "{error}");
}

/// A source with the trigger data, before any step has run.
struct Early(Json);

impl Source for Early {
    fn find(&self, path: &Path<'_>) -> Found<'_> {
        match path.root {
            Root::Trigger => descend(&self.0, &path.segments).into(),
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
