//! What a block holds, in figures: for planning, and for whoever asks where the bytes are.

use millrace_model::{METRIC_NAME, TenantId};

use super::labels::TenantIndex;
use super::postings::PostingsEntry;
use super::{BlockError, BlockReader, BlockSummary};

/// One block and one tenant in figures. See [`BlockReader::statistics`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockStatistics {
    /// The whole block: series, samples, time range, bytes by section.
    pub summary: BlockSummary,
    /// The tenant's series.
    pub series: u64,
    /// The tenant's labels with the most values.
    pub labels: Vec<LabelStatistics>,
    /// The metrics with the most series, and how many those are.
    pub metrics: Vec<(String, u64)>,
}

/// One label of a tenant in figures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelStatistics {
    /// Its name.
    pub name: String,
    /// Its different values.
    pub values: u64,
    /// Bytes of the pages with its values and their short postings.
    pub bytes: u64,
}

impl BlockReader {
    /// Counts what `tenant` has here, from the index alone: at most `limit` labels and metrics, of
    /// equals the first by name.
    ///
    /// # Errors
    ///
    /// Of the file system; damage in the pages that are read.
    pub fn statistics(
        &self,
        tenant: &TenantId,
        limit: usize,
    ) -> Result<BlockStatistics, BlockError> {
        let mut statistics = BlockStatistics {
            summary: self.summary(),
            series: 0,
            labels: Vec::new(),
            metrics: Vec::new(),
        };
        let Some(entry) = self.directory()?.tenant(tenant) else {
            return Ok(statistics);
        };
        statistics.series = u64::from(entry.series);
        let labels = entry.names.iter().map(|name| LabelStatistics {
            name: name.name.to_string(),
            values: name.values,
            bytes: name.pages.iter().map(|p| u64::from(p.page.bytes)).sum(),
        });
        statistics.labels = labels.collect();
        statistics
            .labels
            .sort_by_key(|l| std::cmp::Reverse(l.values));
        statistics.labels.truncate(limit);
        let index = TenantIndex::new(self, entry);
        for page in entry.name(METRIC_NAME).map_or(&[][..], |n| &n.pages) {
            index.walk_values(page, &mut |metric, postings| {
                let series = match postings {
                    PostingsEntry::Listed(series) => series.series().len() as u64,
                    PostingsEntry::Stored { .. } => index.postings_of(postings)?.len(),
                };
                statistics.metrics.push((metric.to_owned(), series));
                Ok(true)
            })?;
        }
        statistics.metrics.sort_by_key(|m| std::cmp::Reverse(m.1));
        statistics.metrics.truncate(limit);
        Ok(statistics)
    }
}
