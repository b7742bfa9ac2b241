//! The list of all cases, in one place: the tests and the table are both made from it.

mod calls;
mod consume;
mod declare;
mod endings;
mod errors;
mod hostile;
mod inbox;
mod isolation;
mod lifecycle;
mod limits;
mod notices;
mod promises;
mod publish;
mod queues;
mod reconnect;
mod retry;
mod settle;
mod workers;

use crate::backend::Backend;

/// A case: it returns, or it panics with what is wrong.
pub(crate) type Case = fn(&dyn Backend);

/// Hands the list of cases to a macro: `{ list } ` and what else was given.
///
/// A function in a case file that is not listed here is dead code, and the compiler says so.
#[doc(hidden)]
#[macro_export]
macro_rules! __with_cases {
    ([$($callback:tt)+] $($more:tt)*) => {
        $($callback)+ {
            {
                publish {
                    what_is_published_is_consumed,
                    bodies_of_any_size_survive,
                    all_properties_and_headers_survive,
                    what_is_absent_stays_absent,
                    an_unknown_queue_is_no_route_at_once,
                    only_the_unroutable_of_many_are_no_route,
                    publishes_of_one_thread_keep_their_order,
                    many_threads_publish_at_once,
                    names_of_255_bytes_pass,
                    what_has_expired_is_not_delivered,
                    a_blocked_publish_waits_for_its_deadline_and_acks_go_on,
                }
                declare {
                    declaring_again_changes_nothing,
                    other_arguments_are_a_conflict,
                    a_passive_declaration_only_looks,
                    a_quorum_queue_works,
                    a_queue_needs_a_name,
                    refusals_leave_the_rest_of_the_transport_alone,
                }
                queues {
                    every_preset_can_be_declared_again,
                    the_argument_that_differs_is_named,
                    what_no_broker_can_declare_is_misuse,
                    a_full_queue_refuses_and_takes_again_when_there_is_room,
                    what_is_discarded_is_found_among_the_dead_letters,
                    a_quorum_queue_counts_its_deliveries,
                    what_is_over_the_delivery_limit_is_a_dead_letter,
                    of_dead_letters_the_newest_are_kept,
                    a_queue_for_dead_letters_without_that_limit_is_a_conflict,
                }
                consume {
                    consuming_a_missing_queue_is_not_found,
                    two_consumers_share_a_queue,
                    a_consumer_holds_at_most_its_prefetch,
                    settling_makes_room_for_more,
                    receives_that_are_given_up_lose_nothing,
                }
                inbox {
                    names_are_unique_and_nobody_elses,
                    deliveries_need_no_settling,
                    no_other_connection_can_consume_it,
                    it_goes_with_its_consumer,
                    a_direct_inbox_works_or_is_refused,
                }
                settle {
                    what_is_not_settled_comes_again,
                    what_is_acknowledged_does_not_come_again,
                    acks_before_a_close_hold,
                    any_thread_can_acknowledge,
                    deliveries_outlive_their_consumer,
                    a_foreign_token_is_misuse_and_harms_nothing,
                    a_requeued_delivery_comes_back,
                    a_discarded_delivery_does_not_come_back,
                }
                lifecycle {
                    cancel_ends_a_waiting_receive,
                    cancel_is_idempotent,
                    cancel_of_a_foreign_consumer_is_misuse,
                    cancel_hands_back_what_was_not_received,
                    a_dropped_consumer_is_cancelled,
                    close_ends_every_waiting_receive,
                    close_is_idempotent_and_quick,
                    close_resolves_every_open_confirm,
                    after_close_every_verb_is_closed,
                    close_leaves_other_connections_alone,
                }
                calls {
                    every_codec_makes_the_round_trip,
                    a_plain_peer_is_answered_in_kind,
                    handlers_of_every_kind_answer,
                    a_thousand_calls_at_once_get_their_own_answers,
                    clients_of_one_connection_do_not_mix,
                    a_request_without_reply_to_runs_and_is_done,
                    any_correlation_id_is_echoed,
                    a_message_id_stands_in_for_a_missing_correlation_id,
                    the_handler_sees_what_was_sent,
                }
                endings {
                    a_call_ends_at_its_deadline,
                    a_late_reply_changes_nothing,
                    forged_and_repeated_replies_change_nothing,
                    nobody_listening_is_known_at_once,
                    a_thousand_calls_given_up_leave_nothing,
                    closing_the_client_ends_its_calls,
                    closing_the_transport_ends_its_calls,
                    closing_the_transport_ends_its_server,
                }
                errors {
                    a_malformed_request_is_refused,
                    an_unknown_method_is_refused,
                    an_unknown_content_type_is_refused,
                    the_error_of_a_handler_arrives_as_it_was,
                    a_hundred_panics_cost_no_worker,
                    a_handler_that_never_answers_is_stopped,
                    a_passed_on_refusal_does_not_speak_for_the_handler,
                }
                limits {
                    a_request_over_the_limit_is_not_sent,
                    a_request_over_the_limit_of_the_service_is_refused,
                    a_reply_over_the_limit_of_the_service_is_refused,
                    a_reply_over_the_limit_of_the_client_is_not_taken,
                    bodies_at_the_limit_pass,
                    one_call_too_many_is_refused,
                }
                hostile {
                    a_request_answered_to_its_own_queue_does_not_loop,
                    a_reply_in_the_request_queue_is_dropped,
                    a_reply_that_nobody_can_receive_is_done_with,
                    a_forged_direct_reply_address_costs_no_worker,
                    a_stale_request_does_not_run,
                }
                promises {
                    a_caller_that_gives_up_stops_its_handler,
                    at_most_once_acknowledges_before_it_runs,
                    a_repeated_request_is_answered_and_does_not_run_again,
                    a_request_that_goes_in_circles_comes_to_an_end,
                    a_stuck_handler_costs_no_place,
                    a_handler_knows_what_it_works_on,
                    a_suspect_runs_in_quarantine_and_a_poison_is_given_up,
                }
                isolation {
                    while_a_suspect_is_in_hand_nothing_else_begins,
                    work_does_not_wait_for_ever_for_a_slow_suspect,
                }
                retry {
                    an_idempotent_call_outlives_its_connection_under_one_key,
                    what_may_have_run_is_not_sent_again,
                    what_may_have_run_stays_so_whatever_comes_after,
                    a_worker_that_stops_passes_its_requests_on,
                    push_back_is_obeyed,
                    a_call_can_wait_for_somebody_to_listen,
                    a_call_can_wait_for_a_connection,
                    a_blocked_broker_fails_calls_at_once_where_they_are_not_to_wait,
                }
                reconnect {
                    a_lost_connection_is_replaced,
                    without_a_connection_calls_fail_at_once_and_say_so,
                    a_client_that_is_closed_ends_the_calls_that_wait,
                    a_client_without_a_broker_closes_at_once,
                    a_closed_client_leaves_no_connection,
                }
                notices {
                    a_request_says_what_its_service_can_use,
                    a_worker_that_is_known_is_told_that_nobody_waits,
                    a_worker_that_speaks_up_late_is_told_then,
                    a_call_within_other_work_carries_it_on,
                    a_call_ends_with_the_work_it_is_part_of_and_so_does_its_handler,
                }
                workers {
                    two_workers_share,
                    what_is_not_run_waits_for_no_handler,
                    a_worker_that_dies_loses_no_request,
                    a_drain_finishes_what_began_and_hands_back_the_rest,
                    a_drain_ends_at_its_limit,
                    a_dropped_server_takes_no_more_requests,
                }
            }
            $($more)*
        }
    };
}

macro_rules! table {
    ({ $($group:ident { $($case:ident,)+ })+ }) => {
        /// All cases by their names.
        pub(crate) const CASES: &[(&str, Case)] = &[
            $($((concat!(stringify!($group), "::", stringify!($case)), $group::$case),)+)+
        ];
    };
}

__with_cases!([table!]);
