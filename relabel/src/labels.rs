//! Label sets that can be rewritten.

/// A label set: names and values, sorted by name, each name once, no empty value. Made for the few
/// dozen labels of a target or series.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LabelSet(Vec<(String, String)>);

impl LabelSet {
    /// The set without labels.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The value of a label; empty if it is not there.
    #[must_use]
    pub fn get(&self, name: &str) -> &str {
        self.find(name).map_or("", |at| &self.0[at].1)
    }

    /// Whether there is such a label.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.find(name).is_ok()
    }

    /// Sets a label; an empty value removes it.
    pub fn set(&mut self, name: &str, value: &str) {
        match self.find(name) {
            Ok(at) if value.is_empty() => drop(self.0.remove(at)),
            Ok(at) => value.clone_into(&mut self.0[at].1),
            Err(_) if value.is_empty() => {}
            Err(at) => self.0.insert(at, (name.to_owned(), value.to_owned())),
        }
    }

    /// Removes a label, if it is there.
    pub fn remove(&mut self, name: &str) {
        self.set(name, "");
    }

    /// Removes the labels that `keep` does not want.
    pub fn retain(&mut self, mut keep: impl FnMut(&str, &str) -> bool) {
        self.0.retain(|(name, value)| keep(name, value));
    }

    /// Names and values in order of the names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The number of labels.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no label.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn find(&self, name: &str) -> Result<usize, usize> {
        self.0
            .binary_search_by(|(other, _)| other.as_str().cmp(name))
    }
}

/// The last of several values of one name stands.
impl<'a> FromIterator<(&'a str, &'a str)> for LabelSet {
    fn from_iter<I: IntoIterator<Item = (&'a str, &'a str)>>(pairs: I) -> Self {
        let mut labels = Self::new();
        for (name, value) in pairs {
            labels.set(name, value);
        }
        labels
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_sorted_and_empty_values_are_none() {
        let mut labels: LabelSet = [("b", "2"), ("a", "1"), ("c", ""), ("b", "3")]
            .into_iter()
            .collect();
        assert_eq!(labels.iter().collect::<Vec<_>>(), [("a", "1"), ("b", "3")]);
        labels.set("a", "");
        labels.remove("never");
        assert_eq!(
            (labels.len(), labels.get("a"), labels.get("b")),
            (1, "", "3")
        );
        assert!(labels.has("b") && !labels.has("a"));
    }
}
