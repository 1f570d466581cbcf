//! Label sets made out of others. Done once per series, never per step.

use millrace_model::{Labels, LabelsBuilder, METRIC_NAME};

/// Labels that say what a metric is; operations that change the meaning of values remove them.
const METADATA: [&str; 3] = [METRIC_NAME, "__type__", "__unit__"];

fn is_metadata(name: &str) -> bool {
    METADATA.contains(&name)
}

/// Builds label sets, reusing its memory.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    builder: LabelsBuilder,
}

impl Scratch {
    fn filtered(&mut self, labels: &Labels, keep: impl Fn(&str) -> bool) -> Labels {
        if labels.iter().all(|(name, _)| keep(name)) {
            return labels.clone();
        }
        self.builder.clear();
        for (name, value) in labels {
            if keep(name) {
                self.builder.push(name, value);
            }
        }
        self.build()
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
        self.filtered(labels, |name| names.iter().any(|n| n == name))
    }

    /// Neither these nor the metric's name.
    pub(super) fn without(&mut self, labels: &Labels, names: &[String]) -> Labels {
        self.filtered(labels, |name| {
            name != METRIC_NAME && !names.iter().any(|n| n == name)
        })
    }

    /// Not this one.
    pub(super) fn without_one(&mut self, labels: &Labels, gone: &str) -> Labels {
        self.filtered(labels, |name| name != gone)
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

/// Whether the metric's name ends like that of a counter.
pub(super) fn is_counter_name(name: &str) -> bool {
    ["_total", "_sum", "_count", "_bucket"]
        .iter()
        .any(|suffix| name.ends_with(suffix))
}
