//! The bodies that are pushed: a target for each format, and one for each encoding.

use std::cell::RefCell;
use std::collections::HashMap;

use millrace_ingest::IngestOptions;
use millrace_ingest::probe::{Probe, ProbeEncoding, ProbeFormat, ProbeOutcome};
use millrace_model::batch::{Batch, SectionContent, encode_batch};
use millrace_model::{TenantId, TimestampMs};

use crate::targets::Named;

/// When the bodies arrive, in ms: 2026-11-21.
const NOW: TimestampMs = TimestampMs(1_795_219_200_000);

/// Longest body once it is decoded, so that bombs are met soon.
const DECODED_BYTES: usize = 1 << 20;

macro_rules! decoders {
    ($($name:ident, $format:ident, $encoding:ident, $corpus:literal;)+) => {
        /// The targets.
        pub(crate) const DECODERS: &[Named] = &[
            $(Named {
                name: stringify!($name),
                corpus: $corpus,
                target: |body| decoded(ProbeFormat::$format, ProbeEncoding::$encoding, body),
            },)+
            Named {
                name: "canary_decoder",
                corpus: "ingest/tests/corpus/Line",
                target: canary,
            },
        ];
    };
}

decoders! {
    decode_json, Json, Identity, "ingest/tests/corpus/Json";
    decode_json_lines, JsonLines, Identity, "ingest/tests/corpus/JsonLines";
    decode_line, Line, Identity, "ingest/tests/corpus/Line";
    decode_remote_write, RemoteWrite, Identity, "ingest/tests/corpus/RemoteWrite";
    decode_remote_write_2, RemoteWrite2, Identity, "ingest/tests/corpus/RemoteWrite2";
    decode_otlp, Otlp, Identity, "ingest/tests/corpus/Otlp";
    decode_otlp_json, OtlpJson, Identity, "ingest/tests/corpus/OtlpJson";
    decode_text, Text, Identity, "ingest/tests/corpus/Text";
    decode_openmetrics, OpenMetrics, Identity, "ingest/tests/corpus/OpenMetrics";
    decode_vm_json, VmJson, Identity, "ingest/tests/corpus/VmJson";
    decode_csv, Csv, Identity, "ingest/tests/corpus/Csv";
    decode_gzip, Line, Gzip, "fuzz/corpus/gzip";
    decode_deflate, Line, Deflate, "fuzz/corpus/deflate";
    decode_zstd, Line, Zstd, "fuzz/corpus/zstd";
    decode_snappy, Line, Snappy, "fuzz/corpus/snappy";
}

thread_local! {
    /// Decoders that have met many inputs before, as a server's have.
    static USED: RefCell<HashMap<(u8, u8), Probe>> = RefCell::default();
}

fn options() -> IngestOptions {
    let mut options = IngestOptions::default();
    options.limits.request.decoded_bytes = DECODED_BYTES;
    options
}

/// What came of a body, as far as it must not depend on what was decoded before.
#[derive(Debug, PartialEq, Eq)]
enum Came {
    Taken {
        accepted: u64,
        refused: u64,
        reasons: Vec<(&'static str, u64)>,
    },
    Refused(&'static str),
}

/// A body is decoded, or refused by the words of the client's fault; the same again when its series are known;
/// what is accepted is what comes out, and there is a reason for whatever is not.
fn decoded(format: ProbeFormat, encoding: ProbeEncoding, body: &[u8]) {
    let mut fresh = Probe::new(options(), 2);
    let first = came(&mut fresh, format, encoding, body);
    assert_eq!(
        first,
        came(&mut fresh, format, encoding, body),
        "at the second time"
    );
    let third = USED.with_borrow_mut(|used| {
        let used = used.entry((format as u8, encoding as u8));
        came(
            used.or_insert_with(|| Probe::new(options(), 2)),
            format,
            encoding,
            body,
        )
    });
    assert_eq!(first, third, "in a decoder that was used");
}

fn came(probe: &mut Probe, format: ProbeFormat, encoding: ProbeEncoding, body: &[u8]) -> Came {
    match probe.decode(format, encoding, body, NOW) {
        Ok(outcome) => {
            assert!(
                outcome.body_bytes <= DECODED_BYTES,
                "{} bytes",
                outcome.body_bytes
            );
            assert_eq!(outcome.accepted, written(&outcome));
            let reasons: Vec<_> = outcome.report.by_reason().collect();
            let refused = outcome.report.items();
            assert_eq!(
                refused == 0,
                reasons.is_empty(),
                "{refused} for {reasons:?}"
            );
            for rejection in outcome.report.details() {
                assert!(!rejection.message.is_empty(), "{rejection:?}");
            }
            Came::Taken {
                accepted: outcome.accepted,
                refused,
                reasons: reasons
                    .iter()
                    .map(|(reason, n)| (reason.id(), *n))
                    .collect(),
            }
        }
        Err(error) => {
            assert!(
                error.status().is_client_error(),
                "not the client's fault: {error}"
            );
            Came::Refused(error.reason())
        }
    }
}

/// The samples of the sections, each of which has to be readable.
fn written(outcome: &ProbeOutcome) -> u64 {
    let mut count = 0;
    for (_, section) in &outcome.sections {
        let batch = encode_batch(&TenantId::anonymous(), None, [section]);
        let batch = Batch::decode(&batch).expect("a batch of one section");
        for section in batch.sections() {
            let content = section.and_then(|section| section.content());
            let SectionContent::Float(mut series) = content.expect("a section") else {
                continue;
            };
            let mut samples = Vec::new();
            while series
                .next_series(&mut samples)
                .expect("a series")
                .is_some()
            {
                count += samples.len() as u64;
                samples.clear();
            }
        }
    }
    count
}

/// A planted mistake: falls over a line that ends with a sign of equality, as none of the corpus does.
fn canary(body: &[u8]) {
    let found = body.windows(2).any(|pair| pair == b"=\n");
    assert!(!found, "the planted mistake was found");
}
