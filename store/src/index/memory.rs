//! The memtable's index.

use std::borrow::Cow;
use std::convert::Infallible;

use hashbrown::HashMap;
use hashbrown::hash_map::RawEntryMut;
use millrace_model::{Labels, Matcher};
use roaring::RoaringBitmap;

use super::values::{Value, Values};
use super::{IndexCounts, LabelIndex, Postings, select};

/// Memory of a small bitmap beside its entries: the box, its first container.
pub(super) const BITMAP_BYTES: usize = 64;
/// Memory of an entry in a bitmap: two bytes, in a vector that doubles. Too high for bitmaps that
/// are dense.
pub(super) const ENTRY_BYTES: usize = 3;

/// Postings of a growing set of series that are referred to by rising numbers.
///
/// ```
/// use millrace_model::{Labels, Matcher};
/// use millrace_store::index::MemIndex;
///
/// let mut index = MemIndex::new();
/// index.insert(0, &Labels::from_pairs([("__name__", "up"), ("job", "node")])?);
/// index.insert(7, &Labels::from_pairs([("__name__", "up"), ("job", "db")])?);
/// let found = index.select(&[Matcher::equal("job", "db")]);
/// assert_eq!(found.iter().collect::<Vec<_>>(), [7]);
/// assert_eq!(index.label_values("job", None), ["db", "node"]);
/// # Ok::<_, millrace_model::LabelsError>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct MemIndex {
    all: RoaringBitmap,
    names: HashMap<Box<str>, Name>,
    heap_bytes: usize,
}

#[derive(Clone, Debug, Default)]
struct Name {
    series: RoaringBitmap,
    values: Values,
}

impl MemIndex {
    /// An index without series.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the series `at`.
    ///
    /// # Panics
    ///
    /// If `at` is not higher than every number before.
    pub fn insert(&mut self, at: u32, labels: &Labels) {
        let rising = self.all.try_push(at).is_ok();
        assert!(rising, "series {at} is added behind {:?}", self.all.max());
        self.heap_bytes += ENTRY_BYTES;
        for (name, value) in labels {
            let before = table_bytes(&self.names);
            let entry = match self.names.raw_entry_mut().from_key(name) {
                RawEntryMut::Occupied(entry) => entry.into_mut(),
                RawEntryMut::Vacant(entry) => {
                    self.heap_bytes += name.len() + BITMAP_BYTES;
                    entry.insert(name.into(), Name::default()).1
                }
            };
            entry.series.insert(at);
            self.heap_bytes += ENTRY_BYTES + entry.values.insert(at, value);
            self.heap_bytes += table_bytes(&self.names) - before;
        }
    }

    /// The number of series.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.all.len()
    }

    /// Whether there is no series.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// The series that pass all matchers; all of them if there is no matcher.
    #[must_use]
    pub fn select(&self, matchers: &[Matcher]) -> RoaringBitmap {
        match select(self, matchers) {
            Ok(found) => found,
            Err(never) => match never {},
        }
    }

    /// The names of all labels, or of those that series in `of` have; sorted.
    #[must_use]
    pub fn label_names(&self, of: Option<&RoaringBitmap>) -> Vec<&str> {
        let has = |name: &Name| of.is_none_or(|of| !name.series.is_disjoint(of));
        let names = self.names.iter().filter(|(_, name)| has(name));
        let mut names: Vec<&str> = names.map(|(text, _)| &**text).collect();
        names.sort_unstable();
        names
    }

    /// The values of the label `name`, or those that series in `of` have; sorted.
    #[must_use]
    pub fn label_values(&self, name: &str, of: Option<&RoaringBitmap>) -> Vec<&str> {
        let Some(name) = self.names.get(name) else {
            return Vec::new();
        };
        name.values.in_order(|values| {
            let values = values.filter(|(_, value)| of.is_none_or(|of| value.meets(of)));
            values.map(|(text, _)| text).collect()
        })
    }

    /// How many values the label `name` has.
    pub(crate) fn value_count(&self, name: &str) -> usize {
        self.names.get(name).map_or(0, |name| name.values.len())
    }

    /// All label names with the series that have them, sorted.
    pub(crate) fn names(&self) -> Vec<(&str, &RoaringBitmap)> {
        let mut names: Vec<_> = self.names.iter().map(|(t, n)| (&**t, &n.series)).collect();
        names.sort_unstable_by_key(|(text, _)| *text);
        names
    }

    /// All values of the label `name` with the series that have them, sorted.
    pub(crate) fn values(&self, name: &str) -> Vec<(&str, Postings<'_>)> {
        let Some(name) = self.names.get(name) else {
            return Vec::new();
        };
        name.values.in_order(|values| {
            values
                .map(|(text, value)| (text, value.postings()))
                .collect()
        })
    }

    /// Adds what this index counts.
    pub(crate) fn count(&self, counts: &mut IndexCounts) {
        counts.series += self.len();
        for (text, name) in &self.names {
            let values = name.values.iter();
            counts.label(text, values.map(|(text, value)| (text, value.len())));
        }
    }

    /// Memory beside the struct itself, in bytes: texts and tables as they are, postings rather too
    /// high. Constant time.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        self.heap_bytes
    }
}

/// What a table has reserved: its slots, of which an eighth stays free, and a byte for each.
fn table_bytes<K, V>(table: &HashMap<K, V>) -> usize {
    table.capacity() * 8 / 7 * (size_of::<(K, V)>() + 1)
}

impl LabelIndex for MemIndex {
    type Error = Infallible;

    fn all(&self) -> Result<Postings<'_>, Infallible> {
        Ok(Cow::Borrowed(&self.all))
    }

    fn with_label(&self, name: &str) -> Result<Option<Postings<'_>>, Infallible> {
        Ok(self.names.get(name).map(|n| Cow::Borrowed(&n.series)))
    }

    fn with_value(&self, name: &str, value: &str) -> Result<Option<Postings<'_>>, Infallible> {
        let value = self.names.get(name).and_then(|n| n.values.get(value));
        Ok(value.map(Value::postings))
    }

    fn with_values(
        &self,
        name: &str,
        prefix: &str,
        keep: &mut dyn FnMut(&str) -> bool,
        found: &mut RoaringBitmap,
    ) -> Result<(), Infallible> {
        let Some(name) = self.names.get(name) else {
            return Ok(());
        };
        name.values.with_prefix(prefix, |values| {
            for (text, value) in values {
                if keep(text) {
                    value.add_to(found);
                }
            }
        });
        Ok(())
    }
}
