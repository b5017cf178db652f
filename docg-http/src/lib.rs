#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod auth;
mod caller;
#[cfg(feature = "console")]
mod console;
mod cursor;
mod dto;
mod extract;
mod idempotency;
#[cfg(feature = "jwt")]
mod jwt;
mod load;
mod metrics;
mod middleware;
mod openapi;
mod options;
mod problem;
mod router;
mod routes;
mod serve;
mod shape;
mod sse;

pub use auth::{AuthError, Authenticator, Principal, Scope, StaticTokens};
pub use caller::Caller;
#[cfg(feature = "jwt")]
pub use jwt::{JwtKeyError, JwtTokens};
pub use metrics::Metrics;
pub use openapi::openapi;
pub use options::{BusProbe, BusState, HttpOptions};
pub use problem::Problem;
pub use router::{AppState, api, router, with_layers};
pub use serve::{ServeOptions, TimedWrites, WriteTimeout, open_files, serve};
