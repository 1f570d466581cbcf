//! Bugs planted on purpose, each killed by the test that is meant to find it.

use millrace_log::fs::sim::{CrashFailure, CrashPlan, Tally};
use millrace_log::planted::{Bug, with};

use super::crash::{crash_backups, crash_everywhere, crash_upkeep, crash_views};

use crate::planted::*;

/// The crash enumeration must fail with the bug, and say something like `says`.
fn killed_by_crashes(bug: Bug, says: &str) {
    let plan = CrashPlan {
        random_subsets: 4,
        ..CrashPlan::default()
    };
    let outcome = with(bug, || std::panic::catch_unwind(|| crash_everywhere(&plan)));
    expect_killed(bug, outcome, says);
}

/// The same, of the workload with merges and deletes.
fn killed_by_upkeep_crashes(bug: Bug) {
    let plan = CrashPlan {
        random_subsets: 4,
        ..CrashPlan::default()
    };
    let outcome = with(bug, || std::panic::catch_unwind(|| crash_upkeep(&plan)));
    expect_killed(bug, outcome, "");
}

/// The same, of the workload with retention, backups and restores.
fn killed_by_backup_crashes(bug: Bug) {
    let plan = CrashPlan {
        random_subsets: 4,
        ..CrashPlan::default()
    };
    let outcome = with(bug, || std::panic::catch_unwind(|| crash_backups(&plan)));
    expect_killed(bug, outcome, "");
}

fn expect_killed(bug: Bug, outcome: std::thread::Result<Result<Tally, CrashFailure>>, says: &str) {
    let message = match outcome {
        Ok(Ok(tally)) => panic!("{bug:?} survived: {tally}"),
        Ok(Err(failure)) => failure.to_string(),
        Err(panic) => panic
            .downcast_ref::<String>()
            .cloned()
            .unwrap_or_else(|| "panic".into()),
    };
    assert!(
        message.contains(says),
        "{bug:?} was found otherwise: {message}"
    );
}

#[test]
fn wal_offset_one_too_far_is_killed() {
    killed_by_crashes(WAL_OFFSET_TOO_FAR, "");
}

#[test]
fn dropping_the_record_at_w_is_killed() {
    killed_by_crashes(REDELIVERY_OFF_BY_ONE, "");
}

#[test]
fn applying_below_w_again_is_killed() {
    killed_by_crashes(REDELIVERY_APPLIED, "");
}

#[test]
fn a_sealed_offset_ahead_of_the_data_is_killed() {
    killed_by_crashes(W_BEFORE_DATA, "");
}

#[test]
fn skipping_the_first_record_of_a_replay_is_killed() {
    killed_by_crashes(REPLAY_SKIPS_FIRST, "");
}

#[test]
fn a_block_renamed_before_its_sync_is_killed() {
    killed_by_crashes(BLOCK_UNSYNCED, "");
}

#[test]
fn a_block_directory_without_sync_is_killed() {
    killed_by_crashes(BLOCK_DIR_UNSYNCED, "");
}

#[test]
fn an_unsynced_manifest_edit_is_killed() {
    killed_by_crashes(EDIT_UNSYNCED, "");
}

#[test]
fn removing_the_wal_before_the_edit_is_killed() {
    killed_by_crashes(WAL_REMOVED_EARLY, "");
}

#[test]
fn releasing_the_queue_before_the_seal_is_killed() {
    killed_by_crashes(RELEASE_BEFORE_SEAL, "Released");
}

#[test]
fn sealing_the_first_value_instead_of_the_last_is_killed() {
    killed_by_crashes(SEAL_KEEPS_FIRST, "");
}

#[test]
fn losing_late_samples_at_the_seal_is_killed() {
    killed_by_crashes(SEAL_LOSES_LATE, "");
}

#[test]
fn reading_the_older_of_two_blocks_is_killed() {
    killed_by_crashes(OLDER_BLOCK_WINS, "");
}

#[test]
fn orphans_left_lying_about_are_killed() {
    killed_by_crashes(ORPHAN_KEPT, "left over");
}

#[test]
fn an_unsynced_dead_letter_is_killed() {
    killed_by_crashes(DEAD_LETTER_UNSYNCED, "dead letters");
}

#[test]
fn a_dead_letter_written_twice_is_killed() {
    killed_by_crashes(DEAD_LETTER_TWICE, "dead letters");
}

#[test]
fn committing_a_position_before_its_sync_is_killed() {
    killed_by_crashes(COMMIT_BEFORE_SYNC, "Synced");
}

#[test]
fn a_requeued_record_that_overrides_is_killed() {
    killed_by_crashes(REQUEUED_OVERRIDES, "not sent");
}

#[test]
fn a_delete_that_hides_later_samples_is_killed() {
    killed_by_upkeep_crashes(DELETE_HIDES_LATER);
}

#[test]
fn a_delete_that_ignores_its_time_is_killed() {
    killed_by_upkeep_crashes(MASK_IGNORES_RANGE);
}

#[test]
fn a_delete_that_misses_the_memtable_is_killed() {
    killed_by_upkeep_crashes(DELETE_MISSES_MEMTABLE);
}

#[test]
fn a_seal_that_forgets_deletes_is_killed() {
    killed_by_upkeep_crashes(SEAL_FORGETS_DELETES);
}

#[test]
fn late_data_that_go_back_in_time_are_killed() {
    killed_by_upkeep_crashes(NEWEST_OF_LAST_PLACE);
}

#[test]
fn a_revoke_that_is_not_kept_is_killed() {
    killed_by_upkeep_crashes(REVOKE_NOT_KEPT);
}

#[test]
fn an_older_value_that_wins_in_compaction_is_killed() {
    killed_by_upkeep_crashes(COMPACTION_OLDER_WINS);
}

#[test]
fn inputs_removed_before_the_edit_are_killed() {
    killed_by_upkeep_crashes(OBSOLETE_REMOVED_EARLY);
}

#[test]
fn a_merge_across_a_pending_delete_is_killed() {
    killed_by_upkeep_crashes(COMPACTION_JOINS_OVER_DELETE);
}

#[test]
fn removing_what_can_still_be_revoked_is_killed() {
    killed_by_upkeep_crashes(REMOVED_WHILE_PENDING);
}

/// Without a bug the same plan passes: a harness that fails always would kill every bug.
#[test]
fn without_a_bug_the_same_plan_passes() {
    let plan = CrashPlan {
        random_subsets: 4,
        ..CrashPlan::default()
    };
    crash_everywhere(&plan).unwrap_or_else(|failure| panic!("{failure}"));
    crash_upkeep(&plan).unwrap_or_else(|failure| panic!("{failure}"));
}

#[test]
fn publishing_the_list_before_its_files_is_killed() {
    killed_by_backup_crashes(BACKUP_LIST_FIRST);
}

#[test]
fn linking_a_segment_that_is_still_written_is_killed() {
    killed_by_backup_crashes(BACKUP_OPEN_SEGMENT_LINKED);
}

#[test]
fn restoring_under_the_final_name_is_killed() {
    killed_by_backup_crashes(RESTORE_IN_PLACE);
}

/// The same, of the workload with views.
fn killed_by_view_crashes(bug: Bug) {
    let plan = CrashPlan {
        random_subsets: 1,
        ..CrashPlan::default()
    };
    let outcome = with(bug, || std::panic::catch_unwind(|| crash_views(&plan)));
    expect_killed(bug, outcome, "view");
}

#[test]
fn a_view_that_late_samples_do_not_change_is_killed() {
    killed_by_view_crashes(VIEW_KEEPS_STALE);
}

#[test]
fn a_view_that_passes_over_deletes_is_killed() {
    let outcome = with(VIEW_MISSES_DELETE, || {
        std::panic::catch_unwind(super::views::expect_deleted)
    });
    assert!(outcome.is_err(), "{VIEW_MISSES_DELETE:?} survived");
}

#[test]
fn a_view_that_is_not_frozen_before_retention_is_killed() {
    let outcome = with(VIEW_NOT_FROZEN, || {
        std::panic::catch_unwind(super::views::expect_frozen)
    });
    assert!(outcome.is_err(), "{VIEW_NOT_FROZEN:?} survived");
}
