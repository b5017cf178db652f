//! Tests of the samples of contract data, the schema that describes them, and the errors for broken samples.

use std::fs;

use serde_json::{Value, json};

use super::{RenderError, contract, folder, sample};

fn schema() -> jsonschema::Validator {
    let text = fs::read(folder("workflows").join("contract.schema.json")).unwrap();
    let schema: Value = serde_json::from_slice(&text).unwrap();
    jsonschema::draft202012::meta::validate(&schema).unwrap();
    jsonschema::draft202012::new(&schema).unwrap()
}

/// The JSON pointers of the values that the schema rejects.
fn refused(data: &Value) -> Vec<String> {
    schema()
        .iter_errors(data)
        .map(|error| error.instance_path().to_string())
        .collect()
}

fn refusal(name: &str) -> RenderError {
    contract(&sample(name)).unwrap_err()
}

#[test]
fn the_schema_accepts_the_good_samples() {
    for name in ["good", "good.pt-BR"] {
        assert_eq!(refused(&sample(name)), Vec::<String>::new(), "{name}");
    }
}

#[test]
fn the_schema_refuses_wrong_types_and_missing_fields() {
    assert_eq!(
        refused(&sample("wrong-type")),
        ["/items/0/unit_price_cents"]
    );
    assert_eq!(refused(&sample("missing-customer")), [""]);
}

#[test]
fn the_schema_leaves_people_and_addresses_to_preflight() {
    for name in ["bad-email", "no-signers", "duplicate-signer"] {
        assert_eq!(refused(&sample(name)), Vec::<String>::new(), "{name}");
    }
}

#[test]
fn the_schema_refuses_unknown_fields_and_impossible_values() {
    let cases = [
        ("/contract/date", json!("15/01/2026")),
        ("/contract/date", json!("2026-13-01")),
        ("/customer/name", json!(" ")),
        ("/items/0/quantity", json!(0)),
        ("/items/0/quantity", json!(1.5)),
        ("/items", json!([])),
        ("/discount_cents", json!(-1)),
        ("/language", json!("fr")),
        ("/currency", json!("XXX")),
    ];
    for (pointer, value) in cases {
        let mut data = sample("good");
        *data.pointer_mut(pointer).unwrap() = value;
        assert_eq!(refused(&data), [pointer], "{pointer}");
    }
    let mut data = sample("good");
    data["customer"]["nickname"] = json!("x");
    assert_eq!(refused(&data), ["/customer"]);
}

#[test]
fn a_missing_customer_is_named_field_by_field() {
    let RenderError::MissingFields { template, paths } = refusal("missing-customer") else {
        panic!("not the missing fields")
    };
    assert_eq!(template, "contract.typ");
    assert_eq!(
        paths,
        [
            "customer.name",
            "customer.tax_id",
            "customer.address",
            "customer.email"
        ]
    );
}

#[test]
fn the_other_broken_samples_are_refused_with_the_place() {
    let cases = [
        (
            "bad-email",
            "data.signers[1].email is \"signer.two.example.com\"",
        ),
        ("no-signers", "data.signers is empty"),
        (
            "duplicate-signer",
            "data.signers names the same e-mail address twice",
        ),
        (
            "wrong-type",
            "data.items[0].unit_price_cents is \"12,500.00\"",
        ),
    ];
    for (name, expected) in cases {
        let error = refusal(name);
        let RenderError::InvalidTemplate { problems, .. } = &error else {
            panic!("{name}: {error}")
        };
        assert!(problems[0].message.contains(expected), "{name}: {error}");
        assert!(problems[0].line.is_some(), "{name}: {error}");
        assert_eq!(error.code(), "invalid_field_format");
    }
}

#[test]
fn values_that_contradict_each_other_are_refused() {
    let cases = [
        (
            "/discount_cents",
            json!(1_000_000_000),
            "between zero and the subtotal",
        ),
        (
            "/contract/end_date",
            json!("2026-01-31"),
            "lies before data.contract.start_date",
        ),
        (
            "/contract/start_date",
            json!("2026-02-30"),
            "date is invalid",
        ),
        (
            "/contract/date",
            json!("January 15"),
            "data.contract.date is \"January 15\"",
        ),
        ("/language", json!("fr"), "data.language is \"fr\""),
        ("/currency", json!("XXX"), "data.currency is \"XXX\""),
        (
            "/items/0/quantity",
            json!(1.5),
            "data.items[0].quantity is 1.5",
        ),
        ("/items/0/quantity", json!(i64::MAX), "too large"),
        (
            "/items/0/unit_price_cents",
            json!(1e30),
            "data.items[0].unit_price_cents is 1e30, which is too large",
        ),
    ];
    for (pointer, value, expected) in cases {
        let mut data = sample("good");
        *data.pointer_mut(pointer).unwrap() = value;
        let message = contract(&data).unwrap_err().to_string();
        assert!(message.contains(expected), "{pointer}: {message}");
    }
}
