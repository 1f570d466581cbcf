//! Which metrics and labels a tenant's series are made of: what to look at when there are too many.
//!
//! Bounded and approximate, and told as such. Each active series passes here once in an epoch, and a
//! new one at once: its metric is counted among the most frequent ones (space-saving: a count is too high by the
//! smallest one at most), and the values of its labels are counted by HyperLogLog (within some 7 %).
//! Labels are looked at for a twelfth of the known series in each epoch, so that an hour sees all.

use millrace_model::{METRIC_NAME, RawPairs, SeriesId};
use xxhash_rust::xxh3::xxh3_64;

use super::active::{Epoch, WINDOW};
use crate::report::excerpt;

/// Metrics that are counted, per epoch.
const METRICS: usize = 64;
/// Labels whose values are counted, per hour. Those that come first are.
const LABELS: usize = 48;
/// Registers of a label's sketch, a power of two.
const REGISTERS: usize = 256;

/// What a tenant's series are made of.
#[derive(Debug, Default)]
pub(crate) struct Offenders {
    epoch: Epoch,
    metrics: Frequent,
    metrics_before: Frequent,
    labels: Vec<Label>,
    labels_before: Vec<Label>,
}

/// The most frequent names of a stream.
#[derive(Debug, Default)]
struct Frequent {
    // Apart, so that looking for a name reads little memory.
    hashes: Vec<u64>,
    counts: Vec<u64>,
    names: Vec<String>,
}

/// How many values a label has had.
#[derive(Debug)]
struct Label {
    hash: u64,
    name: String,
    registers: Box<[u8; REGISTERS]>,
}

/// What there is most of, with the most first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Top {
    /// Metrics with the number of their active series, about.
    pub(crate) metrics: Vec<(String, u64)>,
    /// Labels with the number of their values, about.
    pub(crate) labels: Vec<(String, u64)>,
}

impl Offenders {
    /// Counts a series of canonical labels that is active in `epoch`.
    pub(crate) fn count(&mut self, id: SeriesId, labels: &[u8], epoch: Epoch, new: bool) {
        self.turn(epoch);
        let all_labels = new || (id.0 as u64 >> 8) % u64::from(WINDOW) == u64::from(epoch % WINDOW);
        for pair in RawPairs::of_canonical(labels) {
            if pair.name == METRIC_NAME.as_bytes() {
                self.metrics.count(pair.value());
            } else if all_labels {
                self.count_value(pair.name, xxh3_64(pair.pair));
            }
        }
    }

    fn turn(&mut self, epoch: Epoch) {
        if epoch <= self.epoch {
            return;
        }
        self.metrics_before = std::mem::take(&mut self.metrics);
        if epoch - self.epoch > 1 {
            self.metrics_before = Frequent::default();
        }
        let (hour, before) = (epoch / WINDOW, self.epoch / WINDOW);
        if hour > before {
            self.labels_before = std::mem::take(&mut self.labels);
            if hour - before > 1 {
                self.labels_before = Vec::new();
            }
        }
        self.epoch = epoch;
    }

    fn count_value(&mut self, name: &[u8], value: u64) {
        let hash = xxh3_64(name);
        let at = self.labels.iter().position(|label| label.hash == hash);
        let label = match at {
            Some(at) => &mut self.labels[at],
            None if self.labels.len() == LABELS => return,
            None => {
                self.labels.push(Label {
                    hash,
                    name: excerpt(name),
                    registers: Box::new([0; REGISTERS]),
                });
                self.labels.last_mut().expect("one was pushed")
            }
        };
        let register = &mut label.registers[value as usize % REGISTERS];
        let rank = (value / REGISTERS as u64).trailing_zeros().min(56) + 1;
        *register = (*register).max(rank as u8);
    }

    /// The `count` most of each, as of `epoch`.
    pub(crate) fn top(&mut self, epoch: Epoch, count: usize) -> Top {
        self.turn(epoch);
        let mut metrics: Vec<(String, u64)> = self.metrics.all().collect();
        // Early in an epoch the last one knows more.
        for (name, before) in self.metrics_before.all() {
            match metrics.iter_mut().find(|(known, _)| *known == name) {
                Some((_, now)) => *now = before.max(*now),
                None => metrics.push((name, before)),
            }
        }
        let mut labels = Vec::new();
        for label in &self.labels {
            let before = self.labels_before.iter().find(|b| b.hash == label.hash);
            labels.push((label.name.clone(), label.values(before)));
        }
        for label in &self.labels_before {
            if self.labels.iter().all(|now| now.hash != label.hash) {
                labels.push((label.name.clone(), label.values(None)));
            }
        }
        for list in [&mut metrics, &mut labels] {
            list.sort_by(|(a, n), (b, m)| m.cmp(n).then_with(|| a.cmp(b)));
            list.truncate(count);
        }
        Top { metrics, labels }
    }
}

impl Frequent {
    fn count(&mut self, name: &[u8]) {
        let hash = xxh3_64(name);
        if let Some(at) = self.hashes.iter().position(|known| *known == hash) {
            self.counts[at] += 1;
            return;
        }
        if self.hashes.len() < METRICS {
            self.hashes.push(hash);
            self.counts.push(1);
            self.names.push(excerpt(name));
            return;
        }
        let least = (0..METRICS).min_by_key(|at| self.counts[*at]);
        let least = least.expect("there are some");
        self.hashes[least] = hash;
        self.counts[least] += 1;
        self.names[least] = excerpt(name);
    }

    fn all(&self) -> impl Iterator<Item = (String, u64)> + '_ {
        self.names.iter().cloned().zip(self.counts.iter().copied())
    }
}

impl Label {
    /// How many values there were, here or in an earlier sketch.
    fn values(&self, before: Option<&Self>) -> u64 {
        let register = |at: usize| {
            let before = before.map_or(0, |before| before.registers[at]);
            before.max(self.registers[at])
        };
        let (mut sum, mut zeros) = (0.0, 0usize);
        for rank in (0..REGISTERS).map(register) {
            sum += (-f64::from(rank)).exp2();
            zeros += usize::from(rank == 0);
        }
        let m = REGISTERS as f64;
        let raw = 0.7213 / (1.0 + 1.079 / m) * m * m / sum;
        let estimate = if raw <= 2.5 * m && zeros > 0 {
            m * (m / zeros as f64).ln()
        } else {
            raw
        };
        // Whole numbers below 2^53, by construction.
        estimate.round() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use millrace_model::Labels;

    fn count(offenders: &mut Offenders, n: u64, pairs: &[(&str, &str)], epoch: Epoch, new: bool) {
        let labels = Labels::from_pairs(pairs.iter().copied()).unwrap();
        let id = SeriesId(u128::from(n.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
        offenders.count(id, labels.canonical(), epoch, new);
    }

    #[test]
    fn the_worst_stand_first_with_about_their_numbers() {
        let mut offenders = Offenders::default();
        for n in 0..20_000 {
            let path = format!("/{n}");
            let job = ["a", "b", "c"][n as usize % 3];
            let bad = [("__name__", "bad"), ("job", job), ("path", &*path)];
            count(&mut offenders, n, &bad, 1, true);
            // Many metrics of one series each, which would push it out if the least were not first.
            let good = format!("good_{}", n % 1000);
            count(
                &mut offenders,
                n,
                &[("__name__", &good), ("job", job)],
                1,
                true,
            );
        }
        let top = offenders.top(1, 2);
        assert_eq!(top.metrics[0].0, "bad");
        assert!((20_000..21_000).contains(&top.metrics[0].1), "{top:?}");
        let (label, values) = &top.labels[0];
        assert_eq!(label, "path");
        assert!((17_000..23_000).contains(values), "{values}");
        assert_eq!(top.labels[1], ("job".to_owned(), 3));
    }

    #[test]
    fn what_has_ended_is_forgotten() {
        let mut offenders = Offenders::default();
        let one = [("__name__", "m"), ("a", "b")];
        for n in 0..100 {
            count(&mut offenders, n, &one, 12, true);
        }
        let expect = [("m".to_owned(), 100)];
        assert_eq!(offenders.top(13, 9).metrics, expect);
        for n in 0..50 {
            count(&mut offenders, n, &one, 13, false);
        }
        assert_eq!(offenders.top(13, 9).metrics, expect);
        assert_eq!(offenders.top(14, 9).metrics, [("m".to_owned(), 50)]);
        assert_eq!(offenders.top(15, 9).metrics, []);
        assert_eq!(offenders.top(24, 9).labels.len(), 1);
        assert_eq!(offenders.top(36, 9).labels, []);
    }

    #[test]
    fn within_an_hour_every_known_series_shows_its_labels() {
        let mut offenders = Offenders::default();
        for epoch in 24..36 {
            for n in 0..1000u64 {
                let value = n.to_string();
                count(
                    &mut offenders,
                    n,
                    &[("__name__", "m"), ("n", &value)],
                    epoch,
                    false,
                );
            }
        }
        let top = offenders.top(35, 1);
        let (_, values) = &top.labels[0];
        assert!((850..1150).contains(values), "{values}");
    }

    #[test]
    fn memory_is_bounded_whatever_comes() {
        let mut offenders = Offenders::default();
        for n in 0..10_000u64 {
            let (name, label) = (format!("m{n}"), format!("l{n}"));
            let long = "x".repeat(1000);
            count(
                &mut offenders,
                n,
                &[("__name__", &name), (&label, &long)],
                1,
                true,
            );
        }
        assert_eq!(offenders.metrics.names.len(), METRICS);
        assert_eq!(offenders.labels.len(), LABELS);
    }
}
