//! An approver who decides in a real browser.

use super::driver::{Browser, Settings};
use crate::{approvals::APPROVED_CONTRACT, process::Server};

#[tokio::test(flavor = "multi_thread")]
async fn an_approver_without_scripts_says_yes_and_the_contract_is_sent() {
    let server = Server::start(&[]);
    let id = server
        .start_with_sample(APPROVED_CONTRACT, "contract.good.json")
        .await;
    server.until_it_awaits(&id, "approval").await;
    let link = server.link_to("contracts@provider.example.com", "/approvals/");
    let link = link.await;

    let browser = Browser::open(Settings {
        scripts: false,
        ..Settings::default()
    });
    let browser = browser.await;
    browser.goto(&link).await;
    assert!(browser.text("ul").await.contains("has not answered"));
    browser.type_into("#approve-comment", "Go ahead").await;
    browser.click("form[action$='/approve'] button").await;
    let execution = server.until(&id, &["completed"]).await;
    assert_eq!(execution["delivery_state"], "sent");
    // Once the approver has decided, the link's page has no form.
    browser.goto(&link).await;
    assert!(!browser.has("form").await, "{}", browser.source().await);
    assert_eq!(browser.complaints().await, [""; 0]);
}
