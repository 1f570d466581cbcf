//! Label sets in their canonical form.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use crate::{read_varint, write_varint};

/// The label that holds the metric's name.
pub const METRIC_NAME: &str = "__name__";

/// The label that says what the samples of a series are, where they are not running totals or states.
pub const TEMPORALITY: &str = "__temporality__";

/// The value of [`TEMPORALITY`] where each sample is what was added since the one before.
pub const DELTA: &str = "delta";

/// A label set: pairs of UTF-8 name and value, sorted by name, each name once, no empty value
/// (a label with an empty value is the same as no label, as in Prometheus).
///
/// Kept as its *canonical bytes*: for each pair the name and then the value, each preceded by its
/// length in bytes as a varint. They are what [`SeriesId`](crate::SeriesId) hashes and what
/// batches, WAL and blocks carry, so a label set is decoded, compared and stored without being
/// taken apart. Cloning copies a pointer.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Labels(Arc<[u8]>);

impl Labels {
    /// The label set without labels.
    #[must_use]
    pub fn empty() -> Self {
        Self(Arc::from([]))
    }

    /// Sorts pairs into a label set; pairs with an empty value are left out.
    ///
    /// # Errors
    ///
    /// An empty name, or one that comes twice.
    pub fn from_pairs<'a>(
        pairs: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self, LabelsError> {
        let mut builder = LabelsBuilder::new();
        for (name, value) in pairs {
            builder.push(name, value);
        }
        builder.build()
    }

    /// Checks foreign bytes and takes them as a label set.
    ///
    /// # Errors
    ///
    /// Bytes that are not canonical: cut short, not UTF-8, unsorted, a name twice, an empty name
    /// or value.
    pub fn from_canonical(bytes: &[u8]) -> Result<Self, LabelsError> {
        let mut pos = 0;
        let mut previous: Option<&str> = None;
        while pos < bytes.len() {
            let name = checked_str(bytes, &mut pos)?;
            let value = checked_str(bytes, &mut pos)?;
            if name.is_empty() || value.is_empty() {
                return Err(LabelsError::Malformed);
            }
            if previous.is_some_and(|p| p >= name) {
                return Err(LabelsError::Malformed);
            }
            previous = Some(name);
        }
        Ok(Self(Arc::from(bytes)))
    }

    /// The canonical bytes.
    #[must_use]
    #[inline]
    pub fn canonical(&self) -> &[u8] {
        &self.0
    }

    /// The pairs in order of their names.
    #[must_use]
    pub fn iter(&self) -> LabelsIter<'_> {
        LabelsIter {
            bytes: &self.0,
            pos: 0,
        }
    }

    /// The pairs as they stand in the canonical bytes, in order of their names: for work that takes
    /// label sets apart without reading them as text.
    #[must_use]
    pub fn raw(&self) -> RawPairs<'_> {
        RawPairs::of_canonical(&self.0)
    }

    /// The value of the label `name`, or `None` if it is not there.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        for (n, v) in self {
            match n.cmp(name) {
                Ordering::Less => {}
                Ordering::Equal => return Some(v),
                Ordering::Greater => return None,
            }
        }
        None
    }

    /// The metric's name, or `None` where it has been removed.
    #[must_use]
    pub fn metric_name(&self) -> Option<&str> {
        self.get(METRIC_NAME)
    }

    /// Whether each sample is what was added since the one before it, and not the total.
    #[must_use]
    pub fn is_delta(&self) -> bool {
        self.get(TEMPORALITY) == Some(DELTA)
    }

    /// The number of labels.
    #[must_use]
    pub fn len(&self) -> usize {
        self.iter().count()
    }

    /// Whether there is no label at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn checked_str<'a>(bytes: &'a [u8], pos: &mut usize) -> Result<&'a str, LabelsError> {
    let len = read_varint(bytes, pos).ok_or(LabelsError::Malformed)?;
    let len = usize::try_from(len).map_err(|_| LabelsError::Malformed)?;
    let end = pos.checked_add(len).ok_or(LabelsError::Malformed)?;
    let text = bytes.get(*pos..end).ok_or(LabelsError::Malformed)?;
    *pos = end;
    std::str::from_utf8(text).map_err(|_| LabelsError::Malformed)
}

/// Pair by pair, names before values: the order of Prometheus's `labels.Compare`.
impl Ord for Labels {
    fn cmp(&self, other: &Self) -> Ordering {
        self.iter().cmp(other.iter())
    }
}

impl PartialOrd for Labels {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<'a> IntoIterator for &'a Labels {
    type Item = (&'a str, &'a str);
    type IntoIter = LabelsIter<'a>;

    fn into_iter(self) -> LabelsIter<'a> {
        self.iter()
    }
}

/// As PromQL writes it: `up{instance="a:9100"}`, or `{a="b"}` without a metric name.
impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.metric_name();
        f.write_str(name.unwrap_or_default())?;
        let mut rest = self.iter().filter(|(n, _)| *n != METRIC_NAME).peekable();
        if rest.peek().is_none() && name.is_some() {
            return Ok(());
        }
        f.write_str("{")?;
        for (i, (n, v)) in rest.enumerate() {
            let comma = if i == 0 { "" } else { ", " };
            write!(f, "{comma}{n}={v:?}")?;
        }
        f.write_str("}")
    }
}

impl fmt::Debug for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Iterates over (name, value) in order of the names.
#[derive(Clone, Debug)]
pub struct LabelsIter<'a> {
    bytes: &'a [u8],
    pos: usize,
}

impl<'a> LabelsIter<'a> {
    fn text(&mut self) -> &'a str {
        let len = read_varint(self.bytes, &mut self.pos).expect("canonical bytes were checked");
        let start = self.pos;
        self.pos += len as usize;
        std::str::from_utf8(&self.bytes[start..self.pos]).expect("canonical bytes were checked")
    }
}

impl<'a> Iterator for LabelsIter<'a> {
    type Item = (&'a str, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        if self.pos >= self.bytes.len() {
            return None;
        }
        Some((self.text(), self.text()))
    }
}

/// A pair of canonical bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawPair<'a> {
    /// The name's bytes.
    pub name: &'a [u8],
    /// Name and value with their lengths. Such pairs, in order of their names, are the canonical
    /// bytes of a label set.
    pub pair: &'a [u8],
}

impl<'a> RawPair<'a> {
    /// The value's bytes.
    ///
    /// # Panics
    ///
    /// If the pair is not of canonical bytes.
    #[must_use]
    #[inline]
    pub fn value(&self) -> &'a [u8] {
        let mut pos = 0;
        let mut part = || {
            let len = read_varint(self.pair, &mut pos).expect("canonical bytes were checked");
            let start = pos;
            pos += len as usize;
            &self.pair[start..pos]
        };
        part();
        part()
    }
}

/// Iterates over the pairs of canonical bytes.
#[derive(Clone, Debug)]
pub struct RawPairs<'a> {
    bytes: &'a [u8],
    pos: usize,
}

impl<'a> RawPairs<'a> {
    /// The pairs of bytes that are known to be [canonical](Labels::canonical), such as those of a
    /// cache. Iterating panics over others.
    #[must_use]
    pub fn of_canonical(bytes: &'a [u8]) -> Self {
        Self { bytes, pos: 0 }
    }

    #[inline]
    fn part(&mut self) -> &'a [u8] {
        let len = read_varint(self.bytes, &mut self.pos).expect("canonical bytes were checked");
        let start = self.pos;
        self.pos += len as usize;
        &self.bytes[start..self.pos]
    }
}

impl<'a> Iterator for RawPairs<'a> {
    type Item = RawPair<'a>;

    #[inline]
    fn next(&mut self) -> Option<RawPair<'a>> {
        if self.pos >= self.bytes.len() {
            return None;
        }
        let start = self.pos;
        let name = self.part();
        self.part();
        Some(RawPair {
            name,
            pair: &self.bytes[start..self.pos],
        })
    }
}

/// Why pairs or bytes are no label set.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LabelsError {
    /// A label without a name.
    #[error("label with an empty name (value {value:?})")]
    EmptyName {
        /// Its value.
        value: String,
    },
    /// One name, two labels.
    #[error("label {name:?} comes twice")]
    Duplicate {
        /// The name.
        name: String,
    },
    /// Bytes that [`Labels::canonical`] would not have produced.
    #[error("label bytes are not canonical")]
    Malformed,
}

/// Collects pairs in any order. Reusable: [`build`](Self::build) leaves it empty, with its memory.
#[derive(Clone, Debug, Default)]
pub struct LabelsBuilder {
    text: String,
    /// (start of name, start of value, end of value) in `text`.
    pairs: Vec<(usize, usize, usize)>,
    scratch: Vec<u8>,
}

impl LabelsBuilder {
    /// An empty builder.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A builder that holds all of `labels`.
    #[must_use]
    pub fn from_labels(labels: &Labels) -> Self {
        let mut builder = Self::new();
        for (name, value) in labels {
            builder.push(name, value);
        }
        builder
    }

    /// Forgets everything that was pushed.
    pub fn clear(&mut self) {
        self.text.clear();
        self.pairs.clear();
    }

    /// Adds a label; one with an empty value is left out when the set is built.
    pub fn push(&mut self, name: &str, value: &str) {
        let start = self.text.len();
        self.text.push_str(name);
        let middle = self.text.len();
        self.text.push_str(value);
        self.pairs.push((start, middle, self.text.len()));
    }

    /// Sets a label, replacing one of that name; an empty value removes it.
    pub fn set(&mut self, name: &str, value: &str) {
        self.remove(name);
        self.push(name, value);
    }

    /// Removes the label `name`, if it is there.
    pub fn remove(&mut self, name: &str) {
        let text = &self.text;
        self.pairs
            .retain(|&(start, middle, _)| &text[start..middle] != name);
    }

    /// The number of labels pushed.
    #[must_use]
    pub fn len(&self) -> usize {
        self.pairs.len()
    }

    /// Whether nothing was pushed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }

    /// Sorts what was pushed into a label set and leaves the builder empty.
    ///
    /// # Errors
    ///
    /// An empty name, or one that comes twice.
    pub fn build(&mut self) -> Result<Labels, LabelsError> {
        let result = self
            .canonicalise()
            .map(|()| Labels(Arc::from(self.scratch.as_slice())));
        self.clear();
        result
    }

    fn canonicalise(&mut self) -> Result<(), LabelsError> {
        let Self {
            text,
            pairs,
            scratch,
        } = self;
        let name_of = |&(start, middle, _): &(usize, usize, usize)| &text[start..middle];
        if !pairs.is_sorted_by(|a, b| name_of(a) <= name_of(b)) {
            pairs.sort_by(|a, b| name_of(a).cmp(name_of(b)));
        }
        scratch.clear();
        let mut previous = None;
        for pair in pairs.iter() {
            let (name, value) = (name_of(pair), &text[pair.1..pair.2]);
            if name.is_empty() {
                return Err(LabelsError::EmptyName {
                    value: value.to_owned(),
                });
            }
            if previous == Some(name) {
                return Err(LabelsError::Duplicate {
                    name: name.to_owned(),
                });
            }
            previous = Some(name);
            if value.is_empty() {
                continue;
            }
            for part in [name, value] {
                write_varint(scratch, part.len() as u64);
                scratch.extend_from_slice(part.as_bytes());
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    #[test]
    fn pairs_are_sorted_and_empty_values_left_out() {
        let labels = Labels::from_pairs([("b", "2"), ("__name__", "m"), ("gone", "")]).unwrap();
        assert_eq!(
            labels.iter().collect::<Vec<_>>(),
            [("__name__", "m"), ("b", "2")]
        );
        assert_eq!(labels.to_string(), r#"m{b="2"}"#);
        assert_eq!(
            (labels.get("b"), labels.get("c"), labels.get("")),
            (Some("2"), None, None)
        );
    }

    #[test]
    fn broken_pairs_are_named() {
        let twice = Labels::from_pairs([("a", "1"), ("b", "x"), ("a", "2")]);
        assert_eq!(twice, Err(LabelsError::Duplicate { name: "a".into() }));
        let nameless = Labels::from_pairs([("", "1")]);
        assert_eq!(nameless, Err(LabelsError::EmptyName { value: "1".into() }));
    }

    #[test]
    fn foreign_bytes_must_be_canonical() {
        let good = Labels::from_pairs([("a", "1"), ("b", "2")]).unwrap();
        assert_eq!(Labels::from_canonical(good.canonical()).as_ref(), Ok(&good));
        let bad: [&[u8]; 6] = [
            b"\x01b\x011\x01a\x012",
            b"\x01a\x011\x01a\x012",
            b"\x01a\x00",
            b"\x00\x01a",
            b"\x01a\x05x",
            b"\x01a\x01\xff",
        ];
        for bytes in bad {
            assert_eq!(
                Labels::from_canonical(bytes),
                Err(LabelsError::Malformed),
                "{bytes:02x?}"
            );
        }
    }

    proptest! {
        #[test]
        fn behaves_like_a_sorted_map(map: BTreeMap<String, String>) {
            let map: BTreeMap<_, _> =
                map.into_iter().filter(|(n, v)| !n.is_empty() && !v.is_empty()).collect();
            let pairs = map.iter().rev().map(|(n, v)| (n.as_str(), v.as_str()));
            let labels = Labels::from_pairs(pairs).unwrap();
            let expect: Vec<_> = map.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
            prop_assert_eq!(labels.iter().collect::<Vec<_>>(), expect);
            prop_assert_eq!(Labels::from_canonical(labels.canonical()), Ok(labels));
        }
    }
}
