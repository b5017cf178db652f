//! How providers that live elsewhere are reached: the [`HttpClient`] that an application brings, and
//! what becomes of its answers. `Api` is one provider's base URL and token over such a client.

mod api;
mod client;
mod request;

pub(super) use api::{Api, Call, Failed};
pub use api::{ApiConfig, ConfigError};
pub use client::{HttpClient, HttpError, HttpRequest, HttpResponse, Method};
pub(super) use request::{mark_of, turns};

#[cfg(test)]
pub(super) mod testing;
