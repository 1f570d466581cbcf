//! Samples that need no decoding.

use millrace_model::{Labels, Sample};

use crate::IngestError;
use crate::report::Place;
use crate::series::{Collector, Entry, KeyHasher};

/// Samples that are taken as one request.
pub(crate) const BATCH: usize = 50_000;

/// Entries that are looked up together.
const TOGETHER: usize = 64;

/// Hands over samples of series whose labels are there.
pub(crate) fn decode(
    samples: &[(Labels, Sample)],
    hasher: &KeyHasher,
    out: &mut Collector<'_>,
) -> Result<(), IngestError> {
    let mut values = Vec::with_capacity(TOGETHER);
    let mut entries = Vec::with_capacity(TOGETHER);
    let mut number = 0;
    for some in samples.chunks(TOGETHER) {
        values.clear();
        entries.clear();
        for ((labels, sample), index) in some.iter().zip(0_u32..) {
            values.push(*sample);
            entries.push(Entry {
                key: hasher.hash(labels.canonical()),
                place: Place::Series(number),
                samples: index..index + 1,
            });
            number += 1;
        }
        out.add_all(&entries, &values, |i, builder| {
            some[i]
                .0
                .iter()
                .try_for_each(|(name, value)| builder.label(name, value))
        })?;
    }
    Ok(())
}
