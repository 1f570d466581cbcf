//! Past evaluations of recording rules, made again: what came late changes what was recorded.
//!
//! Nobody says which moments late data touch, so each rule is asked again for all its moments of a bounded
//! window, in one range query, and what differs from what is recorded is written over it. That costs about
//! one range query over the window for every tenth of it that passes.
//!
//! **Invariants:**
//! - Nothing is made for moments before the group's first evaluation. Those that it has missed since are made.
//! - A series is ended at a moment only if this rule has made it: another one may record under the same name.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use millrace_model::{
    Labels, METRIC_NAME, Matcher, Sample, TimeRange, TimestampMs, is_stale, stale_nan,
};
use millrace_query::{QueryRequest, QueryTime, QueryValue, ReadContext, SampleColumns, Select};

use crate::alert::ms;
use crate::config::{RuleKind, RuleSpec};
use crate::group::Group;
use crate::world::Shared;

/// Values of one series by moment.
type Column = BTreeMap<i64, f64>;

/// The moments that are made again: all `step` ms from the first to the last.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moments {
    pub(crate) first: TimestampMs,
    pub(crate) last: TimestampMs,
    pub(crate) step: i64,
}

impl Moments {
    /// Those of a group whose first and last evaluations are known, at most `window` back. None if there is
    /// none between them.
    pub(crate) fn between(first: i64, last: i64, step: i64, window: i64) -> Option<Self> {
        // The last one has just been evaluated.
        let last = last - step;
        let back = (last - first.max(last - window)).div_euclid(step);
        let begin = last - back * step;
        (step > 0 && begin >= first && begin <= last).then_some(Self {
            first: TimestampMs(begin),
            last: TimestampMs(last),
            step,
        })
    }
}

impl Group {
    /// What has to be written so that the samples of a rule are those that it would record now. `made` are the
    /// series that it has made.
    ///
    /// # Errors
    ///
    /// In words, if the rule cannot be evaluated.
    pub(crate) fn differences(
        &self,
        shared: &Shared,
        rule: &RuleSpec,
        moments: Moments,
        made: &BTreeSet<Labels>,
    ) -> Result<Vec<(Labels, Sample)>, String> {
        if let RuleKind::Alerting(_) = rule.kind {
            return Ok(Vec::new());
        }
        let now = self.would_record(shared, rule, moments)?;
        let recorded = self.recorded_between(shared, rule, moments)?;
        let none = Column::new();
        let mut samples = Vec::new();
        let series: BTreeSet<&Labels> = now.keys().chain(made).collect();
        for labels in series {
            let wanted = now.get(labels).unwrap_or(&none);
            let there = recorded.get(labels).unwrap_or(&none);
            let (mut moment, mut lives) = (moments.first.0, false);
            while moment <= moments.last.0 {
                let before = there.get(&moment).copied();
                let ended = before.is_some_and(is_stale);
                let value = match (wanted.get(&moment).copied(), before) {
                    (Some(value), Some(before)) if value.to_bits() == before.to_bits() => None,
                    (Some(value), _) => Some(value),
                    (None, Some(_)) if !ended && made.contains(labels) => Some(stale_nan()),
                    // What has lived up to here needs its marker.
                    (None, None) if lives => Some(stale_nan()),
                    (None, _) => None,
                };
                lives = wanted.contains_key(&moment);
                samples.extend(value.map(|value| (labels.clone(), Sample::new(moment, value))));
                moment += moments.step;
            }
        }
        Ok(samples)
    }

    fn would_record(
        &self,
        shared: &Shared,
        rule: &RuleSpec,
        moments: Moments,
    ) -> Result<HashMap<Labels, Column>, String> {
        let outcome = shared.world.engine.query(&QueryRequest {
            tenant: self.spec.tenant.clone(),
            text: rule.query.clone(),
            time: QueryTime::Range {
                start: moments.first,
                end: moments.last,
                step_ms: moments.step,
            },
            lookback: None,
            timeout: None,
            cancel: shared.cancel.clone(),
            partial: false,
            point: Arc::default(),
        });
        let QueryValue::Matrix(matrix) = outcome.map_err(|error| error.to_string())?.value else {
            return Err("a range query answers with no matrix".to_owned());
        };
        let mut columns: HashMap<Labels, Column> = HashMap::new();
        for series in matrix {
            // As a vector of one: what it becomes does not depend on its neighbours.
            let named = self.recorded(rule, vec![(series.labels, 0.0)], moments.first)?;
            let Some((labels, _)) = named.into_iter().next() else {
                continue;
            };
            let values = series.timestamps.into_iter().zip(series.values);
            let column = columns.entry(labels).or_default();
            for (moment, value) in values {
                if column.insert(moment, value).is_some() {
                    let what =
                        "vector contains metrics with the same labelset after applying rule labels";
                    return Err(what.to_owned());
                }
            }
        }
        let limit = usize::try_from(self.spec.limit).unwrap_or(usize::MAX);
        match limit > 0 && columns.len() > limit {
            // Which of them a moment of its own would have had is not known.
            true => Err(format!(
                "exceeded limit of {limit} with {} series",
                columns.len()
            )),
            false => Ok(columns),
        }
    }

    fn recorded_between(
        &self,
        shared: &Shared,
        rule: &RuleSpec,
        moments: Moments,
    ) -> Result<HashMap<Labels, Column>, String> {
        let mut matchers = vec![Matcher::equal(METRIC_NAME, &rule.name)];
        matchers.extend(
            rule.labels
                .iter()
                .map(|(name, value)| Matcher::equal(name, value)),
        );
        let context = Arc::new(ReadContext::new(false, shared.cancel.clone(), None));
        let found = shared.world.source.select(&Select {
            tenant: &self.spec.tenant,
            matchers: &matchers,
            range: TimeRange {
                start: moments.first,
                end: moments.last,
            },
            context: &context,
        });
        let mut all = HashMap::new();
        let mut columns = SampleColumns::default();
        for series in found.map_err(|error| error.to_string())? {
            columns.clear();
            series
                .read(&mut columns)
                .map_err(|error| error.to_string())?;
            let samples = columns
                .timestamps
                .iter()
                .copied()
                .zip(columns.values.iter().copied());
            all.insert(series.labels().clone(), samples.collect());
        }
        Ok(all)
    }

    /// The moments that are due to be made again, if it is time: `first` and `last` are those of the first and the
    /// last evaluation.
    pub(crate) fn correctable(&self, shared: &Shared, first: i64, last: i64) -> Option<Moments> {
        let window = ms(shared.options.correct_window);
        let offset = ms(self.spec.query_offset);
        let step = ms(self.spec.interval);
        (window > 0)
            .then(|| Moments::between(first - offset, last - offset, step, window))
            .flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_lie_between_the_first_and_the_last_but_one_evaluation() {
        let moments = |first, last, window| {
            Moments::between(first, last, 10, window).map(|m| (m.first.0, m.last.0))
        };
        assert_eq!(moments(3, 53, 1000), Some((3, 43)));
        assert_eq!(moments(3, 53, 25), Some((23, 43)));
        assert_eq!(moments(3, 53, 5), Some((43, 43)));
        assert_eq!(moments(3, 13, 1000), Some((3, 3)));
        assert_eq!(moments(3, 3, 1000), None);
    }
}
