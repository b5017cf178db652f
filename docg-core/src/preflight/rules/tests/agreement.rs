//! Tests that preflight and the step agree. If preflight accepts parameters, the handler is called and can
//! read the parameters. If preflight refuses parameters, the step would refuse them too, with the same code.

use proptest::prelude::*;
use serde::Deserialize;

use super::*;
use crate::{
    address::{Address, Addresses},
    error::codes,
    signature::Signers,
    workflow::{param, read_params},
};

/// The parameters of the test's handler, of every kind. Some of the Rust types accept fewer values than the
/// parameter's kind.
#[derive(Deserialize)]
#[allow(dead_code, reason = "only read by serde")]
struct Everything {
    to: Addresses,
    cc: Option<Addresses>,
    reply_to: Option<Address>,
    signers: Signers,
    count: Option<u32>,
    #[serde(default)]
    flag: bool,
    word: Option<Word>,
    url: Option<String>,
    template: Option<String>,
    folder: Option<String>,
    connection: Option<String>,
    #[serde(default)]
    headers: Map<String, Value>,
    text: String,
    note: Option<String>,
    file: Option<Map<String, Value>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Word {
    Fail,
    Approve,
}

fn everything() -> Registry {
    let mut registry = registry();
    let spec = NodeSpec::new("everything", Phase::Signature)
        .param(ParamSpec::required("to", ParamKind::EmailList))
        .param(ParamSpec::optional("cc", ParamKind::EmailList))
        .param(ParamSpec::optional("reply_to", ParamKind::Email))
        .param(ParamSpec::required("signers", ParamKind::Signers))
        .param(ParamSpec::optional("count", ParamKind::Integer))
        .param(ParamSpec::optional("flag", ParamKind::Boolean))
        .param(ParamSpec::optional(
            "word",
            ParamKind::OneOf(vec!["fail", "approve"]),
        ))
        .param(ParamSpec::optional("url", ParamKind::Url))
        .param(ParamSpec::optional("template", ParamKind::Template))
        .param(ParamSpec::optional("folder", ParamKind::Folder))
        .param(ParamSpec::optional("connection", ParamKind::Connection))
        .param(ParamSpec::optional("headers", ParamKind::Object))
        .param(ParamSpec::required("text", ParamKind::Text))
        .param(ParamSpec::optional("note", ParamKind::Text))
        .param(ParamSpec::optional("file", ParamKind::File));
    let handler = effect(spec, async |_: EffectContext, _: Everything| {
        Ok(StepOutcome::Done(Value::Null))
    });
    registry.add(handler.into());
    registry
}

const NAMES: [&str; 15] = [
    "to",
    "cc",
    "reply_to",
    "signers",
    "count",
    "flag",
    "word",
    "url",
    "template",
    "folder",
    "connection",
    "headers",
    "text",
    "note",
    "file",
];

/// Valid parameters, in which the parameter `name` is set to `value`.
fn with(name: &str, value: Value) -> Map<String, Value> {
    let mut params = object(json!({
        "to": "ann@example.com", "signers": [{"email": "ann@example.com"}], "text": "x",
    }));
    params.insert(name.to_owned(), value);
    params
}

/// The codes of preflight's blocking issues if a node takes these parameters from the trigger data.
async fn before(params: &Map<String, Value>) -> Vec<String> {
    let named: Map<_, _> = params
        .keys()
        .map(|name| (name.clone(), format!("{{{{trigger.{name}}}}}").into()))
        .collect();
    let nodes = json!([node("n", "everything", named.into())]);
    let case = Case::with(everything(), nodes, params.clone().into());
    let issues = case.issues().await;
    issues.iter().for_each(assert_readable);
    let blocking = issues
        .iter()
        .filter(|issue| issue.severity == Severity::Blocking);
    blocking.map(|issue| issue.code.to_string()).collect()
}

/// The code with which the step fails for these parameters; `None` if the handler is called and reads them.
fn at_the_step(params: &Map<String, Value>) -> Option<String> {
    let registry = everything();
    let spec = registry.get("everything").expect("it is there").spec();
    let mut params = params.clone();
    spec.drop_blanks(&mut params);
    let params = Value::from(params);
    let failure = param::failure(spec, &params, "n");
    let failure = failure.or_else(|| read_params::<Everything>(params).err());
    failure.map(|failure| failure.context.code.into_owned())
}

async fn assert_alike(params: &Map<String, Value>) {
    let (before, at_the_step) = (before(params).await, at_the_step(params));
    assert_eq!(
        before.first(),
        at_the_step.as_ref(),
        "{before:?} {params:?}"
    );
}

/// Values that a stranger may send: good and bad ones for every kind of parameter.
fn ugly() -> Vec<Value> {
    let mut values = vec![
        json!(null),
        json!(true),
        json!(false),
        json!({}),
        json!([]),
        json!([null]),
        json!([""]),
        json!([[]]),
        json!({"a": null}),
        json!(-1),
        json!(0),
        json!(0.5),
        json!(1),
        json!(1.0),
        json!(2_147_483_648_u64),
        json!(4_294_967_295_u64),
        json!(4_294_967_296_u64),
        json!(9_007_199_254_740_993_u64),
        json!(u64::MAX),
        json!(1e300),
    ];
    let texts = [
        "",
        " ",
        "\t",
        "\u{200b}",
        "x",
        "1",
        "fail",
        "FAIL",
        "expire",
        "a\nb",
        "a\r\nb",
        "a\u{2028}b",
        "\u{feff}x",
        "\u{202e}x",
        "e\u{301}",
        "李四",
        "👩‍⚖️",
        "{{trigger.text}}",
        "{{steps.x.y}}",
        "https://example.com",
        "https://exa mple.com",
        "http://[::1",
        "ftp://example.com",
        "https:///x",
        "ann@example.com",
        "ANN@EXAMPLE.COM.",
        "ann@exämple.com",
        "josé@example.com",
        "\"a b\"@example.com",
        "a(b)@example.com",
        "ann@[192.0.2.1]",
        "ann@192.0.2.1",
        "a@b@example.com",
        "a@b, c@d",
        "Silva, Ana <ann@example.com>",
        "\"Silva, Ana\" <ann@example.com>",
        "A\nB <ann@example.com>",
        "a@x.br <b@x.br>",
        "<ann@example.com>",
        "a+b@example.com",
    ];
    values.extend(texts.map(Value::from));
    values.extend(texts.map(|text| json!([text, "second@example.com"])));
    values.push("x".repeat(1_000).into());
    let signer = |name: &str, value: Value| json!([{"email": "ann@example.com", name: value}]);
    let mut of_signers: Vec<_> = values
        .iter()
        .map(|value| signer("name", value.clone()))
        .collect();
    of_signers.extend(values.iter().map(|value| signer("order", value.clone())));
    of_signers.extend(values.iter().map(|value| json!([{"email": value}])));
    of_signers.push(signer("phone", json!("1")));
    of_signers.push(json!(["ann@example.com"]));
    let many = |count: usize| {
        (0..count)
            .map(|i| json!({"email": format!("a{i}@x.br")}))
            .collect()
    };
    of_signers.extend([many(50), many(51)]);
    let twice = |email: &str| json!([{"email": "ann@exämple.com"}, {"email": email}]);
    of_signers.extend(
        [
            "ann@xn--exmple-cua.com",
            "Ann@EXÄMPLE.com",
            "ben@exämple.com",
        ]
        .map(twice),
    );
    let ordered = |orders: &[u64]| -> Value {
        let signers = orders.iter().enumerate();
        signers
            .map(|(i, order)| json!({"email": format!("a{i}@x.br"), "order": order}))
            .collect()
    };
    of_signers.extend([
        ordered(&[1, 1, 3]),
        ordered(&[1, 0]),
        ordered(&[1, 1 << 32]),
    ]);
    let addresses = |count: usize| -> Value { (0..count).map(|i| format!("a{i}@x.br")).collect() };
    values.extend([addresses(100), addresses(101)]);
    values.extend(of_signers);
    values
}

#[tokio::test]
async fn every_kind_of_parameter_is_read_alike_before_and_at_the_step() {
    assert_alike(&with("text", json!("x"))).await;
    for name in NAMES {
        for value in ugly() {
            assert_alike(&with(name, value)).await;
        }
    }
}

#[tokio::test]
async fn what_is_wrong_with_signers_has_a_code_and_a_place() {
    let long = "x".repeat(201);
    for (signers, expected) in [
        (
            json!([{"email": "a@x.br", "phone": "1"}]),
            "unknown_field signers.0.phone",
        ),
        (
            json!([{"email": null, "name": "Ana"}]),
            "signer_missing_email signers.0.email",
        ),
        (
            json!([{"email": "a@x.br", "order": 0}]),
            "invalid_signer_order signers.0.order",
        ),
        (
            json!([{"email": "a@x.br", "order": -1}]),
            "invalid_signer_order signers.0.order",
        ),
        (
            json!([{"email": "a@x.br", "order": 4_294_967_296_u64}]),
            "invalid_signer_order signers.0.order",
        ),
        (
            json!([{"email": "a@x.br", "name": " "}]),
            "invalid_signer_name signers.0.name",
        ),
        (
            json!([{"email": "a@x.br", "name": "\u{200b}"}]),
            "invalid_signer_name signers.0.name",
        ),
        (
            json!([{"email": "a@x.br", "name": "b@x.br"}]),
            "invalid_signer_name signers.0.name",
        ),
        (
            json!([{"email": "a@x.br", "name": "A\nB"}]),
            "invalid_signer_name signers.0.name",
        ),
        (
            json!([{"email": "a@x.br", "name": long}]),
            "invalid_signer_name signers.0.name",
        ),
        (
            json!([{"email": "a@exämple.br"}, {"email": "A@xn--exmple-cua.br"}]),
            "duplicate_signer signers.1.email",
        ),
        (
            (0..51)
                .map(|i| json!({"email": format!("a{i}@x.br")}))
                .collect(),
            "too_many signers",
        ),
    ] {
        let nodes = json!([node("g", "sign", json!({"signers": "{{trigger.s}}"}))]);
        let found = Case::new(nodes, json!({"s": signers})).found().await;
        let (code, field) = expected.split_once(' ').expect("two words");
        assert_eq!(found, [format!("signature {code} g {field}")]);
    }
    let fine = json!([
        {"email": "a@x.br", "name": "محمد علي", "order": 1},
        {"email": "b@x.br", "name": "Silva, \"Ana\"", "order": 1},
        {"email": "c@x.br", "name": null, "order": 3},
    ]);
    let nodes = json!([node("g", "sign", json!({"signers": fine}))]);
    assert!(Case::new(nodes, json!({})).found().await.is_empty());
}

#[tokio::test]
async fn a_signer_is_checked_as_far_as_it_is_known() {
    let signers = json!([{"email": "{{steps.r.file}}", "order": 0, "phone": "1"}]);
    let sign = json!({"id": "g", "type": "sign", "params": {"signers": "{{trigger.s}}"}});
    let nodes = json!([node("r", "render", json!({"template": "t"})), sign]);
    let mut case = Case::new(nodes, json!({}));
    case.inputs.node_overrides = object(json!({"g": {"signers": signers}}));
    assert_eq!(
        case.found().await,
        [
            "signature unknown_field g signers.0.phone",
            "signature invalid_signer_order g signers.0.order"
        ]
    );
}

#[test]
fn a_literal_list_that_cannot_be_meant_is_refused_before_it_is_stored() {
    let faults = |signers: Value| {
        let nodes = json!([node("g", "sign", json!({"signers": signers}))]);
        let draft = serde_json::from_value(json!({"name": "n", "nodes": nodes})).expect("a draft");
        let faults = validate(draft, &registry()).err().unwrap_or_default();
        faults
            .into_iter()
            .map(|fault| format!("{} {}", fault.code, fault.pointer))
            .collect::<Vec<_>>()
    };
    let at = |code: &str, place: &str| vec![format!("{code} /nodes/0/params/signers{place}")];
    assert_eq!(
        faults(json!([{"email": "{{trigger.a}}", "order": 0}])),
        at(codes::INVALID_SIGNER_ORDER, "/0/order")
    );
    assert_eq!(
        faults(json!([{"email": "a@x.br"}, {"email": "A@x.br"}])),
        at(codes::DUPLICATE_SIGNER, "/1/email")
    );
    assert_eq!(
        faults(json!([{"email": "a@x.br", "a/b": 1}])),
        at(codes::UNKNOWN_FIELD, "/0/a~1b")
    );
    assert!(faults(json!([{"name": "later"}, {"email": "nobody"}])).is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn random_addresses_and_signers_are_read_alike(
        name in prop::sample::select(vec!["to", "cc", "reply_to"]),
        local in "[a-zA-Z0-9.+'\"() é@]{0,10}",
        domain in "[a-zA-Z0-9.äß例\\[\\]-]{0,12}",
        display in prop_oneof![Just(String::new()), any::<String>()],
        order in any::<i64>(),
    ) {
        let email = format!("{local}@{domain}");
        let address = match display.as_str() {
            "" => email.clone(),
            display => format!("{display} <{email}>"),
        };
        let signers = json!([{"email": email, "name": display, "order": order}]);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(async {
            assert_alike(&with(name, address.clone().into())).await;
            assert_alike(&with("to", json!([address, email]))).await;
            assert_alike(&with("signers", signers)).await;
        });
    }
}
