//! Label sets made out of others. Done once per series, never per step.

use millrace_model::{Labels, LabelsBuilder, METRIC_NAME};

use super::ast::Grouping;

/// Labels that say what a metric is; operations that change the meaning of values remove them.
const METADATA: [&str; 3] = [METRIC_NAME, "__type__", "__unit__"];

fn is_metadata(name: &[u8]) -> bool {
    // Almost all names are told apart by their first two bytes.
    name.starts_with(b"__") && METADATA.iter().any(|n| n.as_bytes() == name)
}

fn among(names: &[String], name: &[u8]) -> bool {
    names.iter().any(|n| n.as_bytes() == name)
}

/// Builds label sets, reusing its memory.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    builder: LabelsBuilder,
    bytes: Vec<u8>,
}

impl Scratch {
    fn filtered(&mut self, labels: &Labels, keep: impl Fn(&[u8]) -> bool) -> Labels {
        self.bytes.clear();
        for raw in labels.raw() {
            if keep(raw.name) {
                self.bytes.extend_from_slice(raw.pair);
            }
        }
        if self.bytes.len() == labels.canonical().len() {
            return labels.clone();
        }
        Labels::from_canonical(&self.bytes).expect("pairs of a label set, in its order")
    }

    fn build(&mut self) -> Labels {
        self.builder
            .build()
            .expect("names come from label sets or were checked, each once")
    }

    /// Without the metric's name, type and unit.
    pub(super) fn without_metadata(&mut self, labels: &Labels) -> Labels {
        self.filtered(labels, |name| !is_metadata(name))
    }

    /// Only these.
    pub(super) fn only(&mut self, labels: &Labels, names: &[String]) -> Labels {
        self.filtered(labels, |name| among(names, name))
    }

    /// Neither these nor the metric's name.
    pub(super) fn without(&mut self, labels: &Labels, names: &[String]) -> Labels {
        self.filtered(labels, |name| {
            name != METRIC_NAME.as_bytes() && !among(names, name)
        })
    }

    /// Not this one.
    pub(super) fn without_one(&mut self, labels: &Labels, gone: &str) -> Labels {
        self.filtered(labels, |name| name != gone.as_bytes())
    }

    /// With `name` set to `value`; an empty value removes it.
    pub(super) fn with(&mut self, labels: &Labels, name: &str, value: &str) -> Labels {
        self.builder.clear();
        for (n, v) in labels {
            if n != name {
                self.builder.push(n, v);
            }
        }
        self.builder.push(name, value);
        self.build()
    }

    /// With all of `more`, which override.
    pub(super) fn with_all<'a>(
        &mut self,
        labels: &Labels,
        more: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Labels {
        self.builder.clear();
        for (name, value) in labels {
            self.builder.push(name, value);
        }
        for (name, value) in more {
            self.builder.set(name, value);
        }
        self.build()
    }
}

/// Writes into `out`, in place of what is there, the canonical bytes of the group that a series
/// belongs to; with `nameless`, of the series without its metadata.
pub(super) fn group_key(grouping: &Grouping, labels: &Labels, nameless: bool, out: &mut Vec<u8>) {
    out.clear();
    // No label at all is the most common grouping.
    if !grouping.without && grouping.labels.is_empty() {
        return;
    }
    for raw in labels.raw() {
        let kept = if grouping.without {
            raw.name != METRIC_NAME.as_bytes() && !among(&grouping.labels, raw.name)
        } else {
            among(&grouping.labels, raw.name)
        };
        if kept && !(nameless && is_metadata(raw.name)) {
            out.extend_from_slice(raw.pair);
        }
    }
}

/// Whether the metric's name ends like that of a counter.
pub(super) fn is_counter_name(name: &str) -> bool {
    ["_total", "_sum", "_count", "_bucket"]
        .iter()
        .any(|suffix| name.ends_with(suffix))
}
