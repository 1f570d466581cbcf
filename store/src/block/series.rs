//! Series pages: label sets and chunk entries, each written as the difference from the one before.

use millrace_model::{Labels, write_varint, zigzag};

use super::fields::Fields;
use super::{ChunkEntry, Codec, SERIES_PER_PAGE};

/// What the next entry of a page is written against.
#[derive(Clone, Debug, Default)]
struct Context {
    /// Label bytes of the series before.
    labels: Vec<u8>,
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
    page: Vec<u8>,
    count: u32,
    context: Context,
}

impl SeriesWriter {
    /// Adds a series whose chunks stand one behind the other.
    pub(super) fn push(&mut self, labels: &[u8], chunks: &[ChunkEntry]) {
        if self.count == SERIES_PER_PAGE {
            self.finish_page();
        }
        if self.count == 0 {
            self.context = Context::default();
            self.context.offset = chunks.first().map_or(0, |c| c.offset);
            write_varint(&mut self.page, self.context.offset);
        }
        self.count += 1;
        let out = &mut self.page;
        put_labels(out, &mut self.context.labels, labels);
        write_varint(out, chunks.len() as u64);
        let mut base = self.context.first;
        self.context.first = chunks.first().map_or(0, |c| c.first);
        for chunk in chunks {
            debug_assert_eq!(chunk.offset, self.context.offset);
            self.context.put_chunk(out, chunk, base);
            base = chunk.last;
        }
    }

    pub(super) fn finish_page(&mut self) {
        if self.count > 0 {
            let bytes = put_page(&mut self.bytes, &self.page);
            self.pages.push(bytes);
            self.page.clear();
            self.count = 0;
        }
    }
}

/// Appends a page and its checksum; returns the bytes of both.
pub(super) fn put_page(section: &mut Vec<u8>, page: &[u8]) -> u32 {
    section.extend_from_slice(page);
    section.extend_from_slice(&crc32c::crc32c(page).to_le_bytes());
    u32::try_from(page.len() + super::CRC_BYTES).expect("a page is far below 4 GiB")
}

/// Label bytes as the batch codec writes them: what they share with those before at both ends is
/// left out.
fn put_labels(out: &mut Vec<u8>, before: &mut Vec<u8>, labels: &[u8]) {
    let prefix = shared(before.iter(), labels.iter());
    let suffix = shared(before[prefix..].iter().rev(), labels[prefix..].iter().rev());
    let middle = &labels[prefix..labels.len() - suffix];
    write_varint(out, prefix as u64);
    write_varint(out, suffix as u64);
    write_varint(out, middle.len() as u64);
    out.extend_from_slice(middle);
    before.clear();
    before.extend_from_slice(labels);
}

fn shared<'a>(a: impl Iterator<Item = &'a u8>, b: impl Iterator<Item = &'a u8>) -> usize {
    a.zip(b).take_while(|(a, b)| a == b).count()
}

impl Context {
    fn put_chunk(&mut self, out: &mut Vec<u8>, chunk: &ChunkEntry, base: i64) {
        let duration = chunk.last.wrapping_sub(chunk.first);
        let (samples, bytes) = (i64::from(chunk.samples), i64::from(chunk.bytes));
        out.push(chunk.codec as u8);
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
    }

    fn take_chunk(&mut self, fields: &mut Fields<'_>, base: i64) -> Option<ChunkEntry> {
        let codec = Codec::from_byte(fields.u8()?)?;
        let first = base.wrapping_add(fields.zigzag()?);
        let duration = self.duration.wrapping_add(fields.zigzag()?);
        let samples = self.samples.checked_add(fields.zigzag()?)?;
        let bytes = self.bytes.checked_add(fields.zigzag()?)?;
        let chunk = ChunkEntry {
            codec,
            first,
            last: first.wrapping_add(duration),
            samples: u32::try_from(samples).ok().filter(|&s| s > 0)?,
            offset: self.offset,
            bytes: u32::try_from(bytes).ok()?,
            crc: fields.u32()?,
        };
        // A duration over half of the time line wraps, and gives the right end all the same.
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
    context: Context,
    chunks: Vec<ChunkEntry>,
}

impl<'a> SeriesPage<'a> {
    /// A page without its checksum.
    pub(super) fn open(page: &'a [u8]) -> Option<Self> {
        let mut fields = Fields::new(page);
        let context = Context {
            offset: fields.varint()?,
            ..Context::default()
        };
        Some(Self {
            fields,
            context,
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
        self.take_labels()?;
        let count = self.fields.count()?;
        (count > 0).then_some(())?;
        self.chunks.clear();
        let mut base = self.context.first;
        for i in 0..count {
            let chunk = self.context.take_chunk(&mut self.fields, base)?;
            // Chunks of a series do not overlap.
            (i == 0 || base < chunk.first).then_some(())?;
            base = chunk.last;
            self.chunks.push(chunk);
        }
        self.context.first = self.chunks[0].first;
        Some(())
    }

    fn take_labels(&mut self) -> Option<()> {
        let before = &mut self.context.labels;
        let prefix = usize::try_from(self.fields.varint()?).ok()?;
        let suffix = usize::try_from(self.fields.varint()?).ok()?;
        let middle = self.fields.bytes()?;
        let end = before
            .len()
            .checked_sub(suffix)
            .filter(|&end| end >= prefix)?;
        before.splice(prefix..end, middle.iter().copied());
        Some(())
    }

    /// The labels of the series that was moved to; `None` if they break the format.
    pub(super) fn labels(&self) -> Option<Labels> {
        Labels::from_canonical(&self.context.labels).ok()
    }

    /// The chunks of the series that was moved to.
    pub(super) fn chunks(&self) -> &[ChunkEntry] {
        &self.chunks
    }
}
