//! Joining what several sources hold of one series.
//!
//! Invariant: a run is sorted by timestamp, each timestamp once. Runs are pushed oldest source
//! first, and where two have one timestamp the one pushed later is right.

/// Collects runs into two columns.
#[derive(Debug, Default)]
pub(crate) struct Merger {
    timestamps: Vec<i64>,
    values: Vec<f64>,
    spare_timestamps: Vec<i64>,
    spare_values: Vec<f64>,
}

impl Merger {
    /// Adds a run. Behind everything so far, it is a copy; otherwise only what overlaps is merged.
    pub(crate) fn push(&mut self, timestamps: &[i64], values: &[f64]) {
        debug_assert!(timestamps.is_sorted_by(|a, b| a < b), "a run out of order");
        let (Some(&first), Some(&last)) = (timestamps.first(), timestamps.last()) else {
            return;
        };
        if self.timestamps.last().is_none_or(|&t| t < first) {
            self.timestamps.extend_from_slice(timestamps);
            self.values.extend_from_slice(values);
            return;
        }
        let from = self.timestamps.partition_point(|&t| t < first);
        let to = self.timestamps.partition_point(|&t| t <= last);
        self.merge_range(from, to, timestamps, values);
        let (spare_timestamps, spare_values) = (&mut self.spare_timestamps, &mut self.spare_values);
        self.timestamps.splice(from..to, spare_timestamps.drain(..));
        self.values.splice(from..to, spare_values.drain(..));
    }

    /// Merges `from..to` of the columns with a newer run into the spare columns.
    fn merge_range(&mut self, from: usize, to: usize, timestamps: &[i64], values: &[f64]) {
        self.spare_timestamps.clear();
        self.spare_values.clear();
        let mut old = from;
        for (&timestamp, &value) in timestamps.iter().zip(values) {
            while old < to && self.timestamps[old] < timestamp {
                self.spare_timestamps.push(self.timestamps[old]);
                self.spare_values.push(self.values[old]);
                old += 1;
            }
            if old < to && self.timestamps[old] == timestamp {
                old += 1;
            }
            self.spare_timestamps.push(timestamp);
            self.spare_values.push(value);
        }
        debug_assert!(old == to, "the run ends behind the range");
    }

    /// Appends everything to `timestamps` and `values`.
    pub(crate) fn take(mut self, timestamps: &mut Vec<i64>, values: &mut Vec<f64>) {
        timestamps.append(&mut self.timestamps);
        values.append(&mut self.values);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn equals_a_map_that_runs_are_written_into(
            runs in proptest::collection::vec(
                proptest::collection::btree_map(-20i64..20, any::<u64>(), 0..12), 0..6),
        ) {
            let mut expect = BTreeMap::new();
            let mut merger = Merger::default();
            for run in &runs {
                expect.extend(run.clone());
                let timestamps: Vec<_> = run.keys().copied().collect();
                let values: Vec<_> = run.values().map(|&bits| f64::from_bits(bits)).collect();
                merger.push(&timestamps, &values);
            }
            let (mut timestamps, mut values) = (Vec::new(), Vec::new());
            merger.take(&mut timestamps, &mut values);
            let got: Vec<_> =
                timestamps.into_iter().zip(values.into_iter().map(f64::to_bits)).collect();
            prop_assert_eq!(got, expect.into_iter().collect::<Vec<_>>());
        }
    }
}
