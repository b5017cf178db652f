//! Signatures through [ClickSign](https://www.clicksign.com), over version 3 of its API (envelopes).
//!
//! An envelope is put together as a draft - document, signers, what is required of them - and only
//! then activated and announced to the signers. A draft reaches nobody, so an attempt that broke off
//! before is cleared away and made again; one that broke off after it is found by the envelope's
//! name, which holds a mark of the idempotency key. What cannot be excluded: where an activation is
//! still under way at ClickSign while the next attempt looks, that attempt fails and is repeated.
//!
//! Set up a webhook for all events in the account, with the path
//! `/api/v1/webhooks/signature/clicksign` of the API; its HMAC secret is the one given here.

mod api;
mod events;
mod provider;

pub use provider::{ClickSign, ClickSignConfig, NAME};

#[cfg(test)]
mod tests;
