//! A few series that count how often they are read.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use millrace_model::Labels;
use millrace_query::{SampleColumns, Select, SeriesSource, SourceError, StoredSeries};

/// Samples of a series, one every ten seconds from the epoch on.
pub const SAMPLES: i64 = 60;
const STEP_MS: i64 = 10_000;

/// The series, and how many samples were read of them.
#[derive(Debug)]
pub struct CountingSource {
    series: Vec<Labels>,
    read: Arc<AtomicU64>,
}

impl Default for CountingSource {
    fn default() -> Self {
        let mut series = Vec::new();
        let mut add = |pairs: &[(&str, &str)]| {
            let labels = Labels::from_pairs(pairs.iter().copied());
            series.push(labels.expect("names are there, each once"));
        };
        for instance in ["a:9100", "b:9100"] {
            let base = [("instance", instance), ("job", "node")];
            for (name, extra) in [
                ("up", None),
                ("temperature", Some(("room", "é"))),
                ("requests_total", Some(("code", "200"))),
                ("requests_total", Some(("code", "500"))),
                ("seconds_bucket", Some(("le", "0.1"))),
                ("seconds_bucket", Some(("le", "+Inf"))),
            ] {
                let mut pairs = vec![("__name__", name), base[0], base[1]];
                pairs.extend(extra);
                add(&pairs);
            }
        }
        Self {
            series,
            read: Arc::default(),
        }
    }
}

impl CountingSource {
    /// Samples read since the last call.
    pub fn take_read(&self) -> u64 {
        self.read.swap(0, Ordering::Relaxed)
    }

    /// Samples that there are.
    #[must_use]
    pub fn samples(&self) -> u64 {
        self.series.len() as u64 * SAMPLES.unsigned_abs()
    }
}

struct Counted {
    labels: Labels,
    number: usize,
    range: (i64, i64),
    read: Arc<AtomicU64>,
}

impl StoredSeries for Counted {
    fn labels(&self) -> &Labels {
        &self.labels
    }

    fn read(&self, out: &mut SampleColumns) -> Result<(), SourceError> {
        let before = out.len();
        for at in 0..SAMPLES {
            let time = at * STEP_MS;
            if self.range.0 <= time && time <= self.range.1 {
                // Rises, falls back once, and is not a number once.
                let value = match at {
                    40 => f64::NAN,
                    at => (at % 33) as f64 * (self.number + 1) as f64 / 3.0,
                };
                out.push(time, value);
            }
        }
        let count = (out.len() - before) as u64;
        self.read.fetch_add(count, Ordering::Relaxed);
        Ok(())
    }
}

impl CountingSource {
    fn passing<'a>(&'a self, request: &'a Select<'_>) -> impl Iterator<Item = (usize, &'a Labels)> {
        let all = self.series.iter().enumerate();
        all.filter(|(_, labels)| request.matchers.iter().all(|m| m.matches_labels(labels)))
    }
}

impl SeriesSource for CountingSource {
    fn select(&self, request: &Select<'_>) -> Result<Vec<Box<dyn StoredSeries>>, SourceError> {
        let series = self.passing(request).map(|(number, labels)| {
            Box::new(Counted {
                labels: labels.clone(),
                number,
                range: (request.range.start.0, request.range.end.0),
                read: Arc::clone(&self.read),
            }) as Box<dyn StoredSeries>
        });
        Ok(series.collect())
    }
}
