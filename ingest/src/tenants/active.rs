//! Which series of a tenant are active: those that a sample was accepted for in the last hour.
//!
//! Time is cut into epochs of five minutes. A series counts from the epoch of its last sample to the
//! end of the twelfth one after it, so for 60 to 65 minutes. The cache of known series notes for each
//! of its entries the epoch in which the series was last told of here, so that this is asked once per
//! series and epoch, not per sample.
//!
//! Invariants:
//! - The count is exact up to what 56 bits of a series' hash tell apart: of a million series, two are
//!   taken for one with odds of 1 in 140,000.
//! - The count never passes its limit, whatever comes at the same time.
//! - Memory is 8 to 18 bytes a series, and bounded by the limit, or where there is none by [`Tracked`].

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use hashbrown::HashTable;
use millrace_model::SeriesId;
use parking_lot::Mutex;

/// The number of an epoch. They count from 1, so that 0 stands for never.
pub(crate) type Epoch = u32;

/// Length of an epoch.
const EPOCH: Duration = Duration::from_secs(300);
/// A series is active in the epoch of its last sample and in so many after it.
pub(crate) const WINDOW: Epoch = 12;
/// Parts with locks of their own.
const STRIPES: usize = 16;
/// The epoch's place in an entry.
const EPOCH_MASK: u64 = 0x7f;
/// Whether a second request has come upon the series.
const SHARED: u64 = 0x80;
/// The rest is of the series' hash.
const TAG_MASK: u64 = !(EPOCH_MASK | SHARED);

/// The epoch of a moment of the monotonic clock.
pub(crate) fn epoch_at(monotonic: Duration) -> Epoch {
    let number = monotonic.as_secs() / EPOCH.as_secs();
    Epoch::try_from(number).map_or(Epoch::MAX, |number| number.saturating_add(1))
}

/// How many series may be kept count of, those of all tenants together.
#[derive(Debug)]
pub(crate) struct Tracked {
    max: u64,
    series: AtomicU64,
}

impl Tracked {
    pub(crate) fn new(max: u64) -> Self {
        Self {
            max,
            series: AtomicU64::new(0),
        }
    }

    pub(crate) fn series(&self) -> u64 {
        self.series.load(Ordering::Relaxed)
    }

    pub(crate) fn max(&self) -> u64 {
        self.max
    }
}

/// The limits of one tenant. `None` is none.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub(crate) active: Option<u64>,
    pub(crate) new_per_hour: Option<u64>,
}

/// That a series may be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// It was active.
    Known,
    /// It is active from now on.
    New,
    /// It may be, but it is not counted: the process keeps count of no more.
    Uncounted,
}

/// Which limit a new series is beyond.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Full {
    /// The tenant's active series.
    Active,
    /// Its new series of the last hour.
    New,
    /// What the process keeps count of.
    Process,
}

/// The active series of one tenant.
#[derive(Debug)]
pub(crate) struct Active {
    /// Upper 56 bits of the lower half of the identity, [`SHARED`], and the lower 7 of the epoch.
    stripes: [Mutex<HashTable<u64>>; STRIPES],
    series: AtomicU64,
    news: News,
    /// Everything that has ended before this epoch is out.
    swept: AtomicU32,
    /// One sweeps at a time.
    sweeping: Mutex<()>,
}

/// How many series were new in each of the last epochs.
#[derive(Debug, Default)]
struct News {
    sum: AtomicU64,
    by_epoch: [AtomicU64; WINDOW as usize + 1],
}

impl Active {
    pub(crate) fn new(epoch: Epoch) -> Self {
        Self {
            stripes: std::array::from_fn(|_| Mutex::default()),
            series: AtomicU64::new(0),
            news: News::default(),
            swept: AtomicU32::new(epoch),
            sweeping: Mutex::new(()),
        }
    }

    /// How many series are active.
    pub(crate) fn series(&self) -> u64 {
        self.series.load(Ordering::Relaxed)
    }

    /// How many have become so in the last hour.
    pub(crate) fn new_series(&self) -> u64 {
        self.news.sum.load(Ordering::Relaxed)
    }

    /// Asks for a series. Everything up to `epoch` has to be swept.
    pub(crate) fn see(
        &self,
        id: SeriesId,
        epoch: Epoch,
        bounds: Bounds,
        process: &Tracked,
    ) -> Result<Seen, Full> {
        let tag = tag(id);
        let entry = tag | u64::from(epoch) & EPOCH_MASK;
        let mut table = self.stripe(id).lock();
        if let Some(known) = table.find_mut(hash(tag), |known| known & TAG_MASK == tag) {
            *known = entry | SHARED;
            return Ok(Seen::Known);
        }
        if !take(&self.news.sum, bounds.new_per_hour) {
            return Err(Full::New);
        }
        if !take(&self.series, bounds.active) {
            give_back(&self.news.sum, 1);
            return Err(Full::Active);
        }
        if !take(&process.series, Some(process.max)) {
            give_back(&self.news.sum, 1);
            give_back(&self.series, 1);
            // Without a limit of its own a tenant is not to suffer from what counting costs.
            return match bounds.active {
                Some(_) => Err(Full::Process),
                None => Ok(Seen::Uncounted),
            };
        }
        self.news.of(epoch).fetch_add(1, Ordering::Relaxed);
        table.insert_unique(hash(tag), entry, |known| hash(known & TAG_MASK));
        Ok(Seen::New)
    }

    /// Takes back that a series was new in this epoch, unless another request has come upon it since,
    /// which may have stored it.
    pub(crate) fn forget(&self, id: SeriesId, epoch: Epoch, process: &Tracked) {
        let tag = tag(id);
        let mut table = self.stripe(id).lock();
        let found = table.find_entry(hash(tag), |known| known & !EPOCH_MASK == tag);
        // With the bit of another request it is not found.
        let Ok(found) = found else { return };
        found.remove();
        give_back(&self.series, 1);
        give_back(&process.series, 1);
        give_back(&self.news.sum, 1);
        give_back(self.news.of(epoch), 1);
    }

    /// Lets go what has ended before `epoch`; on return that is done, whoever did it. Cheap if it was
    /// done already.
    pub(crate) fn advance(&self, epoch: Epoch, process: &Tracked) {
        if epoch <= self.swept.load(Ordering::Acquire) {
            return;
        }
        let _one_at_a_time = self.sweeping.lock();
        let last = self.swept.load(Ordering::Acquire);
        if epoch <= last {
            return;
        }
        let over = (epoch - last).min(WINDOW + 1);
        for ended in epoch - over + 1..=epoch {
            // Its place was that of the epoch that is out of the window now.
            let gone = self.news.of(ended).swap(0, Ordering::Relaxed);
            give_back(&self.news.sum, gone);
        }
        // Of a far older epoch nothing is left that seven bits could tell.
        let window = if epoch - last > WINDOW { 0 } else { WINDOW };
        for stripe in &self.stripes {
            let mut table = stripe.lock();
            let before = table.len();
            table.retain(|entry| {
                let age = u64::from(epoch).wrapping_sub(*entry) & EPOCH_MASK;
                age <= u64::from(window)
            });
            let gone = (before - table.len()) as u64;
            let room = 2 * table.len();
            if table.capacity() > 4 * room.max(64) {
                table.shrink_to(room, |known| hash(known & TAG_MASK));
            }
            drop(table);
            give_back(&self.series, gone);
            give_back(&process.series, gone);
        }
        self.swept.store(epoch, Ordering::Release);
    }

    fn stripe(&self, id: SeriesId) -> &Mutex<HashTable<u64>> {
        // Of the half that is not in the entries, so that a stripe's entries differ in all bits.
        &self.stripes[(id.0 >> 64) as usize % STRIPES]
    }
}

impl News {
    fn of(&self, epoch: Epoch) -> &AtomicU64 {
        &self.by_epoch[(epoch % (WINDOW + 1)) as usize]
    }
}

fn tag(id: SeriesId) -> u64 {
    (id.0 as u64) & TAG_MASK
}

/// Spreads over all bits: the lowest of a tag are always zero.
fn hash(tag: u64) -> u64 {
    let mixed = (tag >> 8).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed ^ mixed >> 32
}

/// Counts one more, unless that passes the limit.
fn take(counter: &AtomicU64, limit: Option<u64>) -> bool {
    let more = |count: u64| limit.is_none_or(|limit| count < limit).then_some(count + 1);
    counter
        .fetch_update(Ordering::AcqRel, Ordering::Acquire, more)
        .is_ok()
}

fn give_back(counter: &AtomicU64, count: u64) {
    let less = |was: u64| Some(was.saturating_sub(count));
    counter
        .fetch_update(Ordering::AcqRel, Ordering::Acquire, less)
        .expect("the update always gives a value");
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: Bounds = Bounds {
        active: None,
        new_per_hour: None,
    };

    fn id(n: u64) -> SeriesId {
        let high = u128::from(n.wrapping_mul(0x2545_f491_4f6c_dd1d));
        SeriesId(high << 64 | u128::from(n.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
    }

    fn active(limit: u64) -> Bounds {
        Bounds {
            active: Some(limit),
            ..NONE
        }
    }

    #[test]
    fn the_limit_is_met_exactly_and_known_series_go_on() {
        let (set, process) = (Active::new(1), Tracked::new(1 << 20));
        for n in 0..1000 {
            assert_eq!(set.see(id(n), 1, active(1000), &process), Ok(Seen::New));
        }
        for n in 1000..1100 {
            assert_eq!(set.see(id(n), 1, active(1000), &process), Err(Full::Active));
        }
        for n in 0..1000 {
            assert_eq!(set.see(id(n), 1, active(1000), &process), Ok(Seen::Known));
        }
        assert_eq!((set.series(), set.new_series()), (1000, 1000));
        assert_eq!(process.series(), 1000);
        // Raised, and the next one is taken.
        assert_eq!(set.see(id(1000), 1, active(1001), &process), Ok(Seen::New));
        // Taken back, and there is room for another one.
        set.forget(id(1000), 1, &process);
        assert_eq!(set.see(id(1001), 1, active(1001), &process), Ok(Seen::New));
    }

    #[test]
    fn a_series_is_active_for_twelve_epochs_after_its_last_sample() {
        let (set, process) = (Active::new(1), Tracked::new(1 << 20));
        for n in 0..100 {
            assert_eq!(set.see(id(n), 1, NONE, &process), Ok(Seen::New));
        }
        for epoch in 2..=13 {
            set.advance(epoch, &process);
            assert_eq!(set.see(id(7), epoch, NONE, &process), Ok(Seen::Known));
            assert_eq!(set.series(), 100, "epoch {epoch}");
        }
        set.advance(14, &process);
        assert_eq!((set.series(), process.series()), (1, 1));
        assert_eq!(set.new_series(), 0, "the hour of the new ones is over");
        assert_eq!(set.see(id(8), 14, NONE, &process), Ok(Seen::New));
        // After a long rest, whatever seven bits of the epoch say.
        set.advance(14 + 256, &process);
        assert_eq!(
            (set.series(), process.series()),
            (1, 1),
            "one of them looks new"
        );
        set.advance(14 + 256 + 13, &process);
        assert_eq!((set.series(), process.series()), (0, 0));
    }

    #[test]
    fn churn_is_counted_over_an_hour() {
        let (set, process) = (Active::new(1), Tracked::new(1 << 20));
        let bounds = Bounds {
            new_per_hour: Some(150),
            ..NONE
        };
        for n in 0..100 {
            assert_eq!(set.see(id(n), 1, bounds, &process), Ok(Seen::New));
        }
        set.advance(7, &process);
        for n in 100..150 {
            assert_eq!(set.see(id(n), 7, bounds, &process), Ok(Seen::New));
        }
        assert_eq!(set.see(id(150), 7, bounds, &process), Err(Full::New));
        assert_eq!(set.see(id(0), 7, bounds, &process), Ok(Seen::Known));
        set.advance(14, &process);
        for n in 150..250 {
            assert_eq!(set.see(id(n), 14, bounds, &process), Ok(Seen::New));
        }
        assert_eq!(set.see(id(250), 14, bounds, &process), Err(Full::New));
    }

    #[test]
    fn what_the_process_counts_is_bounded() {
        let process = Tracked::new(10);
        let (limited, free) = (Active::new(1), Active::new(1));
        for n in 0..10 {
            assert_eq!(limited.see(id(n), 1, active(100), &process), Ok(Seen::New));
        }
        assert_eq!(
            limited.see(id(10), 1, active(100), &process),
            Err(Full::Process)
        );
        assert_eq!(free.see(id(11), 1, NONE, &process), Ok(Seen::Uncounted));
        assert_eq!(
            (limited.series(), free.series(), process.series()),
            (10, 0, 10)
        );
        assert_eq!(limited.new_series(), 10);
    }

    #[test]
    fn what_another_request_has_come_upon_is_not_taken_back() {
        let (set, process) = (Active::new(1), Tracked::new(1 << 20));
        for n in 0..2 {
            assert_eq!(set.see(id(n), 1, NONE, &process), Ok(Seen::New));
        }
        assert_eq!(set.see(id(1), 1, NONE, &process), Ok(Seen::Known));
        for n in 0..2 {
            set.forget(id(n), 1, &process);
        }
        assert_eq!((set.series(), process.series()), (1, 1));
        assert_eq!(set.see(id(1), 1, NONE, &process), Ok(Seen::Known));
        // It ends like any other.
        set.advance(14, &process);
        assert_eq!((set.series(), process.series()), (0, 0));
    }

    #[test]
    fn whoever_comes_while_another_sweeps_finds_the_room() {
        let (set, process) = (Active::new(1), Tracked::new(1 << 20));
        let bounds = active(200_000);
        for n in 0..200_000 {
            assert_eq!(set.see(id(n), 1, bounds, &process), Ok(Seen::New));
        }
        let together = std::sync::Barrier::new(4);
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let (set, process, together) = (&set, &process, &together);
                scope.spawn(move || {
                    together.wait();
                    set.advance(14, process);
                    let new = id(1_000_000 + thread);
                    assert_eq!(set.see(new, 14, bounds, process), Ok(Seen::New));
                });
            }
        });
        assert_eq!((set.series(), set.new_series()), (4, 4));
    }

    #[test]
    fn threads_together_stay_within_the_limit() {
        let (set, process) = (Active::new(1), Tracked::new(1 << 20));
        let taken = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let (set, process, taken) = (&set, &process, &taken);
                scope.spawn(move || {
                    for n in 0..5000 {
                        let seen = set.see(id(thread * 5000 + n), 1, active(7000), process);
                        taken.fetch_add(u64::from(seen.is_ok()), Ordering::Relaxed);
                    }
                });
            }
        });
        assert_eq!((taken.into_inner(), set.series()), (7000, 7000));
    }
}
