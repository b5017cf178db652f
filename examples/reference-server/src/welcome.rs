//! The page at `/`: in development it tells a newcomer what there is, otherwise it leads to the console.

use axum::{
    Router,
    http::StatusCode,
    response::{IntoResponse, Redirect},
    routing::get,
};
use docg_http::AppState;
use minijinja::context;

use crate::html;

const POLICY: &str =
    "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; frame-ancestors 'none'";

const PAGE: &str = include_str!("../templates/welcome.html");

pub(crate) fn routes(is_development: bool) -> Router<AppState> {
    let page = move || async move {
        if is_development {
            html::page(StatusCode::OK, POLICY, PAGE, context! {})
        } else {
            Redirect::temporary("/console").into_response()
        }
    };
    Router::new().route("/", get(page))
}
