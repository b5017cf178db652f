use super::*;

#[tokio::test]
async fn a_workflow_in_order_has_no_issues_and_asks_nothing_twice() {
    let nodes = json!([
        node(
            "e",
            "extract",
            json!({"fields": {"mail": "{{trigger.customer.email}}"}})
        ),
        node(
            "r",
            "render",
            json!({"template": "a", "cover": "a", "data": "{{trigger}}"})
        ),
        node("r2", "render", json!({"template": "a"})),
        node(
            "v",
            "save",
            json!({"file": "{{steps.r.file}}", "folder": "f", "connection": "drive"})
        ),
        node(
            "s",
            "send",
            json!({"to": ["{{steps.e.mail}}", "Ann <a@example.com>"], "subject": "{{steps.v.url}}"})
        ),
        node(
            "g",
            "sign",
            json!({"signers": [{"email": "{{trigger.customer.email}}", "order": 1}], "provider": "drive"})
        ),
    ]);
    let case = Case::new(nodes, json!({"customer": {"email": "c@example.com"}}));
    assert_eq!(case.found().await, [""; 0]);
    let mut asked = case.probe.asked.lock().expect("not poisoned").clone();
    asked.sort();
    assert_eq!(asked, ["connection:drive", "folder:f", "template:a"]);
}

#[tokio::test]
async fn unresolved_variables_are_named_by_node_and_parameter() {
    let nodes = json!([
        node(
            "e",
            "extract",
            json!({"fields": {"a": "{{trigger.absent}}", "b": ["{{trigger.name}} {{trigger.x.y}}"]}})
        ),
        node(
            "s",
            "send",
            json!({"to": "{{trigger.to}}", "subject": "{{trigger.name}}{{steps.e.a}}"})
        ),
    ]);
    let case = Case::new(nodes, json!({"name": null}));
    assert_eq!(
        case.found().await,
        [
            "data unresolved_variables e trigger.absent",
            "data unresolved_variables e trigger.x.y",
            "data unresolved_variables s trigger.to"
        ]
    );
    let issues = case.issues().await;
    assert!(
        issues[0]
            .message_human
            .render(crate::i18n::Locale::En)
            .contains("trigger.absent")
    );
    assert!(
        issues[1]
            .message_human
            .render(crate::i18n::Locale::PtBr)
            .contains("trigger.x.y")
    );
}

#[tokio::test]
async fn changes_of_a_person_are_what_is_checked() {
    let nodes = json!([node(
        "s",
        "send",
        json!({"to": "{{trigger.to}}", "subject": "s"})
    )]);
    let mut case = Case::new(nodes, json!({}));
    assert_eq!(
        case.found().await,
        ["data unresolved_variables s trigger.to"]
    );
    case.inputs.node_overrides =
        object(json!({"s": {"to": "a@example.com", "subject": "{{env.HOME}}"}}));
    assert_eq!(case.found().await, ["data unresolved_variables s subject"]);
    case.inputs.node_overrides = object(json!({"s": {"to": "a@example.com"}}));
    assert_eq!(case.found().await, [""; 0]);
}

#[tokio::test]
async fn required_parameters_that_are_blank_are_missing_and_optional_ones_are_not() {
    for blank in [
        json!({}),
        json!({"subject": ""}),
        json!({"subject": " \n"}),
        json!({"subject": "{{trigger.none}}"}),
    ] {
        let mut params = object(blank);
        params.insert("to".to_owned(), json!("a@example.com"));
        params.extend(object(json!({"cc": "", "reply_to": " "})));
        let case = Case::new(
            json!([node("s", "send", params.into())]),
            json!({"none": null}),
        );
        assert_eq!(
            case.found().await,
            ["data missing_required_field s subject"]
        );
    }
    let folder = json!([node(
        "v",
        "save",
        json!({"file": {"name": "f"}, "folder": ""})
    )]);
    assert_eq!(
        Case::new(folder, json!({})).found().await,
        ["data missing_required_field v folder"]
    );
}

#[tokio::test]
async fn values_of_another_kind_are_invalid_formats() {
    let nodes = json!([
        node("e", "extract", json!({"fields": "{{trigger.list}}"})),
        node("s", "send", json!({"to": "a@example.com", "subject": "{{trigger.number}}"})),
        {"id": "c", "type": "call", "phase": "save", "params": {
            "url": "{{trigger.file_url}}", "method": "{{trigger.verb}}", "flag": "{{trigger.yes}}"}},
        node("g", "sign", json!({"signers": "{{trigger.number}}", "expires_in_ms": "{{trigger.negative}}"})),
    ]);
    let trigger = json!({
        "list": [1], "number": 5, "file_url": "file:///etc/passwd", "verb": "DELETE", "yes": "yes", "negative": -1,
    });
    assert_eq!(
        Case::new(nodes, trigger).found().await,
        [
            "data invalid_field_format e fields",
            "data invalid_field_format s subject",
            "data invalid_field_format c url",
            "data invalid_field_format c method",
            "data invalid_field_format c flag",
            "data invalid_field_format g signers",
            "data invalid_field_format g expires_in_ms",
        ]
    );
}

#[cfg(feature = "json-schema")]
#[tokio::test]
async fn trigger_data_that_breaks_the_schema_is_named_by_path() {
    let schema = json!({
        "type": "object",
        "required": ["customer", "language"],
        "properties": {
            "language": {"enum": ["en", "pt-BR"]},
            "customer": {"required": ["email"], "properties": {"age": {"type": "integer"}}},
            "items": {"items": {"properties": {"price": {"minimum": 0}}}},
        },
        "additionalProperties": false,
    });
    let nodes = json!([node("e", "extract", json!({"fields": {}}))]);
    let secret = "a value that is nobody's business";
    let trigger =
        json!({"customer": {"age": secret}, "items": [{"price": 1}, {"price": -1}], "more": 1});
    let case = Case::new(nodes, trigger).schema(schema);
    let mut found = case.found().await;
    found.sort();
    assert_eq!(
        found,
        [
            "data invalid_field_format - trigger.customer.age",
            "data invalid_field_format - trigger.items.1.price",
            "data invalid_field_format - trigger.more",
            "data missing_required_field - trigger.customer.email",
            "data missing_required_field - trigger.language",
        ]
    );
    assert!(!format!("{:?}", case.issues().await).contains(secret));
}

#[tokio::test]
async fn a_schema_that_cannot_be_used_is_a_warning_and_no_pass_in_silence() {
    let nodes = json!([node("e", "extract", json!({"fields": {}}))]);
    let case = Case::new(nodes, json!({})).schema(json!({"$ref": "http://example.com/x"}));
    assert_eq!(case.found().await, ["data data.check_failed? - -"]);
}

#[cfg(feature = "json-schema")]
#[tokio::test]
async fn workflows_with_the_same_ids_do_not_share_a_schema() {
    let nodes = json!([node("e", "extract", json!({"fields": {}}))]);
    for name in ["a", "b", "a"] {
        let case = Case::new(nodes.clone(), json!({})).schema(json!({"required": [name]}));
        assert_eq!(
            case.found().await,
            [format!("data missing_required_field - trigger.{name}")]
        );
    }
}

#[tokio::test]
async fn texts_for_people_show_no_trigger_data() {
    let nodes = json!([
        node(
            "s",
            "send",
            json!({"to": "{{trigger.secret}}", "subject": "{{trigger.number}}"})
        ),
        node("g", "sign", json!({"signers": "{{trigger.signers}}"})),
    ]);
    let trigger = json!({
        "secret": "s3cret", "number": 5, "signers": [{"email": "s3cret"}, {"email": "x@s3cret.example"}, {"email": "x@S3CRET.example"}],
    });
    let issues = Case::new(nodes, trigger).issues().await;
    assert_eq!(issues.len(), 4);
    for issue in issues {
        assert!(
            !issue
                .message_human
                .render(crate::i18n::Locale::En)
                .to_lowercase()
                .contains("s3cret"),
            "{issue:?}"
        );
    }
}

#[tokio::test]
async fn a_node_type_that_is_gone_blocks() {
    let mut case = Case::new(
        json!([node("e", "extract", json!({"fields": {}}))]),
        json!({}),
    );
    case.registry = Registry::default();
    assert_eq!(case.found().await, ["data unknown_node_type e -"]);
}
