//! Annotations: what may be wrong with an answer (warnings) or is odd about the query (infos), in
//! Prometheus's words, each once.

use std::collections::{BTreeMap, BTreeSet};

use parking_lot::Mutex;

use super::ast::Pos;
use super::date;
use super::text::{format_g, quote};

/// Most annotations of either kind that an answer carries.
const SHOWN: usize = 10;

/// Collects annotations from all threads of a query.
#[derive(Debug, Default)]
pub(super) struct Notes {
    found: Mutex<Found>,
}

#[derive(Debug, Default)]
struct Found {
    warnings: BTreeSet<(usize, String)>,
    infos: BTreeSet<(usize, String)>,
    forced: BTreeMap<(usize, String), Forced>,
}

/// Where histogram buckets had to be made monotonic.
#[derive(Clone, Copy, Debug)]
pub(super) struct Forced {
    pub(super) min_bucket: f64,
    pub(super) max_bucket: f64,
    pub(super) max_diff: f64,
    pub(super) first_ms: i64,
    pub(super) last_ms: i64,
    pub(super) samples: u64,
}

impl Notes {
    pub(super) fn warn(&self, pos: Pos, message: impl Into<String>) {
        let note = (pos.start, format!("PromQL warning: {}", message.into()));
        self.found.lock().warnings.insert(note);
    }

    pub(super) fn info(&self, pos: Pos, message: impl Into<String>) {
        let note = (pos.start, format!("PromQL info: {}", message.into()));
        self.found.lock().infos.insert(note);
    }

    pub(super) fn invalid_quantile(&self, pos: Pos, value: f64) {
        let message = format!(
            "quantile value should be between 0 and 1, got {}",
            format_g(value)
        );
        self.warn(pos, message);
    }

    pub(super) fn possible_non_counter(&self, pos: Pos, metric: &str) {
        let message = format!(
            "metric might not be a counter, name does not end in _total/_sum/_count/_bucket: {}",
            quote(metric)
        );
        self.info(pos, message);
    }

    pub(super) fn bad_bucket_label(&self, pos: Pos, metric: &str, le: &str) {
        let mut message = format!(
            "bucket label \"le\" is missing or has a malformed value of {}",
            quote(le)
        );
        if !metric.is_empty() {
            message = format!("{message} for metric name {}", quote(metric));
        }
        self.warn(pos, message);
    }

    pub(super) fn forced_monotonicity(&self, pos: Pos, metric: &str, new: Forced) {
        let mut found = self.found.lock();
        found
            .forced
            .entry((pos.start, metric.to_owned()))
            .and_modify(|old| {
                old.min_bucket = old.min_bucket.min(new.min_bucket);
                old.max_bucket = old.max_bucket.max(new.max_bucket);
                old.max_diff = old.max_diff.max(new.max_diff);
                old.first_ms = old.first_ms.min(new.first_ms);
                old.last_ms = old.last_ms.max(new.last_ms);
                old.samples += new.samples;
            })
            .or_insert(new);
    }

    /// Warnings and infos, with positions in `text`.
    pub(super) fn finish(&self, text: &str) -> (Vec<String>, Vec<String>) {
        let mut found = std::mem::take(&mut *self.found.lock());
        for ((at, metric), forced) in std::mem::take(&mut found.forced) {
            found.infos.insert((at, forced_message(&metric, &forced)));
        }
        (
            render(found.warnings, text, "warning"),
            render(found.infos, text, "info"),
        )
    }
}

fn forced_message(metric: &str, forced: &Forced) -> String {
    let mut message = String::from(
        "PromQL info: input to histogram_quantile needed to be fixed for monotonicity (see https://prometheus.io/docs/prometheus/latest/querying/functions/#histogram_quantile)",
    );
    if !metric.is_empty() {
        message = format!("{message} for metric name {}", quote(metric));
    }
    format!(
        "{message}, from buckets {} to {}, with a max diff of {}, over {} samples from {} to {}",
        format_g(forced.min_bucket),
        format_g(forced.max_bucket),
        two_digits(forced.max_diff),
        forced.samples,
        date::rfc3339(forced.first_ms),
        date::rfc3339(forced.last_ms),
    )
}

/// `%.2g` of Go.
fn two_digits(value: f64) -> String {
    let rounded = format!("{value:.1e}").parse().unwrap_or(value);
    let text = format!("{rounded:e}");
    let exponent: i32 = match text.split_once('e') {
        Some((_, exponent)) => exponent.parse().unwrap_or(0),
        None => 0,
    };
    if (-4..2).contains(&exponent) {
        return format!("{rounded}");
    }
    let mantissa = text.split('e').next().unwrap_or("0");
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{mantissa}e{sign}{:02}", exponent.abs())
}

fn render(notes: BTreeSet<(usize, String)>, text: &str, kind: &str) -> Vec<String> {
    let total = notes.len();
    let mut out: Vec<String> = notes
        .into_iter()
        .take(SHOWN)
        .map(|(at, message)| format!("{message} ({})", position(text, at)))
        .collect();
    if total > SHOWN {
        out.push(format!("{} more {kind} annotations omitted", total - SHOWN));
    }
    out
}

/// Line and column of a byte, both from one.
pub(super) fn position(text: &str, at: usize) -> String {
    let before = &text.as_bytes()[..at.min(text.len())];
    let line = before.iter().filter(|b| **b == b'\n').count() + 1;
    let column = match before.iter().rposition(|b| *b == b'\n') {
        Some(newline) => before.len() - newline,
        None => before.len() + 1,
    };
    format!("{line}:{column}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_count_lines_and_columns_from_one() {
        for (at, expect) in [(0, "1:1"), (2, "1:3"), (3, "2:1"), (99, "2:3")] {
            assert_eq!(position("ab\ncd", at), expect);
        }
    }

    #[test]
    fn notes_come_once_and_not_too_many() {
        let notes = Notes::default();
        let pos = Pos::default();
        for i in 0..30 {
            notes.warn(pos, format!("{}", i % 15));
        }
        let (warnings, infos) = notes.finish("x");
        assert_eq!(warnings.len(), SHOWN + 1);
        assert_eq!(warnings[SHOWN], "5 more warning annotations omitted");
        assert_eq!(warnings[0], "PromQL warning: 0 (1:1)");
        assert!(infos.is_empty());
    }

    #[test]
    fn two_digits_are_written_as_go_does() {
        for (value, text) in [
            (0.123, "0.12"),
            (1234.0, "1.2e+03"),
            (5.0, "5"),
            (0.00001, "1e-05"),
        ] {
            assert_eq!(two_digits(value), text);
        }
    }
}
