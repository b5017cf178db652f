//! Renders that exceed their limits, in a server that also has other work.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::process::{CONTRACT, Server, sample_data};

/// The time limit of `/healthz`: far above the need of an idle machine, far below the time of a render.
const PROMPT: Duration = Duration::from_secs(2);

#[tokio::test(flavor = "multi_thread")]
async fn renders_that_take_too_much_are_repairable_and_hold_up_neither_health_nor_the_end() {
    let mut server = Server::start(&["--render-timeout-ms", "1000"]);
    let mut data = sample_data("contract.good.json");
    data["customer"]["address"] = json!(format!("a{}", "\u{301}".repeat(130_000)));
    let path = format!("/api/v1/workflows/{CONTRACT}/executions");
    let mut ids = Vec::new();
    for _ in 0..20 {
        ids.push(server.start_at(&path, &data).await);
    }
    let health = format!("{}/healthz", server.url);
    let asked = Instant::now();
    let (status, _) = server.browse(&health).await;
    assert!(
        status.is_success() && asked.elapsed() < PROMPT,
        "{:?}",
        asked.elapsed()
    );
    let parked = server.until(&ids[0], &["needs_review"]).await;
    assert_eq!(parked["error_code"], "render_too_large", "{parked}");
    assert_eq!(parked["recommended_actions"][0]["action"], "reduce_data");

    // The other executions still wait for a free renderer or are being rendered.
    server.signal("TERM");
    assert!(server.wait().success(), "{}", server.log());
}
