//! From a body as it came to sections for the queue: everything about a request that needs neither
//! network, queue nor thread.

use std::sync::Arc;
use std::time::Duration;

use millrace_model::{Labels, Sample, TimestampMs};
use millrace_queue::QueueIdentity;
use millrace_relabel::Rules;
use parking_lot::RwLock;

use crate::decode::computed;
use crate::decode::csv::{self, CsvFormat};
use crate::decode::json::{self, JsonOptions};
use crate::decode::line::{self, LineOptions};
use crate::decode::text::{self, TextOptions};
use crate::decode::{otlp, remote_write, remote_write2, vm_json};
use crate::encoding::Encoding;
use crate::memory::Reservation;
use crate::metadata::{MetadataCache, MetadataFilter, MetadataNews};
use crate::metrics::Metrics;
use crate::options::{TenantLimits, TimeWindow};
use crate::series::{Collected, Collector, Context, Scratch, SeriesCache, Submit};
use crate::tenants::{Gate, Tenant, Tenants};
use crate::{IngestError, IngestOptions, Precision};

/// What all requests share: settings and what is known of series and metadata.
#[derive(Debug)]
pub(crate) struct Core {
    options: IngestOptions,
    queue: QueueIdentity,
    max_section_bytes: usize,
    series: SeriesCache,
    metadata: MetadataCache,
    relabel: RwLock<Arc<PushRules>>,
    tenants: Tenants,
}

/// The rules for pushed series.
#[derive(Debug, Default)]
struct PushRules {
    rules: Rules,
    /// Tells series that were found by these rules from those found by others; empty without rules.
    scope: String,
}

/// What a body's bytes mean.
#[derive(Clone, Debug)]
pub(crate) enum Format {
    Json(JsonOptions),
    Line {
        precision: Precision,
        /// What becomes the database label, if one is configured.
        database: Option<String>,
        /// Whether one bad line refuses all of them.
        all_or_nothing: bool,
        /// Whether refused lines are quoted in the answer.
        quote: bool,
    },
    RemoteWrite,
    RemoteWrite2,
    Otlp {
        /// Otherwise protobuf.
        json: bool,
    },
    Text(TextOptions),
    VmJson,
    Csv(CsvFormat),
    /// Samples that this server has computed; there is no body.
    Computed(Vec<(Labels, Sample)>),
}

/// One request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Input<'a> {
    pub(crate) tenant: &'a Tenant,
    /// The limits that are in force for this request.
    pub(crate) limits: &'a TenantLimits,
    /// Labels that every series gets, whatever its own say.
    pub(crate) forced: &'a [(String, String)],
    /// As many refused items are described.
    pub(crate) details: usize,
    /// Whether samples beyond a limit that may be raised are written apart.
    pub(crate) keep_rejected: bool,
    pub(crate) format: &'a Format,
    pub(crate) encoding: Encoding,
    pub(crate) body: &'a [u8],
    /// The wall clock's time.
    pub(crate) arrival: TimestampMs,
    /// The monotonic clock's.
    pub(crate) monotonic: Duration,
}

/// What it came to.
#[derive(Debug)]
pub(crate) struct Decoded {
    pub(crate) collected: Collected,
    /// To be handed to [`Core::metadata_sent`] once the sections are durable.
    pub(crate) news: MetadataNews,
    /// Length of the body once it was decompressed.
    pub(crate) body_bytes: usize,
}

impl Core {
    pub(crate) fn new(
        options: IngestOptions,
        queue: QueueIdentity,
        max_section_bytes: usize,
        metrics: &Metrics,
    ) -> Self {
        Self {
            series: SeriesCache::new(
                options.series_cache_bytes,
                metrics.cache_bytes.clone(),
                metrics.cache_series.clone(),
            ),
            metadata: MetadataCache::default(),
            relabel: RwLock::default(),
            tenants: Tenants::new(options.limits.clone(), options.tracked_series),
            options,
            queue,
            max_section_bytes,
        }
    }

    pub(crate) fn options(&self) -> &IngestOptions {
        &self.options
    }

    pub(crate) fn queue(&self) -> &QueueIdentity {
        &self.queue
    }

    pub(crate) fn max_section_bytes(&self) -> usize {
        self.max_section_bytes
    }

    /// What is known of series.
    pub(crate) fn series(&self) -> &SeriesCache {
        &self.series
    }

    /// What is known of metadata.
    pub(crate) fn metadata(&self) -> &MetadataCache {
        &self.metadata
    }

    /// Who pushes.
    pub(crate) fn tenants(&self) -> &Tenants {
        &self.tenants
    }

    /// Notes metadata that have become durable.
    pub(crate) fn metadata_sent(&self, news: &MetadataNews) {
        self.metadata.sent(news);
    }

    /// Applies other rules to whatever is pushed from now on.
    pub(crate) fn set_relabel(&self, rules: Rules) {
        let scope = match rules.is_empty() {
            true => String::new(),
            false => format!("relabel {:016x}", rules.fingerprint()),
        };
        *self.relabel.write() = Arc::new(PushRules { rules, scope });
    }

    /// Decompresses and decodes a request, and hands what is good of it to `submit`.
    ///
    /// # Errors
    ///
    /// If it is refused as a whole.
    pub(crate) fn decode(
        &self,
        input: &Input<'_>,
        memory: &mut Reservation,
        scratch: &mut Scratch,
        submit: &mut Submit<'_>,
    ) -> Result<Decoded, IngestError> {
        let relabel = match input.format {
            // It is not pushed.
            Format::Computed(_) => Arc::default(),
            _ => Arc::clone(&self.relabel.read()),
        };
        let context = Context {
            tenant: input.tenant.id(),
            queue: &self.queue,
            limits: &input.limits.request,
            window: TimeWindow::at(input.arrival, input.limits),
            arrival: input.arrival,
            cache: &self.series,
            max_section_bytes: self.max_section_bytes,
            forced: input.forced,
            details: input.details,
            relabel: &relabel.rules,
            all_or_nothing: match input.format {
                Format::Line { all_or_nothing, .. } => *all_or_nothing,
                Format::Json(_)
                | Format::RemoteWrite
                | Format::RemoteWrite2
                | Format::Otlp { .. }
                | Format::Text(_)
                | Format::VmJson
                | Format::Csv(_)
                | Format::Computed(_) => false,
            },
            keep_rejected: input.keep_rejected,
        };
        let Scratch {
            decoded,
            collect,
            decode,
            new_series,
            ..
        } = scratch;
        let limit = input.limits.request.decoded_bytes;
        let body = input.encoding.decode(input.body, limit, decoded, memory)?;
        let mut metadata = self
            .metadata
            .filter(&self.series, input.tenant.id(), input.monotonic);
        let gate = Gate::open(
            &self.tenants,
            input.tenant,
            input.limits,
            input.monotonic,
            new_series,
        );
        let mut out = Collector::new(context, gate, collect);
        let bounds = input.limits.request.series_scope();
        // The same bytes mean another series where another protocol, mapping, rule or forced label is,
        // and may be refused under other bounds.
        let hasher = |own: &[&str]| {
            let forced = input
                .forced
                .iter()
                .flat_map(|(n, v)| [n.as_str(), v.as_str()]);
            let own = [bounds.as_str()].into_iter().chain(own.iter().copied());
            let rules = Some(relabel.scope.as_str()).filter(|scope| !scope.is_empty());
            let scope: Vec<&str> = own.chain(rules).chain(forced).collect();
            self.series.hasher(input.tenant.id(), &scope)
        };
        match input.format {
            Format::Json(options) => {
                json::decode(
                    body,
                    options,
                    &hasher(&["json"]),
                    &mut decode.json,
                    &mut out,
                )?;
            }
            Format::Line {
                precision,
                database,
                ..
            } => {
                let label = self.options.influx_database_label.as_deref();
                let database = label.zip(database.as_deref());
                let options = LineOptions {
                    precision: *precision,
                    separator: &self.options.influx_separator,
                    string_fields: self.options.influx_string_fields,
                    database,
                };
                let hasher = hasher(&["line", database.map_or("", |(_, name)| name)]);
                line::decode(body, &options, &hasher, &mut decode.line, &mut out)?;
            }
            Format::RemoteWrite => {
                let hasher = hasher(&["remote_write"]);
                let scratch = &mut decode.remote_write;
                remote_write::decode(body, &hasher, &mut metadata, scratch, &mut out)?;
            }
            Format::RemoteWrite2 => {
                let hasher = hasher(&["remote_write_2"]);
                let scratch = &mut decode.remote_write2;
                remote_write2::decode(body, &hasher, &mut metadata, scratch, &mut out)?;
            }
            Format::Otlp { json } => {
                let hasher = hasher(&["otlp"]);
                let options = &self.options.otlp;
                let scratch = &mut decode.otlp;
                if *json {
                    let body = otlp::from_json(body, memory)?;
                    otlp::decode(&body, options, &hasher, &mut metadata, scratch, &mut out)?;
                } else {
                    otlp::decode(body, options, &hasher, &mut metadata, scratch, &mut out)?;
                }
            }
            Format::Text(options) => {
                let hasher = hasher(&["text"]);
                let scratch = &mut decode.text;
                text::decode(body, options, &hasher, &mut metadata, scratch, &mut out)?;
            }
            Format::VmJson => vm_json::decode(body, &hasher(&["vm_json"]), &mut out)?,
            Format::Csv(format) => {
                csv::decode(body, format, &hasher(&["csv", &format.scope()]), &mut out)?;
            }
            Format::Computed(samples) => {
                computed::decode(samples, &hasher(&["computed"]), &mut out)?;
            }
        }
        let mut collected = out.finish(submit)?;
        if let Format::Line { quote: true, .. } = input.format
            && !collected.report.is_empty()
        {
            collected.report.quote_lines(body);
        }
        Ok(Decoded {
            collected,
            news: MetadataFilter::into_news(metadata),
            body_bytes: body.len(),
        })
    }
}
