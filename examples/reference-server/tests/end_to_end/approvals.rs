//! Approvals, from the mail with the link to the page that states the decision.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::process::Server;

/// The workflow in which the provider approves a contract before it is sent.
pub(crate) const APPROVED_CONTRACT: &str = "01980000-0000-7000-8000-000000a99707";
const PROVIDER: &str = "contracts@provider.example.com";
const ANN: &str = "ann@example.com";
const BEN: &str = "ben@example.com";

/// Starts an execution with one approval, and waits until the approvers are asked.
async fn ask(server: &Server, params: Value) -> String {
    let node = json!({"id": "ok", "type": "approval", "phase": "save", "params": params});
    let id = server.start_nodes(json!([node])).await;
    let execution = server.until_it_awaits(&id, "approval").await;
    assert_eq!(execution["status"], "paused");
    id
}

async fn link(server: &Server, address: &str) -> String {
    server.link_to(address, "/approvals/").await
}

/// The addresses to which a page's forms are sent.
fn forms(page: &str) -> Vec<String> {
    let parts = page.split("<form method=\"post\" action=\"").skip(1);
    let target = |part: &str| part.split('"').next().unwrap_or_default().to_owned();
    parts.map(target).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_contract_is_approved_in_the_browser_before_it_is_sent() {
    let server = Server::start(&[]);
    let id = server
        .start_with_sample(APPROVED_CONTRACT, "contract.good.json")
        .await;
    server.until_it_awaits(&id, "approval").await;
    let link = link(&server, PROVIDER).await;
    assert!(
        link.starts_with(&format!("{}/approvals/", server.url)),
        "{link}"
    );
    let mails = server.mails_to(PROVIDER);
    assert_eq!(mails.len(), 1, "nothing has been sent but the question");
    assert!(
        mails[0].contains("Please approve: Contract 2026-0042"),
        "{}",
        mails[0]
    );

    let (status, page) = server.browse(&link).await;
    assert_eq!(status, StatusCode::OK);
    for shown in [
        "Service contract with approval",
        "Contract 2026-0042: Provider Ltd &#x2f; Customer Ltd",
        "contracts@provider.example.com: has not answered",
    ] {
        assert!(page.contains(shown), "{shown} is missing in {page}");
    }
    let (status, document) = server.browse(&format!("{link}/document.pdf")).await;
    assert!(status == StatusCode::OK && document.starts_with("%PDF-"));
    let targets = forms(&page);
    let path = &link[server.url.len()..];
    assert_eq!(
        targets,
        [format!("{path}/approve"), format!("{path}/reject")]
    );

    let target = format!("{}{}", server.url, targets[0]);
    let (status, page) = server
        .fill_in(&target, "comment=Looks+good%0D%0Ato+me")
        .await;
    assert_eq!(status, StatusCode::OK, "{page}");
    assert!(page.contains("<h1>Approved</h1>"), "{page}");
    assert!(page.contains("Looks good\nto me") && forms(&page).is_empty());
    let execution = server.until(&id, &["completed"]).await;
    assert_eq!(execution["delivery_state"], "sent");
    assert_eq!(
        server.mails_to(PROVIDER).len(),
        2,
        "now the contract has been sent"
    );

    let steps = server.get(&format!("/api/v1/executions/{id}/steps")).await;
    let steps = steps["steps"].as_array().expect("steps");
    let step = steps.iter().find(|step| step["node_id"] == "approve");
    assert_eq!(
        step.expect("its step")["data_out"],
        json!({"decision": "approved", "decided_by": PROVIDER, "comment": "Looks good\nto me"})
    );
    let audit = server
        .get(&format!("/api/v1/executions/{id}/audit?limit=100"))
        .await;
    let rows = audit["events"].as_array().expect("rows");
    let of_documents = rows.iter().filter(|row| row["target_type"] == "document");
    assert!(
        of_documents.clone().count() > 0,
        "the contract was rendered"
    );
    for row in of_documents {
        assert_ne!(row["target_id"], "approve", "an approval is no document");
    }
    let decided = rows.iter().find(|row| row["action"] == "approval.decided");
    let decided = decided.expect("the decision is audited");
    assert_eq!(
        (&decided["actor_id"], &decided["metadata"]["comment"]),
        (&json!(PROVIDER), &json!("Looks good\nto me"))
    );

    // The link still shows the decision, but not the document.
    let (status, page) = server.browse(&link).await;
    assert!(
        status == StatusCode::OK && page.contains("contracts@provider.example.com approved on")
    );
    let (status, _) = server.browse(&format!("{link}/document.pdf")).await;
    assert_eq!(status, StatusCode::GONE);
    let token = link.rsplit('/').next().expect("a token");
    assert!(!server.log().contains(token), "no token is logged");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_clicks_at_once_one_decides_and_the_other_is_told_who() {
    let server = Server::start(&[]);
    let id = ask(&server, json!({"approvers": [ANN, BEN]})).await;
    let (ann, ben) = (link(&server, ANN).await, link(&server, BEN).await);
    assert_ne!(ann, ben);
    let (yes, no) = (format!("{ann}/approve"), format!("{ben}/reject"));
    let (yes, again, no) = tokio::join!(
        server.fill_in(&yes, "comment="),
        server.fill_in(&yes, "comment="),
        server.fill_in(&no, "comment="),
    );
    let answers = [yes, again, no];
    let counted = |status| answers.iter().filter(|a| a.0 == status).count();
    assert_eq!(
        (counted(StatusCode::OK), counted(StatusCode::CONFLICT)),
        (1, 2),
        "{answers:?}"
    );
    let ended = server.until(&id, &["completed", "failed"]).await;
    let approved = ended["status"] == "completed";
    let winner = if approved { ANN } else { BEN };
    assert_eq!(answers[2].0 == StatusCode::OK, !approved);
    for (status, page) in &answers {
        assert!(page.contains(winner), "{page}");
        let too_late = page.contains("The decision had already been made");
        assert_eq!(too_late, *status == StatusCode::CONFLICT, "{page}");
        assert!(forms(page).is_empty());
    }
    let (status, page) = server.browse(&ben).await;
    let heading = if approved {
        "<h1>Approved"
    } else {
        "<h1>Not approved"
    };
    assert!(status == StatusCode::OK && page.contains(heading), "{page}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_gives_nothing_away_and_takes_no_markup() {
    let server = Server::start(&[]);
    let message = "<script>alert(1)</script>\"><b>";
    ask(
        &server,
        json!({"approvers": [ANN, BEN], "quorum": 2, "message": message}),
    )
    .await;
    let (ann, ben) = (link(&server, ANN).await, link(&server, BEN).await);
    let hostile = "comment=%3Cimg+src%3Dx+onerror%3Dalert(1)%3E";
    let (status, page) = server.fill_in(&format!("{ann}/approve"), hostile).await;
    assert_eq!(status, StatusCode::OK);
    assert!(page.contains("Your answer was recorded"), "{page}");

    let response = server
        .request(Method::GET, &ben)
        .header("accept-language", "pt-BR")
        .send()
        .await
        .expect("it answers");
    let headers = response.headers().clone();
    for (name, value) in [
        ("cache-control", "no-store"),
        ("referrer-policy", "no-referrer"),
        ("x-content-type-options", "nosniff"),
        ("x-robots-tag", "noindex"),
        ("content-type", "text/html; charset=utf-8"),
    ] {
        assert_eq!(headers[name], value);
    }
    let policy = headers["content-security-policy"].to_str().expect("text");
    for directive in [
        "default-src 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    ] {
        assert!(policy.contains(directive), "{policy}");
    }
    let page = response.text().await.expect("a page");
    assert!(page.contains("lang=\"pt-BR\"") && page.contains("Sua decisão é necessária"));
    assert!(!page.contains("<script") && !page.contains("<img") && !page.contains("<b>"));
    assert!(
        page.contains("&lt;script&gt;") && page.contains("&lt;img"),
        "{page}"
    );
    assert!(
        !page.contains(&ann[server.url.len()..]),
        "the other's link is theirs alone"
    );

    let wrong = format!("{}x", &ben[..ben.len() - 1]);
    let (status, page) = server.browse(&wrong).await;
    assert!(status == StatusCode::NOT_FOUND && page.contains("This link does not work"));
    let (status, page) = server
        .fill_in(&format!("{wrong}/approve"), "comment=")
        .await;
    assert!(status == StatusCode::NOT_FOUND && page.contains("This link does not work"));
    let long = "x".repeat(2_001);
    for (comment, says) in [
        (long.as_str(), "too long"),
        ("a%00b", "hidden characters"),
        ("a%1Bb", "hidden characters"),
        ("a%E2%80%AEb", "hidden characters"),
    ] {
        let form = format!("comment={comment}");
        let (status, page) = server.fill_in(&format!("{ben}/approve"), &form).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
        assert!(
            page.contains("role=\"alert\"") && page.contains(says) && forms(&page).len() == 2,
            "{page}"
        );
    }
    let lines = "comment=a%09b%0D%0Ac";
    let (status, page) = server.fill_in(&format!("{ben}/approve"), lines).await;
    assert_eq!(status, StatusCode::OK);
    assert!(page.contains("a\tb\nc"), "{page}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_and_the_page_take_the_same_token_and_expiry_closes_both() {
    let server = Server::start(&[]);
    let params = json!({"approvers": [ANN], "expires_in_ms": 1_500, "on_expiry": "review"});
    let id = ask(&server, params).await;
    let link = link(&server, ANN).await;
    let token = link.rsplit('/').next().expect("a token");
    let path = format!("/api/v1/approvals/{token}");
    let shown = server.get(&path).await;
    assert_eq!(shown["execution_id"], id);
    server.until(&id, &["needs_review"]).await;
    let (status, problem) = server.post(&format!("{path}/approve"), &json!({})).await;
    assert_eq!(
        (status, &problem["code"]),
        (StatusCode::CONFLICT, &json!("approval_expired"))
    );
    let (status, page) = server.fill_in(&format!("{link}/approve"), "comment=").await;
    assert!(
        status == StatusCode::CONFLICT && page.contains("The time to decide is over"),
        "{page}"
    );
    // A person resumes the execution, and the approvers are asked again.
    let changes = json!({"changes": {"nodes": {"ok": {"expires_in_ms": 600_000}}}});
    let (status, _) = server
        .post(&format!("/api/v1/executions/{id}/resume"), &changes)
        .await;
    assert_eq!(status, StatusCode::OK);
    server.until_it_awaits(&id, "approval").await;
    assert_eq!(server.mails_to(ANN).len(), 2);
}
