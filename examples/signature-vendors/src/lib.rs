#![doc = include_str!("../README.md")]
#![cfg(any(feature = "clicksign", feature = "zapsign"))]
// The shared modules have items that only one of the vendors uses.
#![cfg_attr(not(all(feature = "clicksign", feature = "zapsign")), allow(dead_code))]

mod api;
mod config;
mod documents;
mod http;
mod lenient;
mod moment;
mod request;

#[cfg(feature = "clicksign")]
pub mod clicksign;
#[cfg(feature = "zapsign")]
pub mod zapsign;

#[cfg(test)]
mod testing;

pub use config::ConfigError;
pub use documents::{Document, Documents};
pub use http::{HttpClient, HttpError, HttpRequest, HttpResponse, Method};
