//! Reads over some of a store's partitions, or over all of them.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use millrace_model::{Labels, Matcher, MetricMetadata, PartitionId, TenantId, TimeRange};

use crate::error::StoreError;
use crate::read::{LabelSets, StoreSeries};
use crate::shard::Shared;

/// The shards of some partitions, for reads. Cheap to make; answered also once the store is closed.
#[derive(Clone)]
pub struct StorePart {
    /// In order of their partitions.
    shards: Vec<Arc<Shared>>,
}

impl fmt::Debug for StorePart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let partitions = self.shards.iter().map(|shard| shard.partition.0);
        f.debug_set().entries(partitions).finish()
    }
}

impl StorePart {
    pub(crate) fn new(shards: Vec<Arc<Shared>>) -> Self {
        Self { shards }
    }

    /// The shards, in order of their partitions.
    pub(crate) fn shards(&self) -> &[Arc<Shared>] {
        &self.shards
    }

    /// Those of the partitions alone; `None` if one of them is not here.
    pub(crate) fn only(&self, partitions: &[PartitionId]) -> Option<Self> {
        let shard = |partition: &PartitionId| {
            let found = self.shards.iter().find(|s| s.partition == *partition);
            found.cloned()
        };
        let mut shards = partitions.iter().map(shard).collect::<Option<Vec<_>>>()?;
        shards.sort_by_key(|shard| shard.partition);
        // A partition that is named twice is read once.
        shards.dedup_by_key(|shard| shard.partition);
        Some(Self { shards })
    }

    /// How many blocks and memtables a selection in `range` looks into.
    #[must_use]
    pub fn places_in(&self, range: TimeRange) -> (u64, u64) {
        let places = self.shards.iter().map(|s| s.view().places_in(range));
        places.fold((0, 0), |(a, b), (c, d)| (a + c, b + d))
    }

    /// The series of `tenant` that pass all matchers and may have samples in `range`; in no special
    /// order, each once.
    ///
    /// # Errors
    ///
    /// A block that is damaged or cannot be read.
    pub fn select(
        &self,
        tenant: &TenantId,
        matchers: &[Matcher],
        range: TimeRange,
    ) -> Result<Vec<StoreSeries>, StoreError> {
        let mut found = Vec::new();
        for shared in &self.shards {
            shared.view().select(tenant, matchers, range, &mut found)?;
        }
        Ok(found)
    }

    /// The label sets of such series, sorted.
    ///
    /// # Errors
    ///
    /// As [`select`](Self::select).
    pub fn series(
        &self,
        tenant: &TenantId,
        matchers: &[Matcher],
        range: TimeRange,
    ) -> Result<Vec<Labels>, StoreError> {
        let found = self.select(tenant, matchers, range)?;
        let mut labels: Vec<_> = found.into_iter().map(StoreSeries::into_labels).collect();
        labels.sort();
        Ok(labels)
    }

    /// The label names of the series that pass all matchers of one of the sets (all series, if
    /// there is no set) and may have samples in `range`; sorted.
    ///
    /// # Errors
    ///
    /// As [`select`](Self::select).
    pub fn label_names(
        &self,
        tenant: &TenantId,
        matcher_sets: &[Vec<Matcher>],
        range: TimeRange,
    ) -> Result<Vec<String>, StoreError> {
        let mut sets = LabelSets::new(tenant, matcher_sets, range);
        for shared in &self.shards {
            sets.names(&shared.view())?;
        }
        Ok(sets.finish())
    }

    /// The values of the label `name` of such series; sorted.
    ///
    /// # Errors
    ///
    /// As [`select`](Self::select).
    pub fn label_values(
        &self,
        tenant: &TenantId,
        name: &str,
        matcher_sets: &[Vec<Matcher>],
        range: TimeRange,
    ) -> Result<Vec<String>, StoreError> {
        let mut sets = LabelSets::new(tenant, matcher_sets, range);
        for shared in &self.shards {
            sets.values(&shared.view(), name)?;
        }
        Ok(sets.finish())
    }

    /// The metadata of one metric, or of all, in order of the metric's name. Where shards differ,
    /// the lowest one's.
    #[must_use]
    pub fn metadata(&self, tenant: &TenantId, metric: Option<&str>) -> Vec<MetricMetadata> {
        let mut merged: BTreeMap<String, MetricMetadata> = BTreeMap::new();
        for shared in &self.shards {
            let all = shared.metadata.read();
            let Some(entries) = all.get(tenant) else {
                continue;
            };
            let wanted = entries
                .iter()
                .filter(|(name, _)| metric.is_none_or(|m| m == *name));
            for (name, entry) in wanted {
                merged.entry(name.clone()).or_insert_with(|| entry.clone());
            }
        }
        merged.into_values().collect()
    }
}
