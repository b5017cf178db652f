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
