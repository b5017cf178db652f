use super::*;
use crate::limits::PEOPLE;

async fn send(to: Value) -> Vec<String> {
    let nodes = json!([node(
        "s",
        "send",
        json!({"to": "{{trigger.to}}", "subject": "s"})
    )]);
    Case::new(nodes, json!({"to": to})).found().await
}

#[tokio::test]
async fn nobody_to_deliver_to_is_a_missing_recipient() {
    for nobody in [
        json!(null),
        json!(""),
        json!(" "),
        json!([]),
        json!([""]),
        json!([null, " "]),
    ] {
        assert_eq!(
            send(nobody.clone()).await,
            ["delivery missing_recipient s to"],
            "{nobody}"
        );
    }
    let nodes = json!([node("s", "send", json!({"subject": "s"}))]);
    assert_eq!(
        Case::new(nodes, json!({})).found().await,
        ["delivery missing_recipient s to"]
    );
}

#[tokio::test]
async fn every_wrong_address_is_named_by_its_place() {
    assert_eq!(
        send(json!("nobody")).await,
        ["delivery invalid_email_format s to"]
    );
    assert_eq!(
        send(json!(["nobody"])).await,
        ["delivery invalid_email_format s to"]
    );
    assert_eq!(
        send(json!(["a@example.com", "nobody", 5, ""])).await,
        [
            "delivery invalid_email_format s to.1",
            "delivery invalid_email_format s to.2",
            "delivery invalid_email_format s to.3"
        ]
    );
    assert_eq!(send(json!(vec!["nobody"; 5_000])).await.len(), 20);
    let many: Vec<_> = (0..=PEOPLE).map(|n| format!("{n}@example.com")).collect();
    assert_eq!(send(json!(many[1..])).await, [""; 0]);
    assert_eq!(send(json!(many)).await, ["delivery too_many s to"]);
}

#[tokio::test]
async fn addresses_are_checked_one_by_one_where_some_come_later() {
    let nodes = json!([
        node("r", "render", json!({"template": "t"})),
        node(
            "s",
            "send",
            json!({"to": ["{{steps.r.file}}", "nobody", "{{trigger.hostile}}"], "subject": "s", "reply_to": "x", "cc": "y"})
        ),
    ]);
    let case = Case::new(nodes, json!({"hostile": "{{steps.r.file}}"}));
    assert_eq!(
        case.found().await,
        [
            "delivery invalid_email_format s to.1",
            "delivery invalid_email_format s to.2",
            "delivery invalid_email_format s cc",
            "delivery invalid_email_format s reply_to",
        ]
    );
}

async fn sign(signers: Value) -> Vec<String> {
    let nodes = json!([node("g", "sign", json!({"signers": "{{trigger.signers}}"}))]);
    Case::new(nodes, json!({"signers": signers})).found().await
}

#[tokio::test]
async fn nobody_to_sign_is_no_signers() {
    for nobody in [json!(null), json!([]), json!("")] {
        assert_eq!(
            sign(nobody.clone()).await,
            ["signature no_signers g signers"],
            "{nobody}"
        );
    }
    let nodes = json!([node("g", "sign", json!({}))]);
    assert_eq!(
        Case::new(nodes, json!({})).found().await,
        ["signature no_signers g signers"]
    );
}

#[tokio::test]
async fn signers_need_an_address_each_their_own() {
    let signers = json!([
        {"email": "ann@example.com", "name": "Signer", "order": 1},
        {"name": "Witness"},
        {"email": " "},
        {"email": "nobody"},
        {"email": "Ann <ANN@example.COM>"},
        "carl@example.com",
        {"email": "dan@example.com", "name": 5, "order": "first"},
    ]);
    assert_eq!(
        sign(signers).await,
        [
            "signature signer_missing_email g signers.1.email",
            "signature signer_missing_email g signers.2.email",
            "signature invalid_email_format g signers.3.email",
            "signature duplicate_signer g signers.4.email",
            "signature invalid_field_format g signers.5",
            "signature invalid_field_format g signers.6.name",
            "signature invalid_field_format g signers.6.order",
        ]
    );
    assert_eq!(sign(json!(vec![json!({}); 5_000])).await.len(), 20);
}

#[tokio::test]
async fn signers_written_in_the_definition_are_checked_too() {
    let nodes = json!([
        node("r", "render", json!({"template": "t"})),
        node(
            "g",
            "sign",
            json!({"signers": [
            {"email": "{{trigger.a}}"}, {"email": "{{trigger.b}}"}, {"email": "{{steps.r.file}}"}, {"name": "x"}]})
        ),
    ]);
    let case = Case::new(nodes, json!({"a": "a@example.com", "b": "A@example.com"}));
    assert_eq!(
        case.found().await,
        [
            "signature duplicate_signer g signers.1.email",
            "signature signer_missing_email g signers.3.email"
        ]
    );
}
