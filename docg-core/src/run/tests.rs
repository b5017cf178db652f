use super::*;

#[test]
fn every_pair_of_statuses_is_judged_as_the_table_says() {
    for (from, successors) in TRANSITIONS {
        for to in Status::ALL {
            // A paused execution may return only to the status before the pause, so let `to` be that status.
            let paused_from = (from == Status::Paused).then_some(to);
            let allowed = from.check(to, paused_from).is_ok();
            assert_eq!(allowed, successors.contains(&to), "{from} -> {to}");
            if !allowed {
                let error = from.check(to, paused_from).expect_err("refused");
                assert_eq!((error.from, error.to), (from, to), "the error names both");
            }
        }
    }
}

#[test]
fn a_pause_returns_only_to_the_status_it_came_from() {
    for from in [
        Status::Queued,
        Status::Running,
        Status::Ready,
        Status::Sending,
        Status::Sent,
        Status::Signing,
        Status::Signed,
    ] {
        for to in Status::ALL {
            let ends = matches!(to, Status::NeedsReview | Status::Canceled | Status::Failed);
            assert_eq!(
                Status::Paused.check(to, Some(from)).is_ok(),
                to == from || ends,
                "paused from {from} -> {to}"
            );
        }
    }
}

#[test]
fn the_table_lists_each_status_once_in_the_order_of_the_enum() {
    for (index, (status, _)) in TRANSITIONS.iter().enumerate() {
        assert_eq!(*status as usize, index);
        assert_eq!(*status, Status::ALL[index]);
    }
}

#[test]
fn nothing_follows_a_terminal_status_and_nothing_else_is_a_dead_end() {
    for status in Status::ALL {
        assert_eq!(
            status.is_terminal(),
            status.successors().is_empty(),
            "{status}"
        );
    }
}

#[test]
fn wire_names_are_pinned() {
    let statuses = Status::ALL.map(Status::as_str).join(" ");
    insta::assert_snapshot!(statuses, @"queued running needs_review ready sending sent signing signed paused completed failed canceled");
    let phases = Phase::ALL.map(Phase::as_str).join(" ");
    insta::assert_snapshot!(phases, @"preflight trigger render save delivery signature");
    let steps = StepStatus::ALL.map(StepStatus::as_str).join(" ");
    insta::assert_snapshot!(steps, @"pending running success failure skipped");
    for status in Status::ALL {
        assert_eq!(
            serde_json::to_value(status).expect("serializes"),
            status.as_str()
        );
        assert_eq!(status.as_str().parse(), Ok(status));
    }
    for phase in Phase::ALL {
        assert_eq!(
            serde_json::to_value(phase).expect("serializes"),
            phase.as_str()
        );
        assert_eq!(phase.as_str().parse(), Ok(phase));
    }
}

#[test]
fn the_diagram_in_the_documentation_is_the_table() {
    let document = include_str!("../../../ARCHITECTURE.md");
    assert!(
        document.contains(&state_diagram()),
        "ARCHITECTURE.md must contain this between mermaid fences:\n{}",
        state_diagram()
    );
}
