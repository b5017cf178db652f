//! A person who uses the console in a real browser, at three widths, in both languages, light and dark.

use std::{fs, path::PathBuf};

use serde_json::{Value, json};

use super::driver::{Browser, Settings};
use crate::process::Server;

/// The accessibility checker axe-core, which `scripts/test` fetches.
fn axe() -> String {
    let file = std::env::var("DOCG_TEST_AXE").expect(
        "DOCG_TEST_AXE names axe.min.js of the npm package axe-core; scripts/test fetches it",
    );
    fs::read_to_string(&file).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// A reader of the console.
struct Reader {
    browser: Browser,
    axe: String,
    seen: usize,
    name: &'static str,
}

impl Reader {
    async fn sign_in(server: &Server, language: &'static str, name: &'static str) -> Self {
        let settings = Settings {
            language,
            ..Settings::default()
        };
        let browser = Browser::open(settings).await;
        let token = server.token.clone();
        browser
            .goto(&format!("{}/console#token={token}", server.url))
            .await;
        Self {
            browser,
            axe: axe(),
            seen: 0,
            name,
        }
    }

    /// Looks at the page: keeps a picture of it, and asserts that axe finds nothing and nothing is wider than the page.
    async fn look(&mut self, what: &str) {
        // Let the page's last answers arrive, so that the picture is of a page at rest.
        self.browser
            .run_to_its_end("setTimeout(arguments[0], 300)")
            .await;
        self.seen += 1;
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("console");
        fs::create_dir_all(&folder).expect("a folder");
        let file = folder.join(format!("{}-{:02}-{what}.png", self.name, self.seen));
        fs::write(file, self.browser.picture().await).expect("is kept");
        let script = format!(
            "const done = arguments[0]; {};
             axe.run().then((found) => done(found.violations.map(
                 (it) => it.id + ': ' + it.nodes.map((node) => node.html).join(' '))));",
            self.axe
        );
        let found = self.browser.run_to_its_end(&script).await;
        assert_eq!(found, json!([]), "{what}");
        let is_wide = "return document.documentElement.scrollWidth > innerWidth";
        assert_eq!(self.browser.run(is_wide).await, json!(false), "{what}");
    }

    async fn open(&self, place: &str) {
        let moved = format!("location.hash = {}", json!(place));
        self.browser.run(&moved).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_contract_is_found_repaired_and_read_in_the_console() {
    let server = Server::start(&[]);
    let id = server.start_contract("contract.bad-email.json").await;
    server.until(&id, &["needs_review"]).await;

    let mut reader = Reader::sign_in(&server, "en-US", "wide").await;
    reader.browser.emulate(1440, 1000, "light").await;
    reader.browser.find(".cards .card").await;
    assert_eq!(reader.browser.text("h1").await, "Inbox");
    reader.look("inbox").await;
    reader.browser.click(".cards .card .button").await;
    reader.browser.find(".notice.ask").await;
    reader.look("needs-review").await;
    for tab in ["steps", "log", "audit", "raw"] {
        reader.open(&format!("#/executions/{id}/{tab}")).await;
        reader
            .browser
            .find(&format!(".tabs a[href$='{tab}'][aria-current]"))
            .await;
        reader.look(tab).await;
    }
    for (place, css) in [
        ("#/executions", "table.list"),
        ("#/workflows", ".cards .card"),
        ("#/system", ".notice.good"),
        ("#/nowhere", "main h1"),
    ] {
        reader.open(place).await;
        reader.browser.find(css).await;
        reader.look(place.trim_start_matches("#/")).await;
    }
    reader.open("#/workflows").await;
    reader.browser.click(".cards .card .button").await;
    reader.browser.find("form .main").await;
    reader.look("start").await;

    // The form has the wrong value, and sends the right one.
    reader.open(&format!("#/executions/{id}")).await;
    reader.browser.find(".status.needs_review").await;
    let correct = "for (const input of document.querySelectorAll('section form input')) {
            input.value = input.value.includes('@@') ? input.value.replace('@@', '@')
                : input.value.replace('.', '@');
            input.dispatchEvent(new Event('input', {bubbles: true}));
        }";
    reader.browser.run(correct).await;
    reader.look("corrected").await;
    reader.browser.click("section form .main").await;
    reader.browser.find(".status.signing").await;
    reader.look("signing").await;

    // Another call changes the execution; the page shows that by itself.
    let (status, canceled) = server
        .post(&format!("/api/v1/executions/{id}/cancel"), &json!({}))
        .await;
    assert_eq!(status.as_u16(), 200, "{canceled}");
    reader.browser.find(".status.canceled").await;
    assert_eq!(reader.browser.complaints().await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_console_fits_a_phone_in_portuguese_and_in_the_dark() {
    let server = Server::start(&[]);
    let broken = server.start_contract("contract.bad-email.json").await;
    server.until(&broken, &["needs_review"]).await;
    let signing = server.start_contract("contract.good.json").await;
    server.until_it_awaits_signatures(&signing).await;

    let mut reader = Reader::sign_in(&server, "pt-BR", "phone").await;
    reader.browser.emulate(390, 844, "dark").await;
    reader.browser.find(".cards .card").await;
    assert_eq!(reader.browser.text("h1").await, "Entrada");
    reader.look("inbox").await;
    for (place, css) in [
        ("#/executions".to_owned(), "table.list"),
        (format!("#/executions/{signing}"), ".timeline"),
        (format!("#/executions/{broken}"), ".notice.ask"),
        (format!("#/executions/{signing}/steps"), "ol .card"),
        ("#/workflows".to_owned(), ".cards .card"),
    ] {
        reader.open(&place).await;
        reader.browser.find(css).await;
        reader.look("page").await;
    }
    let small = "return [...document.querySelectorAll('button, a.button, .top nav a')]
        .filter((it) => it.offsetParent && it.offsetHeight < 44).map((it) => it.outerHTML)";
    let small: Value = reader.browser.run(small).await;
    assert_eq!(small, json!([]), "a finger needs 44 pixels");
    assert_eq!(reader.browser.complaints().await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_token_is_told_and_the_start_page_leads_to_the_console() {
    let server = Server::start(&[]);
    let browser = Browser::open(Settings::default()).await;
    browser.goto(&server.url).await;
    assert_eq!(browser.text("h1").await, "docg runs document workflows");
    browser.click("a[href='/console']").await;
    browser.type_into("#token", "wrong").await;
    browser.click("form .main").await;
    let told = browser.text("[role=alert]").await;
    assert!(told.contains("not accepted"), "{told}");
}
