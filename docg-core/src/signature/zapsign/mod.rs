//! Signatures through [ZapSign](https://zapsign.com.br), over version 1 of its API.
//!
//! A document is made and sent to its signers by one call, with a mark of the idempotency key as its
//! `external_id`. The API cannot be asked for that, so an attempt that follows a broken one looks for
//! it through the newest documents of the first signer, 100 at most. What cannot be excluded: a call
//! that broke off and that ZapSign is still working at when the next attempt looks.
//!
//! ZapSign does not sign its webhooks. It sends fixed headers that its user chooses: set up a webhook
//! for all events, with the path `/api/v1/webhooks/signature/zapsign` of the API and the header
//! `X-Webhook-Secret` (or [another](ZapSignConfig::webhook_header)) holding the secret given here.
//! Before a run goes on with a signed document, the document's state is read from the API.

mod api;
mod document;
mod provider;

pub use provider::{NAME, ZapSign, ZapSignConfig};

#[cfg(test)]
mod tests;
