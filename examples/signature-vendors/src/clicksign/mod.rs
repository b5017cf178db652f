//! Signatures through [ClickSign](https://www.clicksign.com), over version 3 of its API (envelopes).
//!
//! The provider first creates an envelope as a draft, with its document, signers and requirements. Then it
//! activates the envelope and has ClickSign notify the signers. The envelope's name contains a mark of the
//! idempotency key, by which the next attempt finds it. If an attempt broke off before the activation, the
//! next attempt deletes the draft, which no signer has seen, and starts over. If an attempt broke off after
//! the activation, the next attempt returns the existing envelope. If ClickSign is still activating the
//! envelope while the next attempt looks, that attempt fails and is retried.
//!
//! In the ClickSign account, set up a webhook for all events to the path
//! `/api/v1/webhooks/signature/clicksign` of docg's API. Its HMAC secret is the `webhook_secret` of
//! [`ClickSignConfig::new`].

mod api;
mod events;
mod provider;

pub use provider::{ClickSign, ClickSignConfig, NAME};

#[cfg(test)]
mod tests;
