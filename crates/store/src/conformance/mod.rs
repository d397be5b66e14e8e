//! What every store must do, as tests that any backend can be put to.
//!
//! To put a backend to them: implement [`Backend`], and call `conformance_suite!` in a file of `tests/`. To add a rule: a
//! `pub async fn` in the file of its noun, and its name in the macro's list; then every backend has to follow it.

pub mod agents;
pub mod audit;
pub mod environments;
pub mod identity;
pub mod journal;
pub mod once;
pub mod ownership;
pub mod sample;
pub mod sealed;
pub mod sessions;
pub mod vaults;

use crate::Store;
use async_trait::async_trait;
use std::sync::Arc;

/// One empty place where a store can be. Each test gets its own.
#[async_trait]
pub trait Backend: Send + Sync {
    /// Opens what is there. Called again only after the store of the call before was dropped.
    async fn open(&self) -> Arc<dyn Store>;
}

/// Makes one test of each rule. `$backend` is an expression for a fresh [`Backend`].
#[macro_export]
macro_rules! conformance_suite {
    ($backend:expr) => {
        $crate::conformance_suite!(@each $backend;
            journal: [
                entries_are_dense_and_in_order, a_refused_append_leaves_nothing, an_entry_id_stands_once_in_a_journal,
                an_old_epoch_is_fenced, a_moved_journal_is_a_conflict, the_chain_must_continue, only_the_fold_can_be_written,
                one_of_many_writers_at_a_place_wins, absent_sessions_are_absent, watchers_are_woken,
                any_text_and_size_is_kept, long_journals_are_read_in_pages, the_chain_is_provable,
                what_was_acknowledged_is_there_after_reopening, many_sessions_write_at_once
            ],
            ownership: [
                a_session_is_held_by_who_made_it, of_many_claimers_one_wins, a_lease_ends, an_owner_may_claim_again,
                renewing_extends_and_never_shortens, releasing_needs_the_epoch, a_clock_that_goes_back_lets_no_second_writer_in,
                what_needs_an_owner_is_found_oldest_first, a_claim_tells_a_hand_over_from_a_takeover,
                a_claim_that_a_zombie_missed_fences_all_it_does, a_timer_is_due_when_its_time_comes,
                a_timer_survives_reopening, a_clock_that_goes_back_makes_a_timer_wait_and_loses_none,
                recoveries_are_counted_across_owners
            ],
            once: [
                a_repeated_create_has_no_effect, a_repeated_append_has_no_effect, a_failed_request_leaves_no_record,
                of_many_repetitions_one_is_done, keys_belong_to_a_workspace, records_expire,
                a_clock_that_goes_back_opens_no_window
            ],
            sealed: [
                a_whole_journal_is_imported, an_import_is_proved, an_import_takes_no_id_that_exists,
                an_import_in_the_middle_of_a_turn_is_taken_up, a_redacted_entry_is_gone_and_the_chain_whole,
                a_redaction_makes_the_fold_anew, a_redaction_that_does_not_fit_changes_nothing
            ],
            sessions: [
                comes_back_as_it_was, an_id_is_taken_once, workspaces_are_walls, changes_what_a_caller_may_change,
                deleting_takes_the_journal_along, pages_in_both_orders_with_equal_times, filters_narrow_a_list,
                status_follows_the_fold,
                a_change_stands_or_falls_with_its_append
            ],
            agents: [
                versions_are_kept, of_many_updates_one_wins, archiving_keeps_the_first_time, agents_are_listed_in_pages,
                versions_are_listed_newest_first, agents_are_created_once
            ],
            environments: [are_created_read_changed_and_deleted, environments_are_listed_in_pages, environments_are_created_once],
            identity: [
                workspaces_have_names_of_their_own, what_a_workspace_requires_outlives_its_store, a_key_is_found_by_its_digest,
                revoking_is_for_good_and_keeps_the_first_time, the_last_use_never_goes_back,
                keys_are_listed_in_pages_of_their_workspace
            ],
            audit: [
                entries_come_back_as_they_were_newest_first, filters_narrow_the_log,
                the_oldest_leave_first_and_by_age_alone, a_batch_is_written_whole_or_not_at_all
            ],
            vaults: [
                vaults_come_back_as_they_were, workspaces_are_walls_of_vaults, a_vault_holds_so_many_active_credentials,
                an_active_key_is_taken_once, an_archived_credential_has_no_secret, archiving_a_vault_takes_all_secrets_along,
                deleting_a_vault_takes_all_along, of_two_rotations_one_is_refused, vaults_and_credentials_are_made_once,
                vaults_and_credentials_are_listed_in_pages, there_is_one_key_of_the_house, keys_are_wrapped_anew_one_by_one
            ]
        );
    };
    (@each $backend:expr; $($noun:ident: [$($rule:ident),* $(,)?]),* $(,)?) => {
        $(mod $noun {
            use super::*;
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $rule() {
                let backend = $backend;
                $crate::conformance::$noun::$rule(&backend).await;
            })*
        })*
    };
}
