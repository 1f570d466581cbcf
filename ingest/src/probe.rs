//! Decoding alone, without network, threads and queue: for the benchmark in `examples/`, for
//! property tests and for fuzz targets. Not part of the interface.

use std::time::Duration;

use millrace_model::batch::EncodedSection;
use millrace_model::{PartitionId, QueueId, ShardKey, TenantId, TimestampMs};
use millrace_queue::QueueIdentity;
use prometheus::Registry;

use crate::core::{Core, Format, Input};
use crate::decode::json::JsonOptions;
use crate::encoding::Encoding;
use crate::memory::MemoryBudget;
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
    /// Length of the decompressed body.
    pub body_bytes: usize,
}

/// A decoder with its cache and buffers.
#[derive(Debug)]
pub struct Probe {
    core: Core,
    memory: MemoryBudget,
    scratch: Scratch,
}

impl Probe {
    /// One that spreads series over `partitions`.
    #[must_use]
    pub fn new(options: IngestOptions, partitions: u32) -> Self {
        let metrics = Metrics::new(&Registry::new());
        let memory = MemoryBudget::new(options.decode_memory_bytes, metrics.decode_memory.clone());
        let queue = QueueIdentity {
            id: QueueId(1),
            partitions,
            shard_key: ShardKey::default(),
        };
        Self {
            core: Core::new(options, queue, 8 << 20, &metrics),
            memory,
            scratch: Scratch::default(),
        }
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
        let json = |lines| Format::Json(JsonOptions { precision, lines });
        let format = match format {
            ProbeFormat::Json => json(false),
            ProbeFormat::JsonLines => json(true),
            ProbeFormat::Line => Format::Line {
                precision,
                database: None,
            },
            ProbeFormat::RemoteWrite => Format::RemoteWrite,
        };
        let encoding = match encoding {
            ProbeEncoding::Identity => Encoding::Identity,
            ProbeEncoding::Gzip => Encoding::Gzip,
            ProbeEncoding::Deflate => Encoding::Deflate,
            ProbeEncoding::Zstd => Encoding::Zstd,
            ProbeEncoding::Snappy => Encoding::Snappy,
        };
        let input = Input {
            tenant: &TenantId::anonymous(),
            format: &format,
            encoding,
            body,
            arrival: now,
            monotonic: Duration::ZERO,
        };
        let mut memory = self.memory.reserve_none();
        let decoded = self.core.decode(&input, &mut memory, &mut self.scratch)?;
        Ok(ProbeOutcome {
            sections: decoded.collected.sections,
            accepted: decoded.collected.accepted,
            report: decoded.collected.report,
            body_bytes: decoded.body_bytes,
        })
    }
}
