//! The smallest program does what its README says, in at most 60 lines.

use std::process::Command;

#[test]
fn the_smallest_program_retries_waits_for_a_signature_and_completes() {
    let output = Command::new(env!("CARGO_BIN_EXE_embedded"))
        .output()
        .expect("it starts");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}");
    let events: Vec<_> = told
        .lines()
        .filter_map(|line| line.split_whitespace().last())
        .collect();
    for expected in [
        "step.failed",
        "signature.requested",
        "signature.signer.signed",
    ] {
        assert!(events.contains(&expected), "{expected} in {told}");
    }
    assert_eq!(events.last(), Some(&"execution.completed"));
    assert!(
        told.lines()
            .last()
            .is_some_and(|line| line.starts_with("100% completed"))
    );
}

#[test]
fn it_takes_at_most_60_lines() {
    assert!(include_str!("../src/main.rs").lines().count() <= 60);
}
