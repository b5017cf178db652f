//! Signers who read and sign in a real browser.

use super::{
    driver::{Browser, Settings},
    origin,
};
use crate::process::Server;

const ONE: &str = "signer.one@example.com";
const TWO: &str = "signer.two@example.com";

/// Opens the document in the page's frame and by the link below it. Asserts that it has the fingerprint that
/// the page shows.
async fn read_the_document(browser: &Browser, link: &str) {
    browser.enter_frame("iframe").await;
    // The frame holds the browser's PDF viewer. Scripts cannot read the viewer's content.
    let shown = browser.run("return document.contentType").await;
    assert_eq!(shown, "application/pdf");
    browser.leave_frame().await;

    let fingerprint = browser.text(".fingerprint code").await;
    browser.click("a[href$='/document.pdf']").await;
    let digest = browser
        .run_to_its_end(
            "const done = arguments[0];
             fetch(location.href)
               .then((answer) => answer.arrayBuffer())
               .then((bytes) => crypto.subtle.digest('SHA-256', bytes))
               .then((digest) => done(Array.from(new Uint8Array(digest),
                 (byte) => byte.toString(16).padStart(2, '0')).join('')), (error) => done(String(error)));",
        )
        .await;
    assert_eq!(digest, fingerprint);
    browser.goto(link).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_contract_is_read_and_signed_with_and_without_scripts() {
    let server = Server::start(&[]);
    let id = server.start_contract("contract.good.json").await;
    server.until_it_awaits_signatures(&id).await;

    let first = server.link_for(ONE).await;
    let browser = Browser::open(Settings::default()).await;
    browser.goto(&first).await;
    assert_eq!(browser.text("h1").await, "Sign a document");
    read_the_document(&browser, &first).await;
    // The browser does not submit the form without a name and consent.
    browser.click("form button").await;
    assert_eq!(browser.text("h1").await, "Sign a document");
    browser.type_into("#name", "Signer One").await;
    browser.click("input[name=consent]").await;
    browser.click("form button").await;
    browser.find("ul").await;
    assert_eq!(browser.text("h1").await, "Thank you");
    assert_eq!(browser.complaints().await, [""; 0]);

    let plain = Browser::open(Settings {
        scripts: false,
        ..Settings::default()
    });
    let plain = plain.await;
    let probe = "<title>without</title><script>document.title = 'with'</script>";
    plain.goto(&origin::serve(probe).await).await;
    assert_eq!(plain.title().await, "without", "scripts do not run");
    let second = server.link_for(TWO).await;
    plain.goto(&second).await;
    assert!(
        plain
            .text("ul")
            .await
            .contains("Legal representative of the provider: has signed")
    );
    plain.type_into("#name", "Signer Two").await;
    plain.click("input[name=consent]").await;
    plain.click("form button").await;
    assert_eq!(plain.text("h1").await, "Thank you");

    let execution = server.until(&id, &["completed"]).await;
    assert_eq!(execution["signature_state"], "signed");
    browser.goto(&first).await;
    assert_eq!(browser.text("h1").await, "This document has been signed");
    assert!(!browser.has("form").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signer_declines_and_reads_so() {
    let server = Server::start(&[]);
    let id = server.start_contract("contract.good.json").await;
    server.until_it_awaits_signatures(&id).await;
    let browser = Browser::open(Settings::default()).await;
    browser.goto(&server.link_for(ONE).await).await;
    browser
        .type_into("#reason", "The price is <b>wrong</b>")
        .await;
    browser.click("button.quiet").await;
    assert_eq!(browser.text("h1").await, "You have declined to sign");
    let execution = server.until(&id, &["needs_review"]).await;
    assert_eq!(execution["error_code"], "signature_declined");
    assert_eq!(execution["signature_state"], "declined");
    let human = execution["last_error_human"].as_str().expect("words");
    assert!(human.contains("The price is <b>wrong</b>"), "{human}");

    browser.goto(&server.link_for(TWO).await).await;
    assert_eq!(
        browser.text("h1").await,
        "This document is no longer open for signing"
    );
    assert!(!browser.has("form").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_in_portuguese_gets_portuguese_pages() {
    let server = Server::start(&[]);
    let id = server.start_contract("contract.good.json").await;
    server.until_it_awaits_signatures(&id).await;
    let browser = Browser::open(Settings {
        language: "pt-BR",
        ..Settings::default()
    });
    let browser = browser.await;
    browser.goto(&server.link_for(ONE).await).await;
    assert_eq!(
        browser
            .find("html")
            .await
            .attr("lang")
            .await
            .expect("an attribute")
            .as_deref(),
        Some("pt-BR")
    );
    assert_eq!(browser.text("h1").await, "Assinar um documento");
    browser.type_into("#name", "Representação legal").await;
    browser.click("input[name=consent]").await;
    browser.click("form button").await;
    assert_eq!(browser.text("h1").await, "Obrigado");
    browser.goto(&format!("{}/sign/unknown", server.url)).await;
    assert_eq!(browser.text("h1").await, "Este link não funciona");
}
