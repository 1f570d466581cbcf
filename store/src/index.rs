//! From label matchers to series: postings, and how a selection is answered from them.
//!
//! The memtable's index ([`MemIndex`]) and that of a block hold the same thing in two ways: for
//! each label name the series that have it, for each value of it the series that have that. What
//! one selection makes of them is here once (`select`), over the trait `LabelIndex`.
//!
//! Invariants:
//! - A label that a series lacks is one with an empty value: a matcher that passes the empty value
//!   can only take series away, every other one can only keep those that it finds.
//! - No sample and no series' label set is touched.
//! - Matchers that name their values (`=`, `!=`, and regular expressions that are nothing but
//!   alternatives, as dashboards write them) look those up; only the others walk the values, and of
//!   those only the ones with the prefix that the pattern begins with.

mod counts;
mod memory;
mod shape;
#[cfg(test)]
pub(crate) mod tests;
mod values;

use std::borrow::Cow;

use millrace_model::Matcher;
use roaring::RoaringBitmap;

pub(crate) use counts::{IndexCounts, top};
pub use memory::MemIndex;
use shape::Shape;

/// Series references as an index hands them out.
pub(crate) type Postings<'a> = Cow<'a, RoaringBitmap>;

/// Postings by label name and value.
pub(crate) trait LabelIndex {
    /// Why it cannot answer.
    type Error;

    /// All series.
    fn all(&self) -> Result<Postings<'_>, Self::Error>;

    /// The series that have the label `name`; `None` if there are none.
    fn with_label(&self, name: &str) -> Result<Option<Postings<'_>>, Self::Error>;

    /// The series whose label `name` is `value`; `None` if there are none.
    fn with_value(&self, name: &str, value: &str) -> Result<Option<Postings<'_>>, Self::Error>;

    /// Adds to `found` the series whose label `name` has a value that begins with `prefix` and that
    /// `keep` keeps.
    fn with_values(
        &self,
        name: &str,
        prefix: &str,
        keep: &mut dyn FnMut(&str) -> bool,
        found: &mut RoaringBitmap,
    ) -> Result<(), Self::Error>;
}

/// The series that pass all matchers; all of them if there is no matcher.
pub(crate) fn select<I: LabelIndex + ?Sized>(
    index: &I,
    matchers: &[Matcher],
) -> Result<RoaringBitmap, I::Error> {
    let mut shapes: Vec<_> = matchers.iter().map(|m| (Shape::of(m), m)).collect();
    // What is found cheaply comes first, and what keeps before what takes away: a selection that is
    // empty by then is answered.
    shapes.sort_by_key(|(shape, matcher)| shape.rank(matcher));
    let mut found: Option<RoaringBitmap> = None;
    for (shape, matcher) in shapes {
        if found.as_ref().is_some_and(RoaringBitmap::is_empty) {
            break;
        }
        apply(index, &shape, matcher, &mut found)?;
    }
    match found {
        Some(found) => Ok(found),
        None => index.all().map(Cow::into_owned),
    }
}

fn apply<I: LabelIndex + ?Sized>(
    index: &I,
    shape: &Shape<'_>,
    matcher: &Matcher,
    found: &mut Option<RoaringBitmap>,
) -> Result<(), I::Error> {
    let name = matcher.name();
    match shape {
        Shape::Everything => Ok(()),
        Shape::Present => {
            let with = index.with_label(name)?;
            keep(found, with.unwrap_or_default());
            Ok(())
        }
        Shape::Absent => match index.with_label(name)? {
            Some(with) => remove(index, found, &with),
            None => Ok(()),
        },
        Shape::OneOf(values) => {
            keep(found, union(index, name, values)?);
            Ok(())
        }
        Shape::NoneOf(values) => {
            let with = union(index, name, values)?;
            remove(index, found, &with)
        }
        Shape::Scan { prefix } => {
            let mut with = RoaringBitmap::new();
            index.with_values(name, prefix, &mut |v| matcher.matches(v), &mut with)?;
            keep(found, Cow::Owned(with));
            Ok(())
        }
        Shape::ScanAway => {
            let mut with = RoaringBitmap::new();
            index.with_values(name, "", &mut |v| !matcher.matches(v), &mut with)?;
            remove(index, found, &with)
        }
    }
}

fn union<'a, I: LabelIndex + ?Sized>(
    index: &'a I,
    name: &str,
    values: &[Cow<'_, str>],
) -> Result<Postings<'a>, I::Error> {
    let mut all: Option<Postings<'a>> = None;
    for value in values {
        let Some(with) = index.with_value(name, value)? else {
            continue;
        };
        match &mut all {
            Some(all) => *all.to_mut() |= &*with,
            None => all = Some(with),
        }
    }
    Ok(all.unwrap_or_default())
}

fn keep(found: &mut Option<RoaringBitmap>, with: Postings<'_>) {
    match found {
        Some(found) => *found &= &*with,
        None => *found = Some(with.into_owned()),
    }
}

fn remove<I: LabelIndex + ?Sized>(
    index: &I,
    found: &mut Option<RoaringBitmap>,
    with: &RoaringBitmap,
) -> Result<(), I::Error> {
    if found.is_none() {
        *found = Some(index.all()?.into_owned());
    }
    if let Some(found) = found {
        *found -= with;
    }
    Ok(())
}
