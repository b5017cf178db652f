use serde_json::Value;

use crate::support::{Call, World};

#[tokio::test]
async fn the_document_is_served() {
    let world = World::new().await;
    let answer = world.send(Call::new("GET", "/openapi.json")).await;
    assert_eq!(answer.status.as_u16(), 200);
    assert_eq!(answer.header("content-type"), "application/json");
    assert_eq!(answer.text, docg_http::openapi());
}

/// If the snapshot changes, the API that clients see has changed.
#[test]
fn the_document_is_the_one_that_was_reviewed() {
    let document: serde_json::Value =
        serde_json::from_str(docg_http::openapi()).expect("a document");
    insta::assert_json_snapshot!("openapi", document);
}

#[test]
fn every_reference_leads_somewhere() {
    fn check(value: &Value, root: &Value) {
        match value {
            Value::Object(fields) => {
                if let Some(Value::String(place)) = fields.get("$ref") {
                    let place = place.strip_prefix('#').expect("a place in the document");
                    assert!(root.pointer(place).is_some(), "{place}");
                }
                fields.values().for_each(|inner| check(inner, root));
            }
            Value::Array(items) => items.iter().for_each(|inner| check(inner, root)),
            _ => {}
        }
    }
    let document: Value = serde_json::from_str(docg_http::openapi()).expect("JSON");
    check(&document, &document);
}
