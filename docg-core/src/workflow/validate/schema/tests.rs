//! Tests that a schema and data made to be expensive stay within the limits on time and memory.

use std::time::Instant;

use serde_json::{Map, Value, json};

use super::{Unchecked, Violation, broken_by, check};
use crate::{
    i18n::Locale,
    ids::{OrganizationId, WorkflowId},
    time::Timestamp,
    workflow::Workflow,
};

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(fields) => fields,
        other => panic!("an object is needed, not {other}"),
    }
}

fn validated(schema: Value, data: &Value) -> Result<Vec<Violation>, Unchecked> {
    let now = Timestamp::from_millis(0);
    let workflow = Workflow {
        id: WorkflowId::new(),
        organization_id: OrganizationId::new(),
        name: "w".to_owned(),
        version: 1,
        input_schema: object(schema),
        settings: Default::default(),
        nodes: Vec::new(),
        created_at: now,
        updated_at: now,
        unreadable: false,
    };
    broken_by(&workflow, data)
}

/// A schema with a chain of definitions. Each definition uses the next one twice, so that the number of uses
/// doubles at each.
fn doubling(uses: impl Fn(Value) -> Value, last: Value) -> Value {
    let mut definitions = Map::new();
    for index in 0..45 {
        let next = json!({"$ref": format!("#/$defs/d{}", index + 1)});
        definitions.insert(format!("d{index}"), uses(next));
    }
    definitions.insert("d45".to_owned(), last);
    json!({"$ref": "#/$defs/d0", "$defs": definitions})
}

#[test]
fn a_schema_that_unfolds_without_end_is_refused_where_it_is_stored() {
    let leaf = json!({"type": "string"});
    let twice = |keyword: &'static str| {
        doubling(
            move |next| json!({keyword: [next.clone(), next]}),
            json!({"type": "string"}),
        )
    };
    let chain = |keyword: &'static str, length: usize| {
        let mut schema = json!({"type": "object"});
        for _ in 0..length {
            schema = json!({keyword: schema});
        }
        schema
    };
    let itself = json!({"$defs": {"a": {"anyOf": [{"$ref": "#/$defs/b"}]}, "b": {"not": {"$ref": "#/$defs/a"}}},
        "$ref": "#/$defs/a"});
    for (what, schema) in [
        ("allOf", twice("allOf")),
        ("anyOf", twice("anyOf")),
        ("oneOf", twice("oneOf")),
        (
            "not",
            doubling(
                |next| json!({"not": {"allOf": [next.clone(), next]}}),
                leaf.clone(),
            ),
        ),
        (
            "if",
            doubling(
                |next| json!({"if": next.clone(), "then": next.clone(), "else": next}),
                leaf.clone(),
            ),
        ),
        (
            "dependentSchemas",
            doubling(
                |next| json!({"dependentSchemas": {"a": next.clone(), "b": next}}),
                leaf.clone(),
            ),
        ),
        (
            "unevaluatedProperties",
            doubling(
                |next| json!({"allOf": [next.clone(), next], "unevaluatedProperties": false}),
                leaf,
            ),
        ),
        ("a chain", chain("not", 90)),
        ("itself", itself),
        ("remote", json!({"$ref": "http://example.com/x"})),
        ("nowhere", json!({"$ref": "#/$defs/none"})),
        (
            "an inner $id",
            json!({"$defs": {"a": {"$id": "http://example.com/a", "$ref": "#"}}}),
        ),
        ("many", json!({"allOf": vec![json!({}); 6_000]})),
        (
            "wide",
            json!({"items": {"anyOf": vec![json!({"type": "null"}); 3_000]}}),
        ),
        (
            "a large pattern",
            json!({"pattern": "(\\p{L}{1,1000}){1,1000}"}),
        ),
        (
            "a backtracking pattern",
            json!({"properties": {"a": {"pattern": "(a+)+\\1$"}}}),
        ),
        (
            "many patterns",
            json!({"allOf": (1..200).map(|n| json!({"pattern": format!("\\p{{L}}{{1,{n}}}")})).collect::<Vec<_>>()}),
        ),
    ] {
        let started = Instant::now();
        assert!(check(&object(schema)).is_err(), "{what}");
        assert!(started.elapsed().as_secs() < 20, "{what}");
    }
    let place = check(&object(json!({"properties": {"a": {"pattern": "("}}})));
    assert_eq!(place.expect_err("no pattern").0, "/properties/a/pattern");
}

#[test]
fn schemas_as_people_write_them_are_taken() {
    let tree = json!({
        "$id": "https://example.com/tree", "type": "object", "required": ["name"],
        "properties": {
            "name": {"type": "string", "pattern": "^\\p{L}[\\p{L} .'-]{0,99}$", "maxLength": 100},
            "tax": {"type": "string", "pattern": "^[0-9]{3}\\.[0-9]{3}\\.[0-9]{3}-[0-9]{2}$"},
            "email": {"type": "string", "format": "email"},
            "children": {"type": "array", "items": {"$ref": "#"}},
            "address": {"$ref": "https://example.com/tree#/$defs/address"},
            "kind": {"$ref": "#kind"},
        },
        "patternProperties": {"^x-": {"type": "string"}},
        "unevaluatedProperties": false,
        "$defs": {
            "address": {"type": "object", "properties": {"city": {"enum": ["Rio", "Recife"]}}},
            "kind": {"$anchor": "kind", "oneOf": [{"const": "person"}, {"const": "company"}]},
        },
    });
    assert_eq!(check(&object(tree.clone())), Ok(()));
    let good = json!({"name": "Ana", "kind": "person", "x-a": "b", "address": {"city": "Rio"},
        "children": vec![json!({"name": "João", "tax": "123.456.789-00", "children": [{"name": "Zé"}]}); 100]});
    assert_eq!(validated(tree.clone(), &good), Ok(Vec::new()));
    let bad = json!({"name": "Ana", "kind": "dog", "other": 1, "children": [{"tax": "1"}]});
    let found = validated(tree, &bad).expect("it can be checked");
    let missing = found
        .iter()
        .find(|violation| violation.missing)
        .expect("the name");
    assert_eq!(missing.path, ["children", "0", "name"]);
    assert!(found.iter().any(|violation| violation.path == ["kind"]));
    assert!(
        found
            .iter()
            .any(|violation| violation.path == ["children", "0", "tax"])
    );
}

#[test]
fn what_multiplies_with_the_data_is_too_much_and_no_pass() {
    let nested = |depth: usize, leaf: Value| (0..depth).fold(leaf, |inner, _| json!({"x": inner}));
    let deeper = |keyword: &str| {
        let again = json!({"properties": {"x": {"$ref": "#"}}});
        json!({keyword: [again.clone(), again.clone(), {"properties": {"x": {"allOf": [{"$ref": "#"}, {"$ref": "#"}]}}}]})
    };
    let letters: String = "ab".repeat(40_000);
    let objects: Vec<_> = (0..10_000)
        .map(|index| json!({"k": [index, {"v": index}]}))
        .collect();
    let options: Vec<Value> = (0..20_000)
        .map(|index| json!({"k": [-1 - index]}))
        .collect();
    for (what, schema, data) in [
        ("anyOf", deeper("anyOf"), nested(90, json!(1))),
        ("oneOf", deeper("oneOf"), nested(90, json!(1))),
        ("allOf", deeper("allOf"), nested(90, json!(1))),
        (
            "enum",
            json!({"items": {"enum": options}}),
            json!(vec![options[19_999].clone(); 10_000]),
        ),
        (
            "contains",
            json!({"items": {"contains": {"contains": {"contains": {"const": 1}}}}}),
            json!(vec![vec![vec![vec![0; 20]; 20]; 20]; 40]),
        ),
        (
            "uniqueItems",
            json!({"allOf": vec![json!({"uniqueItems": true}); 1_000]}),
            json!(objects),
        ),
        (
            "pattern",
            json!({"allOf": vec![json!({"pattern": "(a|b)*a(a|b){31}$"}); 1_000]}),
            json!(letters),
        ),
        (
            "patternProperties",
            json!({"patternProperties": {"(a|b)*a(a|b){40}c$": false, "(a|b)*b(a|b){50}c$": false}}),
            json!({letters.repeat(10): 1}),
        ),
        (
            "unevaluatedProperties",
            json!({"items": {"allOf": vec![json!({"allOf": vec![json!({}); 40], "unevaluatedProperties": true}); 40]}}),
            json!(objects),
        ),
        (
            "wide",
            json!({"items": {"allOf": vec![json!({}); 1_900]}}),
            json!(vec![0; 200_000]),
        ),
    ] {
        let started = Instant::now();
        assert_eq!(check(&object(schema.clone())), Ok(()), "{what}");
        let answer = validated(schema, &data);
        assert!(
            started.elapsed().as_secs() < 30,
            "{what}: {:?}",
            started.elapsed()
        );
        // The time must be short. Whether the data is found valid depends on the library's optimizations,
        // except in the cases below, which must exceed the budget.
        assert!(
            !matches!(answer, Err(Unchecked::Unusable(_))),
            "{what}: {answer:?}"
        );
        if matches!(what, "enum" | "uniqueItems" | "pattern" | "wide") {
            assert!(
                matches!(answer, Err(Unchecked::TooMuch(_))),
                "{what}: {answer:?}"
            );
        }
    }
}

#[test]
fn violations_are_listed_while_that_takes_little_memory() {
    let many = json!({"k": vec![1; 10_000]});
    let texts = json!({"properties": {"k": {"items": {"type": "string"}}}});
    let found = validated(texts, &many).expect("it can be checked");
    assert_eq!(found.len(), 50);
    // Each of ten thousand violations has a path of half a megabyte: together too much memory for a list.
    let name = "n".repeat(500_000);
    let schema = json!({"additionalProperties": {"items": {"type": "string"}}});
    let found = validated(schema, &json!({name: vec![1; 10_000]})).expect("it can be checked");
    assert_eq!(found.len(), 1, "only that it is broken");
    assert!(!found[0].missing && found[0].path.is_empty());
}

#[test]
fn a_field_is_told_once_and_with_what_would_be_right() {
    let date = json!({"type": "string", "format": "date", "pattern": "^[0-9-]{10}$"});
    for (schema, value, says) in [
        (
            json!({"maxItems": 2}),
            json!([1, 2, 3]),
            "at most 2 entries",
        ),
        (json!({"minItems": 1}), json!([]), "at least 1 entry"),
        (json!({"uniqueItems": true}), json!([1, 1]), "twice"),
        (json!({"maximum": 1000}), json!(1001), "at most 1000"),
        (json!({"minimum": 0.5}), json!(0), "at least 0.5"),
        (json!({"exclusiveMaximum": 3}), json!(3), "below 3"),
        (json!({"exclusiveMinimum": 3}), json!(3), "above 3"),
        (json!({"multipleOf": 5}), json!(7), "multiple of 5"),
        (
            json!({"maxLength": 2}),
            json!("abc"),
            "at most 2 characters",
        ),
        (json!({"minLength": 2}), json!("a"), "at least 2 characters"),
        (
            json!({"enum": ["a", "b", 1]}),
            json!("c"),
            "one of: a, b, 1",
        ),
        (json!({"const": "a"}), json!("c"), "one of: a"),
        (date.clone(), json!("soon"), "a date, such as 2026-01-31"),
        (date, json!("2026-02-31"), "a date, such as 2026-01-31"),
        (
            json!({"pattern": "^[0-9-]{10}$", "format": "date"}),
            json!("soon"),
            "a date",
        ),
        (json!({"format": "email"}), json!("x"), "an e-mail address"),
        (json!({"format": "ipv4"}), json!("x"), "ipv4"),
        (json!({"pattern": "^a+$"}), json!("b"), "^a+$"),
        (json!({"type": "integer"}), json!("b"), "a whole number"),
        (json!({"type": "array"}), json!("b"), "a list"),
        (
            json!({"properties": {"a": {}}, "additionalProperties": false}),
            json!({"a": 0, "x": 1, "y": 2}),
            "not known: x, y",
        ),
        (
            json!({"additionalProperties": false}),
            json!({"x": 1}),
            "may not be there",
        ),
    ] {
        let schema = json!({"type": "object", "properties": {"f": schema}});
        let data = json!({"f": value});
        let found = validated(schema.clone(), &data).expect("it is checked");
        let [violation] = found.as_slice() else {
            panic!("{schema} {data}: {found:?}");
        };
        assert_eq!(violation.path, ["f"]);
        let human = |locale| violation.human.clone().with("field", "f").render(locale);
        assert!(human(Locale::En).contains(says), "{}", human(Locale::En));
        let other = human(Locale::PtBr);
        assert!(
            !other.contains("issue-") && other != human(Locale::En),
            "{other}"
        );
    }
}
