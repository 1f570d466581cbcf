//! What the store holds of a tenant, in figures: for `/api/v1/status/tsdb` and for planning.

use millrace_model::{PartitionId, TenantId, TimeRange};

use crate::block::BlockSummary;
use crate::index::{IndexCounts, top};
use crate::shard::View;
use crate::store::Store;

/// See [`Store::statistics`]. Lists are sorted by their figure, the highest first, and of equals
/// by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreStatistics {
    /// Series in memory. While a shard is being sealed, a series that goes on counts twice.
    pub head_series: u64,
    /// Samples in memory, of all tenants.
    pub head_samples: u64,
    /// A range that has all samples in memory, of all tenants; `None` if there are none.
    pub head_range: Option<TimeRange>,
    /// Different label pairs in memory.
    pub label_pairs: u64,
    /// The metrics in memory with the most series.
    pub series_by_metric: Vec<(String, u64)>,
    /// The labels in memory with the most values.
    pub values_by_label: Vec<(String, u64)>,
    /// The labels in memory whose values take the most bytes: the texts alone.
    pub bytes_by_label: Vec<(String, u64)>,
    /// The label pairs in memory with the most series, as `name=value`.
    pub series_by_pair: Vec<(String, u64)>,
    /// The live blocks of all shards, of all tenants, in order of their shards.
    pub blocks: Vec<BlockSummary>,
}

impl StoreStatistics {
    /// Series, samples and bytes of the blocks of one shard. A series counts once for each block.
    #[must_use]
    pub fn shard_blocks(&self, partition: PartitionId) -> (u64, u64, u64) {
        let of = self.blocks.iter();
        let of = of.filter(|block| block.meta.partition == partition);
        of.fold((0, 0, 0), |(series, samples, bytes), block| {
            let block_series = series + u64::from(block.series);
            (block_series, samples + block.samples, bytes + block.bytes)
        })
    }
}

impl Store {
    /// Counts what `tenant` has in memory, with at most `limit` entries in each list, and sums up
    /// the blocks. Goes over all label values in memory: some tens of milliseconds for a million.
    #[must_use]
    pub fn statistics(&self, tenant: &TenantId, limit: usize) -> StoreStatistics {
        let mut statistics = StoreStatistics::default();
        let mut counts = IndexCounts::default();
        for view in self.shard_views() {
            count_head(&view, tenant, &mut statistics, &mut counts);
            let summaries = view.blocks.iter().map(|block| block.reader.summary());
            statistics.blocks.extend(summaries);
        }
        statistics.head_series = counts.series;
        statistics.series_by_metric = top(std::mem::take(&mut counts.metrics), limit);
        let labels = counts.labels(limit);
        statistics.label_pairs = labels.iter().map(|label| label.values).sum();
        let values = labels.iter().map(|l| (l.name.clone(), l.values));
        statistics.values_by_label = top(values, limit);
        let bytes = labels.iter().map(|l| (l.name.clone(), l.bytes));
        statistics.bytes_by_label = top(bytes, limit);
        let pairs = labels.into_iter().flat_map(|label| {
            let name = label.name;
            let pair = move |(value, series)| (format!("{name}={value}"), series);
            label.top.into_iter().map(pair)
        });
        statistics.series_by_pair = top(pairs, limit);
        statistics
    }
}

fn count_head(
    view: &View,
    tenant: &TenantId,
    statistics: &mut StoreStatistics,
    counts: &mut IndexCounts,
) {
    for of_view in &view.tables {
        let table = &of_view.table;
        table.count(tenant, counts);
        let rows = table.rows();
        statistics.head_samples += rows.samples();
        if let Some(range) = rows.time_range() {
            let all = statistics.head_range.get_or_insert(range);
            *all = TimeRange {
                start: all.start.min(range.start),
                end: all.end.max(range.end),
            };
        }
    }
}
