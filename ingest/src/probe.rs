//! Decoding alone, without network, threads and queue: for the benchmark in `examples/`, for
//! property tests and for fuzz targets. Not part of the interface.

use std::sync::Arc;
use std::time::Duration;

use millrace_model::batch::EncodedSection;
use millrace_model::{PartitionId, QueueId, ShardKey, TenantId, TimestampMs};
use millrace_queue::QueueIdentity;
use prometheus::Registry;

use crate::core::{Core, Format, Input};
use crate::decode::csv::CsvFormat;
use crate::decode::json::JsonOptions;
use crate::decode::text::{Dialect, TextOptions};
use crate::encoding::Encoding;
use crate::memory::{DECODING, MemoryBudget};
use crate::metrics::Metrics;
use crate::report::Report;
use crate::series::Scratch;
use crate::{IngestError, IngestOptions, Precision};

/// What a body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeFormat {
    /// A JSON document.
    Json,
    /// NDJSON.
    JsonLines,
    /// Line protocol.
    Line,
    /// Remote write 1.0.
    RemoteWrite,
    /// Remote write 2.0.
    RemoteWrite2,
    /// OTLP metrics in protobuf.
    Otlp,
    /// OTLP metrics in JSON.
    OtlpJson,
    /// Text exposition format 0.0.4.
    Text,
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// VictoriaMetrics' JSON lines.
    VmJson,
    /// CSV: `1:label:site,2:metric:wind,3:metric:rain,4:time:unix_ms`.
    Csv,
}

impl ProbeFormat {
    /// Every format.
    pub const ALL: [Self; 11] = [
        Self::Json,
        Self::JsonLines,
        Self::Line,
        Self::RemoteWrite,
        Self::RemoteWrite2,
        Self::Otlp,
        Self::OtlpJson,
        Self::Text,
        Self::OpenMetrics,
        Self::VmJson,
        Self::Csv,
    ];
}

/// How it is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum ProbeEncoding {
    Identity,
    Gzip,
    Deflate,
    Zstd,
    Snappy,
}

/// What came out.
#[derive(Debug)]
pub struct ProbeOutcome {
    /// The sections, by partition.
    pub sections: Vec<(PartitionId, EncodedSection)>,
    /// Samples in them.
    pub accepted: u64,
    /// What was refused.
    pub report: Report,
    /// What was refused and is kept, if that is wanted.
    pub kept: Vec<(PartitionId, EncodedSection)>,
    /// Length of the decompressed body.
    pub body_bytes: usize,
}

/// A decoder with its cache and buffers.
#[derive(Debug)]
pub struct Probe {
    core: Core,
    memory: MemoryBudget,
    scratch: Scratch,
    keep_rejected: bool,
}

impl Probe {
    /// One that spreads series over `partitions`.
    #[must_use]
    pub fn new(options: IngestOptions, partitions: u32) -> Self {
        let metrics = Metrics::new(&Registry::new());
        let bytes = options.decode_memory_bytes;
        let memory = MemoryBudget::new(bytes, Arc::default(), DECODING, None);
        let queue = QueueIdentity {
            id: QueueId(1),
            partitions,
            shard_key: ShardKey::default(),
        };
        Self {
            core: Core::new(options, queue, 8 << 20, &metrics),
            memory,
            scratch: Scratch::default(),
            keep_rejected: false,
        }
    }

    /// Keeps what is refused for a limit that may be another one tomorrow.
    pub fn keep_rejected(&mut self) {
        self.keep_rejected = true;
    }

    /// Decodes one body as if it arrived at `now`. Timestamps are in milliseconds.
    ///
    /// # Errors
    ///
    /// If the whole body is refused.
    pub fn decode(
        &mut self,
        format: ProbeFormat,
        encoding: ProbeEncoding,
        body: &[u8],
        now: TimestampMs,
    ) -> Result<ProbeOutcome, IngestError> {
        let precision = Precision::Millis;
        let text = |dialect| {
            Format::Text(TextOptions {
                dialect,
                timestamp: None,
            })
        };
        let json = |lines| Format::Json(JsonOptions { precision, lines });
        let format = match format {
            ProbeFormat::Json => json(false),
            ProbeFormat::JsonLines => json(true),
            ProbeFormat::Line => Format::Line {
                precision,
                database: None,
                all_or_nothing: false,
                quote: true,
            },
            ProbeFormat::RemoteWrite => Format::RemoteWrite,
            ProbeFormat::RemoteWrite2 => Format::RemoteWrite2,
            ProbeFormat::Otlp => Format::Otlp { json: false },
            ProbeFormat::OtlpJson => Format::Otlp { json: true },
            ProbeFormat::Text => text(Dialect::Prometheus),
            ProbeFormat::OpenMetrics => text(Dialect::OpenMetrics),
            ProbeFormat::VmJson => Format::VmJson,
            ProbeFormat::Csv => Format::Csv(CsvFormat::parse(
                "1:label:site,2:metric:wind,3:metric:rain,4:time:unix_ms",
            )?),
        };
        let encoding = match encoding {
            ProbeEncoding::Identity => Encoding::Identity,
            ProbeEncoding::Gzip => Encoding::Gzip,
            ProbeEncoding::Deflate => Encoding::Deflate,
            ProbeEncoding::Zstd => Encoding::Zstd,
            ProbeEncoding::Snappy => Encoding::Snappy,
        };
        let tenants = self.core.tenants();
        let tenant = tenants.get(&TenantId::anonymous(), Duration::ZERO)?;
        let limits = tenant.limits();
        let input = Input {
            tenant: &tenant,
            limits: &limits,
            forced: &[],
            details: usize::MAX,
            keep_rejected: self.keep_rejected,
            format: &format,
            encoding,
            body,
            arrival: now,
            monotonic: Duration::ZERO,
        };
        let mut memory = self.memory.reserve_none(&tenant.decoding);
        let mut sections = Vec::new();
        let mut take = |taken, _| {
            sections = taken;
            true
        };
        let decoded = self
            .core
            .decode(&input, &mut memory, &mut self.scratch, &mut take)?;
        // As if the sections had become durable.
        self.core.metadata_sent(&decoded.news);
        Ok(ProbeOutcome {
            sections,
            accepted: decoded.collected.accepted,
            report: decoded.collected.report,
            kept: decoded.collected.rejected,
            body_bytes: decoded.body_bytes,
        })
    }
}
