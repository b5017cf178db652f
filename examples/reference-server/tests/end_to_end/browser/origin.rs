//! A page whose origin is not the server's.

use axum::{Router, response::Html, routing::get};

/// Serves a page at its own address as long as the test runs. Returns the page's URL.
pub(super) async fn serve(page: &'static str) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a free port");
    let address = listener.local_addr().expect("an address");
    let app = Router::new().route("/", get(move || async move { Html(page) }));
    tokio::spawn(async move { axum::serve(listener, app).await });
    format!("http://{address}/")
}
