//! A real browser and the real program: signers and approvers use the pages, and a page of another origin
//! follows an execution.

mod approving;
mod console;
mod driver;
mod events;
mod origin;
mod proxy;
mod signing;
