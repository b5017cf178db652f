use docg_core::{
    engine::StepRef,
    error::FieldFault,
    i18n::Text,
    ports::{ResumeSignal, Settlement},
    run::Phase,
};
use serde::{Deserialize, Deserializer, Serialize, de};
use serde_json::{Map, Value};
use utoipa::{IntoParams, ToSchema};

use crate::{openapi::names, problem::Problem, shape::escaped};

/// Starts an execution.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CreateExecution {
    /// The data that the workflow reads as `trigger`.
    #[schema(value_type = Option<Object>)]
    #[serde(default)]
    pub(crate) trigger_data: Option<Map<String, Value>>,
    /// What started it; `manual` where it is left out.
    #[schema(min_length = 1)]
    #[serde(default)]
    pub(crate) trigger_type: Option<String>,
    /// Runs preflight, trigger and render only, and touches nothing.
    #[serde(default)]
    pub(crate) dry_run: Option<bool>,
    /// The last phase to run.
    #[schema(value_type = Option<names::Phase>)]
    #[serde(default)]
    pub(crate) until_phase: Option<Phase>,
}

/// What preflight is to look at.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PreflightBody {
    /// The data that the workflow reads as `trigger`.
    #[schema(value_type = Option<Object>)]
    #[serde(default)]
    pub(crate) trigger_data: Option<Map<String, Value>>,
}

/// Why it is done.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Reason {
    /// For the audit trail.
    #[serde(default)]
    pub(crate) reason: Option<String>,
}

/// What the approver says with the decision.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Comment {
    /// In their own words.
    #[serde(default)]
    pub(crate) comment: Option<String>,
}

/// What is different this time; what is left out is as it was, except that all phases run where no
/// `until_phase` is given.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RetryBody {
    /// The data that the workflow reads as `trigger`.
    #[schema(value_type = Option<Object>)]
    #[serde(default)]
    pub(crate) trigger_data: Option<Map<String, Value>>,
    /// The step to begin with: a node id, or a 0-based position. The steps before it give what they
    /// gave.
    #[serde(default, deserialize_with = "step_ref")]
    #[schema(value_type = Option<FromStep>)]
    pub(crate) from_step: Option<StepRef>,
    /// Runs preflight, trigger and render only, and touches nothing.
    #[serde(default)]
    pub(crate) dry_run: Option<bool>,
    /// The last phase to run.
    #[schema(value_type = Option<names::Phase>)]
    #[serde(default)]
    pub(crate) until_phase: Option<Phase>,
}

/// A node id, or a 0-based position.
#[derive(ToSchema)]
#[serde(untagged)]
#[allow(dead_code, reason = "it describes what step_ref reads")]
enum FromStep {
    Node(String),
    Position(u32),
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

/// Who is to sign, and through whom they are asked.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RequestSignatureBody {
    /// The signature provider; left out, the one that the service takes by default.
    #[schema(min_length = 1)]
    #[serde(default)]
    pub(crate) provider: Option<String>,
    /// Who is to sign. What is wrong with one of them is found by the new execution's preflight.
    #[schema(required, max_items = 50, value_type = Vec<AskedSigner>)]
    #[serde(default)]
    pub(crate) signers: Option<Vec<AskedSigner>>,
}

/// Somebody who is to sign.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AskedSigner {
    /// Where the request is sent to. Without it the new execution waits for review.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    email: Option<String>,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    /// The turn in which they sign, where there is an order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    order: Option<u32>,
}

/// What a person has decided or repaired.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ResumeBody {
    /// False ends the execution with the code `review_rejected`.
    #[serde(default)]
    approved: Option<bool>,
    /// `{"trigger_data": {…}, "nodes": {node_id: {param: value}}}`, either or both; without these
    /// keys it is merged into the trigger data.
    #[schema(value_type = Option<Object>)]
    #[serde(default)]
    changes: Option<Map<String, Value>>,
    /// Settles an outcome that nobody knows.
    #[serde(default)]
    resolution: Option<Resolution>,
    /// What the step would have given; only with `confirm_done`.
    #[schema(value_type = Value)]
    #[serde(default)]
    output: Option<Value>,
}

/// What became of the step: it was done, or it is to run again.
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
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
                    let detail = Text::key("fault-changes");
                    FieldFault::new(
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
                let detail = Text::key("fault-output");
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
            Text::key("fault-object"),
        )),
    }
}

/// Which stream it is for.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SseTokenBody {
    /// The execution's stream; the organization's where it is left out.
    #[serde(default)]
    pub(crate) execution_id: Option<uuid::Uuid>,
}

/// A part of a list.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Listing {
    /// The `next_cursor` of the page before, of this very list.
    #[serde(default)]
    pub(crate) cursor: Option<String>,
    /// Rows of a page.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 100, default = 50)]
    #[serde(default)]
    pub(crate) limit: Option<String>,
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ExecutionsQuery {
    /// Only those in this status.
    #[param(value_type = Option<names::Status>)]
    #[serde(default)]
    pub(crate) status: Option<String>,
    /// Only those of this workflow.
    #[param(value_type = Option<uuid::Uuid>)]
    #[serde(default)]
    pub(crate) workflow_id: Option<String>,
    /// The `next_cursor` of the page before, of this very list.
    #[serde(default)]
    pub(crate) cursor: Option<String>,
    /// Rows of a page.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 100, default = 50)]
    #[serde(default)]
    pub(crate) limit: Option<String>,
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct LogsQuery {
    /// Only entries of this level.
    #[param(value_type = Option<names::LogLevel>)]
    #[serde(default)]
    pub(crate) level: Option<String>,
    /// Only entries about this.
    #[param(value_type = Option<names::LogDomain>)]
    #[serde(default)]
    pub(crate) domain: Option<String>,
    /// Only entries about this node.
    #[serde(default)]
    pub(crate) step_id: Option<String>,
    /// The `next_cursor` of the page before, of this very list.
    #[serde(default)]
    pub(crate) cursor: Option<String>,
    /// Rows of a page.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 100, default = 50)]
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

/// Those of one workflow, which the path names.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct WorkflowExecutionsQuery {
    /// Only those in this status.
    #[param(value_type = Option<names::Status>)]
    #[serde(default)]
    pub(crate) status: Option<String>,
    /// The `next_cursor` of the page before, of this very list.
    #[serde(default)]
    pub(crate) cursor: Option<String>,
    /// Rows of a page.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 100, default = 50)]
    #[serde(default)]
    pub(crate) limit: Option<String>,
}

/// Where a stream goes on. The parameter `token` of its query is a way to prove who reads.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[allow(dead_code, reason = "it describes what StreamQuery takes")]
pub(crate) struct StreamPosition {
    /// The id of the last event that the reader has.
    last_event_id: Option<String>,
}

/// A call that is made once for its key.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[allow(dead_code, reason = "it describes what idempotency::of reads")]
pub(crate) struct Keyed {
    /// The same key and request again give the first answer again, for 24 hours.
    #[param(
        rename = "Idempotency-Key",
        min_length = 1,
        max_length = 255,
        pattern = "^[!-~]([ -~]*[!-~])?$"
    )]
    key: Option<String>,
}

/// A call that is refused where what it changes has changed.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[allow(dead_code, reason = "it describes what IfMatch::of reads")]
pub(crate) struct Conditional {
    /// `"<version>"`, or `*` for any.
    #[param(rename = "If-Match", example = "\"3\"", pattern = "^[^,]*$")]
    version: Option<String>,
}
