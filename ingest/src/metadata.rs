//! Which metric metadata have been queued already.
//!
//! Prometheus sends the metadata of all its metrics every minute, and they hardly ever change.
//! What is in the queue durably is not queued again for [`MetadataCache::REFRESH`].
//!
//! Invariants: an entry counts as sent only after its append has succeeded, so none is lost to
//! a failed one; forgetting entries is harmless, they are queued once more.

use std::time::Duration;

use millrace_model::TenantId;
use parking_lot::Mutex;

use crate::series::{Key, KeyHasher, KeyMap, SeriesCache};

/// Hashes of what was sent.
#[derive(Debug, Default)]
pub(crate) struct MetadataCache {
    /// By hash of tenant and metric: hash of the whole message, and when it was sent.
    sent: Mutex<KeyMap<(Key, Duration)>>,
}

impl MetadataCache {
    /// Sent again after so long, so that a store rebuilt from a queue that has forgotten its
    /// beginning gets them before long.
    const REFRESH: Duration = Duration::from_secs(3600);
    /// About 32 MiB. Beyond, all is forgotten.
    const MAX_ENTRIES: usize = 500_000;

    /// A filter for one request of `tenant`; `now` is monotonic.
    pub(crate) fn filter<'a>(
        &'a self,
        series: &SeriesCache,
        tenant: &TenantId,
        now: Duration,
    ) -> MetadataFilter<'a> {
        MetadataFilter {
            cache: self,
            hasher: series.hasher(tenant, &["metadata"]),
            now,
            told: KeyMap::default(),
            news: Vec::new(),
        }
    }

    /// Notes what has become durable.
    pub(crate) fn sent(&self, news: &MetadataNews) {
        if news.keys.is_empty() {
            return;
        }
        let mut sent = self.sent.lock();
        if sent.len() + news.keys.len() > Self::MAX_ENTRIES {
            sent.clear();
        }
        sent.extend(
            news.keys
                .iter()
                .map(|(metric, message)| (*metric, (*message, news.at))),
        );
    }
}

/// Tells what of a request's metadata is news.
#[derive(Debug)]
pub(crate) struct MetadataFilter<'a> {
    cache: &'a MetadataCache,
    hasher: KeyHasher,
    now: Duration,
    /// What this request has said so far: by hash of the metric that of the last message. OTLP repeats
    /// a metric's metadata for each resource.
    told: KeyMap<Key>,
    news: Vec<(Key, Key)>,
}

impl MetadataFilter<'_> {
    /// Whether this metadata message of `metric` has to be queued.
    pub(crate) fn is_news(&mut self, metric: &[u8], message: &[u8]) -> bool {
        let (metric, message) = (self.hasher.hash(metric), self.hasher.hash(message));
        if self.told.insert(metric, message) == Some(message) {
            return false;
        }
        let sent = self.cache.sent.lock().get(&metric).copied();
        let known = sent.is_some_and(|(last, at)| {
            last == message && self.now.saturating_sub(at) < MetadataCache::REFRESH
        });
        if !known {
            self.news.push((metric, message));
        }
        !known
    }

    /// What was news, to be noted once it is durable.
    pub(crate) fn into_news(self) -> MetadataNews {
        MetadataNews {
            keys: self.news,
            at: self.now,
        }
    }
}

/// Metadata on its way to the queue.
#[derive(Debug, Default)]
pub(crate) struct MetadataNews {
    keys: Vec<(Key, Key)>,
    at: Duration,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::IngestOptions;
    use crate::metrics::Metrics;

    #[test]
    fn a_request_queues_what_it_repeats_once_and_what_it_changes_each_time() {
        let metrics = Metrics::new(&prometheus::Registry::new());
        let bytes = IngestOptions::default().series_cache_bytes;
        let (cache_bytes, cache_series) =
            (metrics.cache_bytes.clone(), metrics.cache_series.clone());
        let series = SeriesCache::new(bytes, cache_bytes, cache_series);
        let cache = MetadataCache::default();
        let tenant = TenantId::anonymous();
        let mut filter = cache.filter(&series, &tenant, Duration::ZERO);
        let said = [
            ("a", "1"),
            ("a", "1"),
            ("b", "1"),
            ("a", "2"),
            ("a", "1"),
            ("b", "1"),
        ];
        let news =
            said.map(|(metric, message)| filter.is_news(metric.as_bytes(), message.as_bytes()));
        assert_eq!(news, [true, false, true, true, true, false]);
        // Nothing was durable, so all of it is news to the next request.
        let mut filter = cache.filter(&series, &tenant, Duration::ZERO);
        assert!(filter.is_news(b"a", b"1"));
        cache.sent(&filter.into_news());
        let mut filter = cache.filter(&series, &tenant, Duration::ZERO);
        assert!(!filter.is_news(b"a", b"1"));
    }
}
