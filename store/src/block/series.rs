//! Series pages: the label pairs of the page once, then label sets and chunk entries, each written
//! as the difference from the one before.

use millrace_model::{Labels, read_varint, write_varint, zigzag};

use super::fields::Fields;
use super::{CRC_BYTES, ChunkEntry, SERIES_PER_PAGE};

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
}

/// The section of series pages, while it is written.
#[derive(Debug, Default)]
pub(super) struct SeriesWriter {
    /// All finished pages, with their checksums.
    pub(super) bytes: Vec<u8>,
    /// The length of each.
    pub(super) pages: Vec<u32>,
    /// The series of the page that is being filled, and where the chunks of each end.
    labels: Vec<(Labels, usize)>,
    chunks: Vec<ChunkEntry>,
}

impl SeriesWriter {
    /// Adds a series whose chunks stand one behind the other.
    pub(super) fn push(&mut self, labels: &Labels, chunks: &[ChunkEntry]) {
        self.chunks.extend_from_slice(chunks);
        self.labels.push((labels.clone(), self.chunks.len()));
        if self.labels.len() == SERIES_PER_PAGE as usize {
            self.finish_page();
        }
    }

    pub(super) fn finish_page(&mut self) {
        let Some(first) = self.chunks.first() else {
            return;
        };
        let mut page = Vec::new();
        let mut context = Context {
            offset: first.offset,
            ..Context::default()
        };
        write_varint(&mut page, context.offset);
        let mut symbols: Vec<&[u8]> = self.labels.iter().flat_map(|(l, _)| pairs(l)).collect();
        symbols.sort_unstable();
        symbols.dedup();
        put_symbols(&mut page, &symbols);
        let (mut before, mut start) = (Vec::new(), 0);
        for (labels, end) in &self.labels {
            let number = |pair: &[u8]| {
                symbols
                    .binary_search(&pair)
                    .expect("every pair of the page is a symbol")
            };
            let set: Vec<usize> = pairs(labels).map(number).collect();
            put_set(&mut page, &before, &set);
            before = set;
            context.put_chunks(&mut page, &self.chunks[start..*end]);
            start = *end;
        }
        self.pages.push(put_page(&mut self.bytes, &page));
        self.labels.clear();
        self.chunks.clear();
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

impl Context {
    fn put_chunks(&mut self, out: &mut Vec<u8>, chunks: &[ChunkEntry]) {
        write_varint(out, chunks.len() as u64);
        let mut base = self.first;
        self.first = chunks[0].first;
        for chunk in chunks {
            debug_assert_eq!(chunk.offset, self.offset);
            let duration = chunk.last.wrapping_sub(chunk.first);
            let (samples, bytes) = (i64::from(chunk.samples), i64::from(chunk.bytes));
            out.push(chunk.codec);
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

    fn take_chunks(&mut self, fields: &mut Fields<'_>, chunks: &mut Vec<ChunkEntry>) -> Option<()> {
        let count = fields.count()?;
        (count > 0).then_some(())?;
        chunks.clear();
        let mut base = self.first;
        for i in 0..count {
            let chunk = self.take_chunk(fields, base)?;
            // Chunks of a series do not overlap.
            (i == 0 || base < chunk.first).then_some(())?;
            base = chunk.last;
            chunks.push(chunk);
        }
        self.first = chunks[0].first;
        Some(())
    }

    fn take_chunk(&mut self, fields: &mut Fields<'_>, base: i64) -> Option<ChunkEntry> {
        let codec = fields.u8()?;
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
        };
        (chunk.first <= chunk.last).then_some(())?;
        (chunk.samples == 1 || chunk.first < chunk.last).then_some(())?;
        (self.duration, self.samples, self.bytes) = (duration, samples, bytes);
        self.offset = self.offset.checked_add(u64::from(chunk.bytes))?;
        Some(chunk)
    }
}

/// Reads the series of a page one by one.
#[derive(Debug)]
pub(super) struct SeriesPage<'a> {
    fields: Fields<'a>,
    symbols: Symbols,
    context: Context,
    /// Numbers of the label pairs of the series that was moved to.
    set: Vec<usize>,
    chunks: Vec<ChunkEntry>,
}

/// The label pairs of a page, one behind the other, and where each ends.
#[derive(Debug, Default)]
struct Symbols {
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

    fn get(&self, number: usize) -> &[u8] {
        let start = number.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.bytes[start..self.ends[number]]
    }
}

impl<'a> SeriesPage<'a> {
    /// A page without its checksum.
    pub(super) fn open(page: &'a [u8]) -> Option<Self> {
        let mut fields = Fields::new(page);
        let context = Context {
            offset: fields.varint()?,
            ..Context::default()
        };
        let symbols = Symbols::take(&mut fields)?;
        Some(Self {
            fields,
            symbols,
            context,
            set: Vec::new(),
            chunks: Vec::new(),
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
        self.context.take_chunks(&mut self.fields, &mut self.chunks)
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

    /// The chunks of the series that was moved to.
    pub(super) fn chunks(&self) -> &[ChunkEntry] {
        &self.chunks
    }
}
