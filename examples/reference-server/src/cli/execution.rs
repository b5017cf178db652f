//! Follows an execution to its end.

use std::time::Duration;

use serde_json::Value;
use uuid::Uuid;

use super::{
    CliError,
    client::{Client, http_error},
    progress::Progress,
    sse::{Parser, SseEvent},
};

/// The state of an execution when the command stops following it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The execution completed.
    Completed,
    /// The execution failed or was canceled.
    NotCompleted,
    /// The execution waits for a person's review.
    NeedsReview,
}

/// The number of reconnects in a row, without an event in between, after which the client gives up.
const MAX_BREAKS: u32 = 30;

/// Follows an execution until it ends, and shows its progress. With `stop_at_review`, stops following when
/// the execution waits for a review. If the server answered once and then goes away, waits for the server.
pub(super) async fn follow(
    client: &Client,
    id: Uuid,
    stop_at_review: bool,
) -> Result<Ended, CliError> {
    let path = format!("api/v1/sse/executions/{id}/stream");
    let progress = Progress::new();
    let mut parser = Parser::default();
    let mut breaks = 0;
    let (mut has_answered, mut is_away) = (false, false);
    loop {
        let stream = client.stream(&path, parser.last_id.as_deref()).await;
        let outcome = match stream {
            Ok(response) => {
                has_answered = true;
                if std::mem::take(&mut is_away) {
                    progress.note("the server answers again");
                }
                let shown = &progress;
                read(response, &mut parser, shown, stop_at_review, &mut breaks).await
            }
            Err(error) if has_answered && is_passing(&error) => {
                if !std::mem::replace(&mut is_away, true) {
                    progress.note(&format!("the server is waited for: {error}"));
                }
                Ok(None)
            }
            Err(error) => return Err(error),
        };
        match outcome {
            Ok(Some(ended)) => {
                progress.finish();
                return Ok(ended);
            }
            Ok(None) | Err(_) if is_away => {}
            // The stream ended before the execution: the server is restarting, or this client reads too
            // slowly.
            Ok(None) | Err(_) if breaks < MAX_BREAKS => breaks += 1,
            Ok(None) => {
                return Err(CliError::Http(
                    "the event stream ends again and again".to_owned(),
                ));
            }
            Err(error) => return Err(error),
        }
        tokio::time::sleep(parser.retry.unwrap_or(Duration::from_secs(1))).await;
        parser = parser.for_next_connection();
    }
}

/// True if a server that answered before may soon answer again. While the server is down, a proxy may answer
/// with one of these statuses.
fn is_passing(error: &CliError) -> bool {
    match error {
        CliError::Unanswered { .. } | CliError::Http(_) => true,
        CliError::Refused { status, .. } => matches!(status, 429 | 502..=504),
        _ => false,
    }
}

async fn read(
    mut response: reqwest::Response,
    parser: &mut Parser,
    progress: &Progress,
    stop_at_review: bool,
    breaks: &mut u32,
) -> Result<Option<Ended>, CliError> {
    // A response with status 204 has no chunks. It says that no event follows the last one received.
    while let Some(chunk) = response.chunk().await.map_err(|e| http_error(&e))? {
        for event in parser.feed(&chunk) {
            *breaks = 0;
            if let Some(ended) = take(&event, progress, stop_at_review) {
                return Ok(Some(ended));
            }
        }
    }
    Ok(None)
}

/// Shows an event. Returns the state of the execution if the command must stop following it at this event.
fn take(event: &SseEvent, progress: &Progress, stop_at_review: bool) -> Option<Ended> {
    if event.event == "heartbeat" {
        return None;
    }
    let data: Value = serde_json::from_str(&event.data).ok()?;
    let state = if event.event == "gap" {
        data.get("state")?
    } else {
        &data
    };
    progress.show(&event.event, state);
    // `connected` carries the current state, but the events that led to it still follow.
    if event.event == "connected" {
        return None;
    }
    match state.get("status").and_then(Value::as_str)? {
        "completed" => Some(Ended::Completed),
        "failed" | "canceled" => Some(Ended::NotCompleted),
        "needs_review" if stop_at_review => Some(Ended::NeedsReview),
        _ => None,
    }
}

/// The texts of an execution that explain to a person why it did not complete.
pub(super) fn why(execution: &Value) -> Vec<String> {
    let text =
        |value: &Value, name: &str| value.get(name).and_then(Value::as_str).map(str::to_owned);
    let mut lines = Vec::new();
    lines.extend(text(execution, "last_error_human"));
    let groups = execution
        .get("preflight_summary")
        .and_then(|summary| summary.get("groups"));
    let groups = groups.and_then(Value::as_object).into_iter().flatten();
    for issue in groups.filter_map(|(_, issues)| issues.as_array()).flatten() {
        if text(issue, "severity").as_deref() == Some("blocking") {
            lines.extend(text(issue, "message_human"));
        }
    }
    let actions = execution
        .get("recommended_actions")
        .and_then(Value::as_array);
    for action in actions.into_iter().flatten() {
        let label = text(action, "label").unwrap_or_default();
        let description = text(action, "description").unwrap_or_default();
        lines.push(format!("-> {label}: {description}"));
    }
    lines
}
