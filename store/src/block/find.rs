//! Finding series by their numbers, over pages that stay in memory.

use std::sync::Arc;

use millrace_model::{Labels, Matcher, SeriesHasher, SeriesId, TenantId, TimeRange};
use roaring::RoaringBitmap;

use super::directory::TenantEntry;
use super::labels::TenantIndex;
use super::pages::{Page, SeriesSet};
use super::{BlockError, BlockReader, SERIES_PER_PAGE, Section};
use crate::index::select;

impl BlockReader {
    /// Calls `found` for the series that [`select`](Self::select) would find, in the same order, and
    /// for each only with its number in the block and what else is known without another look.
    ///
    /// # Errors
    ///
    /// Of the file system; damage in the pages that are read; those of `found`.
    pub(crate) fn find<E: From<BlockError>>(
        &self,
        tenant: &TenantId,
        matchers: &[Matcher],
        range: TimeRange,
        mut found: impl FnMut(Found<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let Some(entry) = self.directory()?.tenant(tenant) else {
            return Ok(());
        };
        let selected = select(&TenantIndex::new(self, entry), matchers)?;
        self.find_numbers(entry, &selected, range, &mut found)
    }

    /// The same for series that are numbered within their tenant.
    pub(super) fn find_numbers<E: From<BlockError>>(
        &self,
        tenant: &TenantEntry,
        selected: &RoaringBitmap,
        range: TimeRange,
        found: &mut impl FnMut(Found<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let hasher = SeriesHasher::new(&tenant.id);
        let mut canonical = Vec::new();
        let mut page = None;
        for number in selected.iter().map(|at| tenant.first + at) {
            let (set, at) = match &page {
                Some((of, set)) if *of == number / SERIES_PER_PAGE => (set, number),
                Some(_) | None => {
                    let of = number / SERIES_PER_PAGE;
                    let (_, set) = page.insert((of, self.series_set(of)?));
                    (&*set, number)
                }
            };
            let at = (at % SERIES_PER_PAGE) as usize;
            if set.overlaps(at, range) {
                let id = set.id(at, hasher, &mut canonical);
                found(Found {
                    number,
                    id,
                    range: set.range(at),
                    block: self,
                    set,
                    at,
                    canonical: &mut canonical,
                })?;
            }
        }
        Ok(())
    }

    /// First and last timestamp of the series of that number.
    pub(crate) fn range_of(&self, number: u32) -> Result<TimeRange, BlockError> {
        let set = self.series_set(number / SERIES_PER_PAGE)?;
        Ok(set.range((number % SERIES_PER_PAGE) as usize))
    }

    /// A page of series, from memory if it is there.
    pub(super) fn series_set(&self, number: u32) -> Result<Arc<SeriesSet>, BlockError> {
        let entry = self.directory()?.series_pages[number as usize];
        let start = self.footer.section(Section::Series).offset + entry.offset;
        if let Some(Page::Series(set)) = self.pages.get((self.number, start)) {
            return Ok(set);
        }
        let mut set = SeriesSet::new();
        self.walk_page(number, &mut |_, page| {
            set.push(page);
            Ok(())
        })?;
        let set = Arc::new(set.finish());
        self.pages
            .put((self.number, start), Page::Series(Arc::clone(&set)));
        Ok(set)
    }

    /// As [`read_page`](Self::read_page), from memory if it is there.
    pub(super) fn page_bytes(
        &self,
        section: Section,
        at: u64,
        bytes: usize,
    ) -> Result<Arc<[u8]>, BlockError> {
        let key = (self.number, self.footer.section(section).offset + at);
        if let Some(Page::Bytes(bytes)) = self.pages.get(key) {
            return Ok(bytes);
        }
        let page: Arc<[u8]> = self.read_page(section, at, bytes)?.into();
        self.pages.put(key, Page::Bytes(Arc::clone(&page)));
        Ok(page)
    }

    /// A bitmap that `decode` makes of a page, from memory if it is there.
    pub(super) fn page_bitmap(
        &self,
        at: u64,
        bytes: usize,
        decode: impl FnOnce(&[u8]) -> Option<RoaringBitmap>,
    ) -> Result<Arc<RoaringBitmap>, BlockError> {
        let start = self.footer.section(Section::Postings).offset + at;
        if let Some(Page::Bitmap(bitmap, _)) = self.pages.get((self.number, start)) {
            return Ok(bitmap);
        }
        let page = self.read_page(Section::Postings, at, bytes)?;
        let bitmap = decode(&page)
            .ok_or_else(|| self.malformed(Section::Postings, start, "bitmap breaks the format"))?;
        let bitmap = Arc::new(bitmap);
        self.pages.put(
            (self.number, start),
            Page::Bitmap(Arc::clone(&bitmap), page.len()),
        );
        Ok(bitmap)
    }
}

/// A series that [`BlockReader::find`] has found.
#[derive(Debug)]
pub(crate) struct Found<'a> {
    /// Its number in the block, for [`BlockReader::read_number`].
    pub(crate) number: u32,
    /// Its identity.
    pub(crate) id: SeriesId,
    /// First and last timestamp.
    pub(crate) range: TimeRange,
    block: &'a BlockReader,
    set: &'a SeriesSet,
    at: usize,
    canonical: &'a mut Vec<u8>,
}

impl<'a> Found<'a> {
    /// Its labels, which are put together when they are asked for first.
    pub(crate) fn labels(&mut self) -> Result<&'a Labels, BlockError> {
        self.set.labels(self.at, self.canonical).ok_or_else(|| {
            let offset = self.block.footer.section(Section::Series).offset;
            self.block
                .malformed(Section::Series, offset, "labels break the format")
        })
    }
}
