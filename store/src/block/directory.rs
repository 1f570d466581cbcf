//! The directory: where pages are, so that a look at one series or one label value reads one page.
//!
//! Small beside what it points to (about 2 bytes for 64 series, and a value for each 4 KiB of label
//! values), it is read whole at the first use of a block and kept.

use millrace_model::{TenantId, write_varint};

use super::fields::Fields;
use super::postings::{PostingsEntry, PostingsWriter};
use super::series::put_page;
use super::{CRC_BYTES, LABEL_PAGE_BYTES};
use crate::index::MemIndex;

/// The section of label pages and the directory's part on tenants, while they are written.
#[derive(Debug, Default)]
pub(super) struct LabelsWriter {
    /// All label pages, with their checksums.
    pub(super) pages: Vec<u8>,
    tenants: Vec<u8>,
    page: Vec<u8>,
}

impl LabelsWriter {
    /// Adds a tenant, whose series `index` numbers from 0.
    pub(super) fn put(
        &mut self,
        tenant: &TenantId,
        index: &MemIndex,
        postings: &mut PostingsWriter,
    ) {
        put_text(&mut self.tenants, tenant.as_str());
        write_varint(&mut self.tenants, index.len());
        let names = index.names();
        write_varint(&mut self.tenants, names.len() as u64);
        for (name, series) in names {
            put_text(&mut self.tenants, name);
            postings.put(&mut self.tenants, series);
            self.put_values(index, name, postings);
        }
    }

    fn put_values(&mut self, index: &MemIndex, name: &str, postings: &mut PostingsWriter) {
        let values = index.values(name);
        write_varint(&mut self.tenants, values.len() as u64);
        let mut pages: Vec<(u32, &str)> = Vec::new();
        let mut first = "";
        let mut before = "";
        for (value, series) in &values {
            if self.page.is_empty() {
                (first, before) = (value, "");
            }
            let bytes = before.bytes().zip(value.bytes());
            let prefix = bytes.take_while(|(a, b)| a == b).count();
            write_varint(&mut self.page, prefix as u64);
            write_varint(&mut self.page, (value.len() - prefix) as u64);
            self.page.extend_from_slice(&value.as_bytes()[prefix..]);
            postings.put(&mut self.page, series);
            before = value;
            if self.page.len() >= LABEL_PAGE_BYTES {
                pages.push((put_page(&mut self.pages, &self.page), first));
                self.page.clear();
            }
        }
        if !self.page.is_empty() {
            pages.push((put_page(&mut self.pages, &self.page), first));
            self.page.clear();
        }
        write_varint(&mut self.tenants, pages.len() as u64);
        for (bytes, first) in pages {
            write_varint(&mut self.tenants, u64::from(bytes));
            put_text(&mut self.tenants, first);
        }
    }

    /// The directory, but for its checksum.
    pub(super) fn directory(&self, tenants: u32, series_pages: &[u32]) -> Vec<u8> {
        let mut out = Vec::with_capacity(2 * series_pages.len() + self.tenants.len() + 20);
        write_varint(&mut out, series_pages.len() as u64);
        for &bytes in series_pages {
            write_varint(&mut out, u64::from(bytes));
        }
        write_varint(&mut out, u64::from(tenants));
        out.extend_from_slice(&self.tenants);
        out
    }
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    write_varint(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

/// A page of a section: where it begins in it, and how long it is with its checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PageEntry {
    pub(super) offset: u64,
    pub(super) bytes: u32,
}

#[derive(Debug)]
pub(super) struct Directory {
    pub(super) series_pages: Vec<PageEntry>,
    pub(super) tenants: Vec<TenantEntry>,
}

#[derive(Debug)]
pub(super) struct TenantEntry {
    pub(super) id: TenantId,
    /// The number of its first series in the block.
    pub(super) first: u32,
    pub(super) series: u32,
    /// Sorted.
    pub(super) names: Vec<NameEntry>,
}

#[derive(Debug)]
pub(super) struct NameEntry {
    pub(super) name: Box<str>,
    /// The series that have the label.
    pub(super) postings: PostingsEntry,
    /// Its values.
    pub(super) values: u64,
    pub(super) pages: Vec<LabelPage>,
}

/// A page of label values.
#[derive(Debug)]
pub(super) struct LabelPage {
    pub(super) page: PageEntry,
    /// Its first value.
    pub(super) first: Box<str>,
}

/// What the footer says, and the directory must agree with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Expected {
    pub(super) tenants: u32,
    pub(super) series: u32,
    pub(super) series_pages: usize,
    pub(super) series_bytes: u64,
    pub(super) label_bytes: u64,
}

impl Directory {
    /// Reads a directory whose checksum was right. `Err` is where it breaks the format.
    pub(super) fn decode(bytes: &[u8], expected: Expected) -> Result<Self, usize> {
        let mut fields = Fields::new(bytes);
        match Self::fields(&mut fields, expected) {
            Some(directory) if fields.is_at_end() => Ok(directory),
            _ => Err(fields.pos),
        }
    }

    fn fields(fields: &mut Fields<'_>, expected: Expected) -> Option<Self> {
        let count = fields.count()?;
        (count == expected.series_pages).then_some(())?;
        let mut series_end = 0;
        let mut series_pages = Vec::with_capacity(count);
        for _ in 0..count {
            series_pages.push(take_page(fields, &mut series_end)?);
        }
        (series_end == expected.series_bytes).then_some(())?;
        let count = fields.count()?;
        (count == expected.tenants as usize).then_some(())?;
        let (mut first, mut label_end) = (0u32, 0);
        let mut tenants: Vec<TenantEntry> = Vec::with_capacity(count);
        for _ in 0..count {
            let tenant = TenantEntry::fields(fields, first, &mut label_end)?;
            tenants
                .last()
                .is_none_or(|t| t.id < tenant.id)
                .then_some(())?;
            first = first.checked_add(tenant.series)?;
            tenants.push(tenant);
        }
        (first == expected.series && label_end == expected.label_bytes).then_some(())?;
        Some(Self {
            series_pages,
            tenants,
        })
    }

    pub(super) fn tenant(&self, id: &TenantId) -> Option<&TenantEntry> {
        let at = self.tenants.binary_search_by(|t| t.id.cmp(id)).ok()?;
        Some(&self.tenants[at])
    }
}

impl TenantEntry {
    fn fields(fields: &mut Fields<'_>, first: u32, label_end: &mut u64) -> Option<Self> {
        let id = fields.text()?.parse().ok()?;
        let series = fields.varint_u32().filter(|&s| s > 0)?;
        let count = fields.count()?;
        let mut names: Vec<NameEntry> = Vec::with_capacity(count);
        for _ in 0..count {
            let name = NameEntry::fields(fields, series, label_end)?;
            names
                .last()
                .is_none_or(|n| n.name < name.name)
                .then_some(())?;
            names.push(name);
        }
        Some(Self {
            id,
            first,
            series,
            names,
        })
    }

    pub(super) fn name(&self, name: &str) -> Option<&NameEntry> {
        let at = self.names.binary_search_by(|n| (*n.name).cmp(name)).ok()?;
        Some(&self.names[at])
    }
}

impl NameEntry {
    fn fields(fields: &mut Fields<'_>, series: u32, label_end: &mut u64) -> Option<Self> {
        let name = fields.text()?.into();
        let postings = PostingsEntry::decode(fields, series)?;
        let values = fields.varint().filter(|&v| v > 0)?;
        let count = fields.count().filter(|&c| c > 0)?;
        let mut pages: Vec<LabelPage> = Vec::with_capacity(count);
        for _ in 0..count {
            let page = take_page(fields, label_end)?;
            let first: Box<str> = fields.text()?.into();
            pages.last().is_none_or(|p| p.first < first).then_some(())?;
            pages.push(LabelPage { page, first });
        }
        Some(Self {
            name,
            postings,
            values,
            pages,
        })
    }
}

fn take_page(fields: &mut Fields<'_>, end: &mut u64) -> Option<PageEntry> {
    let bytes = fields.varint_u32()?;
    (bytes as usize > CRC_BYTES).then_some(())?;
    let offset = *end;
    *end = end.checked_add(u64::from(bytes))?;
    Some(PageEntry { offset, bytes })
}
