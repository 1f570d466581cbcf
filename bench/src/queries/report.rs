//! The figures as Markdown tables.

use super::measure::{Measured, OfSystem};
use super::{Part, State};
use crate::compare::System;

/// A table for each part, and the geometric means over all.
pub fn render(parts: &[Part]) -> String {
    let mut text = String::new();
    let mut means = Vec::new();
    for part in parts {
        text.push_str(&format!(
            "#### {}, {} samples of {} series, millrace's {}\n\n",
            part.mix,
            part.samples,
            part.series,
            match part.state {
                State::Memory => "in memory",
                State::Sealed => "in blocks",
            }
        ));
        text.push_str(HEAD);
        for measured in &part.classes {
            text.push_str(&row(measured));
        }
        text.push('\n');
        means.push(Means::of(part));
    }
    text.push_str(
        "Geometric means over the classes, peer by millrace (above 1: millrace is better):\n\n\
         | mix | state | p50, faster peer | p50, Prometheus | p50, VictoriaMetrics | cold, faster peer | \
         CPU, thriftier peer | CPU, Prometheus | CPU, VictoriaMetrics |\n\
         |---|---|--:|--:|--:|--:|--:|--:|--:|\n",
    );
    for mean in &means {
        text.push_str(&mean.row());
    }
    let all = Means::all(parts);
    text.push_str(&all.row());
    text.push_str(&losses(parts));
    text
}

const HEAD: &str = "\
| class | millrace p50 / p95, ms | Prometheus p50 / p95 | VictoriaMetrics p50 / p95 | p50 vs faster peer | p95 vs faster peer \
| CPU ms: millrace / Prometheus / VictoriaMetrics | CPU vs thriftier peer | cold ms: millrace / Prometheus / VictoriaMetrics | answers equal |\n\
|---|--:|--:|--:|--:|--:|--:|--:|--:|---|\n";

fn find(measured: &Measured, system: System) -> Option<&OfSystem> {
    measured.systems.iter().find(|of| of.system == system)
}

/// The value that so many of a hundred do not exceed.
pub fn percentile(sorted: &[f64], percent: usize) -> f64 {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or(f64::NAN)
}

fn row(measured: &Measured) -> String {
    let latency = |system| match find(measured, system) {
        Some(of) => format!(
            "{:.2} / {:.2}",
            percentile(&of.latencies_ms, 50),
            percentile(&of.latencies_ms, 95)
        ),
        None => "–".to_owned(),
    };
    let three = |value: fn(&OfSystem) -> f64| {
        let all = [
            System::Millrace,
            System::Prometheus,
            System::VictoriaMetrics,
        ];
        let texts = all.map(|system| match find(measured, system) {
            Some(of) => format!("{:.2}", value(of)),
            None => "–".to_owned(),
        });
        texts.join(" / ")
    };
    format!(
        "| {} | {} | {} | {} | {} | {} | {} | {} | {} | {} |\n",
        measured.class,
        latency(System::Millrace),
        latency(System::Prometheus),
        latency(System::VictoriaMetrics),
        times(best(measured, p50)),
        times(best(measured, p95)),
        three(|of| of.cpu_ms),
        times(best(measured, |of| of.cpu_ms)),
        three(|of| of.cold_ms),
        equal(measured),
    )
}

fn p50(of: &OfSystem) -> f64 {
    percentile(&of.latencies_ms, 50)
}

fn p95(of: &OfSystem) -> f64 {
    percentile(&of.latencies_ms, 95)
}

fn times(ratio: Option<f64>) -> String {
    ratio.map_or_else(|| "–".to_owned(), |ratio| format!("{ratio:.2} ×"))
}

/// A peer's figure by millrace's.
fn ratio(measured: &Measured, system: System, value: fn(&OfSystem) -> f64) -> Option<f64> {
    let (ours, theirs) = (find(measured, System::Millrace)?, find(measured, system)?);
    Some(value(theirs) / value(ours))
}

/// The better peer's.
fn best(measured: &Measured, value: fn(&OfSystem) -> f64) -> Option<f64> {
    [System::Prometheus, System::VictoriaMetrics]
        .into_iter()
        .filter_map(|system| ratio(measured, system, value))
        .min_by(f64::total_cmp)
}

fn equal(measured: &Measured) -> String {
    let texts: Vec<String> = measured
        .systems
        .iter()
        .filter(|of| of.system != System::Millrace)
        .map(|of| {
            let name = of.system.name();
            match (of.compared, &of.difference) {
                (false, _) => format!("{name}: means something else"),
                (true, None) => format!("{name}: yes"),
                (true, Some(_)) => format!("{name}: **no**"),
            }
        })
        .collect();
    texts.join("; ")
}

/// Geometric means of ratios.
struct Means {
    mix: String,
    state: String,
    columns: [Option<f64>; 7],
}

impl Means {
    fn of(part: &Part) -> Self {
        Self::over(&part.mix, &format!("{:?}", part.state), part.classes.iter())
    }

    fn all(parts: &[Part]) -> Self {
        Self::over("**all**", "", parts.iter().flat_map(|part| &part.classes))
    }

    fn over<'a>(mix: &str, state: &str, classes: impl Iterator<Item = &'a Measured>) -> Self {
        let classes: Vec<_> = classes.collect();
        let mean = |of: &dyn Fn(&Measured) -> Option<f64>| {
            let logs: Vec<f64> = classes.iter().filter_map(|m| of(m)).map(f64::ln).collect();
            (!logs.is_empty()).then(|| (logs.iter().sum::<f64>() / logs.len() as f64).exp())
        };
        let cpu = |of: &OfSystem| of.cpu_ms.max(1e-3);
        Self {
            mix: mix.to_owned(),
            state: state.to_lowercase(),
            columns: [
                mean(&|m| best(m, p50)),
                mean(&|m| ratio(m, System::Prometheus, p50)),
                mean(&|m| ratio(m, System::VictoriaMetrics, p50)),
                mean(&|m| best(m, |of| of.cold_ms)),
                mean(&|m| best(m, cpu)),
                mean(&|m| ratio(m, System::Prometheus, cpu)),
                mean(&|m| ratio(m, System::VictoriaMetrics, cpu)),
            ],
        }
    }

    fn row(&self) -> String {
        let cells: Vec<String> = self.columns.iter().map(|column| times(*column)).collect();
        format!(
            "| {} | {} | {} |\n",
            self.mix,
            self.state,
            cells.join(" | ")
        )
    }
}

/// In words, which classes are slower than a peer.
fn losses(parts: &[Part]) -> String {
    let mut lost = Vec::new();
    let mut count = 0;
    for part in parts {
        for measured in &part.classes {
            count += 1;
            let below = |value| best(measured, value).is_some_and(|ratio| ratio < 1.0);
            if below(p50) || below(p95) {
                let state = format!("{:?}", part.state).to_lowercase();
                lost.push(format!("{} ({}, {state})", measured.class, part.mix));
            }
        }
    }
    format!(
        "\n{} of {count} classes are slower than the faster peer at p50 or p95{}{}.\n",
        lost.len(),
        if lost.is_empty() { "" } else { ": " },
        lost.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(system: System, ms: f64) -> OfSystem {
        OfSystem {
            system,
            latencies_ms: vec![ms],
            cpu_ms: ms,
            cold_ms: ms,
            difference: None,
            compared: system != System::Millrace,
        }
    }

    #[test]
    fn means_and_losses_are_as_computed_by_hand() {
        let measured = |ms| Measured {
            class: "c",
            systems: vec![
                of(System::Millrace, 1.0),
                of(System::Prometheus, ms),
                of(System::VictoriaMetrics, 8.0),
            ],
        };
        let part = Part {
            mix: "m".to_owned(),
            series: 1,
            samples: 1,
            state: State::Sealed,
            classes: vec![measured(8.0), measured(0.5)],
        };
        let text = render(&[part]);
        assert!(
            text.contains("| m | sealed | 2.00 × | 2.00 × | 8.00 × |"),
            "{text}"
        );
        assert!(text.contains("1 of 2 classes are slower"), "{text}");
        let widths: Vec<_> = text
            .lines()
            .filter(|line| line.starts_with("| c"))
            .map(|line| line.matches('|').count())
            .collect();
        assert_eq!(widths, [11, 11, 11]);
    }
}
