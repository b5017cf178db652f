use docg_core::{
    engine::{Repair, Resume, SIGNATURES_LOST, StepRef},
    error::FieldFault,
    i18n::Text,
    ports::Settlement,
    run::Phase,
    time::Timestamp,
};
use serde::{Deserialize, Deserializer, Serialize, de};
use serde_json::{Map, Value};
use utoipa::{IntoParams, ToSchema};

use crate::{openapi::names, problem::Problem, shape::escaped};

/// The input of a new execution.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CreateExecution {
    /// The trigger data, which the workflow reads as `trigger`.
    #[schema(value_type = Option<HashMap<String, Value>>)]
    #[serde(default)]
    pub(crate) trigger_data: Option<Map<String, Value>>,
    /// The kind of trigger that starts the execution; `manual` if it is left out.
    #[schema(min_length = 1)]
    #[serde(default)]
    pub(crate) trigger_type: Option<String>,
    /// True for a dry run: preflight, trigger and render only, without any effect.
    #[serde(default)]
    pub(crate) dry_run: Option<bool>,
    /// The last phase to run.
    #[schema(value_type = Option<names::Phase>)]
    #[serde(default)]
    pub(crate) until_phase: Option<Phase>,
    /// The time before which the execution does not start, at most ten years ahead. Preflight runs then, too.
    #[schema(value_type = Option<String>, format = DateTime)]
    #[serde(default)]
    pub(crate) start_at: Option<Timestamp>,
}

/// An event for an execution.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct EventBody {
    /// The key that tells this event from others with the name. A step that waits for a key takes only that one.
    #[serde(default)]
    pub(crate) key: Option<String>,
    /// The event's content: at most 64 KiB of JSON.
    #[serde(default)]
    pub(crate) payload: Value,
}

/// An event for the executions that wait for its key.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct KeyedEventBody {
    /// The key that the executions wait for.
    #[schema(required, value_type = String)]
    #[serde(default)]
    pub(crate) key: Option<String>,
    /// The event's content: at most 64 KiB of JSON.
    #[serde(default)]
    pub(crate) payload: Value,
}

/// The data that preflight checks.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PreflightBody {
    /// The trigger data, which the workflow reads as `trigger`.
    #[schema(value_type = Option<HashMap<String, Value>>)]
    #[serde(default)]
    pub(crate) trigger_data: Option<Map<String, Value>>,
}

/// The reason for a pause or a cancel.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Reason {
    /// The reason, which the audit trail keeps.
    #[serde(default)]
    pub(crate) reason: Option<String>,
}

/// The approver's comment on the decision.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Comment {
    /// The comment, in the approver's own words.
    #[serde(default)]
    pub(crate) comment: Option<String>,
}

/// The changes for a retry. Fields that are left out stay as they were, except `until_phase`: without
/// it, all phases run.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RetryBody {
    /// The trigger data, which the workflow reads as `trigger`.
    #[schema(value_type = Option<HashMap<String, Value>>)]
    #[serde(default)]
    pub(crate) trigger_data: Option<Map<String, Value>>,
    /// The step to begin with: a node id, or a 0-based position. The steps before it keep their outputs.
    #[serde(default, deserialize_with = "step_ref")]
    #[schema(value_type = Option<FromStep>)]
    pub(crate) from_step: Option<StepRef>,
    /// True for a dry run: preflight, trigger and render only, without any effect.
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

/// The signers, and the signature provider that asks them.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RequestSignatureBody {
    /// The signature provider. If it is left out, the service's default provider is used.
    #[schema(min_length = 1)]
    #[serde(default)]
    pub(crate) provider: Option<String>,
    /// The people who are to sign. The new execution's preflight reports what is wrong with a signer.
    #[schema(required, max_items = 50, value_type = Vec<AskedSigner>)]
    #[serde(default)]
    pub(crate) signers: Option<Vec<AskedSigner>>,
}

/// A person who is to sign.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AskedSigner {
    /// The address to which the request is sent. Without it, the new execution waits for review.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    email: Option<String>,
    /// The signer's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    /// The signer's turn, if they sign in order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    order: Option<u32>,
}

/// A person's decision, or the repaired data.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ResumeBody {
    /// False ends the execution with the code `review_rejected`.
    #[serde(default)]
    approved: Option<bool>,
    /// The changes: `{"trigger_data": {…}, "nodes": {node_id: {param: value}}}`, either or both. If neither
    /// key is there, the object itself is for the trigger data. It is a JSON Merge Patch (RFC 7396): null removes
    /// a value, and lists are replaced whole.
    #[schema(value_type = Option<HashMap<String, Value>>)]
    #[serde(default)]
    changes: Option<Map<String, Value>>,
    /// The operations of a JSON Patch (RFC 6902) over `{"trigger_data": …, "nodes": …}`, in place of `changes`.
    #[schema(value_type = Option<Vec<HashMap<String, Value>>>, max_items = 200)]
    #[serde(default)]
    patch: Option<Vec<Value>>,
    /// The losses that the caller accepts.
    #[schema(value_type = Option<Vec<names::Loss>>)]
    #[serde(default)]
    acknowledge: Option<Vec<String>>,
    /// Settles a step whose outcome is unknown.
    #[serde(default)]
    resolution: Option<Resolution>,
    /// The step's output, which the handler did not return; only with `confirm_done`.
    #[schema(value_type = Value)]
    #[serde(default)]
    output: Option<Value>,
}

/// How to settle the step: its effect happened, or the step runs again.
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum Resolution {
    ConfirmDone,
    RunAgain,
}

impl ResumeBody {
    /// Converts the body for the engine. If `changes` has neither `trigger_data` nor `nodes`, it is trigger
    /// data itself.
    pub(crate) fn into_resume(self) -> Result<Resume, Problem> {
        let mut repair = Repair::default();
        if let Some(mut changes) = self.changes {
            if changes.contains_key("trigger_data") || changes.contains_key("nodes") {
                repair.trigger_data = object(&mut changes, "trigger_data")?;
                repair.nodes = object(&mut changes, "nodes")?;
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
                repair.trigger_data = changes;
            }
        }
        if let Some(patch) = self.patch {
            if !repair.trigger_data.is_empty() || !repair.nodes.is_empty() {
                let detail = Text::key("fault-patch-or-changes");
                return Err(Problem::invalid_field("/patch", "unexpected_patch", detail));
            }
            repair.patch = patch;
        }
        for (index, loss) in self.acknowledge.iter().flatten().enumerate() {
            if loss != SIGNATURES_LOST {
                let detail = Text::key("fault-one-of").with("values", SIGNATURES_LOST);
                let pointer = format!("/acknowledge/{index}");
                return Err(Problem::invalid_field(pointer, "invalid_value", detail));
            }
        }
        repair.acknowledge = self.acknowledge.unwrap_or_default();
        repair.settlement = match (self.resolution, self.output) {
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
        Ok(match self.approved {
            Some(false) => Resume::Reject,
            Some(true) | None => Resume::Continue(repair),
        })
    }
}

/// Removes the object `name` from the changes and returns it. Returns an empty object if there is none.
fn object(changes: &mut Map<String, Value>, name: &str) -> Result<Map<String, Value>, Problem> {
    match changes.remove(name) {
        None | Some(Value::Null) => Ok(Map::new()),
        Some(Value::Object(map)) => Ok(map),
        Some(_) => Err(Problem::invalid_field(
            format!("/changes/{name}"),
            "invalid_type",
            Text::key("fault-object"),
        )),
    }
}

/// The stream that a token is for.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SseTokenBody {
    /// The execution whose stream the token opens. If it is left out, the token opens the organization's
    /// stream.
    #[serde(default)]
    pub(crate) execution_id: Option<uuid::Uuid>,
}

/// Query parameters that choose a page of a list.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Listing {
    /// The `next_cursor` of the previous page. It is valid only for the same list with the same filters.
    #[serde(default)]
    pub(crate) cursor: Option<String>,
    /// The number of rows on a page.
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
    /// Only entries about this domain.
    #[param(value_type = Option<names::LogDomain>)]
    #[serde(default)]
    pub(crate) domain: Option<String>,
    /// Only entries about this node.
    #[serde(default)]
    pub(crate) step_id: Option<String>,
    /// The `next_cursor` of the previous page. It is valid only for the same list with the same filters.
    #[serde(default)]
    pub(crate) cursor: Option<String>,
    /// The number of rows on a page.
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

/// The filters for the executions of one workflow, which the path names.
/// The query parameter that tells where a stream continues. The query may also hold a `token`, as
/// credentials.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[allow(dead_code, reason = "it describes what StreamQuery takes")]
pub(crate) struct StreamPosition {
    /// The id of the last event that the reader received.
    last_event_id: Option<String>,
}

/// The header of calls that take effect once for each idempotency key.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[allow(dead_code, reason = "it describes what idempotency::of reads")]
pub(crate) struct Keyed {
    /// An idempotency key. For 24 hours, the same request with the same key gets the first answer again.
    #[param(
        rename = "Idempotency-Key",
        min_length = 1,
        max_length = 255,
        pattern = "^[!-~]([ -~]*[!-~])?$"
    )]
    key: Option<String>,
}

/// The header of calls that are refused if the resource has another version.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[allow(dead_code, reason = "it describes what IfMatch::of reads")]
pub(crate) struct Conditional {
    /// The version that the resource must have: `"<version>"`, or `*` for any.
    #[param(rename = "If-Match", example = "\"3\"", pattern = "^[^,]*$")]
    version: Option<String>,
}
