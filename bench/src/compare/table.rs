//! The figures as a Markdown table.

use super::round::Round;
use super::{Measured, System};
use crate::queries::report::percentile;

/// A line of the table.
struct Row {
    name: &'static str,
    unit: &'static str,
    decimals: usize,
    /// Whether more is better; decides which way the ratio is written.
    more_is_better: bool,
    of: fn(&Round) -> f64,
}

const ROWS: &[Row] = &[
    Row {
        name: "samples per CPU-second",
        unit: "k",
        decimals: 0,
        more_is_better: true,
        of: |round| round.samples_per_cpu_second / 1e3,
    },
    Row {
        name: "samples per second, acknowledged",
        unit: "k",
        decimals: 0,
        more_is_better: true,
        of: |round| round.load.samples_per_second / 1e3,
    },
    Row {
        name: "samples per second, until all can be queried",
        unit: "k",
        decimals: 0,
        more_is_better: true,
        of: |round| round.load.samples as f64 / round.visible_all_seconds / 1e3,
    },
    Row {
        name: "request latency p50",
        unit: "ms",
        decimals: 2,
        more_is_better: false,
        of: |round| round.load.p50_ms,
    },
    Row {
        name: "request latency p99",
        unit: "ms",
        decimals: 2,
        more_is_better: false,
        of: |round| round.load.p99_ms,
    },
    Row {
        name: "slowest request",
        unit: "ms",
        decimals: 0,
        more_is_better: false,
        of: |round| round.load.max_ms,
    },
    Row {
        name: "peak resident memory",
        unit: "MB",
        decimals: 0,
        more_is_better: false,
        of: |round| round.peak_memory_bytes as f64 / 1e6,
    },
    Row {
        name: "on disk after the load",
        unit: "bytes/sample",
        decimals: 2,
        more_is_better: false,
        of: |round| round.disk_bytes_after_load as f64 / round.load.samples as f64,
    },
    Row {
        name: "on disk at rest",
        unit: "bytes/sample",
        decimals: 2,
        more_is_better: false,
        of: |round| round.disk_bytes_at_rest as f64 / round.load.samples as f64,
    },
    Row {
        name: "on disk, compacted, without the queue",
        unit: "bytes/sample",
        decimals: 2,
        more_is_better: false,
        of: |round| round.disk_bytes_compacted as f64 / round.load.samples as f64,
    },
    Row {
        name: "acknowledged to visible under load, median",
        unit: "ms",
        decimals: 1,
        more_is_better: false,
        of: |round| percentile(&round.visible_under_load_ms, 50),
    },
    Row {
        name: "acknowledged to visible under load, p99",
        unit: "ms",
        decimals: 1,
        more_is_better: false,
        of: |round| percentile(&round.visible_under_load_ms, 99),
    },
    Row {
        name: "acknowledged to visible, median",
        unit: "ms",
        decimals: 1,
        more_is_better: false,
        of: |round| round.visible_ms[round.visible_ms.len() / 2],
    },
    Row {
        name: "acknowledged to visible, slowest",
        unit: "ms",
        decimals: 1,
        more_is_better: false,
        of: |round| round.visible_ms.last().copied().unwrap_or(f64::NAN),
    },
    Row {
        name: "acknowledged to visible, a new series",
        unit: "ms",
        decimals: 1,
        more_is_better: false,
        of: |round| round.visible_new_ms,
    },
    Row {
        name: "recovery after kill -9",
        unit: "s",
        decimals: 2,
        more_is_better: false,
        of: |round| round.recovery_seconds,
    },
    Row {
        name: "acknowledged samples lost by kill -9",
        unit: "of 11 pushed before it",
        decimals: 0,
        more_is_better: false,
        of: |round| round.lost_by_kill as f64,
    },
];

/// Medians over the rounds, the range of the first line, and millrace's advantage over each other
/// system (above 1: millrace is better).
pub fn render(measured: &[Measured]) -> String {
    let own = measured.iter().find(|m| m.system == System::Millrace);
    let others = || measured.iter().filter(|m| m.system != System::Millrace);
    let mut head = vec!["median of the rounds".to_owned()];
    head.extend(measured.iter().map(|m| m.system.name().to_owned()));
    if own.is_some() {
        head.extend(others().map(|m| format!("better than {}", m.system.name())));
    }
    let mut lines = vec![head];
    for row in ROWS {
        let mut cells = vec![format!("{}, {}", row.name, row.unit)];
        cells.extend(measured.iter().map(|m| cell(row, m)));
        if let Some(own) = own {
            cells.extend(others().map(|other| ratio(row, own, other)));
        }
        lines.push(cells);
    }
    let mut text = markdown(&lines);
    for Measured {
        system, version, ..
    } in measured
    {
        if let Some(version) = version {
            text.push_str(&format!("\n{}: {version}", system.name()));
        }
    }
    text.push('\n');
    text
}

fn values(row: &Row, measured: &Measured) -> Vec<f64> {
    let mut values: Vec<_> = measured.rounds.iter().map(row.of).collect();
    values.sort_by(f64::total_cmp);
    values
}

fn median(sorted: &[f64]) -> f64 {
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => f64::NAN,
        n if n.is_multiple_of(2) => (sorted[middle - 1] + sorted[middle]) / 2.0,
        _ => sorted[middle],
    }
}

fn cell(row: &Row, measured: &Measured) -> String {
    let values = values(row, measured);
    let decimals = row.decimals;
    let median = format!("{:.decimals$}", median(&values));
    match (values.first(), values.last()) {
        (Some(low), Some(high)) if values.len() > 1 => {
            format!("{median} ({low:.decimals$}–{high:.decimals$})")
        }
        _ => median,
    }
}

fn ratio(row: &Row, own: &Measured, other: &Measured) -> String {
    let (own, other) = (median(&values(row, own)), median(&values(row, other)));
    if own == 0.0 || other == 0.0 {
        return "–".to_owned();
    }
    let ratio = if row.more_is_better {
        own / other
    } else {
        other / own
    };
    format!("{ratio:.2} ×")
}

fn markdown(lines: &[Vec<String>]) -> String {
    let columns = lines.first().map_or(0, Vec::len);
    let width = |column: usize| {
        let widths = lines.iter().map(|cells| cells[column].chars().count());
        widths.max().unwrap_or(0)
    };
    let widths: Vec<_> = (0..columns).map(width).collect();
    let mut text = String::new();
    for (number, cells) in lines.iter().enumerate() {
        for (column, (cell, width)) in cells.iter().zip(&widths).enumerate() {
            if column == 0 {
                text.push_str(&format!("| {cell:<width$} "));
            } else {
                text.push_str(&format!("| {cell:>width$} "));
            }
        }
        text.push_str("|\n");
        if number == 0 {
            for (column, width) in widths.iter().enumerate() {
                let dashes = "-".repeat(width + 1);
                text.push_str(&if column == 0 {
                    format!("|{dashes}-")
                } else {
                    format!("|{dashes}:")
                });
            }
            text.push_str("|\n");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::Report;

    fn measured(system: System, cpu: &[f64]) -> Measured {
        let round = |samples_per_cpu_second: &f64| Round {
            load: Report {
                samples: 1000,
                samples_per_second: 1000.0,
                p50_ms: 2.0,
                p99_ms: 4.0,
                ..Report::default()
            },
            visible_all_seconds: 1.0,
            cpu_seconds: 1.0,
            cpu_seconds_of_load: 1.0,
            samples_per_cpu_second: *samples_per_cpu_second,
            peak_memory_bytes: 1_000_000,
            disk_bytes_after_load: 5000,
            disk_bytes_at_rest: 1500,
            visible_new_ms: 3.0,
            visible_ms: vec![1.0, 2.0, 3.0],
            visible_under_load_ms: vec![1.0, 2.0, 30.0],
            disk_bytes_compacted: 400,
            recovery_seconds: 1.0,
            lost_by_kill: 0,
        };
        Measured {
            system,
            version: None,
            rounds: cpu.iter().map(round).collect(),
        }
    }

    #[test]
    fn medians_and_ratios_are_as_computed_by_hand() {
        let text = render(&[
            measured(System::Millrace, &[3e5, 1e5, 2e5]),
            measured(System::Prometheus, &[1e5, 1e5]),
        ]);
        let line = text.lines().nth(2).unwrap();
        let cells: Vec<_> = line.split('|').map(str::trim).collect();
        assert_eq!(
            cells[1..5],
            [
                "samples per CPU-second, k",
                "200 (100–300)",
                "100 (100–100)",
                "2.00 ×"
            ]
        );
        assert!(
            text.lines()
                .all(|l| l.is_empty() || l.matches('|').count() == 5)
        );
    }
}
