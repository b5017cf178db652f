//! Event streams (HTML standard, section 9.2).

mod frame;
pub(crate) mod limits;
pub(crate) mod stream;
pub(crate) mod tokens;
