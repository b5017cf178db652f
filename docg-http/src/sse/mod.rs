//! Event streams (HTML standard, section 9.2).

pub(crate) mod encoded;
mod frame;
pub(crate) mod later;
pub(crate) mod limits;
pub(crate) mod list;
mod open;
pub(crate) mod slow;
pub(crate) mod stream;
pub(crate) mod tokens;
