//! The rules, one file for each kind of input. They change the draft through `steps`, `requests`, `status`
//! and `end`, and do not use one another; `earlier_data` is a part of `preflight`.

pub(super) mod approval;
pub(super) mod attempt;
pub(super) mod awaited;
pub(super) mod claim;
mod earlier_data;
pub(super) mod follow_up;
pub(super) mod preflight;
pub(super) mod resume;
pub(super) mod signals;
pub(super) mod signature;
