//! Schemas of the frames of event streams: the event's name, and its data as JSON in a text.

use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        ObjectBuilder, OneOfBuilder, Ref, RefOr,
        schema::{Schema, SchemaType, Type},
    },
};

use super::wire::{Connected, Event, Gap, Heartbeat, ListConnected};

/// The schemas that a schema refers to, with their names.
type Named = Vec<(String, RefOr<Schema>)>;

fn text() -> ObjectBuilder {
    ObjectBuilder::new().schema_type(SchemaType::Type(Type::String))
}

fn frame<T: ToSchema>(event: ObjectBuilder) -> ObjectBuilder {
    let data = text()
        .content_media_type("application/json")
        .content_schema(Some(Ref::from_schema_name(T::name())));
    ObjectBuilder::new()
        .property("event", event)
        .property("data", data)
}

/// A frame about the stream itself. It has no id, so that the reader keeps its last event's id.
fn control<T: ToSchema>(event: &str) -> ObjectBuilder {
    frame::<T>(text().enum_values(Some([event])))
}

/// The first frame of a stream.
fn connected<T: ToSchema>() -> ObjectBuilder {
    let retry = ObjectBuilder::new()
        .schema_type(SchemaType::Type(Type::Integer))
        .description(Some(
            "How long to wait before coming back, in milliseconds.",
        ));
    control::<T>("connected").property("retry", retry)
}

/// A frame with an event of docg.
fn event() -> ObjectBuilder {
    let event = text().pattern(Some(r"^[a-z_]+(\.[a-z_]+)+$"));
    frame::<Event>(event.description(Some("The type of the event.")))
        .property("id", text().description(Some("For `Last-Event-ID`.")))
}

fn one_of(connected: ObjectBuilder, description: &str) -> RefOr<Schema> {
    OneOfBuilder::new()
        .item(connected)
        .item(control::<Gap>("gap"))
        .item(event())
        .item(control::<Heartbeat>("heartbeat"))
        .description(Some(description))
        .into()
}

fn named<T: ToSchema>(schemas: &mut Named) {
    schemas.push((T::name().into_owned(), T::schema()));
    T::schemas(schemas);
}

/// A frame of an execution's stream.
pub(crate) struct ExecutionFrame;
impl PartialSchema for ExecutionFrame {
    fn schema() -> RefOr<Schema> {
        one_of(
            connected::<Connected>(),
            "A frame of an execution's stream.",
        )
    }
}
impl ToSchema for ExecutionFrame {
    fn schemas(schemas: &mut Named) {
        named::<Connected>(schemas);
        named::<Gap>(schemas);
        named::<Event>(schemas);
        named::<Heartbeat>(schemas);
    }
}

/// A frame of an organization's stream.
pub(crate) struct ListFrame;
impl PartialSchema for ListFrame {
    fn schema() -> RefOr<Schema> {
        one_of(
            connected::<ListConnected>(),
            "A frame of an organization's stream.",
        )
    }
}
impl ToSchema for ListFrame {
    fn schemas(schemas: &mut Named) {
        named::<ListConnected>(schemas);
        ExecutionFrame::schemas(schemas);
    }
}
