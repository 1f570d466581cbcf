//! What was refused for a limit, kept for the case that the limit is raised.

use std::fmt;

use bytes::Bytes;
use millrace_model::batch::{EncodedSection, encode_batch};
use millrace_model::{PartitionId, TenantId};

/// Keeps what [`Ingest`](crate::Ingest) refuses for a limit that may be another one tomorrow: series beyond their
/// tenant's limits, and timestamps out of range.
pub trait KeepRejected: Send + Sync + fmt::Debug {
    /// Takes a batch, or drops it if there is no room. Called on a decode thread, so it must not
    /// block. Whether it was taken.
    fn keep(&self, rejected: RejectedBatch) -> bool;
}

/// Refused samples of one request and partition, as they would have gone to the queue.
#[derive(Clone, Debug)]
pub struct RejectedBatch {
    /// Where they belong.
    pub partition: PartitionId,
    /// The batch.
    pub payload: Bytes,
    /// For people: tenant and reasons.
    pub reason: String,
    /// How many samples.
    pub samples: u64,
}

/// Batches of refused sections.
pub(crate) fn batches(
    tenant: &TenantId,
    sections: &[(PartitionId, EncodedSection)],
    reasons: &str,
) -> impl Iterator<Item = RejectedBatch> {
    sections
        .iter()
        .map(move |(partition, section)| RejectedBatch {
            partition: *partition,
            payload: Bytes::from(encode_batch(tenant, None, [section])),
            reason: format!("refused when it was pushed by tenant {tenant}: {reasons}"),
            samples: u64::from(section.samples()),
        })
}

#[cfg(test)]
mod tests {
    use millrace_model::TimestampMs;

    use crate::IngestOptions;
    use crate::probe::{ProbeEncoding, ProbeFormat};
    use crate::report::Reason;
    use crate::testing::{NOW, decode_once, probe, refused, stored};

    /// 40 days before.
    const OLD: i64 = NOW - 40 * 86_400_000;

    /// An item with a good time, and one with several samples whose time is too old, where the format
    /// has items of several samples.
    fn bodies() -> Vec<(ProbeFormat, String, &'static str, usize)> {
        let vm = |at: i64| {
            format!(
                "{{\"metric\":{{\"__name__\":\"m\"}},\"values\":[1,2],\"timestamps\":[{at},{at}]}}\n"
            )
        };
        let json = |at: i64| {
            format!("{{\"device\":\"d\",\"timestamp\":{at},\"fields\":{{\"a\":1,\"b\":2}}}}")
        };
        let point = |at: i64| format!("{{\"timeUnixNano\":\"{at}000000\",\"count\":1,\"sum\":2}}");
        let otlp = format!(
            "{{\"resourceMetrics\":[{{\"resource\":{{\"attributes\":[\
             {{\"key\":\"service.name\",\"value\":{{\"stringValue\":\"s\"}}}},\
             {{\"key\":\"os\",\"value\":{{\"stringValue\":\"o\"}}}}]}},\
             \"scopeMetrics\":[{{\"metrics\":[{{\"name\":\"h\",\"histogram\":\
             {{\"aggregationTemporality\":2,\"dataPoints\":[{},{}]}}}}]}}]}}]}}",
            point(NOW),
            point(OLD)
        );
        vec![
            (
                ProbeFormat::Line,
                format!("m a=1,b=2 {NOW}\nm a=1,b=2 {OLD}\n"),
                "line 2",
                2,
            ),
            (
                ProbeFormat::Json,
                format!("[{},{}]", json(NOW), json(OLD)),
                "index 1",
                2,
            ),
            (
                ProbeFormat::JsonLines,
                format!("{}\n{}\n", json(NOW), json(OLD)),
                "line 2",
                2,
            ),
            (
                ProbeFormat::Text,
                format!("m 1 {NOW}\nm 2 {OLD}\n"),
                "line 2",
                1,
            ),
            (
                ProbeFormat::OpenMetrics,
                format!("m 1 {}\nm 2 {}\n# EOF\n", NOW / 1000, OLD / 1000),
                "line 2",
                1,
            ),
            (
                ProbeFormat::VmJson,
                format!("{}{}", vm(NOW), vm(OLD)),
                "line 2",
                2,
            ),
            (
                ProbeFormat::Csv,
                format!("s,1,2,{NOW}\ns,1,2,{OLD}\n"),
                "line 2",
                2,
            ),
            // `_sum`, `_count` and the bucket of everything.
            (ProbeFormat::OtlpJson, otlp, "data point 1", 3),
        ]
    }

    #[test]
    fn every_decoder_keeps_what_is_refused_for_its_time_and_says_the_same() {
        for (format, body, place, samples) in bodies() {
            let (without, report) = decode_once(format, body.as_bytes());
            let expect = [(place.to_owned(), Reason::TooOld)];
            assert_eq!(refused(&report), expect, "{format:?}");
            let mut keeping = probe(IngestOptions::default());
            keeping.keep_rejected();
            // The second time every series is known.
            for _ in 0..2 {
                let identity = ProbeEncoding::Identity;
                let outcome = keeping.decode(format, identity, body.as_bytes(), TimestampMs(NOW));
                let outcome = outcome.unwrap();
                assert_eq!(refused(&outcome.report), expect, "{format:?}");
                assert_eq!(stored(&outcome.sections).0, without, "{format:?}");
                let (kept, count) = stored(&outcome.kept);
                assert_eq!(count, samples as u64, "{format:?}: {kept:?}");
                let times: Vec<i64> = kept.values().flatten().map(|(ms, _)| *ms).collect();
                assert!(times.iter().all(|ms| ms / 1000 == OLD / 1000), "{times:?}");
            }
        }
    }
}
