//! A real browser on the real program: what signers and approvers do with its pages, and how a page of another
//! origin follows a run.

mod approving;
mod driver;
mod events;
mod origin;
mod proxy;
mod signing;
