//! One series of the memtable.

use std::sync::Arc;

use millrace_model::{Labels, TimeRange};

use crate::chunk::ChunkWriter;

/// Samples of a chunk before the next is begun. Long enough that a chunk's own cost vanishes, short
/// enough that a reader who wants the newest sample decodes little.
pub(super) const CHUNK_SAMPLES: usize = 120;

/// What the allocator is asked for beside a chunk's bytes: the counts of an `Arc`.
const ARC_BYTES: usize = 2 * size_of::<usize>();

/// What became of a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pushed {
    InOrder,
    Late,
    /// Equal to the newest one, bit for bit: nothing to do.
    Duplicate,
}

/// A full chunk, shared with the readers.
#[derive(Clone, Debug)]
pub(super) struct ClosedChunk {
    pub(super) first: i64,
    pub(super) last: i64,
    pub(super) samples: u32,
    pub(super) bytes: Arc<[u8]>,
}

/// What most series of a young memtable do not have.
#[derive(Debug, Default)]
struct History {
    closed: Vec<ClosedChunk>,
    /// Memory of the closed chunks' bytes.
    closed_bytes: usize,
    /// Late samples as they came, (timestamp, bits).
    late: Vec<(i64, u64)>,
}

/// A series: at a million of them every byte here is a megabyte.
#[derive(Debug)]
pub(crate) struct Series {
    labels: Labels,
    open: ChunkWriter,
    history: Option<Box<History>>,
    tenant: u32,
}

impl Series {
    pub(super) fn new(labels: Labels, tenant: u32) -> Self {
        Self {
            labels,
            open: ChunkWriter::new(),
            history: None,
            tenant,
        }
    }

    pub(super) fn labels(&self) -> &Labels {
        &self.labels
    }

    pub(super) fn tenant(&self) -> u32 {
        self.tenant
    }

    /// Takes a sample.
    #[inline]
    pub(super) fn push(&mut self, timestamp: i64, value: f64) -> Pushed {
        if self.open.is_empty() || timestamp > self.open.last_timestamp() {
            if self.open.len() >= CHUNK_SAMPLES {
                self.close_chunk();
            }
            self.open.push(timestamp, value);
            return Pushed::InOrder;
        }
        let same_time = timestamp == self.open.last_timestamp();
        // A late sample of that time may stand between the two: then this one is later still.
        if same_time && self.open.last_value().to_bits() == value.to_bits() && !self.has_late() {
            return Pushed::Duplicate;
        }
        self.push_late(timestamp, value.to_bits());
        Pushed::Late
    }

    fn has_late(&self) -> bool {
        self.history.as_ref().is_some_and(|h| !h.late.is_empty())
    }

    #[cold]
    fn close_chunk(&mut self) {
        let closed = ClosedChunk {
            first: self.open.first_timestamp(),
            last: self.open.last_timestamp(),
            samples: CHUNK_SAMPLES as u32,
            bytes: Arc::from(self.open.bytes()),
        };
        debug_assert_eq!(self.open.len(), CHUNK_SAMPLES);
        // The next one will need the memory.
        self.open.clear();
        let history = self.history.get_or_insert_default();
        if history.closed.len() == history.closed.capacity() {
            // By small steps: six chunks are a day at two minutes.
            history.closed.reserve_exact(4);
        }
        history.closed_bytes += closed.bytes.len() + ARC_BYTES;
        history.closed.push(closed);
    }

    #[cold]
    fn push_late(&mut self, timestamp: i64, bits: u64) {
        let late = &mut self.history.get_or_insert_default().late;
        if late.len() == late.capacity() && late.len() >= 16 {
            // Before it grows: whoever sends the same samples again and again is to pay with time,
            // not with everybody's memory.
            let mut kept = late.clone();
            sort_keep_last(&mut kept);
            if kept.len() <= late.len() / 2 {
                late.clear();
                late.append(&mut kept);
            }
        }
        late.push((timestamp, bits));
    }

    /// Memory beside the struct itself. Constant time.
    #[inline]
    pub(super) fn heap_bytes(&self) -> usize {
        let history = self.history.as_ref().map_or(0, |h| h.heap_bytes());
        self.labels.canonical().len() + ARC_BYTES + self.open.heap_bytes() + history
    }

    /// Whether a sample may lie in `[start, end]`.
    pub(super) fn may_overlap(&self, start: i64, end: i64) -> bool {
        // Nothing is newer than the newest sample, and nothing late is known to be older than the
        // first chunk.
        self.open.last_timestamp() >= start && (self.has_late() || self.first_in_order() <= end)
    }

    /// First and last timestamp. Looks at all late samples.
    pub(crate) fn range(&self) -> TimeRange {
        let late = self.late().iter().map(|s| s.0).min();
        let first = late.map_or(self.first_in_order(), |t| t.min(self.first_in_order()));
        TimeRange::new(first, self.open.last_timestamp())
    }

    /// The newest sample. Looks at all late samples, if there are any.
    pub(super) fn newest(&self) -> (i64, f64) {
        let moment = self.open.last_timestamp();
        let mut late = self.late().iter().rev();
        // A late one of the same time came after it.
        let value = late
            .find(|sample| sample.0 == moment)
            .map_or(self.open.last_value(), |late| f64::from_bits(late.1));
        (moment, value)
    }

    fn first_in_order(&self) -> i64 {
        let closed = self.history.as_ref().and_then(|h| h.closed.first());
        closed.map_or_else(|| self.open.first_timestamp(), |chunk| chunk.first)
    }

    /// The closed chunks that overlap `[start, end]`.
    pub(super) fn closed(&self, start: i64, end: i64) -> &[ClosedChunk] {
        let Some(history) = &self.history else {
            return &[];
        };
        let from = history.closed.partition_point(|c| c.last < start);
        let to = history.closed.partition_point(|c| c.first <= end);
        history.closed.get(from..to).unwrap_or(&[])
    }

    pub(super) fn open(&self) -> &ChunkWriter {
        &self.open
    }

    pub(super) fn late(&self) -> &[(i64, u64)] {
        self.history.as_ref().map_or(&[], |h| &h.late)
    }
}

impl History {
    fn heap_bytes(&self) -> usize {
        size_of::<Self>()
            + self.closed_bytes
            + self.closed.capacity() * size_of::<ClosedChunk>()
            + self.late.capacity() * size_of::<(i64, u64)>()
    }
}

/// Sorts samples by time and keeps of each timestamp the one that stood last.
pub(super) fn sort_keep_last(samples: &mut Vec<(i64, u64)>) {
    // Stable, so that of equal timestamps the last is the latest.
    samples.sort_by_key(|s| s.0);
    let mut kept = 0;
    for at in 0..samples.len() {
        if kept > 0 && samples[kept - 1].0 == samples[at].0 {
            kept -= 1;
        }
        samples[kept] = samples[at];
        kept += 1;
    }
    samples.truncate(kept);
}
