//! A headless Chromium, driven through chromedriver (W3C WebDriver).

use std::{
    ffi::OsString,
    io::{BufRead, BufReader},
    os::unix::process::CommandExt,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::mpsc,
    time::Duration,
};

use axum::http;
use fantoccini::{
    Client, ClientBuilder, Locator,
    elements::Element,
    wd::{Capabilities, WebDriverCompatibleCommand},
};
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::{Value, json};
use url::Url;

use crate::process::DEADLINE;

const INSTALL: &str = "the browser tests need chromedriver and chromium: install them (Debian: apt-get \
     install chromium chromium-driver), or name them in CHROMEDRIVER and CHROMIUM";

/// The settings of a person's browser.
#[derive(Debug, Clone, Copy)]
pub(super) struct Settings {
    pub(super) language: &'static str,
    pub(super) scripts: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            language: "en-US",
            scripts: true,
        }
    }
}

/// A browser. It ends with the test, even if the test is killed.
pub(super) struct Browser {
    page: Client,
    driver: Child,
    // Holds the browser's profile. It is dropped last, after browser and driver have ended.
    _folder: tempfile::TempDir,
}

impl Browser {
    pub(super) async fn open(settings: Settings) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        // The shell's input closes when this process ends, even by a kill. The shell then kills its process
        // group: itself, the driver and the browser.
        let mut driver = Command::new("sh")
            .args(["-c", "\"$@\" & read -r _; kill -s KILL 0", "sh"])
            .arg(program("CHROMEDRIVER", &["chromedriver"]))
            .arg("--port=0")
            .process_group(0)
            .env("TMPDIR", folder.path())
            .env("HOME", folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("there is a shell");
        let url = format!("http://127.0.0.1:{}/", port_of(&mut driver));
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(DEADLINE));
        let mut builder = ClientBuilder::new(connector);
        builder.capabilities(capabilities(settings));
        let page = builder.connect(&url).await;
        let page = page.unwrap_or_else(|error| panic!("{error}; {INSTALL}"));
        Self {
            page,
            driver,
            _folder: folder,
        }
    }

    pub(super) async fn goto(&self, url: &str) {
        self.page.goto(url).await.expect("the page loads");
    }

    pub(super) async fn title(&self) -> String {
        self.page.title().await.expect("a title")
    }

    pub(super) async fn find(&self, css: &str) -> Element {
        let wait = self.page.wait().at_most(DEADLINE);
        let found = wait
            .every(Duration::from_millis(25))
            .for_element(Locator::Css(css));
        match found.await {
            Ok(element) => element,
            Err(error) => panic!("no {css}: {error}\n{}", self.source().await),
        }
    }

    pub(super) async fn text(&self, css: &str) -> String {
        self.find(css).await.text().await.expect("a text")
    }

    pub(super) async fn type_into(&self, css: &str, text: &str) {
        let field = self.find(css).await;
        field.send_keys(text).await.expect("it takes text");
    }

    pub(super) async fn click(&self, css: &str) {
        self.find(css).await.click().await.expect("it is clicked");
    }

    pub(super) async fn has(&self, css: &str) -> bool {
        let found = self.page.find_all(Locator::Css(css)).await;
        !found.expect("the page is looked through").is_empty()
    }

    pub(super) async fn enter_frame(&self, css: &str) {
        let frame = self.find(css).await;
        frame.enter_frame().await.expect("it is a frame");
    }

    pub(super) async fn leave_frame(&self) {
        self.page.enter_parent_frame().await.expect("there is one");
    }

    pub(super) async fn source(&self) -> String {
        self.page.source().await.unwrap_or_default()
    }

    pub(super) async fn run(&self, script: &str) -> Value {
        let ran = self.page.execute(script, Vec::new()).await;
        ran.expect("the script runs")
    }

    /// Runs a script that passes its result to its last argument.
    pub(super) async fn run_to_its_end(&self, script: &str) -> Value {
        let ran = self.page.execute_async(script, Vec::new()).await;
        ran.expect("the script comes to its end")
    }

    /// Makes the page as large as a device's screen, in a colour scheme: `light` or `dark`.
    pub(super) async fn emulate(&self, width: u32, height: u32, scheme: &str) {
        let metrics = json!({
            "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600,
        });
        let media = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        for command in [
            DevTools("Emulation.setDeviceMetricsOverride", metrics),
            DevTools("Emulation.setEmulatedMedia", media),
        ] {
            self.page.issue_cmd(command).await.expect("is emulated");
        }
    }

    /// A picture of the page, as PNG.
    pub(super) async fn picture(&self) -> Vec<u8> {
        self.page.screenshot().await.expect("a picture")
    }

    /// The browser's warnings since the last call: violated policies, failing scripts, and missing resources.
    /// A missing favicon is ignored, because the browser requests it without being told to.
    pub(super) async fn complaints(&self) -> Vec<String> {
        let log = self.page.issue_cmd(BrowserLog).await.expect("a log");
        let entries = log.as_array().expect("a list").iter();
        entries
            .filter(|entry| entry["level"] != "INFO" && entry["level"] != "DEBUG")
            .map(ToString::to_string)
            .filter(|entry| !entry.contains("/favicon.ico "))
            .collect()
    }
}

/// Chromium's extension of WebDriver that passes a command of the DevTools protocol.
#[derive(Debug)]
struct DevTools(&'static str, Value);

impl WebDriverCompatibleCommand for DevTools {
    fn endpoint(&self, base: &Url, session: Option<&str>) -> Result<Url, url::ParseError> {
        let session = session.unwrap_or_default();
        base.join(&format!("session/{session}/goog/cdp/execute"))
    }

    fn method_and_body(&self, _: &Url) -> (http::Method, Option<String>) {
        let command = json!({"cmd": self.0, "params": self.1});
        (http::Method::POST, Some(command.to_string()))
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        drop(self.driver.stdin.take());
        // Wait for the end of the driver, because the profile is deleted next.
        let _ = self.driver.wait();
    }
}

/// Chromium's extension of WebDriver that returns the browser's log.
#[derive(Debug)]
struct BrowserLog;

impl WebDriverCompatibleCommand for BrowserLog {
    fn endpoint(&self, base: &Url, session: Option<&str>) -> Result<Url, url::ParseError> {
        base.join(&format!("session/{}/se/log", session.unwrap_or_default()))
    }

    fn method_and_body(&self, _: &Url) -> (http::Method, Option<String>) {
        (
            http::Method::POST,
            Some(json!({"type": "browser"}).to_string()),
        )
    }
}

fn capabilities(settings: Settings) -> Capabilities {
    let scripts = if settings.scripts { 1 } else { 2 };
    let browser = program(
        "CHROMIUM",
        &["chromium", "chromium-browser", "google-chrome"],
    );
    let capabilities = json!({
        "browserName": "chrome",
        "timeouts": {"script": DEADLINE.as_millis(), "pageLoad": DEADLINE.as_millis()},
        "goog:loggingPrefs": {"browser": "ALL"},
        "goog:chromeOptions": {
            "binary": browser.to_string_lossy(),
            "args": [
                "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
                "--disable-background-networking", "--disable-component-update", "--disable-sync",
                "--disable-dev-shm-usage", "--no-proxy-server",
                format!("--lang={}", settings.language),
            ],
            "prefs": {
                "intl.accept_languages": settings.language,
                "profile.managed_default_content_settings.javascript": scripts,
            },
        },
    });
    serde_json::from_value(capabilities).expect("an object")
}

/// The program that the environment variable names, or else the first of `names` in `PATH`.
fn program(variable: &str, names: &[&str]) -> PathBuf {
    if let Some(named) = std::env::var_os(variable) {
        let named = PathBuf::from(named);
        assert!(
            named.is_file(),
            "{variable}: no {}; {INSTALL}",
            named.display()
        );
        return named;
    }
    let path: OsString = std::env::var_os("PATH").unwrap_or_default();
    let mut candidates = names
        .iter()
        .flat_map(|name| std::env::split_paths(&path).map(move |folder| folder.join(name)));
    candidates
        .find(|candidate| candidate.is_file())
        .unwrap_or_else(|| panic!("no {} in PATH; {INSTALL}", names.join(", ")))
}

fn port_of(driver: &mut Child) -> u16 {
    let (sender, ports) = mpsc::channel();
    let output = driver.stdout.take().expect("it is piped");
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            let port = line.rsplit_once("successfully on port ");
            if let Some((_, port)) = port {
                let _ = sender.send(port.trim_end_matches('.').parse());
            }
        }
    });
    ports
        .recv_timeout(DEADLINE)
        .unwrap_or_else(|_| panic!("chromedriver does not start; {INSTALL}"))
        .expect("a port")
}
