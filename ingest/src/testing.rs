//! Decoding in tests: bodies in, series by name out.

use std::collections::BTreeMap;

use millrace_model::batch::{Batch, EncodedSection, SectionContent, encode_batch};
use millrace_model::{PartitionId, TenantId, TimestampMs};

use crate::probe::{Probe, ProbeEncoding, ProbeFormat};
use crate::report::{Reason, Report};
use crate::{IngestError, IngestOptions, Limits, TenantLimits};

/// What the clock shows in tests.
pub(crate) const NOW: i64 = 1_795_219_200_000;

/// (ms, bits) of each series, in order.
pub(crate) type Stored = BTreeMap<String, Vec<(i64, u64)>>;

/// A decoder with the given options, fresh of series.
pub(crate) fn probe(options: IngestOptions) -> Probe {
    Probe::new(options, 4)
}

/// Options with other limits.
pub(crate) fn limited(limits: Limits) -> IngestOptions {
    IngestOptions {
        limits: TenantLimits {
            request: limits,
            ..TenantLimits::default()
        },
        ..IngestOptions::default()
    }
}

/// Decodes one body. What was accepted is what the sections hold.
pub(crate) fn decode(
    probe: &mut Probe,
    format: ProbeFormat,
    body: &[u8],
) -> Result<(Stored, Report), IngestError> {
    let outcome = probe.decode(format, ProbeEncoding::Identity, body, TimestampMs(NOW))?;
    let (stored, count) = stored(&outcome.sections);
    assert_eq!(count, outcome.accepted);
    Ok((stored, outcome.report))
}

/// What sections hold, and how many samples that are.
pub(crate) fn stored(sections: &[(PartitionId, EncodedSection)]) -> (Stored, u64) {
    let mut stored = Stored::new();
    let mut count = 0;
    for (_, section) in sections {
        let batch = encode_batch(&TenantId::anonymous(), None, [section]);
        let batch = Batch::decode(&batch).unwrap();
        for section in batch.sections() {
            let SectionContent::Float(mut series) = section.unwrap().content().unwrap() else {
                continue;
            };
            let mut samples = Vec::new();
            while series.next_series(&mut samples).unwrap().is_some() {
                count += samples.len() as u64;
                let entry = stored.entry(series.labels().unwrap().to_string());
                let pairs = samples
                    .drain(..)
                    .map(|s| (s.timestamp.0, s.value.to_bits()));
                entry.or_default().extend(pairs);
            }
        }
    }
    (stored, count)
}

/// Decodes one body with everything at its default.
pub(crate) fn decode_once(format: ProbeFormat, body: &[u8]) -> (Stored, Report) {
    decode(&mut probe(IngestOptions::default()), format, body).unwrap()
}

/// One line per series: its name and its samples as `ms=value`.
pub(crate) fn shown(stored: &Stored) -> Vec<String> {
    let number = |(ms, bits): &(i64, u64)| match ms - NOW {
        0 => f64::from_bits(*bits).to_string(),
        offset => format!("{}@{offset}", f64::from_bits(*bits)),
    };
    let line = |(name, samples): (&String, &Vec<(i64, u64)>)| {
        let samples: Vec<_> = samples.iter().map(number).collect();
        format!("{name} {}", samples.join(" "))
    };
    stored.iter().map(line).collect()
}

/// The refused items as (place, reason).
pub(crate) fn refused(report: &Report) -> Vec<(String, Reason)> {
    let pair = |r: &crate::Rejection| (r.place.to_string(), r.reason);
    report.details().iter().map(pair).collect()
}
