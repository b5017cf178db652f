//! What readers get: stored records, the events of one execution, and the events of an organization.
//!
//! The relay brings committed events to the bus, where the feeds find them.

mod actions;
mod feed;
mod organization_feed;
mod records;
pub(super) mod relay;

pub use actions::SIGNATURES_LOST;
pub(super) use actions::losses;
pub use feed::EventFeed;
pub use organization_feed::{OrganizationFeed, OrganizationItem};
pub use records::PreflightAnswer;
