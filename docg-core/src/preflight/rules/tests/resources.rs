use super::*;

fn render() -> Value {
    json!([node("r", "render", json!({"template": "t"}))])
}

fn save() -> Value {
    json!([node(
        "v",
        "save",
        json!({"file": {"name": "f"}, "folder": "f", "connection": "c"})
    )])
}

fn sign() -> Value {
    json!([node(
        "g",
        "sign",
        json!({"signers": [{"email": "a@example.com"}], "provider": "c"})
    )])
}

#[tokio::test]
async fn a_template_must_be_selected() {
    for blank in [
        json!({}),
        json!({"template": ""}),
        json!({"template": "{{trigger.none}}"}),
    ] {
        let case = Case::new(json!([node("r", "render", blank)]), json!({"none": null}));
        assert_eq!(
            case.found().await,
            ["template template_not_selected r template"]
        );
        assert_eq!(case.probe.asked.lock().expect("not poisoned").len(), 0);
    }
}

#[tokio::test]
async fn what_a_provider_refuses_blocks_with_its_code_in_its_domain() {
    for (nodes, name, code, expected) in [
        (
            render(),
            "template:t",
            "template_not_found",
            "template template_not_found r template",
        ),
        (
            render(),
            "template:t",
            "template_invalid_tags",
            "template template_invalid_tags r template",
        ),
        (
            render(),
            "template:t",
            "drive.insufficient_permissions",
            "permissions drive.insufficient_permissions r template",
        ),
        (
            render(),
            "template:t",
            "oauth_expired",
            "permissions oauth_expired r template",
        ),
        (
            save(),
            "folder:f",
            "drive.folder_not_found",
            "delivery drive.folder_not_found v folder",
        ),
        (
            save(),
            "folder:f",
            "onedrive.insufficient_permissions",
            "permissions onedrive.insufficient_permissions v folder",
        ),
        (
            save(),
            "connection:c",
            "oauth_expired",
            "permissions oauth_expired v connection",
        ),
        (
            save(),
            "connection:c",
            "oauth_revoked",
            "permissions oauth_revoked v connection",
        ),
        (
            save(),
            "connection:c",
            "api_key_invalid",
            "permissions api_key_invalid v connection",
        ),
        (
            save(),
            "connection:c",
            "connection_error",
            "permissions connection_error v connection",
        ),
        (
            save(),
            "connection:c",
            "acme.quota_of_moons",
            "permissions acme.quota_of_moons v connection",
        ),
        (
            sign(),
            "connection:c",
            "connection_error",
            "signature connection_error g provider",
        ),
    ] {
        let case = Case::new(nodes, json!({})).provider(Provider::refusing(name, code));
        assert_eq!(case.found().await, [expected]);
    }
}

#[tokio::test]
async fn the_words_of_a_provider_are_kept_and_docg_has_its_own_where_there_are_none() {
    let own = ProbeFailure::Refused {
        code: "acme.odd".into(),
        human: Some("Ask the desk.".into()),
        tech: Some("E42".into()),
    };
    let case = Case::new(render(), json!({}))
        .provider(Provider::default().with("template:t", Reply::Fails(own)));
    let issue = case.issues().await.remove(0);
    assert_eq!(
        issue.message_human.render(crate::i18n::Locale::PtBr),
        "Ask the desk."
    );
    assert_eq!(issue.message_tech.as_deref(), Some("\"t\": E42"));

    let case = Case::new(save(), json!({})).provider(Provider::refusing(
        "folder:f",
        "sharepoint.folder_not_found",
    ));
    let text = case
        .issues()
        .await
        .remove(0)
        .message_human
        .render(crate::i18n::Locale::En);
    assert_eq!(text, "The folder of “v” was not found. Select another one.");
}

#[tokio::test]
async fn a_large_template_is_a_warning() {
    let case = Case::new(render(), json!({}))
        .provider(Provider::default().with("template:t", Reply::Size(5 << 20)));
    assert_eq!(
        case.found().await,
        ["template template.large_file? r template"]
    );
    let case = Case::new(render(), json!({}))
        .provider(Provider::default().with("template:t", Reply::Size((5 << 20) - 1)));
    assert_eq!(case.found().await, [""; 0]);
}

#[tokio::test]
async fn what_cannot_be_asked_is_a_warning_of_its_domain() {
    for reply in [
        Reply::Hangs,
        Reply::Panics,
        Reply::Fails(ProbeFailure::Unreachable("no route".to_owned())),
    ] {
        for (nodes, name, expected) in [
            (
                render(),
                "template:t",
                "template template.check_failed? r template",
            ),
            (
                save(),
                "folder:f",
                "delivery delivery.check_failed? v folder",
            ),
            (
                save(),
                "connection:c",
                "permissions permissions.check_failed? v connection",
            ),
            (
                sign(),
                "connection:c",
                "signature signature.check_failed? g provider",
            ),
        ] {
            let case =
                Case::new(nodes, json!({})).provider(Provider::default().with(name, reply.clone()));
            assert_eq!(case.found().await, [expected]);
        }
    }
}

#[tokio::test]
async fn one_answer_serves_all_who_ask_in_the_order_of_the_nodes() {
    let nodes = json!([
        node("slow", "render", json!({"template": "gone"})),
        node(
            "same",
            "render",
            json!({"template": "{{trigger.t}}", "cover": "other"})
        ),
    ]);
    let provider = Provider::refusing("template:gone", "template_not_found");
    let case = Case::new(nodes, json!({"t": "gone"})).provider(provider);
    assert_eq!(
        case.found().await,
        [
            "template template_not_found slow template",
            "template template_not_found same template"
        ]
    );
    assert_eq!(case.probe.asked.lock().expect("not poisoned").len(), 2);
}

#[tokio::test]
async fn a_name_that_only_comes_later_is_not_asked_about() {
    let nodes = json!([
        node("e", "extract", json!({"fields": {"t": 1}})),
        node("r", "render", json!({"template": "{{steps.e.t}}"})),
    ]);
    let case = Case::new(nodes, json!({}));
    assert_eq!(case.found().await, [""; 0]);
    assert_eq!(case.probe.asked.lock().expect("not poisoned").len(), 0);
}
