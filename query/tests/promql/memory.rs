//! A [`SeriesSource`] over a table of samples.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use millrace_model::{Labels, TimeRange, TimestampMs};
use millrace_query::{SampleColumns, Select, SeriesSource, SourceError, StoredSeries};

/// Samples by series and time.
#[derive(Debug, Default)]
pub struct Memory {
    series: BTreeMap<Labels, Series>,
    /// Why samples are missing of a series that was selected.
    touched: Mutex<Option<&'static str>>,
}

#[derive(Debug, Default)]
struct Series {
    samples: Arc<BTreeMap<i64, f64>>,
    incomplete: Option<&'static str>,
}

impl Memory {
    pub fn insert(&mut self, labels: &Labels, timestamp: i64, value: f64) {
        let series = self.series.entry(labels.clone()).or_default();
        Arc::make_mut(&mut series.samples).insert(timestamp, value);
    }

    /// Notes that the series has samples that cannot be stored, and why.
    pub fn mark_incomplete(&mut self, labels: &Labels, reason: &'static str) {
        self.series.entry(labels.clone()).or_default().incomplete = Some(reason);
    }

    /// Why samples are missing of a series that was selected since the last call, if one was.
    pub fn take_touched_incomplete(&self) -> Option<&'static str> {
        self.touched.lock().expect("nobody panics with it").take()
    }
}

struct Selected {
    labels: Labels,
    samples: Arc<BTreeMap<i64, f64>>,
    range: TimeRange,
}

impl StoredSeries for Selected {
    fn labels(&self) -> &Labels {
        &self.labels
    }

    fn read(&self, out: &mut SampleColumns) -> Result<(), SourceError> {
        let (TimestampMs(start), TimestampMs(end)) = (self.range.start, self.range.end);
        if start <= end {
            for (timestamp, value) in self.samples.range(start..=end) {
                out.push(*timestamp, *value);
            }
        }
        Ok(())
    }
}

impl SeriesSource for Memory {
    fn select(&self, request: &Select<'_>) -> Result<Vec<Box<dyn StoredSeries>>, SourceError> {
        let mut selected: Vec<Box<dyn StoredSeries>> = Vec::new();
        for (labels, series) in &self.series {
            if !request.matchers.iter().all(|m| m.matches_labels(labels)) {
                continue;
            }
            if let Some(reason) = series.incomplete {
                *self.touched.lock().expect("nobody panics with it") = Some(reason);
            }
            selected.push(Box::new(Selected {
                labels: labels.clone(),
                samples: Arc::clone(&series.samples),
                range: request.range,
            }));
        }
        Ok(selected)
    }
}
