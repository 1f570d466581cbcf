//! From a body to samples.

use millrace_model::{Clock, METRIC_NAME, MetricMetadata, MetricType, Sample, TimestampMs};
use millrace_relabel::LabelSet;

use super::bounds;
use super::state::{Known, Meaning, TargetSeries, Written};
use super::writer::ScrapeWriter;
use super::{Scrape, ScrapeBody, ScrapeFormat};
use crate::IngestError;
use crate::core::Core;
use crate::decode::family::{self, Family};
use crate::decode::text::{Dialect, Event, Parser, TextSample, help_text, series_labels};
use crate::memory::Reservation;
use crate::metadata::MetadataFilter;
use crate::options::{Limits, TimeWindow};
use crate::report::{Place, Reason, Rejection, Report, excerpt};
use crate::series::{BadSeries, Key, KeyHasher, Scratch, SeriesBuilder, metadata_sections};
use crate::tenants::Gate;

/// Why a target counts as down.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScrapeFailure {
    /// It could not be asked, or did not answer as it should.
    #[error("{0}")]
    Fetch(String),
    /// Its body is over the limit.
    #[error("body size limit exceeded")]
    BodySize,
    /// Its body cannot be decompressed.
    #[error("{0}")]
    Encoding(String),
    /// Its body is not in the format that it claims.
    #[error("{0}")]
    Malformed(String),
    /// It has more samples than its job allows.
    #[error("sample limit exceeded")]
    SampleLimit,
    /// A series has more, or longer, labels than its job allows.
    #[error("{0}")]
    LabelLimit(String),
    /// Its tenant is over its rate of samples.
    #[error("{0}")]
    Rate(String),
}

impl ScrapeFailure {
    /// The limit that the scrape is over, by its name in the configuration of jobs or tenants.
    #[must_use]
    pub fn limit(&self) -> Option<&'static str> {
        match self {
            Self::Fetch(_) | Self::Encoding(_) | Self::Malformed(_) => None,
            Self::BodySize => Some("body_size_limit"),
            Self::SampleLimit => Some("sample_limit"),
            Self::LabelLimit(_) => Some("label_limits"),
            Self::Rate(_) => Some("samples_per_second"),
        }
    }
}

/// What goes on beside the samples.
struct Run<'a> {
    written: Written,
    metadata: Vec<MetricMetadata>,
    filter: MetadataFilter<'a>,
    time: TimestampMs,
    window: TimeWindow,
    hasher: KeyHasher,
    over_limit: bool,
    /// As the last line says that says one.
    kind: MetricType,
    /// The tenant's bounds of series, and its count of them.
    bounds: &'a Limits,
    gate: Gate<'a>,
    mark: u16,
}

/// Some exporters have thousands of metrics; none has more than this unless something is wrong.
const MAX_METADATA: usize = 20_000;

impl TargetSeries {
    /// Takes a scrape: samples, markers for what has gone, and the report series.
    ///
    /// # Errors
    ///
    /// If there is no memory to decompress it. Nothing has changed then.
    pub(super) fn scrape(
        &mut self,
        core: &Core,
        clock: &dyn Clock,
        scrape: Scrape,
        scratch: &mut Scratch,
    ) -> Result<Written, IngestError> {
        let Scratch {
            decoded,
            scraped,
            new_series,
            ..
        } = scratch;
        let now = clock.monotonic();
        let tenants = core.tenants();
        let pusher = tenants.get(&self.options.tenant, now)?;
        let limits = pusher.limits();
        self.bound_by(&limits.request);
        let mut wire_bytes = 0;
        // Holds the decompressed bytes to the end.
        let mut memory = None;
        let text = match &scrape.body {
            Ok(body) => {
                wire_bytes = body.len() as u64;
                let memory = memory.insert(body.memory.share());
                decompress(body, self.options.limits.body_size, core, decoded, memory)?
            }
            Err(failure) => Err(failure.clone()),
        };
        self.begin(core, scraped);
        let tenant = self.options.tenant.clone();
        let gate = Gate::open(tenants, &pusher, &limits, now, new_series);
        let mut run = Run {
            written: Written {
                number: self.number,
                wire_bytes,
                decoded_bytes: text.as_ref().map_or(0, |text| text.len() as u64),
                rejected: Report::keeping(1),
                ..Written::default()
            },
            metadata: Vec::new(),
            filter: core
                .metadata()
                .filter(core.series(), &tenant, clock.monotonic()),
            time: scrape.time,
            window: TimeWindow::at(clock.now(), &limits),
            hasher: core.series().hasher(&tenant, &["scrape"]),
            over_limit: false,
            kind: MetricType::Unknown,
            bounds: &limits.request,
            mark: gate.mark(),
            gate,
        };
        let too_large = matches!(text, Err(ScrapeFailure::BodySize));
        let format = scrape
            .body
            .as_ref()
            .map_or(ScrapeFormat::Text, |body| body.format);
        let mut taken = text.and_then(|text| self.take(core, text, format, &mut run, scraped));
        if taken.is_ok() && scraped.count() > 0 {
            let asked = pusher.take_samples(&limits, scraped.count(), now);
            taken = asked.map_err(|over| ScrapeFailure::Rate(over.to_string()));
        }
        let Run {
            mut written,
            metadata,
            filter,
            gate,
            mark,
            ..
        } = run;
        match &taken {
            Ok(()) => gate.commit(),
            Err(_) => {
                // A scrape is stored whole or not at all.
                scraped.begin(core.queue().partitions, core.max_section_bytes());
                drop(gate);
                self.untell(mark);
            }
        }
        written.outcome.markers = self.mark_stale(taken.is_ok(), scrape.time, scraped);
        written.outcome.refused = written.rejected.samples();
        let first = written.rejected.details().first();
        written.outcome.refusal = first.map(ToString::to_string);
        let failure = taken.err();
        written.outcome.exceeded = failure.as_ref().and_then(ScrapeFailure::limit);
        written.outcome.error = failure.map(|failure| failure.to_string());
        written.outcome.duration = clock.monotonic().saturating_sub(scrape.began);
        let body_bytes = match too_large {
            true => -1.0,
            false => written.decoded_bytes as f64,
        };
        self.write_report(&written.outcome, body_bytes, scrape.time, scraped);
        written.outcome.stored = scraped.count();
        written.sections = scraped.finish();
        if written.outcome.error.is_none() {
            let sections = metadata_sections(&tenant, core.queue(), metadata);
            written.sections.extend(sections);
            written.news = filter.into_news();
        }
        for rejection in written.rejected.details() {
            tracing::debug!(%rejection, target_labels = ?self.options.labels, "a scraped sample is not stored");
        }
        Ok(written)
    }

    fn take(
        &mut self,
        core: &Core,
        text: &[u8],
        format: ScrapeFormat,
        run: &mut Run<'_>,
        writer: &mut ScrapeWriter,
    ) -> Result<(), ScrapeFailure> {
        let dialect = match format {
            ScrapeFormat::Text => Dialect::Prometheus,
            ScrapeFormat::OpenMetrics => Dialect::OpenMetrics,
        };
        let mut parser = Parser::new(text, dialect);
        let mut family: Option<Family<'_>> = None;
        let mut ended = false;
        while let Some(event) = parser.next() {
            if ended {
                return Err(not_whole("lines behind # EOF"));
            }
            let line = parser.line();
            match event {
                Ok(Event::Sample(sample)) => self.sample(core, &sample, line, run, writer)?,
                Ok(Event::Type(metric, kind)) => {
                    run.kind = kind;
                    self.family(metric, &mut family, run).metric_type = kind;
                }
                Ok(Event::Help(metric, help)) => {
                    self.family(metric, &mut family, run).help = help;
                }
                Ok(Event::Unit(metric, unit)) => {
                    self.family(metric, &mut family, run).unit = unit;
                }
                Ok(Event::Eof) => ended = dialect == Dialect::OpenMetrics,
                Err(error) => {
                    let at = error.at + 1;
                    return Err(ScrapeFailure::Malformed(format!(
                        "line {line}, byte {at}: {}: {:?}",
                        error.what,
                        excerpt(error.line)
                    )));
                }
            }
        }
        if dialect == Dialect::OpenMetrics && !ended {
            return Err(not_whole("data does not end with # EOF"));
        }
        self.flush(family.take(), run);
        match run.over_limit {
            true => Err(ScrapeFailure::SampleLimit),
            false => Ok(()),
        }
    }

    #[inline]
    fn sample(
        &mut self,
        core: &Core,
        sample: &TextSample<'_>,
        line: u64,
        run: &mut Run<'_>,
        writer: &mut ScrapeWriter,
    ) -> Result<(), ScrapeFailure> {
        let number = self.number;
        let outcome = &mut run.written.outcome;
        outcome.samples += 1;
        run.written.ignored_exemplars += u64::from(sample.exemplar);
        let key = run.hasher.hash(sample.series);
        let (meaning, new) = match self.keys.get_mut(&key) {
            Some(known) => {
                self.keys_seen += usize::from(known.seen != number);
                known.seen = number;
                run.written.hits += 1;
                (known.meaning, false)
            }
            None => {
                let meaning = self.meaning(core, sample.series, run.kind, key, line, run.bounds)?;
                (meaning, true)
            }
        };
        let index = match meaning {
            Meaning::Series(index) => index,
            Meaning::Dropped => return Ok(()),
            Meaning::Refused(reason) => {
                reject(run, line, reason, sample.series);
                return Ok(());
            }
        };
        outcome.samples_kept += 1;
        let limit = self.options.limits.samples;
        run.over_limit |= limit > 0 && outcome.samples_kept > limit;
        let own_time = sample.timestamp.filter(|_| self.options.honor_timestamps);
        let track = own_time.is_none() || self.options.track_timestamps_staleness;
        let slot = self.slot(index);
        if slot.told != run.mark {
            if let Err(full) = run.gate.ask(slot.id, slot.labels.canonical()) {
                // It stays known, so that it is asked for again.
                slot.seen = number;
                let bad = run.gate.refusal(full).clone();
                refuse(run, line, bad, sample.series);
                return Ok(());
            }
            slot.told = run.mark;
        }
        let again = slot.seen == number && own_time.is_none();
        let outside = own_time.is_some_and(|time| !run.window.contains(time));
        slot.seen = number;
        if track {
            slot.tracked = number;
        }
        if again {
            outcome.duplicates += 1;
        } else if outside {
            let old = own_time.is_some_and(|time| time.0 < run.window.oldest);
            let reason = if old {
                Reason::TooOld
            } else {
                Reason::TooFarAhead
            };
            reject(run, line, reason, sample.series);
        } else if !run.over_limit {
            outcome.series_new += u64::from(new);
            let stored = Sample {
                timestamp: own_time.unwrap_or(run.time),
                value: sample.value,
            };
            writer.push(slot.id, slot.partition, slot.labels.canonical(), stored);
        }
        Ok(())
    }

    /// What a series that was not seen before is to become.
    #[cold]
    fn meaning(
        &mut self,
        core: &Core,
        raw: &[u8],
        kind: MetricType,
        key: Key,
        line: u64,
        bounds: &Limits,
    ) -> Result<Meaning, ScrapeFailure> {
        let at_line = |what: &str| ScrapeFailure::Malformed(format!("line {line}: {what}"));
        let mut labels = exposed(raw, kind).map_err(|bad| at_line(&bad.message))?;
        self.add_target_labels(&mut labels);
        let Exposed { mut labels, .. } = labels;
        let kept = self.options.metric_relabel.apply(&mut labels);
        let meaning = if !kept || labels.is_empty() {
            Meaning::Dropped
        } else if labels.get(METRIC_NAME).is_empty() {
            return Err(at_line("missing metric name (__name__ label)"));
        } else {
            self.check_limits(&labels)?;
            let mut builder = SeriesBuilder::new(&mut self.builder, bounds, &[]);
            let pairs = labels.iter().try_for_each(|(n, v)| builder.label(n, v));
            match pairs.and_then(|()| builder.finish()) {
                Ok(labels) => Meaning::Series(self.slot_of(labels, core.queue())),
                Err(bad) => Meaning::Refused(bad.reason),
            }
        };
        let seen = self.number;
        self.keys_seen += 1;
        self.keys.insert(key, Known { seen, meaning });
        Ok(meaning)
    }

    fn add_target_labels(&self, exposed: &mut Exposed) {
        let Exposed { labels, empty } = exposed;
        let mut conflicts = Vec::new();
        for (name, value) in &self.options.labels {
            let own = labels.get(name);
            if self.options.honor_labels {
                // An empty label in the exposition says that the target has none.
                if own.is_empty() && !empty.contains(name) {
                    labels.set(name, value);
                }
                continue;
            }
            if !own.is_empty() {
                conflicts.push((name.clone(), own.to_owned()));
            }
            labels.set(name, value);
        }
        // Shorter names first, as Prometheus has it: `exported_a` may be in conflict itself.
        conflicts.sort_by_key(|(name, _)| name.len());
        for (mut name, value) in conflicts {
            loop {
                name.insert_str(0, "exported_");
                if !labels.has(&name) {
                    break;
                }
            }
            labels.set(&name, &value);
        }
    }

    fn check_limits(&self, labels: &LabelSet) -> Result<(), ScrapeFailure> {
        let limits = &self.options.limits;
        let metric = excerpt(labels.get(METRIC_NAME).as_bytes());
        let over = |limit: usize, length: usize| limit > 0 && length > limit;
        let broken = |text: String| Err(ScrapeFailure::LabelLimit(text));
        if over(limits.labels, labels.len()) {
            let (count, limit) = (labels.len(), limits.labels);
            return broken(format!(
                "label_limit exceeded (metric: {metric}, number of labels: {count}, limit: {limit})"
            ));
        }
        for (name, value) in labels.iter() {
            let (length, limit) = (name.len(), limits.label_name_length);
            let name = excerpt(name.as_bytes());
            if over(limit, length) {
                return broken(format!(
                    "label_name_length_limit exceeded (metric: {metric}, label name: {name}, \
                     length: {length}, limit: {limit})"
                ));
            }
            let (length, limit) = (value.len(), limits.label_value_length);
            if over(limit, length) {
                let value = excerpt(value.as_bytes());
                return broken(format!(
                    "label_value_length_limit exceeded (metric: {metric}, label name: {name}, \
                     value: {value:?}, length: {length}, limit: {limit})"
                ));
            }
        }
        Ok(())
    }

    /// The family of that name, begun if it is not the one in hand.
    fn family<'t, 'f>(
        &mut self,
        metric: &'t [u8],
        current: &'f mut Option<Family<'t>>,
        run: &mut Run<'_>,
    ) -> &'f mut Family<'t> {
        if current.is_none_or(|family| family.metric != metric) {
            self.flush(current.take(), run);
        }
        current.get_or_insert(Family {
            metric,
            metric_type: MetricType::Unknown,
            help: b"",
            unit: b"",
        })
    }

    fn flush(&mut self, family: Option<Family<'_>>, run: &mut Run<'_>) {
        let Some(family) = family else {
            return;
        };
        let help = help_text(family.help);
        let family = Family {
            help: &help,
            ..family
        };
        let Ok([metric, help, unit]) = family::check(&family, run.bounds) else {
            let place = Place::Line(0);
            let bad = BadSeries::new(Reason::BadMetadata, "metadata over a limit");
            let rejected = &mut run.written.rejected;
            return rejected.reject(Reason::BadMetadata, 0, || Rejection::new(place, bad));
        };
        let news = run.filter.is_news(metric.as_bytes(), &family.message());
        let known = self.metadata.get(metric);
        let same = known.is_some_and(|known| {
            known.metric_type == family.metric_type && known.help == help && known.unit == unit
        });
        if !news && same {
            return;
        }
        let entry = MetricMetadata {
            metric: metric.to_owned(),
            metric_type: family.metric_type,
            help: help.to_owned(),
            unit: unit.to_owned(),
        };
        if !same {
            if self.metadata.len() >= MAX_METADATA {
                self.metadata.clear();
            }
            self.metadata.insert(metric.to_owned(), entry.clone());
        }
        if news {
            run.metadata.push(entry);
        }
    }
}

/// Labels as they stand in the exposition.
struct Exposed {
    labels: LabelSet,
    /// Names that stand there with an empty value.
    empty: Vec<String>,
}

fn exposed(raw: &[u8], kind: MetricType) -> Result<Exposed, BadSeries> {
    let (mut labels, mut empty) = (LabelSet::new(), Vec::new());
    series_labels(raw, |name, value| {
        if labels.has(name) || empty.iter().any(|other| other == name) {
            return Err(BadSeries::new(
                Reason::DuplicateLabel,
                format!("label name {:?} is not unique", excerpt(name.as_bytes())),
            ));
        }
        if value.is_empty() {
            empty.push(name.to_owned());
        }
        match bounds::canonical(kind, name, value) {
            Some(value) => labels.set(name, &value),
            None => labels.set(name, value),
        }
        Ok(())
    })?;
    Ok(Exposed { labels, empty })
}

/// The body's text, or that it has none.
fn decompress<'a>(
    body: &'a ScrapeBody,
    limit: usize,
    core: &Core,
    buffer: &'a mut Vec<u8>,
    memory: &mut Reservation,
) -> Result<Result<&'a [u8], ScrapeFailure>, IngestError> {
    let most = core.options().decode_memory_bytes;
    let limit = match limit {
        0 => most,
        limit => limit.min(most),
    };
    match body.encoding.decode(&body.bytes, limit, buffer, memory) {
        Ok(text) => Ok(Ok(text)),
        Err(IngestError::TooLarge { .. }) => Ok(Err(ScrapeFailure::BodySize)),
        Err(error) if error.is_retryable() => Err(error),
        Err(error) => Ok(Err(ScrapeFailure::Encoding(error.to_string()))),
    }
}

#[cold]
fn not_whole(what: &str) -> ScrapeFailure {
    ScrapeFailure::Malformed(what.to_owned())
}

#[cold]
fn reject(run: &mut Run<'_>, line: u64, reason: Reason, series: &[u8]) {
    refuse(run, line, BadSeries::new(reason, "not stored"), series);
}

#[cold]
fn refuse(run: &mut Run<'_>, line: u64, bad: BadSeries, series: &[u8]) {
    run.written.rejected.reject(bad.reason, 1, || {
        Rejection::new(Place::Line(line), bad).of_series(Some(excerpt(series)))
    });
}
