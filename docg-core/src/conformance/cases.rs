//! The lists of cases, and the macros that turn the cases into tests.
//!
//! A case that is missing in these lists is not exported, so the compiler reports it as unused code.

/// Generates one test for each case for stores. The argument is an async function without parameters
/// that returns a fresh store: an `Arc` of one, an `Arc<dyn Store>`, or a
/// [`StoreUnderTest`](crate::conformance::StoreUnderTest).
#[macro_export]
macro_rules! store_conformance {
    ($factory:expr) => {
        $crate::__store_cases! { tests [$crate::conformance::StoreUnderTest, store, $factory] }
    };
}

/// Generates one test for each case for buses. The argument is an async function without parameters
/// that returns a fresh bus: an `Arc` of one, an `Arc<dyn EventBus>`, or a
/// [`BusUnderTest`](crate::conformance::BusUnderTest).
#[macro_export]
macro_rules! bus_conformance {
    ($factory:expr) => {
        $crate::__bus_cases! { tests [$crate::conformance::BusUnderTest, bus, $factory] }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __store_cases {
    ($what:ident $how:tt) => {
        $crate::__cases! { $what $how
            create {
                a_new_run_is_there_whole
                a_repeated_key_gives_the_first_run
                a_key_with_another_body_is_refused
                a_key_is_bound_to_its_organization
                of_concurrent_creates_with_one_key_one_is_new
                a_refused_create_does_not_use_its_key_up
                a_taken_id_is_refused_whole
                first_events_with_a_hole_are_refused
                a_run_can_be_leased_as_it_is_stored
                what_was_leased_as_it_was_stored_can_be_given_back
                leases_of_new_runs_are_of_their_organizations_share
                of_runs_stored_at_once_no_more_than_the_share_are_leased
                a_repeated_key_leases_nothing
            }
            claim {
                what_is_due_is_given_with_its_whole_state
                what_is_not_due_is_not_given
                higher_priority_then_longer_due_comes_first
                many_workers_get_each_execution_once
                of_many_claims_of_one_execution_one_gets_it
                what_is_leased_is_not_given
                one_by_name_is_given_due_or_not_ended_or_not
                one_that_is_not_there_is_not_given
                fences_grow_with_every_claim
                only_what_the_worker_can_run_is_given
                what_the_worker_cannot_run_is_told
                an_organization_gets_no_more_than_its_share
                leases_that_ran_out_do_not_count_as_share
                a_flood_leaves_room_for_other_organizations
                organizations_take_turns
                what_has_ended_is_not_given
                what_has_ended_is_due_since_its_signal
                next_due_is_not_too_late
                a_claim_that_the_share_cuts_short_is_told_when_a_lease_is_released
            }
            lease {
                a_lease_holds_until_its_end
                a_takeover_is_told_from_what_was_given_back
                takeovers_are_counted_until_a_commit_makes_progress
                who_ran_out_may_commit_until_somebody_takes_over
                what_ran_out_is_taken_over_and_its_holder_refused
                renewing_prolongs
                renewing_returns_what_is_lost
                renewing_tells_who_has_signals
                a_commit_that_keeps_the_lease_prolongs_it
                a_late_commit_does_not_shorten_a_lease_that_was_renewed
                giving_back_makes_due_at_once
                giving_back_a_lost_lease_changes_nothing
            }
            commit {
                a_commit_is_applied_whole
                a_commit_leaves_alone_what_it_does_not_name
                a_stale_version_is_refused_whole
                a_lost_lease_is_refused_whole
                another_workers_lease_is_refused
                of_two_commits_on_one_version_one_wins
                events_that_do_not_follow_are_refused_whole
                a_release_makes_due_at_the_time_it_names
                a_release_without_a_time_waits_for_a_signal
                signature_requests_are_found_and_change
                a_later_signature_request_leaves_the_earlier_to_be_found
                approvals_are_found_by_token_and_change
                a_name_that_leads_to_another_execution_is_refused_whole
            }
            signals {
                a_signal_makes_a_waiting_execution_due
                a_signal_changes_nothing_but_the_inbox
                signals_keep_their_order
                a_repeated_signal_changes_nothing
                a_settled_signal_that_is_repeated_stays_settled
                a_signal_to_a_leased_execution_waits_for_its_holder
                a_release_with_signals_pending_is_due_at_once
                an_end_is_refused_until_it_settles_the_inbox
                a_signal_to_an_ended_execution_makes_it_due
                another_organizations_signal_is_refused
                concurrent_signals_all_arrive
            }
            stopping {
                a_cancel_ends_an_execution_canceled_whatever_its_handler_answers
                a_cancel_through_another_process_wins_too
                a_cancel_at_takeover_wins_over_what_the_old_worker_answers
                a_shutdown_ends_nothing_whatever_the_handlers_answer
                at_its_deadline_a_step_has_timed_out_whatever_its_handler_answers
                the_end_of_an_execution_yields_to_a_cancel_in_its_inbox
            }
            reads {
                another_organization_sees_nothing
                what_is_not_there_is_empty_not_an_error
                an_event_finds_the_steps_that_wait_for_its_key
                events_are_read_on_from_a_number
                logs_are_filtered_by_level_domain_and_step
                the_audit_trail_verifies
            }
            paging {
                executions_come_newest_first_without_loss_or_repeat
                executions_are_filtered_by_workflow_and_status
                executions_are_filtered_ordered_and_counted
                lists_stand_still_under_concurrent_creates_and_commits
                logs_are_paged_without_loss_or_repeat
                filtered_logs_are_paged_without_loss_or_repeat
                audit_rows_are_paged_without_loss_or_repeat
                pages_stand_still_under_concurrent_commits
            }
            publishing {
                what_was_not_published_is_listed_until_it_is
                what_changed_of_late_is_not_listed
                published_never_goes_back
                a_commit_can_say_what_was_published
                a_claim_says_what_was_published
                the_list_of_what_was_not_published_goes_on_after_an_execution
                no_more_is_listed_than_asked_for
            }
            purging {
                old_ended_executions_go_with_all_that_is_theirs
                nothing_else_goes
                what_has_signals_pending_is_not_purged
                no_more_goes_than_asked_for
                a_purged_key_is_free_again
            }
            storable {
                a_commit_that_cannot_be_kept_is_refused_whole
                what_comes_with_a_call_and_cannot_be_kept_is_refused
                what_is_nested_as_deep_as_allowed_comes_back
                the_first_and_the_last_moment_come_back
            }
            workflows {
                versions_follow_one_another
                of_concurrent_versions_one_is_stored
                a_deleted_workflow_is_hidden_and_its_versions_go_on
                an_execution_keeps_its_version
                another_organizations_workflows_are_hidden
                workflows_come_newest_first_without_loss_or_repeat
            }
            ttl {
                a_name_is_remembered_once
                of_concurrent_entries_one_is_remembered
                an_entry_is_forgotten_when_it_expires
                an_expired_name_is_free_again
                replacing_changes_the_fact
                names_differ_by_organization_and_kind
            }
        }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __bus_cases {
    ($what:ident $how:tt) => {
        $crate::__cases! { $what $how
            replay {
                a_late_reader_gets_what_was_published_in_order
                a_reader_goes_on_after_what_it_has
                what_is_published_twice_comes_once
                executions_do_not_mix
                a_reader_that_is_ahead_waits_for_what_is_new
                what_is_forgotten_is_too_old
            }
            order {
                what_does_not_follow_is_refused
                of_publishers_in_any_order_none_leaves_a_hole
                what_was_lost_is_given_back_in_silence
                what_is_given_back_follows_what_is_there
                no_more_is_wanted_back_than_is_kept
            }
            live {
                an_unknown_execution_is_waited_for
                what_is_published_later_arrives_in_order
                readers_that_come_at_any_time_miss_and_repeat_nothing
                readers_do_not_disturb_one_another
                a_slow_reader_is_cut_off_and_the_others_are_not
                a_reader_that_was_cut_off_can_come_back
            }
            lists {
                a_list_has_the_list_events_of_all_its_executions
                a_list_goes_on_after_a_position
                a_list_begins_now_without_a_position
                organizations_lists_do_not_mix
                what_is_published_twice_is_in_the_list_once
                a_position_that_is_unknown_or_forgotten_is_refused
            }
            wakes {
                a_wake_reaches_every_listener
                a_wake_that_nobody_hears_is_no_error
                a_listener_that_left_disturbs_nobody
            }
        }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __cases {
    (exports [] $($topic:ident { $($case:ident)+ })+) => {
        $(pub use $topic::{$($case),+};)+
    };
    (tests [$under_test:ty, $port:ident, $factory:expr] $($topic:ident { $($case:ident)+ })+) => {
        $(
            mod $topic {
                #[allow(unused_imports, reason = "a factory may be a path that needs none")]
                use super::*;
                $(
                    #[$crate::conformance::tokio::test(
                        flavor = "multi_thread",
                        worker_threads = 4,
                        crate = "docg_core::conformance::tokio"
                    )]
                    async fn $case() {
                        $crate::conformance::$port::$case(<$under_test>::from(($factory)().await)).await;
                    }
                )+
            }
        )+
    };
}
