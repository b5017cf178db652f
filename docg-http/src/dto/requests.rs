use docg_core::{
    engine::StepRef,
    ports::{ResumeSignal, Settlement},
    run::Phase,
};
use serde::{Deserialize, Deserializer, de};
use serde_json::{Map, Value};

use crate::{
    problem::{FieldError, Problem},
    shape::escaped,
};

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CreateExecution {
    #[serde(default)]
    pub(crate) trigger_data: Option<Map<String, Value>>,
    #[serde(default)]
    pub(crate) trigger_type: Option<String>,
    #[serde(default)]
    pub(crate) dry_run: Option<bool>,
    #[serde(default)]
    pub(crate) until_phase: Option<Phase>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PreflightBody {
    #[serde(default)]
    pub(crate) trigger_data: Option<Map<String, Value>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Reason {
    #[serde(default)]
    pub(crate) reason: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Comment {
    #[serde(default)]
    pub(crate) comment: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RetryBody {
    #[serde(default)]
    pub(crate) trigger_data: Option<Map<String, Value>>,
    #[serde(default, deserialize_with = "step_ref")]
    pub(crate) from_step: Option<StepRef>,
    #[serde(default)]
    pub(crate) dry_run: Option<bool>,
    #[serde(default)]
    pub(crate) until_phase: Option<Phase>,
}

fn step_ref<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<StepRef>, D::Error> {
    match Value::deserialize(deserializer)? {
        Value::Null => Ok(None),
        Value::String(node) => Ok(Some(StepRef::Node(node))),
        Value::Number(position) => position
            .as_u64()
            .and_then(|position| u32::try_from(position).ok())
            .map(|position| Some(StepRef::Position(position)))
            .ok_or_else(|| de::Error::custom("a 0-based position is a whole number, zero or more")),
        _ => Err(de::Error::custom(
            "a node id or a 0-based position is expected",
        )),
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ResumeBody {
    #[serde(default)]
    approved: Option<bool>,
    #[serde(default)]
    changes: Option<Map<String, Value>>,
    #[serde(default)]
    resolution: Option<Resolution>,
    #[serde(default)]
    output: Option<Value>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Resolution {
    ConfirmDone,
    RunAgain,
}

impl ResumeBody {
    /// `changes` has `trigger_data` and `nodes`; without these keys it is trigger data itself.
    pub(crate) fn into_signal(self) -> Result<ResumeSignal, Problem> {
        let mut signal = ResumeSignal {
            approved: self.approved,
            ..ResumeSignal::default()
        };
        if let Some(mut changes) = self.changes {
            if changes.contains_key("trigger_data") || changes.contains_key("nodes") {
                signal.trigger_data = object(&mut changes, "trigger_data")?;
                signal.nodes = object(&mut changes, "nodes")?.unwrap_or_default();
                let unknown = changes.keys().map(|name| {
                    let detail = "beside trigger_data and nodes there is nothing to change";
                    FieldError::new(
                        format!("/changes/{}", escaped(name)),
                        "unknown_field",
                        detail,
                    )
                });
                let unknown: Vec<_> = unknown.collect();
                if !unknown.is_empty() {
                    return Err(Problem::invalid(unknown));
                }
            } else {
                signal.trigger_data = Some(changes);
            }
        }
        signal.settlement = match (self.resolution, self.output) {
            (Some(Resolution::ConfirmDone), output) => Some(Settlement::ConfirmDone(
                output.unwrap_or_else(|| Value::Object(Map::new())),
            )),
            (Some(Resolution::RunAgain), None) => Some(Settlement::RunAgain),
            (None, None) => None,
            (Some(Resolution::RunAgain) | None, Some(_)) => {
                let detail = "an output comes with the resolution confirm_done";
                return Err(Problem::invalid_field(
                    "/output",
                    "unexpected_output",
                    detail,
                ));
            }
        };
        Ok(signal)
    }
}

/// Takes a part of the changes out of them.
fn object(
    changes: &mut Map<String, Value>,
    name: &str,
) -> Result<Option<Map<String, Value>>, Problem> {
    match changes.remove(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Object(map)) => Ok(Some(map)),
        Some(_) => Err(Problem::invalid_field(
            format!("/changes/{name}"),
            "invalid_type",
            "an object is expected",
        )),
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SseTokenBody {
    #[serde(default)]
    pub(crate) execution_id: Option<uuid::Uuid>,
}

/// A part of a list.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Listing {
    #[serde(default)]
    pub(crate) cursor: Option<String>,
    #[serde(default)]
    pub(crate) limit: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ExecutionsQuery {
    #[serde(default)]
    pub(crate) status: Option<String>,
    #[serde(default)]
    pub(crate) workflow_id: Option<String>,
    #[serde(default)]
    pub(crate) cursor: Option<String>,
    #[serde(default)]
    pub(crate) limit: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LogsQuery {
    #[serde(default)]
    pub(crate) level: Option<String>,
    #[serde(default)]
    pub(crate) domain: Option<String>,
    #[serde(default)]
    pub(crate) step_id: Option<String>,
    #[serde(default)]
    pub(crate) cursor: Option<String>,
    #[serde(default)]
    pub(crate) limit: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct StreamQuery {
    #[serde(default)]
    pub(crate) last_event_id: Option<String>,
    #[serde(default)]
    pub(crate) token: Option<String>,
}
