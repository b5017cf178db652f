//! Signatures through [ZapSign](https://zapsign.com.br), over version 1 of its API.
//!
//! One call creates a document and sends it to its signers. The document's `external_id` is a mark of the
//! idempotency key. The API cannot search by this mark, so each attempt first looks for it among the newest
//! documents of the first signer, 100 at most. One case remains: if a call broke off and ZapSign is still
//! working on it while the next attempt looks, a second document is sent.
//!
//! ZapSign does not sign its webhooks, but sends headers that its user chooses. In the ZapSign account, set
//! up a webhook for all events to the path `/api/v1/webhooks/signature/zapsign` of docg's API. Its header
//! `X-Webhook-Secret` (or [another](ZapSignConfig::webhook_header)) holds the `webhook_secret` of
//! [`ZapSignConfig::new`]. Before an execution continues with a signed document, the provider reads the
//! document's state from the API.

mod api;
mod document;
mod provider;

pub use provider::{NAME, ZapSign, ZapSignConfig};

#[cfg(test)]
mod tests;
