//! Series pages: the label pairs of the page once, then label sets and chunk entries, each written
//! as the difference from the one before.

use hashbrown::HashMap;
use millrace_model::{Labels, TimeRange, read_varint, write_varint, zigzag};

use super::fields::Fields;
use super::rollup::RESOLUTIONS_MAX;
use super::times::TimesEntry;
use super::{CRC_BYTES, ChunkEntry, Codec, RollupEntry, SERIES_PER_PAGE, SeriesPlace};

/// Longest prefix that a label pair shares with the one before it, in bytes. Bounds what a forged
/// page can make of few bytes.
const SHARED_MAX: usize = 255;

/// Differences in a label set of up to so many pairs are written as a mask.
const MASKED_MAX: usize = 63;

/// What the next chunk entry of a page is written against.
#[derive(Clone, Debug, Default)]
struct Context {
    /// First timestamp of the series before.
    first: i64,
    /// Of the chunk before: time between its ends, samples, bytes.
    duration: i64,
    samples: i64,
    bytes: i64,
    /// Where the next chunk begins.
    offset: u64,
    /// Where the next rollup begins.
    rollup_offset: u64,
    /// Bytes of the rollups of the series before, by resolution.
    rollup_bytes: [i64; RESOLUTIONS_MAX],
}

/// The section of series pages, while it is written.
#[derive(Debug, Default)]
pub(super) struct SeriesWriter {
    /// All finished pages, with their checksums.
    pub(super) bytes: Vec<u8>,
    /// The length of each.
    pub(super) pages: Vec<u32>,
    /// The series of the page that is being filled.
    series: Vec<(Labels, SeriesPlace)>,
    times: TimesTable,
}

/// The times that series of a page refer to.
#[derive(Debug, Default)]
struct TimesTable {
    entries: Vec<TimesEntry>,
    numbers: HashMap<u64, u64>,
}

impl TimesTable {
    fn note(&mut self, entry: TimesEntry) {
        let next = self.entries.len() as u64;
        if *self.numbers.entry(entry.offset).or_insert(next) == next {
            self.entries.push(entry);
        }
    }

    fn number(&self, entry: TimesEntry) -> u64 {
        self.numbers[&entry.offset]
    }

    fn put(&self, out: &mut Vec<u8>) {
        write_varint(out, self.entries.len() as u64);
        let mut before = 0;
        for entry in &self.entries {
            write_varint(out, zigzag(entry.offset.wrapping_sub(before) as i64));
            write_varint(out, u64::from(entry.bytes));
            out.extend_from_slice(&entry.crc.to_le_bytes());
            before = entry.offset;
        }
    }

    fn take(fields: &mut Fields<'_>) -> Option<Vec<TimesEntry>> {
        let count = fields.count()?;
        let mut entries = Vec::with_capacity(count);
        let mut before = 0u64;
        for _ in 0..count {
            before = before.wrapping_add(fields.zigzag()? as u64);
            entries.push(TimesEntry {
                offset: before,
                bytes: fields.varint_u32()?,
                crc: fields.u32()?,
            });
        }
        Some(entries)
    }
}

impl SeriesWriter {
    /// Adds a series whose chunks stand one behind the other, and behind those of the page before.
    /// True if it fills the page.
    pub(super) fn push(&mut self, labels: &Labels, place: SeriesPlace) -> bool {
        self.series.push((labels.clone(), place));
        self.series.len() == SERIES_PER_PAGE as usize
    }

    /// Ends the page, whose chunks begin at `start`, and its rollups at `rollup_start`: those of
    /// the first series, resolution by resolution, then those of the next.
    pub(super) fn finish_page(&mut self, start: u64, rollup_start: u64, rollups: &[RollupEntry]) {
        if self.series.is_empty() {
            return;
        }
        if !rollups.is_empty() {
            let each = rollups.chunks(rollups.len() / self.series.len());
            for ((_, place), rollups) in self.series.iter_mut().zip(each) {
                place.rollups = rollups.into();
            }
        }
        let mut page = Vec::new();
        let mut context = Context {
            offset: start,
            rollup_offset: rollup_start,
            ..Context::default()
        };
        write_varint(&mut page, start);
        write_varint(&mut page, rollup_start - start);
        for (_, place) in &self.series {
            let chunks = place.chunks.iter().filter_map(|c| c.times);
            let rollups = place.rollups.iter().filter_map(|r| r.times);
            chunks.chain(rollups).for_each(|t| self.times.note(t));
        }
        self.times.put(&mut page);
        let mut symbols: Vec<&[u8]> = self.series.iter().flat_map(|(l, _)| pairs(l)).collect();
        symbols.sort_unstable();
        symbols.dedup();
        put_symbols(&mut page, &symbols);
        let mut before = Vec::new();
        for (labels, place) in &self.series {
            let number = |pair: &[u8]| {
                symbols
                    .binary_search(&pair)
                    .expect("every pair of the page is a symbol")
            };
            let set: Vec<usize> = pairs(labels).map(number).collect();
            put_set(&mut page, &before, &set);
            before = set;
            context.put_place(&mut page, place, &self.times);
        }
        self.pages.push(put_page(&mut self.bytes, &page));
        self.series.clear();
        self.times.entries.clear();
        self.times.numbers.clear();
    }
}

/// Appends a page and its checksum; returns the bytes of both.
pub(super) fn put_page(section: &mut Vec<u8>, page: &[u8]) -> u32 {
    section.extend_from_slice(page);
    section.extend_from_slice(&crc32c::crc32c(page).to_le_bytes());
    u32::try_from(page.len() + CRC_BYTES).expect("a page is far below 4 GiB")
}

/// The pairs of a label set, as their canonical bytes.
fn pairs(labels: &Labels) -> impl Iterator<Item = &[u8]> {
    let bytes = labels.canonical();
    let mut pos = 0;
    std::iter::from_fn(move || {
        let start = pos;
        if start == bytes.len() {
            return None;
        }
        for _ in 0..2 {
            let len = read_varint(bytes, &mut pos).expect("canonical bytes were checked");
            pos += len as usize;
        }
        Some(&bytes[start..pos])
    })
}

fn put_symbols(out: &mut Vec<u8>, symbols: &[&[u8]]) {
    write_varint(out, symbols.len() as u64);
    let mut before: &[u8] = &[];
    for symbol in symbols {
        let shared = before.iter().zip(*symbol).take_while(|(a, b)| a == b);
        let shared = shared.take(SHARED_MAX).count();
        write_varint(out, shared as u64);
        write_varint(out, (symbol.len() - shared) as u64);
        out.extend_from_slice(&symbol[shared..]);
        before = symbol;
    }
}

/// A label set as the numbers of its pairs: those that changed, if there are as many as before.
fn put_set(out: &mut Vec<u8>, before: &[usize], set: &[usize]) {
    write_varint(out, set.len() as u64);
    let masked = set.len() == before.len() && set.len() <= MASKED_MAX;
    let changed = |(i, (a, b)): (usize, (&usize, &usize))| u64::from(a != b) << i;
    if masked {
        write_varint(out, before.iter().zip(set).enumerate().map(changed).sum());
    }
    for (i, symbol) in set.iter().enumerate() {
        if !masked || before[i] != *symbol {
            write_varint(out, *symbol as u64);
        }
    }
}

/// How the chunks of a series are written where there are none: the block has no samples.
const NO_CHUNKS: u64 = 0;

impl Context {
    fn put_place(&mut self, out: &mut Vec<u8>, place: &SeriesPlace, times: &TimesTable) {
        write_varint(out, place.chunks.len() as u64);
        if place.chunks.is_empty() {
            let (first, last) = (place.range.start.0, place.range.end.0);
            write_varint(out, zigzag(first.wrapping_sub(self.first)));
            write_varint(out, last.wrapping_sub(first) as u64);
            write_varint(out, place.samples);
            self.first = first;
        } else {
            self.put_chunks(out, &place.chunks, times);
        }
        for (rollup, before) in place.rollups.iter().zip(&mut self.rollup_bytes) {
            let bytes = i64::from(rollup.bytes);
            write_varint(out, zigzag(bytes - *before));
            *before = bytes;
            if let Some(entry) = rollup.times {
                let own = entry.offset == self.rollup_offset;
                write_varint(out, times.number(entry) << 1 | u64::from(own));
                self.rollup_offset += if own { u64::from(entry.bytes) } else { 0 };
                out.extend_from_slice(&rollup.crc.to_le_bytes());
            }
            debug_assert_eq!(rollup.offset, self.rollup_offset);
            self.rollup_offset += u64::from(rollup.bytes);
        }
    }

    fn put_chunks(&mut self, out: &mut Vec<u8>, chunks: &[ChunkEntry], times: &TimesTable) {
        let mut base = self.first;
        self.first = chunks[0].first;
        for chunk in chunks {
            debug_assert_eq!(chunk.offset, self.offset);
            let duration = chunk.last.wrapping_sub(chunk.first);
            let (samples, bytes) = (i64::from(chunk.samples), i64::from(chunk.bytes));
            out.push(chunk.codec);
            if let Some(entry) = chunk.times {
                write_varint(out, times.number(entry));
            }
            for difference in [
                chunk.first.wrapping_sub(base),
                duration.wrapping_sub(self.duration),
                samples - self.samples,
                bytes - self.bytes,
            ] {
                write_varint(out, zigzag(difference));
            }
            out.extend_from_slice(&chunk.crc.to_le_bytes());
            (self.duration, self.samples, self.bytes) = (duration, samples, bytes);
            self.offset += u64::from(chunk.bytes);
            base = chunk.last;
        }
    }

    /// Reads chunks into `chunks`, and the rest into the answer: first and last timestamp, samples.
    fn take_chunks(
        &mut self,
        fields: &mut Fields<'_>,
        times: &[TimesEntry],
        chunks: &mut Vec<ChunkEntry>,
    ) -> Option<(i64, i64, u64)> {
        let count = fields.count()?;
        chunks.clear();
        if count as u64 == NO_CHUNKS {
            let first = self.first.wrapping_add(fields.zigzag()?);
            let last = first.wrapping_add(fields.varint()? as i64);
            let samples = fields.varint().filter(|&s| s > 0)?;
            self.first = first;
            return (first <= last).then_some((first, last, samples));
        }
        let mut base = self.first;
        let mut samples = 0;
        for i in 0..count {
            let chunk = self.take_chunk(fields, times, base)?;
            // Chunks of a series do not overlap.
            (i == 0 || base < chunk.first).then_some(())?;
            base = chunk.last;
            samples += u64::from(chunk.samples);
            chunks.push(chunk);
        }
        self.first = chunks[0].first;
        Some((self.first, base, samples))
    }

    fn take_chunk(
        &mut self,
        fields: &mut Fields<'_>,
        times: &[TimesEntry],
        base: i64,
    ) -> Option<ChunkEntry> {
        let codec = fields.u8()?;
        let entry = if codec == Codec::Values as u8 {
            let number = usize::try_from(fields.varint()?).ok()?;
            Some(*times.get(number)?)
        } else {
            None
        };
        let first = base.wrapping_add(fields.zigzag()?);
        let duration = self.duration.wrapping_add(fields.zigzag()?);
        let samples = self.samples.checked_add(fields.zigzag()?)?;
        let bytes = self.bytes.checked_add(fields.zigzag()?)?;
        let chunk = ChunkEntry {
            codec,
            first,
            // A duration over half of the time line wraps, and gives the right end all the same.
            last: first.wrapping_add(duration),
            samples: u32::try_from(samples).ok().filter(|&s| s > 0)?,
            offset: self.offset,
            bytes: u32::try_from(bytes).ok()?,
            crc: fields.u32()?,
            times: entry,
        };
        (chunk.first <= chunk.last).then_some(())?;
        (chunk.samples == 1 || chunk.first < chunk.last).then_some(())?;
        (self.duration, self.samples, self.bytes) = (duration, samples, bytes);
        self.offset = self.offset.checked_add(u64::from(chunk.bytes))?;
        Some(chunk)
    }

    fn take_rollups(
        &mut self,
        fields: &mut Fields<'_>,
        times: &[TimesEntry],
        rollups: &mut [RollupEntry],
    ) -> Option<()> {
        for (rollup, before) in rollups.iter_mut().zip(&mut self.rollup_bytes) {
            *before = before.checked_add(fields.zigzag()?)?;
            *rollup = RollupEntry {
                offset: self.rollup_offset,
                bytes: u32::try_from(*before).ok()?,
                ..RollupEntry::default()
            };
            if rollup.bytes == 0 {
                continue;
            }
            let number = fields.varint()?;
            let entry = *times.get(usize::try_from(number >> 1).ok()?)?;
            if number & 1 == 1 {
                (entry.offset == rollup.offset).then_some(())?;
                rollup.offset = rollup.offset.checked_add(u64::from(entry.bytes))?;
            }
            rollup.times = Some(entry);
            rollup.crc = fields.u32()?;
            self.rollup_offset = rollup.offset.checked_add(u64::from(rollup.bytes))?;
        }
        Some(())
    }
}

/// Reads the series of a page one by one.
#[derive(Debug)]
pub(super) struct SeriesPage<'a> {
    fields: Fields<'a>,
    symbols: Symbols,
    times: Vec<TimesEntry>,
    context: Context,
    /// Where the chunks begin, and where the rollups do.
    pub(super) start: u64,
    pub(super) rollup_start: u64,
    /// Of the series that was moved to: numbers of its label pairs, its chunks, first and last
    /// timestamp, number of samples, rollups.
    set: Vec<usize>,
    chunks: Vec<ChunkEntry>,
    facts: (i64, i64, u64),
    rollups: Vec<RollupEntry>,
}

/// The label pairs of a page, one behind the other, and where each ends.
#[derive(Clone, Debug, Default)]
pub(super) struct Symbols {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Symbols {
    fn take(fields: &mut Fields<'_>) -> Option<Self> {
        let count = fields.count()?;
        let mut symbols = Self::default();
        let mut before = 0..0;
        for _ in 0..count {
            let shared = usize::try_from(fields.varint()?).ok()?;
            (shared <= before.len().min(SHARED_MAX)).then_some(())?;
            let rest = fields.bytes()?;
            let start = symbols.bytes.len();
            symbols
                .bytes
                .extend_from_within(before.start..before.start + shared);
            symbols.bytes.extend_from_slice(rest);
            before = start..symbols.bytes.len();
            symbols.ends.push(before.end);
        }
        Some(symbols)
    }

    pub(super) fn get(&self, number: usize) -> &[u8] {
        let start = number.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.bytes[start..self.ends[number]]
    }

    pub(super) fn heap_bytes(&self) -> usize {
        self.bytes.capacity() + self.ends.capacity() * size_of::<usize>()
    }
}

impl<'a> SeriesPage<'a> {
    /// A page without its checksum, of a block that stores so many `resolutions`.
    pub(super) fn open(page: &'a [u8], resolutions: usize) -> Option<Self> {
        let mut fields = Fields::new(page);
        let start = fields.varint()?;
        let rollup_start = start.checked_add(fields.varint()?)?;
        let context = Context {
            offset: start,
            rollup_offset: rollup_start,
            ..Context::default()
        };
        let times = TimesTable::take(&mut fields)?;
        let symbols = Symbols::take(&mut fields)?;
        Some(Self {
            fields,
            symbols,
            times,
            context,
            start,
            rollup_start,
            set: Vec::new(),
            chunks: Vec::new(),
            facts: (0, 0, 0),
            rollups: vec![RollupEntry::default(); resolutions],
        })
    }

    /// Where in the page reading has come to.
    pub(super) fn pos(&self) -> usize {
        self.fields.pos
    }

    pub(super) fn is_at_end(&self) -> bool {
        self.fields.is_at_end()
    }

    /// Moves to the next series; `None` if the page breaks the format.
    pub(super) fn advance(&mut self) -> Option<()> {
        self.take_set()?;
        let (fields, times) = (&mut self.fields, &self.times);
        self.facts = self.context.take_chunks(fields, times, &mut self.chunks)?;
        self.context.take_rollups(fields, times, &mut self.rollups)
    }

    /// Where the chunks, and the rollups, of the series that were read so far end.
    pub(super) fn ends(&self) -> (u64, u64) {
        (self.context.offset, self.context.rollup_offset)
    }

    /// The times that series of this page refer to.
    pub(super) fn times(&self) -> &[TimesEntry] {
        &self.times
    }

    fn take_set(&mut self) -> Option<()> {
        let count = usize::try_from(self.fields.varint()?).ok()?;
        // All pairs of a set are different ones.
        (count <= self.symbols.ends.len()).then_some(())?;
        let masked = count == self.set.len() && count <= MASKED_MAX;
        let mask = if masked {
            self.fields.varint()?
        } else {
            u64::MAX
        };
        (!masked || mask >> count == 0).then_some(())?;
        self.set.resize(count, 0);
        for (i, number) in self.set.iter_mut().enumerate() {
            if !masked || mask >> i & 1 == 1 {
                let symbol = usize::try_from(self.fields.varint()?).ok()?;
                *number = Some(symbol).filter(|&s| s < self.symbols.ends.len())?;
            }
        }
        Some(())
    }

    /// The labels of the series that was moved to; `None` if they break the format.
    pub(super) fn labels(&self) -> Option<Labels> {
        let pairs: Vec<&[u8]> = self.set.iter().map(|&s| self.symbols.get(s)).collect();
        Labels::from_canonical(&pairs.concat()).ok()
    }

    /// Whether the series that was moved to may have samples, or had some, in `range`.
    pub(super) fn overlaps(&self, range: TimeRange) -> bool {
        if self.chunks.is_empty() {
            return TimeRange::new(self.facts.0, self.facts.1).overlaps(range);
        }
        let overlaps = |c: &ChunkEntry| TimeRange::new(c.first, c.last).overlaps(range);
        self.chunks.iter().any(overlaps)
    }

    /// Where the series that was moved to, which is number `at`, has its samples and rollups.
    pub(super) fn place(&self, at: u32) -> SeriesPlace {
        let (first, last, samples) = self.facts;
        SeriesPlace {
            at,
            range: TimeRange::new(first, last),
            samples,
            chunks: self.chunks.as_slice().into(),
            rollups: self.rollups.as_slice().into(),
        }
    }

    /// The label pairs of all series of the page.
    pub(super) fn symbols(&self) -> &Symbols {
        &self.symbols
    }

    /// Which of them are those of the series that was moved to, in the order of its label set.
    pub(super) fn pairs(&self) -> &[usize] {
        &self.set
    }

    /// First and last timestamp of the series that was moved to.
    pub(super) fn range(&self) -> TimeRange {
        TimeRange::new(self.facts.0, self.facts.1)
    }

    /// The rollups of the series that was moved to, one for each resolution.
    pub(super) fn rollups(&self) -> &[RollupEntry] {
        &self.rollups
    }

    /// The chunks of the series that was moved to.
    pub(super) fn chunks(&self) -> &[ChunkEntry] {
        &self.chunks
    }
}
