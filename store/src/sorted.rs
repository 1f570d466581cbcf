//! Joining sorted texts.

/// Tells what is new beside texts that are known, both in order.
pub(crate) struct Fresh<'a>(std::iter::Peekable<std::slice::Iter<'a, String>>);

impl<'a> Fresh<'a> {
    pub(crate) fn beside(known: &'a [String]) -> Self {
        Self(known.iter().peekable())
    }

    /// Asked of rising texts.
    pub(crate) fn is_new(&mut self, text: &str) -> bool {
        while self.0.next_if(|known| known.as_str() < text).is_some() {}
        self.0.peek().is_none_or(|known| known.as_str() != text)
    }
}

/// Adds sorted texts to sorted texts. Most of them are there already: the same hosts are in each
/// block.
pub(crate) fn add_sorted(all: &mut Vec<String>, more: Vec<String>) {
    if all.last() < more.first() || all.is_empty() {
        all.extend(more);
        return;
    }
    let mut beside = Fresh::beside(all);
    let fresh = more.into_iter().filter(|text| beside.is_new(text));
    let fresh: Vec<String> = fresh.collect();
    if fresh.is_empty() {
        return;
    }
    let mut merged = Vec::with_capacity(all.len() + fresh.len());
    let mut fresh = fresh.into_iter().peekable();
    for text in std::mem::take(all) {
        while let Some(earlier) = fresh.next_if(|fresh| *fresh < text) {
            merged.push(earlier);
        }
        merged.push(text);
    }
    merged.extend(fresh);
    *all = merged;
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::add_sorted;

    proptest! {
        #[test]
        fn sorted_texts_are_joined_as_sets_are(
            runs in proptest::collection::vec(
                proptest::collection::btree_set("[abc]{0,3}", 0..12), 0..5),
        ) {
            let mut all = Vec::new();
            let mut expect = BTreeSet::new();
            for run in runs {
                expect.extend(run.clone());
                add_sorted(&mut all, run.into_iter().collect());
            }
            prop_assert_eq!(all, expect.into_iter().collect::<Vec<_>>());
        }
    }
}
