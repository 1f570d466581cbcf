//! Planted bugs: switches that break the product on purpose, so that its tests can prove that they
//! would notice.
//!
//! **Invariants:** without the feature `sim` every switch is constantly off and costs nothing; with
//! it a switch is on only inside `with`, only on the calling thread. Other crates name their own
//! bugs as further constants of type [`Bug`].

/// The name of a planted bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bug(pub &'static str);

/// The bugs of this crate.
impl Bug {
    /// `fs::publish` gives the file its name before its bytes are settled.
    pub const RENAME_BEFORE_SYNC: Self = Self("publish: rename before file sync");
    /// `fs::publish` does not settle the name.
    pub const PUBLISH_WITHOUT_DIR_SYNC: Self = Self("publish: no directory sync");
    /// `Log::sync` does not sync.
    pub const SYNC_LEFT_OUT: Self = Self("log: sync left out");
    /// `Log::sync` does not sync every seventh time.
    pub const SEVENTH_SYNC_LEFT_OUT: Self = Self("log: every seventh sync left out");
    /// Records reach the file only after the sync that should cover them.
    pub const SYNC_BEFORE_WRITE: Self = Self("log: sync before write");
    /// A full segment is left unsynced when the next one is begun.
    pub const ROLL_WITHOUT_SYNC: Self = Self("log: roll without sync");
    /// After a restart, records are appended to the segment that was there.
    pub const SEGMENT_REUSED: Self = Self("log: segment reused after restart");
    /// A frame header of zeros passes for an empty record.
    pub const ZERO_FRAME_ACCEPTED: Self = Self("log: zero frame accepted");
    /// The frame checksum covers neither the file's identity nor the position.
    pub const CHECKSUM_WITHOUT_PLACE: Self = Self("log: checksum without place");
    /// A frame's length is believed before its checksum was looked at.
    pub const LENGTH_TRUSTED: Self = Self("log: length trusted before checksum");
    /// Damage anywhere in the newest segment is taken for a torn tail.
    pub const DAMAGE_CUT: Self = Self("log: damage before a synced mark is cut");
    /// A frame claims that the records before it were synced when they were only written.
    pub const MARK_AHEAD: Self = Self("log: synced mark ahead of the sync");
    /// A failed sync is tried again.
    pub const FAILED_SYNC_RETRIED: Self = Self("log: failed sync retried");
    /// The log goes on after a failed write or sync.
    pub const POISON_IGNORED: Self = Self("log: goes on after an error");
    /// The count that a write returns is not looked at.
    pub const SHORT_WRITE_IGNORED: Self = Self("log: short write ignored");
    /// Recovery takes what it can read for durable.
    pub const TAIL_TRUSTED: Self = Self("log: unsynced tail trusted on open");
    /// Old segments are removed from the newest to the oldest.
    pub const REMOVED_NEWEST_FIRST: Self = Self("log: newest segment removed first");
    /// The reader does not look at payload checksums.
    pub const READ_UNVERIFIED: Self = Self("log: payload checksum not verified on read");
}

#[cfg(feature = "sim")]
thread_local! {
    static ACTIVE: std::cell::Cell<Option<Bug>> = const { std::cell::Cell::new(None) };
}

/// Whether `bug` is planted on this thread.
#[cfg(feature = "sim")]
#[must_use]
pub fn active(bug: Bug) -> bool {
    ACTIVE.get() == Some(bug)
}

/// Whether `bug` is planted: never, in a product.
#[cfg(not(feature = "sim"))]
#[inline]
#[must_use]
pub const fn active(_bug: Bug) -> bool {
    false
}

/// Runs `run` with `bug` planted on this thread.
#[cfg(feature = "sim")]
pub fn with<R>(bug: Bug, run: impl FnOnce() -> R) -> R {
    struct Restore(Option<Bug>);
    impl Drop for Restore {
        fn drop(&mut self) {
            ACTIVE.set(self.0);
        }
    }
    let _restore = Restore(ACTIVE.replace(Some(bug)));
    run()
}

#[cfg(all(test, feature = "sim"))]
mod tests {
    use super::*;

    #[test]
    fn a_bug_is_planted_inside_the_call_and_on_its_thread_only() {
        let bug = Bug("of this test");
        let seen = with(bug, || {
            let other = std::thread::spawn(move || active(bug));
            (
                active(bug),
                active(Bug::SYNC_LEFT_OUT),
                other.join().unwrap(),
            )
        });
        assert_eq!((seen, active(bug)), ((true, false, false), false));
    }
}
