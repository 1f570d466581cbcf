//! Opening a block, and finding series in it.

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use millrace_log::fs::Fs;
use millrace_model::{Matcher, SeriesHasher, TenantId, TimeRange};
use roaring::RoaringBitmap;

use super::directory::{Directory, Expected, TenantEntry};
use super::footer::{FOOTER_BYTES, Footer, TAIL_BYTES, Tail, decode_tail};
use super::labels::TenantIndex;
use super::pages::PageCache;
use super::series::SeriesPage;
use super::times::{TimesCache, TimesEntry};
use super::{
    BlockError, BlockSeries, BlockSummary, CRC_BYTES, HEADER_BYTES, MAGIC, ReadRanges,
    SERIES_PER_PAGE, Section, VERSION,
};
use crate::index::select;

/// An open block. Shared by any number of readers; the file stays readable as long as it lives,
/// whatever becomes of its name.
#[derive(Debug)]
pub struct BlockReader {
    source: Box<dyn ReadRanges>,
    path: PathBuf,
    pub(super) footer: Footer,
    footer_crc: u32,
    directory: OnceLock<Directory>,
    pub(super) times: TimesCache,
    pub(super) pages: Arc<PageCache>,
    /// Under which its pages are kept; no other block has it.
    pub(super) number: u64,
}

impl BlockReader {
    /// Opens the block `path`: reads and verifies header, tail and footer.
    ///
    /// # Errors
    ///
    /// Of the file system; a file that is damaged, is cut short or goes on, is no block, or was
    /// written by a later version.
    pub fn open(fs: &dyn Fs, path: &Path) -> Result<Self, BlockError> {
        let file = fs.open(path).map_err(|source| BlockError::Io {
            what: "open",
            path: path.to_owned(),
            source,
        })?;
        Self::open_ranges(Box::new(file), path)
    }

    /// Opens the block whose bytes `source` has. `path` names it in errors.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    pub fn open_ranges(source: Box<dyn ReadRanges>, path: &Path) -> Result<Self, BlockError> {
        let io = |what, source| BlockError::Io {
            what,
            path: path.to_owned(),
            source,
        };
        let len = source.total_bytes().map_err(|e| io("measure", e))?;
        let malformed = |section, offset, what| BlockError::Malformed {
            path: path.to_owned(),
            section,
            offset,
            what,
        };
        if len < (HEADER_BYTES + FOOTER_BYTES + TAIL_BYTES) as u64 {
            return Err(malformed(
                Section::Header,
                len,
                "file is too short for a block",
            ));
        }
        let mut header = [0; HEADER_BYTES];
        source
            .read_range(&mut header, 0)
            .map_err(|e| io("read", e))?;
        check_header(path, &header)?;
        let mut end = [0; FOOTER_BYTES + TAIL_BYTES];
        let footer_at = len - end.len() as u64;
        source
            .read_range(&mut end, footer_at)
            .map_err(|e| io("read", e))?;
        let (footer, tail) = end.split_at(FOOTER_BYTES);
        let tail_at = footer_at + FOOTER_BYTES as u64;
        let tail = decode_tail(tail.first_chunk().expect("as long as a tail"));
        let checksum = |section, offset, bytes, got, stored| BlockError::Checksum {
            path: path.to_owned(),
            section,
            offset,
            bytes,
            got,
            stored,
        };
        let Tail { got, stored, .. } = tail;
        if !tail.is_tail {
            let what = "file does not end as a block does";
            return Err(malformed(Section::Tail, tail_at, what));
        }
        if got != stored {
            return Err(checksum(Section::Tail, tail_at, 8, got, stored));
        }
        if tail.footer_bytes as usize != FOOTER_BYTES {
            let what = "footer of another length than this version's";
            return Err(malformed(Section::Tail, tail_at, what));
        }
        let got = crc32c::crc32c(footer);
        if got != tail.footer_crc {
            let bytes = FOOTER_BYTES as u64;
            let error = checksum(Section::Footer, footer_at, bytes, got, tail.footer_crc);
            return Err(error);
        }
        let footer = Footer::decode(footer)
            .map_err(|(pos, what)| malformed(Section::Footer, footer_at + pos as u64, what))?;
        if footer.file_bytes() != len {
            let what = "sections do not end where the footer begins";
            return Err(malformed(Section::Footer, footer_at, what));
        }
        Ok(Self {
            source,
            path: path.to_owned(),
            footer,
            footer_crc: tail.footer_crc,
            directory: OnceLock::new(),
            times: TimesCache::default(),
            pages: Arc::new(PageCache::new(0)),
            number: PageCache::block_number(),
        })
    }

    /// The same, with a place to keep pages of its index. Who looks for damage does without.
    #[must_use]
    pub fn with_pages(mut self, pages: Arc<PageCache>) -> Self {
        self.pages = pages;
        self
    }

    /// What the block holds.
    #[must_use]
    pub fn summary(&self) -> BlockSummary {
        self.footer.summary(self.footer_crc)
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The series of `tenant` that pass all matchers and have chunks that overlap `range`, in order
    /// of their labels. Reads no samples.
    ///
    /// # Errors
    ///
    /// Of the file system; damage in the pages that are read.
    pub fn select(
        &self,
        tenant: &TenantId,
        matchers: &[Matcher],
        range: TimeRange,
    ) -> Result<Vec<BlockSeries>, BlockError> {
        let mut found = Vec::new();
        let Some(entry) = self.directory()?.tenant(tenant) else {
            return Ok(found);
        };
        let index = TenantIndex::new(self, entry);
        let selected = select(&index, matchers)?;
        self.collect_series(entry, &selected, range, &mut found)?;
        Ok(found)
    }

    /// The label names of the series of `tenant` that pass all matchers of one of the sets, or of
    /// all its series if there is no set; sorted.
    ///
    /// # Errors
    ///
    /// Of the file system; damage in the pages that are read.
    pub fn label_names(
        &self,
        tenant: &TenantId,
        matcher_sets: &[Vec<Matcher>],
    ) -> Result<Vec<String>, BlockError> {
        let Some(entry) = self.directory()?.tenant(tenant) else {
            return Ok(Vec::new());
        };
        TenantIndex::new(self, entry).label_names(matcher_sets)
    }

    /// The values of the label `name` of such series; sorted. Those among `known`, which is sorted too, may be
    /// left out: neighbouring blocks have nearly the same ones.
    ///
    /// # Errors
    ///
    /// Of the file system; damage in the pages that are read.
    pub fn label_values(
        &self,
        tenant: &TenantId,
        name: &str,
        matcher_sets: &[Vec<Matcher>],
        known: &[String],
    ) -> Result<Vec<String>, BlockError> {
        let Some(entry) = self.directory()?.tenant(tenant) else {
            return Ok(Vec::new());
        };
        TenantIndex::new(self, entry).label_values(name, matcher_sets, known)
    }

    /// The tenants that have series here, sorted.
    ///
    /// # Errors
    ///
    /// Of the file system; a damaged directory.
    pub fn tenants(&self) -> Result<Vec<TenantId>, BlockError> {
        let tenants = self.directory()?.tenants.iter();
        Ok(tenants.map(|t| t.id.clone()).collect())
    }

    /// All series, in the order of the block. Reads no samples; keeps one page.
    #[must_use]
    pub fn iter(&self) -> BlockIter<'_> {
        BlockIter {
            block: self,
            next: 0,
            page: Vec::new().into_iter(),
        }
    }

    /// The directory, read at its first use.
    pub(super) fn directory(&self) -> Result<&Directory, BlockError> {
        if let Some(directory) = self.directory.get() {
            return Ok(directory);
        }
        let entry = self.footer.section(Section::Directory);
        let bytes = self.read_at(entry.offset, entry.bytes)?;
        self.check(Section::Directory, entry.offset, &bytes, entry.crc)?;
        let expected = Expected {
            tenants: self.footer.tenants,
            series: self.footer.series,
            series_pages: self.footer.series.div_ceil(SERIES_PER_PAGE) as usize,
            series_bytes: self.footer.section(Section::Series).bytes,
            label_bytes: self.footer.section(Section::Labels).bytes,
        };
        let directory = Directory::decode(&bytes, expected).map_err(|pos| {
            let offset = entry.offset + pos as u64;
            self.malformed(Section::Directory, offset, "directory breaks the format")
        })?;
        Ok(self.directory.get_or_init(|| directory))
    }

    /// Reads the series of `selected`, which are numbered within their tenant.
    fn collect_series(
        &self,
        tenant: &TenantEntry,
        selected: &RoaringBitmap,
        range: TimeRange,
        found: &mut Vec<BlockSeries>,
    ) -> Result<(), BlockError> {
        let hasher = SeriesHasher::new(&tenant.id);
        let mut wanted = selected.iter().map(|at| tenant.first + at).peekable();
        while let Some(&at) = wanted.peek() {
            self.walk_page(at / SERIES_PER_PAGE, &mut |at, page| {
                if wanted.next_if_eq(&at).is_none() {
                    return Ok(());
                }
                if page.overlaps(range) {
                    found.push(self.series(at, page, hasher)?);
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    /// The series that `page` was moved to.
    fn series(
        &self,
        at: u32,
        page: &SeriesPage<'_>,
        hasher: SeriesHasher,
    ) -> Result<BlockSeries, BlockError> {
        let labels = page.labels().ok_or_else(|| {
            let offset = self.footer.section(Section::Series).offset;
            self.malformed(Section::Series, offset, "labels break the format")
        })?;
        Ok(BlockSeries {
            id: hasher.id(&labels),
            labels,
            place: page.place(at),
        })
    }

    /// Calls `each` for every series of a page, with its number in the block.
    pub(super) fn walk_page(
        &self,
        number: u32,
        each: &mut dyn FnMut(u32, &SeriesPage<'_>) -> Result<(), BlockError>,
    ) -> Result<(), BlockError> {
        let entry = self.directory()?.series_pages[number as usize];
        let bytes = self.read_page(Section::Series, entry.offset, entry.bytes as usize)?;
        let start = self.footer.section(Section::Series).offset + entry.offset;
        let malformed =
            |pos: usize, what| self.malformed(Section::Series, start + pos as u64, what);
        let breaks = "series page breaks the format";
        let resolutions = self.footer.resolutions().len();
        let mut page = SeriesPage::open(&bytes, resolutions).ok_or_else(|| malformed(0, breaks))?;
        let first = number * SERIES_PER_PAGE;
        let count = (self.footer.series - first).min(SERIES_PER_PAGE);
        let chunks = self.footer.section(Section::Chunks);
        let end = chunks.offset + chunks.bytes;
        let inside = |t: &TimesEntry| {
            let times_end = t.offset.checked_add(u64::from(t.bytes));
            chunks.offset <= t.offset && times_end.is_some_and(|e| e <= end)
        };
        if page.start < chunks.offset || !page.times().iter().all(inside) {
            return Err(malformed(0, "times outside of their section"));
        }
        for at in first..first + count {
            page.advance()
                .ok_or_else(|| malformed(page.pos(), breaks))?;
            if page.chunks().is_empty() != self.footer.without_samples {
                return Err(malformed(
                    page.pos(),
                    "samples that should not be, or are not",
                ));
            }
            let (chunk_end, rollup_end) = page.ends();
            if chunk_end > page.rollup_start || rollup_end > end {
                return Err(malformed(page.pos(), "a chunk outside of its section"));
            }
            each(at, &page)?;
        }
        if !page.is_at_end() {
            return Err(malformed(page.pos(), "series page goes on"));
        }
        Ok(())
    }

    /// A page or bitmap of a section, without its checksum, which is verified. `bytes` is with it.
    pub(super) fn read_page(
        &self,
        section: Section,
        at: u64,
        bytes: usize,
    ) -> Result<Vec<u8>, BlockError> {
        let entry = self.footer.section(section);
        let outside = at
            .checked_add(bytes as u64)
            .is_none_or(|end| end > entry.bytes);
        if outside || bytes < CRC_BYTES {
            let what = "a page outside of its section";
            return Err(self.malformed(section, entry.offset, what));
        }
        let offset = entry.offset + at;
        let mut page = self.read_at(offset, bytes as u64)?;
        let stored = page.split_off(bytes - CRC_BYTES);
        let stored = stored.first_chunk().expect("as long as a checksum");
        self.check(section, offset, &page, u32::from_le_bytes(*stored))?;
        Ok(page)
    }

    pub(super) fn read_at(&self, offset: u64, bytes: u64) -> Result<Vec<u8>, BlockError> {
        let mut buffer = vec![0; self.length(bytes)?];
        self.read_into(&mut buffer, offset)?;
        Ok(buffer)
    }

    pub(super) fn read_into(&self, buffer: &mut [u8], offset: u64) -> Result<(), BlockError> {
        let read = self.source.read_range(buffer, offset);
        read.map_err(|source| self.unreadable(source))
    }

    fn length(&self, bytes: u64) -> Result<usize, BlockError> {
        let too_large = |_| self.unreadable(std::io::ErrorKind::FileTooLarge.into());
        usize::try_from(bytes).map_err(too_large)
    }

    fn unreadable(&self, source: std::io::Error) -> BlockError {
        BlockError::Io {
            what: "read",
            path: self.path.clone(),
            source,
        }
    }

    /// Calls `with` with a range of bytes, in memory that is kept for the next time.
    pub(super) fn with_bytes<R>(
        &self,
        offset: u64,
        bytes: u64,
        with: impl FnOnce(&[u8]) -> Result<R, BlockError>,
    ) -> Result<R, BlockError> {
        // What is larger than this is given back.
        const KEPT_BYTES: usize = 256 << 10;
        thread_local! {
            static BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
        }
        let len = self.length(bytes)?;
        // Taken out: whoever is called may read too.
        let mut buffer = BUFFER.take();
        if buffer.len() < len {
            buffer.resize(len, 0);
        }
        let read = self.read_into(&mut buffer[..len], offset);
        let result = read.and_then(|()| with(&buffer[..len]));
        if buffer.len() <= KEPT_BYTES {
            BUFFER.set(buffer);
        }
        result
    }

    pub(super) fn check(
        &self,
        section: Section,
        offset: u64,
        bytes: &[u8],
        stored: u32,
    ) -> Result<(), BlockError> {
        let got = crc32c::crc32c(bytes);
        if got == stored {
            return Ok(());
        }
        Err(self.checksum(section, offset, bytes.len() as u64, got, stored))
    }

    pub(super) fn checksum(
        &self,
        section: Section,
        offset: u64,
        bytes: u64,
        got: u32,
        stored: u32,
    ) -> BlockError {
        BlockError::Checksum {
            path: self.path.clone(),
            section,
            offset,
            bytes,
            got,
            stored,
        }
    }

    pub(super) fn malformed(
        &self,
        section: Section,
        offset: u64,
        what: &'static str,
    ) -> BlockError {
        BlockError::Malformed {
            path: self.path.clone(),
            section,
            offset,
            what,
        }
    }
}

fn check_header(path: &Path, header: &[u8; HEADER_BYTES]) -> Result<(), BlockError> {
    let malformed = |offset, what| BlockError::Malformed {
        path: path.to_owned(),
        section: Section::Header,
        offset,
        what,
    };
    if header[..4] != MAGIC {
        return Err(malformed(0, "file does not begin as a block does"));
    }
    let got = crc32c::crc32c(&header[..8]);
    let stored = u32::from_le_bytes([header[8], header[9], header[10], header[11]]);
    if got != stored {
        return Err(BlockError::Checksum {
            path: path.to_owned(),
            section: Section::Header,
            offset: 0,
            bytes: 8,
            got,
            stored,
        });
    }
    if header[4] != VERSION {
        return Err(BlockError::Unsupported {
            path: path.to_owned(),
            what: "block version",
            got: header[4],
            supported: VERSION,
        });
    }
    if header[5..8] != [0; 3] {
        return Err(malformed(5, "reserved bytes are not zero"));
    }
    Ok(())
}

/// Goes through all series of a block.
#[derive(Debug)]
pub struct BlockIter<'a> {
    block: &'a BlockReader,
    /// The next page.
    next: u32,
    page: std::vec::IntoIter<(TenantId, BlockSeries)>,
}

impl BlockIter<'_> {
    fn read_page(&mut self) -> Result<(), BlockError> {
        let block = self.block;
        let tenants = &block.directory()?.tenants;
        let mut series = Vec::with_capacity(SERIES_PER_PAGE as usize);
        block.walk_page(self.next, &mut |at, page| {
            // The last one that begins at or before.
            let tenant = &tenants[tenants.partition_point(|t| t.first <= at) - 1].id;
            let found = block.series(at, page, SeriesHasher::new(tenant))?;
            series.push((tenant.clone(), found));
            Ok(())
        })?;
        self.page = series.into_iter();
        Ok(())
    }
}

impl Iterator for BlockIter<'_> {
    /// A series and whose it is. Behind an error there is nothing more.
    type Item = Result<(TenantId, BlockSeries), BlockError>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(series) = self.page.next() {
            return Some(Ok(series));
        }
        if self.next >= self.block.footer.series.div_ceil(SERIES_PER_PAGE) {
            return None;
        }
        if let Err(error) = self.read_page() {
            self.next = u32::MAX;
            return Some(Err(error));
        }
        self.next += 1;
        self.page.next().map(Ok)
    }
}

impl<'a> IntoIterator for &'a BlockReader {
    type Item = Result<(TenantId, BlockSeries), BlockError>;
    type IntoIter = BlockIter<'a>;

    fn into_iter(self) -> BlockIter<'a> {
        self.iter()
    }
}
