//! What a record tells whom: series are matched once per selection, and remembered by their identity.

use std::io::Write as _;
use std::sync::Arc;

use bytes::Bytes;
use hashbrown::HashMap;
use millrace_model::batch::{Batch, BatchError, SectionContent};
use millrace_model::{Labels, Sample, SeriesId};
use millrace_query::api::{write_labels, write_value};

use crate::filter::{FilterId, FilterSet, Numbered};
use crate::frame::FrameWriter;

/// Series that are remembered at most; then all are forgotten, and matched again.
const SERIES_MAX: usize = 1 << 20;

/// Remembers which selections a series passes.
#[derive(Debug, Default)]
pub(crate) struct Sieve {
    series: HashMap<SeriesId, Known>,
    samples: Vec<Sample>,
    object: Vec<u8>,
    /// Of the record that is being read: a record counts whole or not at all.
    record: FrameWriter,
}

#[derive(Debug, Default)]
struct Known {
    /// Selections up to this number were tried.
    tried: u64,
    /// Those that it passes.
    passed: Vec<FilterId>,
    /// Its labels as JSON, if it passes any.
    labels: Option<Box<[u8]>>,
}

impl Sieve {
    /// Adds what a record tells. One that is no batch tells nothing: it was not applied either, but kept as a
    /// dead letter.
    pub(crate) fn record(&mut self, payload: &Bytes, filters: &FilterSet, out: &mut FrameWriter) {
        self.record.clear();
        match self.read(payload, filters) {
            Ok(()) => out.append(&mut self.record),
            Err(error) => {
                tracing::debug!(%error, "a record that is no batch tells nobody anything")
            }
        }
    }

    fn read(&mut self, payload: &[u8], filters: &FilterSet) -> Result<(), BatchError> {
        let batch = Batch::decode(payload)?;
        let of_tenant = filters.of(batch.tenant());
        if of_tenant.is_empty() {
            return Ok(());
        }
        let requeued = batch.original_position().is_some();
        for section in batch.sections() {
            let SectionContent::Float(mut floats) = section?.content()? else {
                continue;
            };
            loop {
                self.samples.clear();
                let Some(id) = floats.next_series(&mut self.samples)? else {
                    break;
                };
                if !self.series.contains_key(&id) && self.series.len() >= SERIES_MAX {
                    self.series.clear();
                }
                let known = self.series.entry(id).or_default();
                if known.tried < filters.newest {
                    known.try_on(&floats.labels()?, of_tenant);
                    known.tried = filters.newest;
                }
                let Some(labels) = &known.labels else {
                    continue;
                };
                write_object(&mut self.object, labels, &self.samples, requeued);
                for filter in &known.passed {
                    if of_tenant.binary_search_by_key(filter, |f| f.id).is_ok() {
                        self.record.series(*filter, &self.object);
                    }
                }
            }
        }
        Ok(())
    }
}

impl Known {
    /// Tries the selections that came since the last time; forgets those that have gone.
    fn try_on(&mut self, labels: &Labels, filters: &[Arc<Numbered>]) {
        let is_there = |id: &FilterId| filters.binary_search_by_key(id, |f| f.id).is_ok();
        self.passed.retain(is_there);
        let untried = filters.partition_point(|f| f.id.0 <= self.tried);
        let passed = filters[untried..]
            .iter()
            .filter(|f| f.filter.passes(labels));
        self.passed.extend(passed.map(|f| f.id));
        if self.passed.is_empty() {
            self.labels = None;
        } else if self.labels.is_none() {
            let mut json = Vec::new();
            write_labels(&mut json, labels);
            self.labels = Some(json.into());
        }
    }
}

/// `{"metric":{…},"samples":[[1795233600000,"21.5"],…]}`
fn write_object(out: &mut Vec<u8>, labels: &[u8], samples: &[Sample], requeued: bool) {
    out.clear();
    out.extend_from_slice(b"{\"metric\":");
    out.extend_from_slice(labels);
    out.extend_from_slice(b",\"samples\":[");
    for (i, sample) in samples.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        out.push(b'[');
        write!(out, "{}", sample.timestamp.0).expect("a vector takes every write");
        out.extend_from_slice(b",\"");
        write_value(out, sample.value);
        out.extend_from_slice(b"\"]");
    }
    out.extend_from_slice(if requeued {
        b"],\"requeued\":true}"
    } else {
        b"]}"
    });
}
