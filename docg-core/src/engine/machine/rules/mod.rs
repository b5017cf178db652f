//! One file for each kind of input. They change the draft by `steps`, `requests`, `status` and `end`; none
//! uses another.

pub(super) mod approval;
pub(super) mod attempt;
pub(super) mod claim;
mod earlier_data;
pub(super) mod follow_up;
pub(super) mod preflight;
pub(super) mod resume;
pub(super) mod signals;
pub(super) mod signature;
