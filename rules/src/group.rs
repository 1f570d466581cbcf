//! One group: its rules are evaluated one after the other, each at the group's moment.
//!
//! **Invariants:**
//! - What a rule writes can be read by every rule behind it in the same evaluation.
//! - A series counts as written only once it is durable: until then its marker is written again.
//! - An evaluation that fails changes nothing but its rule's health.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use millrace_model::{
    Labels, LabelsBuilder, METRIC_NAME, Sample, TenantId, TimestampMs, stale_nan,
};
use parking_lot::Mutex;
use xxhash_rust::xxh64::xxh64;

use crate::alert::{ALERT_NAME, Alerts, FoundAlert, Holds};
use crate::config::{AlertSpec, GroupSpec, RuleKind, RuleSpec};
use crate::template::{Environment, Template, Vector, alert_data, url_escape};
use crate::world::Shared;

/// A group that is evaluated.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) spec: GroupSpec,
    /// `file;name`, which tells it from others.
    pub(crate) key: String,
    external_labels: Vec<(String, String)>,
    /// Held while the group is evaluated.
    evaluating: Mutex<Progress>,
    /// What is shown of each rule.
    pub(crate) rules: Vec<Mutex<RuleState>>,
    pub(crate) last: Mutex<LastEvaluation>,
}

/// How the last evaluation went.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LastEvaluation {
    pub(crate) began: Option<TimestampMs>,
    pub(crate) took: Duration,
}

#[derive(Debug, Default)]
struct Progress {
    /// By rule, the series of its last good evaluation.
    written: Vec<BTreeSet<Labels>>,
    /// Series of rules that are no more, whose markers are still to be written.
    orphans: BTreeSet<Labels>,
    evaluations: u64,
    restored: bool,
    ended: bool,
    /// By rule, the series that it has made lately, with the last moment.
    made: Vec<BTreeMap<Labels, i64>>,
    /// The moment of the first evaluation.
    first: Option<TimestampMs>,
    /// When past evaluations were made again last, by the monotonic clock.
    corrected: Option<Duration>,
}

/// What is known of a rule.
#[derive(Clone, Debug, Default)]
pub(crate) struct RuleState {
    /// Whether it could be evaluated; `None` before the first time.
    pub(crate) good: Option<bool>,
    pub(crate) last_error: String,
    pub(crate) took: Duration,
    pub(crate) last: Option<TimestampMs>,
    pub(crate) alerts: Alerts,
}

/// Samples on their way: which rules made them, and what those have written then.
#[derive(Default)]
struct Pending {
    samples: Vec<(Labels, Sample)>,
    rules: Vec<(usize, BTreeSet<Labels>)>,
}

impl Group {
    /// A group that goes on where `before` stood, as far as its rules are the same. Where there was none,
    /// `restored` says that its alerts need not be looked for.
    pub(crate) fn new(
        spec: GroupSpec,
        external_labels: Vec<(String, String)>,
        before: Option<&Self>,
        restored: bool,
    ) -> Self {
        let mut progress = Progress {
            written: vec![BTreeSet::new(); spec.rules.len()],
            made: vec![BTreeMap::new(); spec.rules.len()],
            restored,
            ..Progress::default()
        };
        let mut rules: Vec<RuleState> = vec![RuleState::default(); spec.rules.len()];
        for rule in &mut rules {
            rule.alerts.restored = restored;
        }
        if let Some(before) = before {
            let mut old = before.evaluating.lock();
            // It writes nothing from now on.
            old.ended = true;
            progress.restored = old.restored;
            progress.evaluations = old.evaluations;
            let mut taken = HashSet::new();
            for (rule, index) in spec.rules.iter().zip(0..) {
                let same = |known: &&(usize, &RuleSpec)| {
                    known.1.name == rule.name
                        && known.1.labels == rule.labels
                        && known.1.is_alert() == rule.is_alert()
                        && !taken.contains(&known.0)
                };
                let known: Vec<_> = before.spec.rules.iter().enumerate().collect();
                let Some((at, _)) = known.iter().find(same) else {
                    continue;
                };
                taken.insert(*at);
                progress.written[index] = std::mem::take(&mut old.written[*at]);
                rules[index] = before.rules[*at].lock().clone();
            }
            progress.orphans.extend(old.written.drain(..).flatten());
            progress.orphans.extend(std::mem::take(&mut old.orphans));
        }
        let key = format!("{};{}", spec.file.display(), spec.name);
        Self {
            key,
            external_labels,
            evaluating: Mutex::new(progress),
            rules: rules.into_iter().map(Mutex::new).collect(),
            last: Mutex::default(),
            spec,
        }
    }

    /// Whether it would be the same group made of these.
    pub(crate) fn same(&self, spec: &GroupSpec, external_labels: &[(String, String)]) -> bool {
        self.spec.same(spec) && self.external_labels == external_labels
    }

    /// The last of its moments at or before `now`, in nanoseconds: the same in each process that has the same
    /// file and name, spread over the interval by their hash. As Prometheus places them.
    pub(crate) fn slot(&self, now_ns: i64) -> i64 {
        let interval = interval_ns(self.spec.interval);
        let mut bytes = Vec::new();
        for part in [
            "file",
            &self.spec.file.to_string_lossy(),
            "name",
            &self.spec.name,
        ] {
            bytes.extend_from_slice(part.as_bytes());
            bytes.push(0xff);
        }
        let offset = i64::try_from(xxh64(&bytes, 0) % interval.unsigned_abs()).unwrap_or(0);
        let adjusted = now_ns - offset;
        adjusted - adjusted % interval + offset
    }

    /// Evaluates the rules at `ts`.
    pub(crate) fn evaluate(&self, shared: &Shared, ts: TimestampMs) {
        let mut progress = self.evaluating.lock();
        if progress.ended {
            return;
        }
        let clock = &shared.world.clock;
        let begun = clock.monotonic();
        let at = ts.saturating_sub(self.spec.query_offset);
        let mut pending = Pending::default();
        let mut after = None;
        let mut samples = 0;
        for (rule, index) in self.spec.rules.iter().zip(0..) {
            if shared.cancel.is_cancelled() {
                return;
            }
            if rule.reads_group && !pending.samples.is_empty() {
                let flushed = std::mem::take(&mut pending);
                after = self.flush(shared, &mut progress, flushed).or(after);
            }
            let began = clock.monotonic();
            let result = self.rule(shared, index, rule, (ts, at), after.as_deref());
            shared
                .metrics
                .evaluations
                .with_label_values(&[&self.key])
                .inc();
            let mut state = self.rules[index].lock();
            state.last = Some(ts);
            state.took = clock.monotonic().saturating_sub(began);
            state.good = Some(result.is_ok());
            match result {
                Ok(made) => {
                    state.last_error.clear();
                    drop(state);
                    samples += made.len();
                    if matches!(rule.kind, RuleKind::Recording) {
                        let new = made.iter().map(|(labels, _)| (labels.clone(), at.0));
                        progress.made[index].extend(new);
                    }
                    let series: BTreeSet<Labels> = made.iter().map(|(l, _)| l.clone()).collect();
                    let gone = progress.written[index].difference(&series);
                    let marker = Sample {
                        timestamp: at,
                        value: stale_nan(),
                    };
                    pending.samples.extend(made);
                    pending
                        .samples
                        .extend(gone.map(|labels| (labels.clone(), marker)));
                    pending.rules.push((index, series));
                }
                Err(error) => {
                    tracing::warn!(
                        group = self.key,
                        rule = rule.name,
                        error,
                        "a rule cannot be evaluated"
                    );
                    shared
                        .metrics
                        .failures
                        .with_label_values(&[&self.key])
                        .inc();
                    state.last_error = error;
                }
            }
        }
        self.flush(shared, &mut progress, pending);
        self.end_orphans(shared, &mut progress, at);
        progress.evaluations += 1;
        if !progress.restored && progress.evaluations >= 2 {
            self.restore(shared, clock.now());
            progress.restored = true;
        }
        progress.first.get_or_insert(ts);
        self.correct(shared, &mut progress, ts);
        drop(progress);
        let took = clock.monotonic().saturating_sub(begun);
        *self.last.lock() = LastEvaluation {
            began: Some(ts),
            took,
        };
        let (metrics, of) = (&shared.metrics, &[self.key.as_str()]);
        metrics.duration.observe(took.as_secs_f64());
        metrics
            .last_duration
            .with_label_values(of)
            .set(took.as_secs_f64());
        metrics
            .last_evaluation
            .with_label_values(of)
            .set(ts.0 as f64 / 1000.0);
        metrics
            .last_samples
            .with_label_values(of)
            .set(i64::try_from(samples).unwrap_or(i64::MAX));
    }

    /// Makes past evaluations again, once a tenth of the window has passed.
    fn correct(&self, shared: &Shared, progress: &mut Progress, ts: TimestampMs) {
        let now = shared.world.clock.monotonic();
        let window = shared.options.correct_window;
        let last = *progress.corrected.get_or_insert(now);
        let first = progress.first.unwrap_or(ts);
        if now.saturating_sub(last) < window / 10 {
            return;
        }
        let Some(moments) = self.correctable(shared, first.0, ts.0) else {
            return;
        };
        progress.corrected = Some(now);
        for (rule, index) in self.spec.rules.iter().zip(0..) {
            let made = &mut progress.made[index];
            made.retain(|_, last| *last >= moments.first.0);
            let made: BTreeSet<Labels> = made.keys().cloned().collect();
            let found = self.differences(shared, rule, moments, &made);
            let written = found.and_then(|samples| {
                let count = samples.len() as u64;
                if count == 0 {
                    return Ok(());
                }
                let new = samples
                    .iter()
                    .map(|(labels, sample)| (labels.clone(), sample.timestamp.0));
                progress.made[index].extend(new.collect::<Vec<_>>());
                let appended = shared.world.sink.append(&self.spec.tenant, samples)?;
                shared.metrics.corrected.inc_by(count);
                // The rules behind this one read what it has made.
                match &appended.position {
                    Some(position) => shared.wait(position),
                    None => Ok(()),
                }
            });
            if let Err(error) = written {
                tracing::warn!(
                    group = self.key,
                    rule = rule.name,
                    error,
                    "past evaluations cannot be made again"
                );
            }
        }
    }

    /// Stores what rules have made. The position behind it.
    fn flush(&self, shared: &Shared, progress: &mut Progress, pending: Pending) -> Option<String> {
        if pending.samples.is_empty() {
            for (index, series) in pending.rules {
                progress.written[index] = series;
            }
            return None;
        }
        let failed = |error: &str| {
            for (index, _) in &pending.rules {
                let mut state = self.rules[*index].lock();
                state.good = Some(false);
                error.clone_into(&mut state.last_error);
                shared
                    .metrics
                    .failures
                    .with_label_values(&[&self.key])
                    .inc();
            }
            tracing::warn!(group = self.key, error, "results of rules cannot be stored");
        };
        match shared.world.sink.append(&self.spec.tenant, pending.samples) {
            Ok(appended) => {
                if let Some((count, why)) = &appended.refused {
                    shared.metrics.refused.inc_by(*count);
                    failed(&format!("{count} samples refused: {why}"));
                }
                for (index, series) in pending.rules {
                    progress.written[index] = series;
                }
                appended.position
            }
            Err(error) => {
                failed(&error);
                None
            }
        }
    }

    /// Markers for series of rules that are no more, unless another rule has them by now.
    fn end_orphans(&self, shared: &Shared, progress: &mut Progress, at: TimestampMs) {
        if progress.orphans.is_empty() {
            return;
        }
        let marker = Sample {
            timestamp: at,
            value: stale_nan(),
        };
        let alive = |labels: &&Labels| progress.written.iter().any(|set| set.contains(*labels));
        let gone = progress.orphans.iter().filter(|labels| !alive(labels));
        let samples: Vec<_> = gone.map(|labels| (labels.clone(), marker)).collect();
        if samples.is_empty() || shared.world.sink.append(&self.spec.tenant, samples).is_ok() {
            progress.orphans.clear();
        }
    }

    /// Ends the group: markers for all series of its rules but those in `elsewhere`.
    pub(crate) fn end(&self, shared: &Shared, at: TimestampMs, elsewhere: &HashSet<Labels>) {
        let mut progress = self.evaluating.lock();
        progress.ended = true;
        let all: BTreeSet<Labels> = progress.written.drain(..).flatten().collect();
        progress.orphans.extend(all);
        progress
            .orphans
            .retain(|labels| !elsewhere.contains(labels));
        self.end_orphans(shared, &mut progress, at);
    }

    /// The series that its rules have now.
    pub(crate) fn series(&self) -> Vec<Labels> {
        self.evaluating
            .lock()
            .written
            .iter()
            .flatten()
            .cloned()
            .collect()
    }

    /// The samples of one rule at `ts`, of data at `at`.
    fn rule(
        &self,
        shared: &Shared,
        index: usize,
        rule: &RuleSpec,
        (ts, at): (TimestampMs, TimestampMs),
        after: Option<&str>,
    ) -> Result<Vec<(Labels, Sample)>, String> {
        let vector = shared.query(&self.spec.tenant, &rule.query, at, after)?;
        match &rule.kind {
            RuleKind::Recording => self.recorded(rule, vector, at),
            RuleKind::Alerting(alert) => {
                let found = self.alerts(shared, rule, alert, &vector, ts, after)?;
                let holds = Holds {
                    hold: alert.hold,
                    keep_firing: alert.keep_firing,
                    limit: self.spec.limit,
                };
                let mut state = self.rules[index].lock();
                state.alerts.update(found, ts, holds)?;
                let samples = match state.alerts.restored {
                    true => state.alerts.samples(&rule.name, &rule.labels, at)?,
                    false => Vec::new(),
                };
                let delay = shared.options.resend_delay;
                let send = state.alerts.take_unsent(ts, delay, self.spec.interval);
                drop(state);
                let url = generator_url(&shared.options.external_url, &rule.query);
                shared.notifier.send(&send, &url);
                Ok(samples)
            }
        }
    }

    /// What a recording rule makes of an answer.
    pub(crate) fn recorded(
        &self,
        rule: &RuleSpec,
        vector: Vector,
        at: TimestampMs,
    ) -> Result<Vec<(Labels, Sample)>, String> {
        let mut seen = HashSet::with_capacity(vector.len());
        let mut samples = Vec::with_capacity(vector.len());
        for (labels, value) in vector {
            let mut builder = LabelsBuilder::from_labels(&labels);
            builder.set(METRIC_NAME, &rule.name);
            for (name, value) in &rule.labels {
                builder.set(name, value);
            }
            let labels = builder.build().map_err(|error| error.to_string())?;
            if !seen.insert(labels.clone()) {
                let what =
                    "vector contains metrics with the same labelset after applying rule labels";
                return Err(what.to_owned());
            }
            let timestamp = at;
            samples.push((labels, Sample { timestamp, value }));
        }
        let (limit, count) = (self.spec.limit, samples.len() as u64);
        if limit > 0 && count > limit {
            return Err(format!("exceeded limit of {limit} with {count} series"));
        }
        Ok(samples)
    }

    fn alerts(
        &self,
        shared: &Shared,
        rule: &RuleSpec,
        alert: &AlertSpec,
        vector: &Vector,
        ts: TimestampMs,
        after: Option<&str>,
    ) -> Result<Vec<FoundAlert>, String> {
        let environment = Surroundings {
            shared,
            tenant: &self.spec.tenant,
            ts,
            after,
        };
        let mut seen = HashSet::with_capacity(vector.len());
        let mut found = Vec::with_capacity(vector.len());
        for (labels, value) in vector {
            let data = alert_data(
                labels,
                &self.external_labels,
                &shared.options.external_url,
                *value,
            );
            let expand = |template: &Template| {
                template
                    .expand(data.clone(), &environment)
                    .unwrap_or_else(|error| {
                        tracing::warn!(
                            group = self.key,
                            alert = rule.name,
                            error,
                            "a template cannot be expanded"
                        );
                        format!("<error expanding template: {error}>")
                    })
            };
            let mut builder = LabelsBuilder::from_labels(labels);
            builder.remove(METRIC_NAME);
            for (name, template) in &alert.label_templates {
                builder.set(name, &expand(template));
            }
            builder.set(ALERT_NAME, &rule.name);
            let labels = builder.build().map_err(|error| error.to_string())?;
            if !seen.insert(labels.clone()) {
                let what =
                    "vector contains metrics with the same labelset after applying alert labels";
                return Err(what.to_owned());
            }
            let annotations = alert.annotation_templates.iter();
            found.push(FoundAlert {
                labels,
                annotations: annotations
                    .map(|(name, template)| (name.clone(), expand(template)))
                    .filter(|(_, text)| !text.is_empty())
                    .collect(),
                value: *value,
            });
        }
        Ok(found)
    }

    /// Looks since when alerts are active that were so before a restart.
    fn restore(&self, shared: &Shared, now: TimestampMs) {
        for (rule, state) in self.spec.rules.iter().zip(&self.rules) {
            let RuleKind::Alerting(alert) = &rule.kind else {
                continue;
            };
            let grace = shared.options.for_grace_period;
            // What waits less than the grace anyway may wait again.
            if alert.hold >= grace {
                match shared.for_states(&self.spec.tenant, &rule.name, now) {
                    Ok(series) => {
                        let known: BTreeMap<_, _> = series.into_iter().collect();
                        state.lock().alerts.restore(now, alert.hold, grace, &known);
                    }
                    Err(error) => {
                        tracing::error!(
                            group = self.key,
                            alert = rule.name,
                            error,
                            "the state of alerts cannot be restored: they wait again"
                        );
                    }
                }
            }
            state.lock().alerts.restored = true;
        }
    }
}

/// Nanoseconds between two evaluations, at least a millisecond.
pub(crate) fn interval_ns(interval: Duration) -> i64 {
    i64::try_from(interval.as_nanos())
        .unwrap_or(i64::MAX)
        .max(1_000_000)
}

/// Where people look at the expression of an alert.
fn generator_url(external_url: &str, query: &str) -> String {
    format!(
        "{external_url}/graph?g0.expr={}&g0.tab=1",
        url_escape(query)
    )
}

/// What templates see.
struct Surroundings<'a> {
    shared: &'a Shared,
    tenant: &'a TenantId,
    ts: TimestampMs,
    after: Option<&'a str>,
}

impl Environment for Surroundings<'_> {
    fn query(&self, text: &str) -> Result<Vector, String> {
        self.shared.query(self.tenant, text, self.ts, self.after)
    }

    fn external_url(&self) -> String {
        self.shared.options.external_url.clone()
    }

    fn now_ms(&self) -> i64 {
        self.ts.0
    }
}

pub(crate) type Groups = BTreeMap<String, Arc<Group>>;

#[cfg(test)]
mod tests;
