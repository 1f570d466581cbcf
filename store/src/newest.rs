//! The newest sample of a series, found without decoding what is older.
//!
//! A series of a memtable knows its newest sample; a block's index knows the moment of a series' last
//! one, and a read of that moment alone decodes one chunk. Places are asked from the newest on, until
//! none that is left can have anything newer.
//!
//! Invariant: the sample is the last one that [`StoreSeries::read`] would tell. So what came late does
//! not take the place of what is newer, what is deleted does not count, and of two values of the same
//! moment the one of the later place is right.

use millrace_log::planted::active;
use millrace_model::TimeRange;

use crate::error::StoreError;
use crate::planted::NEWEST_OF_LAST_PLACE;
use crate::read::{Place, Source, StoreSeries};

impl StoreSeries {
    /// The newest sample in the selected range, timestamp (in ms since the epoch) and value bit for bit
    /// as it was sent; it may be a staleness marker. `None` if there is none: a series is also selected
    /// when all its samples in the range are deleted.
    ///
    /// # Errors
    ///
    /// A block that is damaged or cannot be read.
    pub fn newest(&self) -> Result<Option<(i64, f64)>, StoreError> {
        let mut places = Vec::with_capacity(self.sources.len());
        for (rank, source) in self.sources.iter().enumerate() {
            places.push((self.bound(source)?, rank));
        }
        // The newest first, and of equals the one that is right.
        places.sort_unstable_by(|a, b| b.cmp(a));
        let written_last = active(NEWEST_OF_LAST_PLACE);
        if written_last {
            places.sort_unstable_by_key(|&(_, rank)| std::cmp::Reverse(rank));
        }
        let mut best: Option<((i64, usize), f64)> = None;
        for place @ (bound, rank) in places {
            if best.is_some_and(|(found, _)| found > place || written_last) {
                break;
            }
            let found = self.newest_in(&self.sources[rank], bound)?;
            let found = found.map(|(moment, value)| ((moment, rank), value));
            best = match (best, found) {
                (Some(best), Some(found)) if found.0 < best.0 => Some(best),
                (best, found) => found.or(best),
            };
        }
        Ok(best.map(|((moment, _), value)| (moment, value)))
    }

    /// No sample of the source in the range is newer.
    fn bound(&self, source: &Source) -> Result<i64, StoreError> {
        let last = match &source.place {
            Place::Block(block, number) => block.reader.range_of(*number)?.end.0,
            Place::Table(table, at) => table.rows().newest(*at).0,
        };
        Ok(last.min(self.range.end.0))
    }

    /// The newest sample of a source, none of which is newer than `bound`.
    fn newest_in(&self, source: &Source, bound: i64) -> Result<Option<(i64, f64)>, StoreError> {
        if let Place::Table(table, at) = &source.place {
            let newest = table.rows().newest(*at);
            let in_range = self.range.start.0 <= newest.0 && newest.0 <= self.range.end.0;
            if in_range && !source.hidden.hides(newest.0) {
                return Ok(Some(newest));
            }
        }
        let (mut timestamps, mut values) = (Vec::new(), Vec::new());
        // Most often it is the one at the bound. Otherwise that is deleted, or was a staleness marker
        // of which no rollup knows, or the range ends before it.
        let bound = self.range.start.0.max(bound);
        let at_the_bound = TimeRange::new(bound, bound);
        for range in [at_the_bound, self.range] {
            self.read_source(source, range, &mut timestamps, &mut values)?;
            if let (Some(&moment), Some(&value)) = (timestamps.last(), values.last()) {
                return Ok(Some((moment, value)));
            }
        }
        Ok(None)
    }
}
