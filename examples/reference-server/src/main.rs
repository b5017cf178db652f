//! reference-server
fn main() {}
