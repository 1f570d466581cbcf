//! For each planted bug the check that notices it.

use millrace_log::planted::{Bug, with};

use crate::{crash, faults, rows};

/// Fails if `check` accepts the log with `bug` in it, or refuses it without.
#[track_caller]
fn killed<T: std::fmt::Debug>(bug: Bug, check: impl Fn() -> Result<T, String>) {
    if let Err(message) = check() {
        panic!("without a bug: {message}");
    }
    let verdict = with(bug, &check);
    println!("{}: {verdict:?}", bug.0);
    assert!(verdict.is_err(), "nobody noticed: {}", bug.0);
}

fn sweep() -> Result<millrace_log::fs::sim::Sweep, String> {
    faults::sweep(2, 60, false)
}

#[test]
fn sync_left_out() {
    killed(Bug::SYNC_LEFT_OUT, crash::by_lint);
    killed(Bug::SYNC_LEFT_OUT, crash::by_oracle);
}

#[test]
fn every_seventh_sync_left_out() {
    killed(Bug::SEVENTH_SYNC_LEFT_OUT, crash::by_lint);
    killed(Bug::SEVENTH_SYNC_LEFT_OUT, crash::by_oracle);
}

#[test]
fn sync_before_write() {
    killed(Bug::SYNC_BEFORE_WRITE, crash::by_lint);
    killed(Bug::SYNC_BEFORE_WRITE, crash::by_oracle);
}

#[test]
fn roll_without_sync() {
    killed(Bug::ROLL_WITHOUT_SYNC, crash::by_lint);
    killed(Bug::ROLL_WITHOUT_SYNC, crash::by_oracle);
}

#[test]
fn rename_before_file_sync() {
    killed(Bug::RENAME_BEFORE_SYNC, crash::by_lint);
    killed(Bug::RENAME_BEFORE_SYNC, crash::by_oracle);
}

#[test]
fn publish_without_directory_sync() {
    killed(Bug::PUBLISH_WITHOUT_DIR_SYNC, crash::by_lint);
    killed(Bug::PUBLISH_WITHOUT_DIR_SYNC, crash::by_oracle);
}

#[test]
fn segment_reused_after_restart() {
    killed(Bug::SEGMENT_REUSED, crash::by_lint);
}

#[test]
fn synced_mark_ahead_of_the_sync() {
    killed(Bug::MARK_AHEAD, crash::by_oracle);
}

#[test]
fn newest_segment_removed_first() {
    killed(Bug::REMOVED_NEWEST_FIRST, crash::by_oracle);
}

#[test]
fn zero_frame_accepted() {
    killed(Bug::ZERO_FRAME_ACCEPTED, rows::zeros_at_the_end_are_cut);
}

#[test]
fn checksum_without_place() {
    killed(
        Bug::CHECKSUM_WITHOUT_PLACE,
        rows::frame_of_another_place_is_cut,
    );
}

#[test]
fn length_trusted_before_checksum() {
    killed(
        Bug::LENGTH_TRUSTED,
        rows::damaged_length_before_a_mark_is_corrupt,
    );
}

#[test]
fn damage_before_a_mark_is_cut() {
    killed(Bug::DAMAGE_CUT, rows::damage_before_a_mark_is_corrupt);
}

#[test]
fn failed_sync_retried() {
    killed(Bug::FAILED_SYNC_RETRIED, sweep);
}

#[test]
fn goes_on_after_an_error() {
    killed(Bug::POISON_IGNORED, sweep);
}

#[test]
fn short_write_ignored() {
    killed(Bug::SHORT_WRITE_IGNORED, sweep);
}

#[test]
fn unsynced_tail_trusted_on_open() {
    killed(Bug::TAIL_TRUSTED, crash::by_oracle);
    killed(Bug::TAIL_TRUSTED, sweep);
}

#[test]
fn payload_checksum_not_verified_on_read() {
    killed(
        Bug::READ_UNVERIFIED,
        crate::reader::flipped_payload_is_noticed,
    );
}
