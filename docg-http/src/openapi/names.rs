//! Schemas of enumerations, whose values come from docg-core's own tables, and of texts with a fixed
//! format.

use docg_core::{approval, engine, observe, preflight, run, signature, workflow};
use serde::Serialize;
use serde_json::Value;
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        KnownFormat, ObjectBuilder, RefOr, SchemaFormat,
        schema::{Schema, SchemaType, Type},
    },
};

fn text() -> ObjectBuilder {
    ObjectBuilder::new().schema_type(SchemaType::Type(Type::String))
}

fn one_of<T: Serialize>(all: &[T], description: &str) -> RefOr<Schema> {
    // Never fails: a unit variant can be written as JSON.
    let names = all
        .iter()
        .filter_map(|name| serde_json::to_value(name).ok());
    text()
        .enum_values(Some(names.collect::<Vec<Value>>()))
        .description(Some(description))
        .into()
}

macro_rules! names {
    ($($description:literal $name:ident = $all:expr;)+) => {$(
        #[doc = $description]
        pub(crate) struct $name;
        impl PartialSchema for $name {
            fn schema() -> RefOr<Schema> {
                one_of(&$all[..], $description)
            }
        }
        impl ToSchema for $name {}
    )+};
}

names! {
    "Where an execution stands." Status = run::Status::ALL;
    "A phase of a run, in their order." Phase = run::Phase::ALL;
    "Where a step stands." StepStatus = run::StepStatus::ALL;
    "What an execution waits for." WaitKind = run::WaitKind::ALL;
    "How far delivery has come." DeliveryState = run::DeliveryState::ALL;
    "How far signing has come." SignatureState = run::SignatureState::ALL;
    "What a check of preflight is about." IssueDomain = preflight::Domain::ALL;
    "Whether an issue stops the execution." Severity = preflight::Severity::ALL;
    "How a thing went." LogLevel = observe::LogLevel::ALL;
    "What a log entry is about." LogDomain = observe::LogDomain::ALL;
    "What kind of actor did something." ActorType = observe::ActorType::ALL;
    "Where a signature request stands." SignatureStatus = signature::RequestStatus::ALL;
    "How far a signer has come." SignerStatus = signature::SignerStatus::ALL;
    "Where an approval stands." ApprovalStatus = approval::ApprovalStatus::ALL;
    "Yes or no." Decision = approval::Decision::ALL;
    "What a failure that is not repeated does to the execution." OnError = workflow::OnError::ALL;
    "What a call may lose." Loss = [engine::SIGNATURES_LOST];
    "The order of a list of executions." ExecutionOrder = crate::dto::SORTS;
    "How much a list shows of each execution." View = crate::dto::VIEWS;
    "The status of a signature request that is open." OpenSignature = ["open"];
    "The status of an approval that is pending." PendingApproval = ["pending"];
    "A call on an execution." Call = engine::Command::ALL.map(engine::Command::as_str);
}

/// A point in time: RFC 3339, UTC, milliseconds.
pub(crate) struct Timestamp;
impl PartialSchema for Timestamp {
    fn schema() -> RefOr<Schema> {
        text()
            .format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)))
            .pattern(Some(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$"))
            .description(Some("RFC 3339, in UTC with `Z`, to the millisecond."))
            .examples(["2026-01-15T10:30:00.000Z"])
            .into()
    }
}
impl ToSchema for Timestamp {}

/// A SHA-256 hash in hexadecimal.
pub(crate) struct Sha256;
impl PartialSchema for Sha256 {
    fn schema() -> RefOr<Schema> {
        text()
            .pattern(Some("^[0-9a-f]{64}$"))
            .description(Some("SHA-256 in hexadecimal."))
            .into()
    }
}
impl ToSchema for Sha256 {}
