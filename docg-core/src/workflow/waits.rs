//! Ready node types that wait: `wait-until` for a moment, `wait-for-event` for an event from outside.

use serde::Deserialize;

use super::{
    Handler, NodeSpec, ParamKind, ParamSpec, StepOutcome, Wait, effect, handler::NewEventWait,
};
use crate::{
    run::Phase,
    time::{Millis, Timestamp},
};

/// The node type `wait-until`, for any phase. Its step waits until the moment `until` (RFC 3339 with a time zone), or
/// for `for_ms` milliseconds. Its output is `until`.
///
/// ```
/// use docg_core::workflow::waits;
///
/// assert_eq!(&*waits::until().spec().node_type, "wait-until");
/// ```
#[must_use]
pub fn until() -> Handler {
    let spec = NodeSpec::new("wait-until", Phase::Save)
        .any_phase()
        .param(ParamSpec::optional("until", ParamKind::Text))
        .param(ParamSpec::optional("for_ms", ParamKind::Duration))
        .outputs(["until"])
        .without_document()
        .safe_to_repeat();
    effect(spec, |context, moment: Moment| async move {
        Ok(StepOutcome::Wait(Wait::Until(match moment {
            Moment::Until(moment) => moment,
            Moment::For(millis) => context.started_at.plus_millis(millis.get()),
        })))
    })
    .into()
}

/// The node type `wait-for-event`, for any phase. Its step waits for the event `name`; with `key` only for the event
/// that has this key. After `expires_in_ms` milliseconds the step fails. Its outputs are `name` and `payload`.
///
/// ```
/// use docg_core::workflow::waits;
///
/// assert_eq!(&*waits::event().spec().node_type, "wait-for-event");
/// ```
#[must_use]
pub fn event() -> Handler {
    let spec = NodeSpec::new("wait-for-event", Phase::Save)
        .any_phase()
        .param(ParamSpec::required("name", ParamKind::Text))
        .param(ParamSpec::optional("key", ParamKind::Text))
        .param(ParamSpec::optional("expires_in_ms", ParamKind::Duration))
        .outputs(["name", "payload"])
        .without_document()
        .safe_to_repeat();
    effect(spec, |context, params: EventParams| async move {
        let expires = params.expires_in_ms;
        let mut wait = NewEventWait::new(params.name);
        wait.key = params.key;
        wait.expires_at = expires.map(|millis| context.started_at.plus_millis(millis.get()));
        Ok(StepOutcome::Wait(Wait::Event(wait)))
    })
    .into()
}

#[derive(Deserialize)]
struct MomentParams {
    until: Option<Timestamp>,
    for_ms: Option<Millis>,
}

#[derive(Deserialize)]
#[serde(try_from = "MomentParams")]
enum Moment {
    Until(Timestamp),
    For(Millis),
}

impl TryFrom<MomentParams> for Moment {
    type Error = &'static str;

    fn try_from(params: MomentParams) -> Result<Self, Self::Error> {
        match (params.until, params.for_ms) {
            (Some(until), None) => Ok(Self::Until(until)),
            (None, Some(millis)) => Ok(Self::For(millis)),
            _ => Err("one of `until` and `for_ms` is expected"),
        }
    }
}

#[derive(Deserialize)]
struct EventParams {
    name: String,
    key: Option<String>,
    expires_in_ms: Option<Millis>,
}
