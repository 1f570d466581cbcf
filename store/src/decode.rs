//! The first of the two phases in which a record is applied: the batch is decoded to its end, its
//! known series are looked up and its new ones checked, and only if nothing is wrong with it does
//! the second phase ([`crate::memtable::Memtable::apply`]) touch the memtable. So a batch is applied whole or not.
//!
//! One lookup per series and no allocation per sample; what is kept here is reused from batch to
//! batch.

use millrace_model::batch::{Batch, BatchError, FloatSeries, SectionContent};
use millrace_model::{
    DeleteEntry, Labels, MetricMetadata, Sample, SeriesHasher, SeriesId, TenantId,
};

use crate::memtable::{Rows, SeriesRef};

/// Why a record is not applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RecordError {
    /// It is no batch.
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// A series carries another series' identity.
    #[error("series {labels} of tenant {tenant} carries identity {got}, its own is {own}")]
    Identity {
        tenant: TenantId,
        labels: Labels,
        got: SeriesId,
        own: SeriesId,
    },
}

/// A series of a batch: known to the memtable, or one of the batch's new ones.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Target {
    Known(SeriesRef),
    New(u32),
}

/// Which samples go to which series.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    pub(crate) target: Target,
    /// Where its samples end; they begin where those of the entry before end.
    pub(crate) end: usize,
}

/// A decoded batch.
#[derive(Debug, Default)]
pub(crate) struct Decoded {
    pub(crate) tenant: Option<TenantId>,
    pub(crate) entries: Vec<Entry>,
    pub(crate) samples: Vec<Sample>,
    pub(crate) fresh: Vec<(SeriesId, Labels)>,
    pub(crate) metadata: Vec<MetricMetadata>,
    /// They come before the samples, wherever they stand in the batch.
    pub(crate) deletes: Vec<DeleteEntry>,
}

impl Decoded {
    /// Decodes `payload`, replacing what was here. `rows` are not changed between this call and
    /// the one that applies the result.
    pub(crate) fn decode(&mut self, payload: &[u8], rows: &Rows) -> Result<(), RecordError> {
        self.clear();
        let batch = Batch::decode(payload)?;
        for section in batch.sections() {
            match section?.content()? {
                SectionContent::Float(series) => self.decode_series(series, &batch, rows)?,
                SectionContent::Metadata(mut entries) => self.metadata.append(&mut entries),
                SectionContent::Deletes(mut entries) => self.deletes.append(&mut entries),
            }
        }
        self.tenant = Some(batch.tenant().clone());
        Ok(())
    }

    pub(crate) fn clear(&mut self) {
        self.tenant = None;
        self.entries.clear();
        self.samples.clear();
        self.fresh.clear();
        self.metadata.clear();
        self.deletes.clear();
    }

    fn decode_series(
        &mut self,
        mut series: FloatSeries<'_>,
        batch: &Batch<'_>,
        rows: &Rows,
    ) -> Result<(), RecordError> {
        let hasher = SeriesHasher::new(batch.tenant());
        // A source sends its series in the same order each time, and they were given neighbouring
        // places when they were new: the next one is most often the one behind the last.
        let mut guess = SeriesRef::FIRST;
        while let Some(id) = series.next_series(&mut self.samples)? {
            let target = match rows.find(id, guess) {
                Some(known) => {
                    guess = known.next();
                    Target::Known(known)
                }
                None => {
                    let labels = series.labels()?;
                    let own = hasher.id(&labels);
                    if own != id {
                        return Err(RecordError::Identity {
                            tenant: batch.tenant().clone(),
                            labels,
                            got: id,
                            own,
                        });
                    }
                    self.fresh.push((id, labels));
                    // A batch has fewer than 2^32 series: it says so in 32 bits.
                    Target::New((self.fresh.len() - 1) as u32)
                }
            };
            self.entries.push(Entry {
                target,
                end: self.samples.len(),
            });
        }
        Ok(())
    }
}
