//! A contract from the trigger data to the last signature, as the API and the mails show it.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::process::{CONTRACT, Server, sample_data};

const ONE: &str = "signer.one@example.com";
const TWO: &str = "signer.two@example.com";

#[tokio::test(flavor = "multi_thread")]
async fn preflight_finds_what_is_wrong_with_the_samples() {
    let server = Server::start(&[]);
    for (sample, found) in [
        ("contract.good.json", vec![]),
        ("contract.good.pt-BR.json", vec![]),
        (
            "contract.no-signers.json",
            vec![("signature", "no_signers")],
        ),
        (
            "contract.duplicate-signer.json",
            vec![("signature", "duplicate_signer")],
        ),
        (
            "contract.bad-email.json",
            vec![
                ("delivery", "invalid_email_format"),
                ("signature", "invalid_email_format"),
            ],
        ),
        (
            "contract.wrong-type.json",
            vec![("data", "invalid_field_format")],
        ),
        (
            "contract.missing-customer.json",
            vec![
                ("data", "missing_required_field"),
                ("data", "unresolved_variables"),
                ("template", "template_invalid_tags"),
            ],
        ),
    ] {
        let body = json!({"trigger_data": sample_data(sample)});
        let path = format!("/api/v1/workflows/{CONTRACT}/preflight");
        let (status, answer) = server.post(&path, &body).await;
        assert_eq!(status, StatusCode::OK, "{sample}: {answer}");
        let groups = answer["groups"].as_object().expect("groups");
        let issues = groups.iter().flat_map(|(domain, issues)| {
            let issues = issues.as_array().expect("a list").iter();
            issues.map(move |issue| (domain.as_str(), issue["code"].as_str().unwrap_or_default()))
        });
        let mut issues: Vec<_> = issues.collect();
        issues.sort_unstable();
        issues.dedup();
        assert_eq!(issues, found, "{sample}: {answer:#}");
        assert_eq!(answer["can_execute"], found.is_empty(), "{sample}");
        let actions = answer["recommended_actions"].as_array().expect("a list");
        assert_eq!(actions.is_empty(), found.is_empty(), "{sample}");
    }
    let (_, list) = server
        .post(
            &format!("/api/v1/workflows/{CONTRACT}/preflight"),
            &json!({}),
        )
        .await;
    assert_eq!(
        list["can_execute"], false,
        "no data at all is wrong too: {list}"
    );
    let executions = server.get("/api/v1/executions").await;
    assert_eq!(
        executions["executions"],
        json!([]),
        "preflight creates nothing"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_contract_goes_from_trigger_data_to_the_last_signature() {
    let server = Server::start(&[]);
    let id = server.start_contract("contract.good.json").await;
    let execution = server.until_it_awaits_signatures(&id).await;
    assert_eq!(execution["delivery_state"], "sent");

    // One mail has the contract. Each signer gets a mail with a link.
    let contract = server.mails_to("purchasing@customer.example.com");
    assert_eq!(contract.len(), 1);
    assert!(
        contract[0].contains("Contract 2026-0042.pdf"),
        "{}",
        contract[0]
    );
    let first = server.link_for(ONE).await;
    assert!(
        first.starts_with(&format!("{}/sign/", server.url)),
        "{first}"
    );

    let original = download(&server, &id, "render").await;
    let (status, page) = server.browse(&first).await;
    assert!(
        status == StatusCode::OK && page.contains("<form method=\"post\""),
        "{page}"
    );
    let (status, shown) = server.browse(&format!("{first}/document.pdf")).await;
    assert!(status == StatusCode::OK && shown.starts_with("%PDF-"));
    let (status, page) = server.fill_in(&first, "name=Signer+One&consent=yes").await;
    assert!(
        status == StatusCode::OK && page.contains("Thank you"),
        "{page}"
    );
    let second = server.link_for(TWO).await;
    server.browse(&second).await;
    let (status, _) = server.fill_in(&second, "name=Signer+Two&consent=yes").await;
    assert_eq!(status, StatusCode::OK);

    let execution = server.until(&id, &["completed"]).await;
    assert_eq!(execution["progress"], 100);
    assert_eq!(execution["signature_state"], "signed");
    let (status, page) = server.browse(&first).await;
    assert!(
        status == StatusCode::GONE && page.contains("This document has been signed"),
        "{page}"
    );

    let signed = download(&server, &id, "sign").await;
    assert!(signed.starts_with(&original) && signed.len() > original.len());
    the_stream_replays_from_its_middle(&server, &id).await;
    the_trail_names_what_happened(&server, &id).await;
    let signers = signers(&server, &id).await;
    for signer in &signers {
        assert_eq!(signer["status"], "signed");
        assert!(
            signer["viewed_at"].is_string() && signer["signed_at"].is_string(),
            "{signer}"
        );
    }
}

async fn download(server: &Server, id: &str, node: &str) -> Vec<u8> {
    let path = format!("/api/v1/executions/{id}/files/{node}");
    let response = server
        .request(Method::GET, &path)
        .send()
        .await
        .expect("it answers");
    assert_eq!(response.status(), StatusCode::OK, "{node}");
    assert_eq!(response.headers()["content-type"], "application/pdf");
    let disposition = response.headers()["content-disposition"]
        .to_str()
        .expect("text");
    assert!(
        disposition.starts_with("attachment; filename=\"Contract 2026-0042"),
        "{disposition}"
    );
    response.bytes().await.expect("a document").to_vec()
}

async fn the_stream_replays_from_its_middle(server: &Server, id: &str) {
    let all = server.stream(id, None).await;
    let seqs: Vec<u64> = all
        .iter()
        .filter_map(|(_, _, data)| data["seq"].as_u64())
        .collect();
    assert_eq!(seqs, (1..=all.len() as u64).collect::<Vec<_>>());
    let types: Vec<&str> = all.iter().map(|(_, event, _)| event.as_str()).collect();
    for expected in [
        "execution.created",
        "preflight.completed",
        "step.completed",
        "signature.requested",
        "signature.signer.viewed",
        "signature.signer.signed",
        "signature.completed",
    ] {
        assert!(
            types.contains(&expected),
            "{expected} is missing in {types:?}"
        );
    }
    assert_eq!(types.last(), Some(&"execution.completed"));
    let middle = all.len() / 2;
    assert_eq!(
        server.stream(id, Some(&all[middle].0)).await,
        all[middle + 1..]
    );
    assert!(
        server
            .stream(id, all.last().map(|(id, ..)| id.as_str()))
            .await
            .is_empty()
    );
}

async fn the_trail_names_what_happened(server: &Server, id: &str) {
    let verdict = server
        .get(&format!("/api/v1/executions/{id}/audit/verify"))
        .await;
    assert_eq!(verdict["valid"], true, "{verdict}");
    let trail = server
        .get(&format!("/api/v1/executions/{id}/audit?limit=100"))
        .await;
    let rows = trail["events"].as_array().expect("rows");
    let actions: Vec<_> = rows
        .iter()
        .map(|row| row["action"].as_str().unwrap_or_default())
        .collect();
    for action in [
        "execution.started",
        "document.generated",
        "document.saved",
        "document.sent",
        "signature.requested",
        "signature.viewed",
        "signature.signed",
        "execution.completed",
    ] {
        assert!(
            actions.contains(&action),
            "{action} is missing in {actions:?}"
        );
    }
    let signed = rows
        .iter()
        .find(|row| row["action"] == "signature.signed")
        .expect("it is there");
    assert_eq!(signed["actor_type"], "webhook");
}

async fn signers(server: &Server, id: &str) -> Vec<Value> {
    let steps = server.get(&format!("/api/v1/executions/{id}/steps")).await;
    let steps = steps["steps"].as_array().expect("steps");
    let step = steps
        .iter()
        .find(|step| step["node_id"] == "sign")
        .expect("it is there");
    let request = step["data_out"]["signature_request_id"]
        .as_str()
        .expect("an id");
    let answer = server
        .get(&format!("/api/v1/signatures/{request}/signers"))
        .await;
    assert_eq!(answer["all_signed"], true, "{answer}");
    answer["signers"].as_array().expect("signers").clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signer_who_declines_ends_the_contract_with_the_reason() {
    let server = Server::start(&[]);
    let id = server.start_contract("contract.good.json").await;
    server.until_it_awaits_signatures(&id).await;
    let link = server.link_for(ONE).await;
    let (status, page) = server
        .fill_in(&format!("{link}/decline"), "reason=The+price+is+wrong")
        .await;
    assert!(
        status == StatusCode::OK && page.contains("You have declined"),
        "{page}"
    );
    let execution = server.until(&id, &["failed", "needs_review"]).await;
    assert_eq!(execution["error_code"], "signature_declined");
    assert_eq!(execution["signature_state"], "declined");
    let human = execution["last_error_human"].as_str().expect("words");
    assert!(human.contains("The price is wrong"), "{human}");
    assert!(
        !execution["recommended_actions"]
            .as_array()
            .expect("a list")
            .is_empty()
    );
    let other = server.link_for(TWO).await;
    let (status, page) = server.fill_in(&other, "name=Signer+Two&consent=yes").await;
    assert!(
        status == StatusCode::GONE && page.contains("no longer open"),
        "{page}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_canceled_contract_can_no_longer_be_signed() {
    let server = Server::start(&[]);
    let id = server.start_contract("contract.good.json").await;
    server.until_it_awaits_signatures(&id).await;
    let link = server.link_for(ONE).await;
    let (status, _) = server
        .post(&format!("/api/v1/executions/{id}/cancel"), &json!({}))
        .await;
    assert_eq!(status, StatusCode::OK);
    for (status, page) in [
        server.browse(&link).await,
        server.fill_in(&link, "name=Signer+One&consent=yes").await,
    ] {
        assert!(
            status == StatusCode::GONE && page.contains("has withdrawn it"),
            "{page}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_is_given_to_its_own_organization_only() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("tokens.json");
    let scopes = json!(["executions:read", "executions:write"]);
    let (ours, theirs) = (
        "a-token-of-the-first-organization",
        "a-token-of-the-second-organization",
    );
    let entry = |token: &str, number: u8, scopes: &Value| {
        json!({"token": token, "actor": "test", "scopes": scopes,
            "organizations": [format!("0197a000-0000-7000-8000-{number:012}")]})
    };
    let blind = "a-token-without-any-scope-at-all";
    let tokens = json!({"tokens": [
        entry(ours, 1, &scopes), entry(theirs, 2, &scopes), entry(blind, 1, &json!([])),
    ]});
    std::fs::write(&file, tokens.to_string()).expect("written");
    let mut server = Server::start(&["--auth-file", file.to_str().expect("text")]);
    assert!(
        !server.log().contains("development token"),
        "{}",
        server.log()
    );
    server.token = ours.to_owned();
    let id = server.start_contract("contract.good.json").await;
    server.until_it_awaits_signatures(&id).await;
    download(&server, &id, "render").await;
    let path = format!("/api/v1/executions/{id}/files/render");
    for (token, path, expected) in [
        (theirs, path.as_str(), StatusCode::NOT_FOUND),
        (blind, path.as_str(), StatusCode::FORBIDDEN),
        (
            "a-token-that-nobody-has-given",
            path.as_str(),
            StatusCode::UNAUTHORIZED,
        ),
        (
            ours,
            &format!("/api/v1/executions/{id}/files/unknown"),
            StatusCode::NOT_FOUND,
        ),
        (
            ours,
            &format!("/api/v1/executions/{id}/files/save"),
            StatusCode::NOT_FOUND,
        ),
        (
            ours,
            "/api/v1/executions/no-uuid/files/render",
            StatusCode::NOT_FOUND,
        ),
    ] {
        server.token = token.to_owned();
        let response = server
            .request(Method::GET, path)
            .send()
            .await
            .expect("it answers");
        assert_eq!(response.status(), expected, "{token} {path}");
        assert_eq!(
            response.headers()["content-type"],
            "application/problem+json"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scrape_shows_what_was_done() {
    let server = Server::start(&[]);
    let id = server.start_contract("contract.good.json").await;
    server.until_it_awaits_signatures(&id).await;
    // `browse` sends no credentials, as Prometheus does not.
    let (status, page) = server.browse(&format!("{}/metrics", server.url)).await;
    assert_eq!(status, StatusCode::OK);
    for line in [
        "# TYPE docg_executions_created_total counter",
        "docg_executions_created_total 1",
        "docg_execution_status_changes_total{to=\"signing\"} 1",
        "docg_steps_total{node_type=\"render-pdf\",outcome=\"success\"} 1",
        "docg_step_duration_seconds_count{node_type=\"send-email\"} 1",
    ] {
        assert!(page.lines().any(|it| it == line), "{line}:\n{page}");
    }
    assert!(!page.contains(&id), "no label holds an id");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_finished_document_is_signed_by_somebody_else_later() {
    let server = Server::start(&[]);
    let template = json!({"template": "contract.typ", "data": "{{trigger}}",
        "filename": "Contract 2026-0042"});
    let contract = sample_data("contract.good.json");
    let nodes = json!([
        {"id": "render", "type": "render-pdf", "phase": "render", "params": template},
        {"id": "save", "type": "save-file", "phase": "save",
            "params": {"file": "{{steps.render.file}}", "folder": "signed-later"}},
    ]);
    let id = server.start_nodes_with(nodes, &contract).await;
    let done = server
        .until(&id, &["completed", "failed", "needs_review"])
        .await;
    assert_eq!(done["status"], "completed", "{done:#}");
    let body = json!({"signers": [{"email": ONE, "name": "Signer One"}]});
    let path = format!("/api/v1/executions/{id}/request-signature");
    let (status, follower) = server.post(&path, &body).await;
    assert_eq!(status, StatusCode::CREATED, "{follower}");
    assert_eq!(follower["follows"], id.as_str());
    let follower = follower["id"].as_str().expect("an id").to_owned();
    server.until_it_awaits_signatures(&follower).await;
    let link = server.link_for(ONE).await;
    let (status, page) = server.fill_in(&link, "name=Signer+One&consent=yes").await;
    assert!(status == StatusCode::OK, "{page}");
    let signed = server.until(&follower, &["completed", "failed"]).await;
    assert_eq!(signed["status"], "completed", "{signed:#}");
    let pdf = download(&server, &follower, "request_signature").await;
    assert!(pdf.starts_with(b"%PDF-"));
}
