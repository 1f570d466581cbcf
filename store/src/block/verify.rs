//! Verifying a whole block: every checksum, and whether its parts agree.

use millrace_model::{Labels, TimeRange};
use roaring::RoaringBitmap;

use super::directory::TenantEntry;
use super::footer::BODY;
use super::labels::TenantIndex;
use super::series::SeriesPage;
use super::{BlockError, BlockReader, RollupColumns, SERIES_PER_PAGE, Section, SeriesPlace};
use crate::index::{LabelIndex, MemIndex};

/// Sections are read in pieces of this size.
const PIECE_BYTES: u64 = 1 << 20;

/// What was verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verified {
    /// Series whose labels were compared with the index.
    pub series: u32,
    /// Chunks that were decoded.
    pub chunks: u64,
    /// Samples in them.
    pub samples: u64,
    /// Bytes whose checksums were right: the whole file.
    pub bytes: u64,
}

/// What the series pages turn out to hold.
#[derive(Debug)]
struct Found {
    chunks: u64,
    samples: u64,
    range: Option<TimeRange>,
    /// Where the page that was read last begins in the section of chunks, and where it ends.
    page_start: Option<u64>,
    page_end: u64,
    timestamps: Vec<i64>,
    values: Vec<f64>,
}

impl BlockReader {
    /// Reads all of the block and checks every checksum, every chunk, the order of series and
    /// samples, and the index against the label sets that it stands for.
    ///
    /// # Errors
    ///
    /// Of the file system; the first damage or contradiction.
    pub fn verify(&self) -> Result<Verified, BlockError> {
        for section in BODY {
            self.verify_section(section)?;
        }
        let directory = self.directory()?;
        let mut found = Found {
            chunks: 0,
            samples: 0,
            range: None,
            page_start: None,
            page_end: self.footer.section(Section::Chunks).offset,
            timestamps: Vec::new(),
            values: Vec::new(),
        };
        for tenant in &directory.tenants {
            let index = self.verify_series(tenant, &mut found)?;
            self.verify_index(tenant, &index)?;
        }
        let chunks = self.footer.section(Section::Chunks);
        let footer = self.footer.section(Section::Directory);
        let contradiction =
            |what| self.malformed(Section::Footer, footer.offset + footer.bytes, what);
        if found.page_end != chunks.offset + chunks.bytes {
            return Err(contradiction("there are chunks that no series has"));
        }
        if (found.chunks, found.samples) != (self.footer.chunks, self.footer.samples) {
            return Err(contradiction("counts of chunks or samples are wrong"));
        }
        if found.range != Some(self.footer.samples_range) {
            return Err(contradiction("first or last timestamp is wrong"));
        }
        Ok(Verified {
            series: self.footer.series,
            chunks: found.chunks,
            samples: found.samples,
            bytes: self.footer.file_bytes(),
        })
    }

    fn verify_section(&self, section: Section) -> Result<(), BlockError> {
        let entry = self.footer.section(section);
        let (mut crc, mut at) = (0, 0);
        while at < entry.bytes {
            let piece = self.read_at(entry.offset + at, (entry.bytes - at).min(PIECE_BYTES))?;
            crc = crc32c::crc32c_append(crc, &piece);
            at += piece.len() as u64;
        }
        if crc == entry.crc {
            return Ok(());
        }
        Err(self.checksum(section, entry.offset, entry.bytes, crc, entry.crc))
    }

    /// Goes through a tenant's series, and builds the index that they ought to have.
    fn verify_series(
        &self,
        tenant: &TenantEntry,
        found: &mut Found,
    ) -> Result<MemIndex, BlockError> {
        let mut index = MemIndex::new();
        let mut before: Option<Labels> = None;
        let (first, end) = (tenant.first, tenant.first + tenant.series);
        for page in first / SERIES_PER_PAGE..end.div_ceil(SERIES_PER_PAGE) {
            self.walk_page(page, &mut |at, page| {
                if at < first || at >= end {
                    return Ok(());
                }
                let offset = self.footer.section(Section::Series).offset;
                let malformed = |what| self.malformed(Section::Series, offset, what);
                let labels = page
                    .labels()
                    .ok_or_else(|| malformed("labels break the format"))?;
                if before.as_ref().is_some_and(|before| *before >= labels) {
                    return Err(malformed("series are not in order of their labels"));
                }
                index.insert(at - first, &labels);
                before = Some(labels);
                self.verify_chunks(page, found)?;
                self.verify_rollups(&page.place(at), page, found)
            })?;
        }
        Ok(index)
    }

    fn verify_chunks(&self, page: &SeriesPage<'_>, found: &mut Found) -> Result<(), BlockError> {
        found.timestamps.clear();
        found.values.clear();
        if found.page_start != Some(page.start) {
            if page.start != found.page_end {
                let what = "chunks of a page do not begin where the page before ends";
                return Err(self.malformed(Section::Chunks, page.start, what));
            }
            found.page_start = Some(page.start);
        }
        for chunk in page.chunks() {
            let malformed = |what| self.malformed(Section::Chunks, chunk.offset, what);
            let bytes = self.read_at(chunk.offset, u64::from(chunk.bytes))?;
            self.decode(chunk, &bytes, &mut found.timestamps, &mut found.values)?;
            if !found.timestamps.is_sorted_by(|a, b| a < b) {
                return Err(malformed("samples are not in order of time"));
            }
            found.chunks += 1;
            found.samples += u64::from(chunk.samples);
            let range = found
                .range
                .unwrap_or(TimeRange::new(chunk.first, chunk.last));
            found.range = Some(TimeRange::new(
                range.start.0.min(chunk.first),
                range.end.0.max(chunk.last),
            ));
        }
        Ok(())
    }

    /// Compares the rollups of a series with those of its samples, or of a block without samples
    /// takes note of it.
    fn verify_rollups(
        &self,
        place: &SeriesPlace,
        page: &SeriesPage<'_>,
        found: &mut Found,
    ) -> Result<(), BlockError> {
        found.page_end = page.ends().1;
        for (at, &resolution) in self.footer.resolutions().iter().enumerate() {
            let stored = self.stored_rollup(place, at)?;
            if self.footer.without_samples {
                continue;
            }
            let mut right = RollupColumns::default();
            right.push_samples(&found.timestamps, &found.values, resolution);
            if !stored.same_bits(&right) {
                let what = "rollups are not those of the samples";
                return Err(self.malformed(Section::Rollups, place.rollups[at].offset, what));
            }
        }
        if self.footer.without_samples {
            found.samples += place.samples();
            let range = found.range.unwrap_or(place.range());
            found.range = Some(TimeRange::new(
                range.start.0.min(place.range().start.0),
                range.end.0.max(place.range().end.0),
            ));
        }
        Ok(())
    }

    /// Compares a tenant's index with the one that its series ought to have.
    fn verify_index(&self, tenant: &TenantEntry, expect: &MemIndex) -> Result<(), BlockError> {
        let offset = self.footer.section(Section::Labels).offset;
        let wrong = |what| self.malformed(Section::Labels, offset, what);
        let index = TenantIndex::new(self, tenant);
        let names: Vec<&str> = tenant.names.iter().map(|n| &*n.name).collect();
        if names != expect.label_names(None) {
            return Err(wrong("label names are not those of the series"));
        }
        for entry in &tenant.names {
            let mut values = expect.values(&entry.name).into_iter();
            if values.len() as u64 != entry.values {
                return Err(wrong("number of values of a label is wrong"));
            }
            let mut all = RoaringBitmap::new();
            for page in &entry.pages {
                index.walk_values(page, &mut |value, postings| {
                    let stored = index.postings_of(postings)?;
                    let right = values
                        .next()
                        .is_some_and(|(v, s)| v == value && *s == *stored);
                    all |= &*stored;
                    right
                        .then_some(true)
                        .ok_or_else(|| wrong("postings are not those of the series"))
                })?;
            }
            let stored = index.with_label(&entry.name)?;
            if values.next().is_some() || stored.as_deref() != Some(&all) {
                return Err(wrong("values of a label are not those of the series"));
            }
        }
        Ok(())
    }
}
