//! What readers get: stored records, the events of one execution, and the events of an organization.
//!
//! The relay brings committed events to the bus, where the feeds find them.

mod feed;
mod list_feed;
mod records;
pub(super) mod relay;

pub use feed::EventFeed;
pub use list_feed::{ListFeed, ListItem};
pub use records::PreflightAnswer;
