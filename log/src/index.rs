//! The sparse index of one segment, kept in memory and rebuilt by the scan on open.
//!
//! **Invariants:** one entry for every [`LogOptions::index_interval_bytes`](crate::LogOptions) of
//! frames, so its memory is bounded by the segment's size; entries ascend in record and position;
//! an entry's latest time is that of all records from it up to the next entry. Times may go
//! backwards from record to record: the wall clock does.

use millrace_model::TimestampMs;

use crate::Lsn;
use crate::format::SEGMENT_HEADER_BYTES;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    lsn: Lsn,
    position: u64,
    latest: TimestampMs,
}

/// Where records stand in a segment, and where it ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SegmentIndex {
    interval_bytes: u64,
    entries: Vec<Entry>,
    next: Lsn,
    end: u64,
    times: Option<(TimestampMs, TimestampMs)>,
}

impl SegmentIndex {
    /// Of a segment without records.
    pub(crate) fn new(first: Lsn, interval_bytes: u64) -> Self {
        Self {
            interval_bytes,
            entries: Vec::new(),
            next: first,
            end: SEGMENT_HEADER_BYTES as u64,
            times: None,
        }
    }

    /// The record behind the last one.
    pub(crate) fn next(&self) -> Lsn {
        self.next
    }

    /// The byte behind the last record.
    pub(crate) fn end(&self) -> u64 {
        self.end
    }

    /// Earliest and latest time, if there are records.
    pub(crate) fn times(&self) -> Option<(TimestampMs, TimestampMs)> {
        self.times
    }

    /// Notes the record that now stands at the end.
    pub(crate) fn push(&mut self, time: TimestampMs, frame_bytes: u64) {
        match self.entries.last_mut() {
            Some(last) if self.end - last.position < self.interval_bytes => {
                last.latest = last.latest.max(time);
            }
            _ => self.entries.push(Entry {
                lsn: self.next,
                position: self.end,
                latest: time,
            }),
        }
        self.next = Lsn(self.next.0 + 1);
        self.end += frame_bytes;
        let (earliest, latest) = self.times.unwrap_or((time, time));
        self.times = Some((earliest.min(time), latest.max(time)));
    }

    /// The last indexed place at or before a record of this segment.
    pub(crate) fn before(&self, lsn: Lsn) -> Option<(Lsn, u64)> {
        let behind = self.entries.partition_point(|entry| entry.lsn <= lsn);
        let entry = self.entries[..behind].last()?;
        Some((entry.lsn, entry.position))
    }

    /// The first indexed place from which a record of that time or later is found before the next
    /// one.
    pub(crate) fn reaching(&self, time: TimestampMs) -> Option<(Lsn, u64)> {
        let entry = self.entries.iter().find(|entry| entry.latest >= time)?;
        Some((entry.lsn, entry.position))
    }

    /// Takes over what `longer`, the same segment's index later on, has more.
    pub(crate) fn catch_up(&mut self, longer: &Self) {
        // The last entry's latest time may have changed as well.
        let same = self.entries.len().saturating_sub(1);
        self.entries.truncate(same);
        self.entries.extend_from_slice(&longer.entries[same..]);
        (self.next, self.end, self.times) = (longer.next, longer.end, longer.times);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_found_by_record_and_by_time_even_if_the_clock_went_back() {
        let mut index = SegmentIndex::new(Lsn(10), 100);
        let mut behind = index.clone();
        for (i, time) in [5, 9, 7, 3, 8, 20].into_iter().enumerate() {
            index.push(TimestampMs(time), 60);
            if i % 2 == 0 {
                behind.catch_up(&index);
                assert_eq!(behind, index);
            }
        }
        // Entries at records 10, 12 and 14.
        assert_eq!(index.before(Lsn(11)), Some((Lsn(10), 40)));
        assert_eq!(index.before(Lsn(12)), Some((Lsn(12), 160)));
        assert_eq!(index.before(Lsn(9)), None);
        assert_eq!(index.reaching(TimestampMs(9)), Some((Lsn(10), 40)));
        assert_eq!(index.reaching(TimestampMs(10)), Some((Lsn(14), 280)));
        assert_eq!(index.reaching(TimestampMs(21)), None);
        assert_eq!(index.times(), Some((TimestampMs(3), TimestampMs(20))));
        assert_eq!((index.next(), index.end()), (Lsn(16), 400));
    }
}
