//! A tenant's index in a block: label names, values and postings.

use std::borrow::Cow;
use std::sync::Arc;

use millrace_log::planted::active;
use millrace_model::{Matcher, TimeRange};
use roaring::RoaringBitmap;

use super::directory::{LabelPage, NameEntry, TenantEntry};
use super::fields::Fields;
use super::find::Found;
use super::postings::{PostingsEntry, decode_bitmap, stored_bytes};
use super::{BlockError, BlockReader, Section};
use crate::index::{LabelIndex, Postings, select};
use crate::planted::LABEL_PAGE_MISSED;
use crate::sorted::Fresh;

/// See the [module](self).
#[derive(Clone, Copy, Debug)]
pub(super) struct TenantIndex<'a> {
    block: &'a BlockReader,
    tenant: &'a TenantEntry,
}

impl<'a> TenantIndex<'a> {
    pub(super) fn new(block: &'a BlockReader, tenant: &'a TenantEntry) -> Self {
        Self { block, tenant }
    }

    pub(super) fn label_names(self, sets: &[Vec<Matcher>]) -> Result<Vec<String>, BlockError> {
        let of = self.union(sets)?;
        let mut names = Vec::new();
        for entry in &self.tenant.names {
            let has = match &of {
                None => true,
                Some(of) => !self.postings(&entry.postings)?.is_disjoint(of),
            };
            if has {
                names.push(entry.name.to_string());
            }
        }
        Ok(names)
    }

    pub(super) fn label_values(
        self,
        name: &str,
        sets: &[Vec<Matcher>],
        known: &[String],
    ) -> Result<Vec<String>, BlockError> {
        let Some(entry) = self.tenant.name(name) else {
            return Ok(Vec::new());
        };
        let of = self.union(sets)?;
        if let Some(of) = &of
            && of.len() < entry.pages.len() as u64
        {
            // Few series among many values: the series are asked, not the values.
            return self.values_of(name, of);
        }
        let mut values = Vec::new();
        let mut beside = Fresh::beside(known);
        let Some(of) = of else {
            for page in &entry.pages {
                self.walk_texts(page, PostingsEntry::skip, &mut |value, ()| {
                    if beside.is_new(value) {
                        values.push(value.to_owned());
                    }
                    Ok(true)
                })?;
            }
            return Ok(values);
        };
        for page in &entry.pages {
            self.walk_values(page, &mut |value, postings| {
                let has = beside.is_new(value)
                    && match postings {
                        PostingsEntry::Listed(series) => series.meets(&of),
                        PostingsEntry::Stored { .. } => {
                            !self.postings_of(postings)?.is_disjoint(&of)
                        }
                    };
                if has {
                    values.push(value.to_owned());
                }
                Ok(true)
            })?;
        }
        Ok(values)
    }

    /// The values that some series have, sorted.
    fn values_of(self, name: &str, of: &RoaringBitmap) -> Result<Vec<String>, BlockError> {
        let mut values = Vec::new();
        let mut take = |mut series: Found<'_>| -> Result<(), BlockError> {
            values.extend(series.labels()?.get(name).map(str::to_owned));
            Ok(())
        };
        self.block
            .find_numbers(self.tenant, of, TimeRange::ALL, &mut take)?;
        values.sort_unstable();
        values.dedup();
        Ok(values)
    }

    /// The series that pass one of the sets; `None` for all, if there is no set.
    fn union(self, sets: &[Vec<Matcher>]) -> Result<Option<RoaringBitmap>, BlockError> {
        let mut of: Option<RoaringBitmap> = None;
        for set in sets {
            let found = select(&self, set)?;
            *of.get_or_insert_default() |= found;
        }
        Ok(of)
    }

    /// The series behind an entry.
    pub(super) fn postings(self, entry: &'a PostingsEntry) -> Result<Postings<'a>, BlockError> {
        match entry {
            PostingsEntry::Listed(series) => Ok(Cow::Owned(series.to_bitmap())),
            &PostingsEntry::Stored { offset, bytes } => {
                let bitmap = self.bitmap(offset, bytes)?;
                Ok(Cow::Owned(Arc::unwrap_or_clone(bitmap)))
            }
        }
    }

    /// As [`postings`](Self::postings), for an entry that does not live long.
    pub(super) fn postings_of(
        self,
        entry: &PostingsEntry,
    ) -> Result<Arc<RoaringBitmap>, BlockError> {
        match entry {
            PostingsEntry::Listed(series) => Ok(Arc::new(series.to_bitmap())),
            &PostingsEntry::Stored { offset, bytes } => self.bitmap(offset, bytes),
        }
    }

    fn bitmap(self, offset: u64, bytes: usize) -> Result<Arc<RoaringBitmap>, BlockError> {
        let decode = |page: &[u8]| decode_bitmap(page, self.tenant.series);
        self.block.page_bitmap(offset, stored_bytes(bytes), decode)
    }

    /// Calls `each` for the values of a page until it says that this is enough.
    pub(super) fn walk_values(
        self,
        page: &LabelPage,
        each: &mut dyn FnMut(&str, &PostingsEntry) -> Result<bool, BlockError>,
    ) -> Result<(), BlockError> {
        let series = self.tenant.series;
        let decode = |fields: &mut Fields<'_>| PostingsEntry::decode(fields, series);
        self.walk_texts(page, decode, &mut |text, postings| each(text, &postings))
    }

    /// The same with what `behind` makes of the postings behind a value.
    fn walk_texts<T>(
        self,
        page: &LabelPage,
        behind: impl Fn(&mut Fields<'_>) -> Option<T>,
        each: &mut impl FnMut(&str, T) -> Result<bool, BlockError>,
    ) -> Result<(), BlockError> {
        let entry = page.page;
        let bytes = self
            .block
            .page_bytes(Section::Labels, entry.offset, entry.bytes as usize)?;
        let mut fields = Fields::new(&bytes);
        let start = self.block.footer.section(Section::Labels).offset + entry.offset;
        let malformed = |pos: usize| {
            let what = "label page breaks the format";
            self.block
                .malformed(Section::Labels, start + pos as u64, what)
        };
        let mut value = Vec::new();
        let mut at_first = true;
        while !fields.is_at_end() {
            next_value(&mut fields, &mut value).ok_or_else(|| malformed(fields.pos))?;
            let postings = behind(&mut fields).ok_or_else(|| malformed(fields.pos))?;
            let text = std::str::from_utf8(&value).map_err(|_| malformed(fields.pos))?;
            if at_first && text != &*page.first {
                return Err(malformed(0));
            }
            at_first = false;
            if !each(text, postings)? {
                return Ok(());
            }
        }
        Ok(())
    }
}

/// Moves to the next value of a page, which is higher than the one before.
fn next_value(fields: &mut Fields<'_>, value: &mut Vec<u8>) -> Option<()> {
    let prefix = usize::try_from(fields.varint()?).ok()?;
    let rest = fields.bytes()?;
    let higher = value.get(prefix..)? < rest;
    (higher && prefix <= value.len()).then_some(())?;
    value.truncate(prefix);
    value.extend_from_slice(rest);
    Some(())
}

impl NameEntry {
    /// The pages that may have values that begin with `prefix`.
    fn pages_of(&self, prefix: &str) -> &[LabelPage] {
        // The page before the first that begins higher may end with some.
        let from = self
            .pages
            .partition_point(|p| *p.first < *prefix)
            .saturating_sub(1);
        let beyond = |p: &LabelPage| *p.first <= *prefix || p.first.starts_with(prefix);
        let mut to = self.pages.partition_point(beyond);
        if active(LABEL_PAGE_MISSED) {
            to = to.saturating_sub(1).max(from + 1);
        }
        self.pages.get(from..to).unwrap_or(&[])
    }

    /// The page that has `value`, if one has.
    fn page_of(&self, value: &str) -> Option<&LabelPage> {
        let at = self.pages.partition_point(|p| *p.first <= *value);
        self.pages.get(at.checked_sub(1)?)
    }
}

impl LabelIndex for TenantIndex<'_> {
    type Error = BlockError;

    fn all(&self) -> Result<Postings<'_>, BlockError> {
        let mut all = RoaringBitmap::new();
        all.insert_range(0..self.tenant.series);
        Ok(Cow::Owned(all))
    }

    fn with_label(&self, name: &str) -> Result<Option<Postings<'_>>, BlockError> {
        let entry = self.tenant.name(name);
        entry.map(|e| self.postings(&e.postings)).transpose()
    }

    fn with_value(&self, name: &str, value: &str) -> Result<Option<Postings<'_>>, BlockError> {
        let Some(page) = self.tenant.name(name).and_then(|n| n.page_of(value)) else {
            return Ok(None);
        };
        let mut found = None;
        self.walk_values(page, &mut |text, postings| {
            if text == value {
                found = Some(self.postings_of(postings)?);
            }
            Ok(text < value)
        })?;
        Ok(found.map(|found| Cow::Owned(Arc::unwrap_or_clone(found))))
    }

    fn with_values(
        &self,
        name: &str,
        prefix: &str,
        keep: &mut dyn FnMut(&str) -> bool,
        found: &mut RoaringBitmap,
    ) -> Result<(), BlockError> {
        let pages = self
            .tenant
            .name(name)
            .map_or(&[][..], |n| n.pages_of(prefix));
        for page in pages {
            self.walk_values(page, &mut |text, postings| {
                if text.starts_with(prefix) && keep(text) {
                    match postings {
                        PostingsEntry::Listed(series) => found.extend(series.series()),
                        PostingsEntry::Stored { .. } => *found |= &*self.postings_of(postings)?,
                    }
                }
                Ok(true)
            })?;
        }
        Ok(())
    }
}
