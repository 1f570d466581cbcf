//! The settings, mapped onto what each part wants to know.

use std::collections::BTreeMap;

use millrace_ingest::{
    DeltaTemporality, IngestOptions, Limits, OtlpOptions, RateLimitedStatus, StringFields,
    TenantLimits, TranslationStrategy,
};
use millrace_live::LiveOptions;
use millrace_model::{PartitionId, ShardKey};
use millrace_query::EngineOptions;
use millrace_query::api::{ApiOptions, CorsOrigin};
use millrace_queue::{AppenderOptions, EmbeddedOptions};
use millrace_store::{CompactionOptions, RetentionOptions, StoreOptions, WalSync};

use crate::config::Config;
use crate::config::kind::{
    DeltaSetting, RateLimitedSetting, StringFieldsSetting, TranslationStrategySetting,
    WalSyncSetting,
};
use crate::config::settings::{Otlp, SETTINGS};
use crate::http::HttpLimits;

/// Connections.
#[must_use]
pub fn http(config: &Config) -> HttpLimits {
    let server = &config.server;
    HttpLimits {
        connections: server.max_connections,
        connections_per_peer: server.max_connections_per_peer,
        header_timeout: server.header_timeout,
        body_timeout: server.body_timeout,
        write_timeout: server.write_timeout,
        min_rate: server.body_min_rate.0,
        idle_timeout: server.idle_timeout,
        http2_streams: server.http2_streams,
    }
}

/// Most partitions that are made unasked: each costs a sync per append and a thread on either side.
const AUTO_PARTITIONS_MAX: usize = 8;

/// The embedded queue. `existing` is the number of partitions that the data directory has, if it has
/// any; `processors` decides it otherwise, unless the configuration does.
#[must_use]
pub fn queue(config: &Config, existing: Option<u32>, processors: usize) -> EmbeddedOptions {
    let queue = &config.queue;
    let defaults = EmbeddedOptions::default();
    let suggested = existing.map_or_else(
        || processors.clamp(1, AUTO_PARTITIONS_MAX),
        |count| count as usize,
    );
    EmbeddedOptions {
        partitions: u32::try_from(queue.partitions.or(suggested)).unwrap_or(u32::MAX),
        shard_key: ShardKey::new(queue.shard_key.iter().cloned()),
        segment_bytes: queue.segment_bytes.0,
        retention_age: queue.retention_age,
        retention_bytes: queue.retention_bytes.map(|bytes| bytes.0),
        max_batch_bytes: defaults
            .max_batch_bytes
            .max(queue.max_batch_bytes.as_usize()),
        ..defaults
    }
}

/// The partitions that this store owns, of so many.
#[must_use]
pub fn owned(config: &Config, partitions: u32) -> Vec<PartitionId> {
    let cluster = &config.cluster;
    let mine = |partition: &u32| partition % cluster.nodes == cluster.ordinal;
    (0..partitions).filter(mine).map(PartitionId).collect()
}

/// The way into the queue.
#[must_use]
pub fn appender(config: &Config) -> AppenderOptions {
    AppenderOptions {
        max_pending_bytes: config.queue.max_pending_bytes.as_usize(),
        linger: config.queue.linger,
        max_batch_bytes: config.queue.max_batch_bytes.as_usize(),
        ..AppenderOptions::default()
    }
}

/// The store.
#[must_use]
pub fn store(config: &Config) -> StoreOptions {
    let store = &config.store;
    StoreOptions {
        wal_sync: match store.wal_sync {
            WalSyncSetting::Always => WalSync::Always,
            WalSyncSetting::Never => WalSync::None,
            WalSyncSetting::Interval(interval) => WalSync::Interval(interval),
        },
        wal_segment_bytes: store.wal_segment_bytes.0,
        wal_bytes_max: store.wal_bytes_max.0,
        memtable_bytes: store.memtable_bytes.0,
        memtable_max_age: store.memtable_max_age,
        index_cache_bytes: store.index_cache_bytes.0,
        block_window: store.block_window,
        rollups: store.rollups.clone(),
        dead_letters_max: store.dead_letters_max as u64,
        compaction: CompactionOptions {
            enabled: store.compaction,
            bytes_per_second: store.compaction_rate.0,
            ..CompactionOptions::default()
        },
        retention: RetentionOptions {
            age: config.retention.age,
            samples_age: config.retention.samples_age,
            fine_rollups_age: config.retention.fine_rollups_age,
            bytes: config.retention.bytes.map(|bytes| bytes.0),
            hourly_percent: u8::try_from(config.retention.hourly_percent).unwrap_or(100),
            clock_jump_max: config.retention.clock_jump_max,
            ..RetentionOptions::default()
        },
        ..StoreOptions::default()
    }
}

/// The push endpoints.
#[must_use]
pub fn ingest(config: &Config) -> IngestOptions {
    let ingest = &config.ingest;
    let defaults = IngestOptions::default();
    IngestOptions {
        limits: tenant_limits(config),
        tracked_series: config.tenants.tracked_series,
        influx_string_fields: match ingest.influx_string_fields {
            StringFieldsSetting::Skip => StringFields::Skip,
            StringFieldsSetting::Reject => StringFields::Reject,
        },
        influx_separator: ingest.influx_separator.clone(),
        influx_database_label: ingest.influx_database_label.clone(),
        otlp: otlp(&config.otlp),
        decode_threads: ingest.decode_threads.or(defaults.decode_threads),
        decode_queue: ingest.decode_queue,
        decode_memory_bytes: ingest.decode_memory_bytes.as_usize(),
        series_cache_bytes: ingest.series_cache_bytes.as_usize(),
    }
}

/// What a tenant may push that has no limits of its own.
fn tenant_limits(config: &Config) -> TenantLimits {
    let (limits, tenants) = (&config.limits, &config.tenants);
    TenantLimits {
        request: Limits {
            body_bytes: limits.body_bytes.as_usize(),
            decoded_bytes: limits.decoded_bytes.as_usize(),
            samples: limits.samples,
            series: limits.series,
            labels: limits.labels,
            label_name_bytes: limits.label_name_bytes.as_usize(),
            label_value_bytes: limits.label_value_bytes.as_usize(),
            labels_bytes: limits.labels_bytes.as_usize(),
        },
        max_age: config.ingest.max_age,
        max_ahead: config.ingest.max_ahead,
        active_series: tenants.active_series,
        new_series_per_hour: tenants.new_series_per_hour,
        samples_per_second: tenants.samples_per_second,
        samples_burst: tenants.samples_burst,
        rate_limited_status: rate_limited_status(tenants.rate_limited_status),
        processes: tenants.processes,
    }
}

/// The status of a request beyond its tenant's rate.
#[must_use]
pub fn rate_limited_status(setting: RateLimitedSetting) -> RateLimitedStatus {
    match setting {
        RateLimitedSetting::TooManyRequests => RateLimitedStatus::TooManyRequests,
        RateLimitedSetting::Unavailable => RateLimitedStatus::Unavailable,
    }
}

fn otlp(otlp: &Otlp) -> OtlpOptions {
    OtlpOptions {
        translation: match otlp.translation_strategy {
            TranslationStrategySetting::UnderscoreEscapingWithSuffixes => {
                TranslationStrategy::UnderscoreEscapingWithSuffixes
            }
            TranslationStrategySetting::UnderscoreEscapingWithoutSuffixes => {
                TranslationStrategy::UnderscoreEscapingWithoutSuffixes
            }
            TranslationStrategySetting::NoUtf8EscapingWithSuffixes => {
                TranslationStrategy::NoUtf8EscapingWithSuffixes
            }
            TranslationStrategySetting::NoTranslation => TranslationStrategy::NoTranslation,
        },
        promote_resource_attributes: otlp.promote_resource_attributes.clone(),
        promote_all_resource_attributes: otlp.promote_all_resource_attributes,
        ignore_resource_attributes: otlp.ignore_resource_attributes.clone(),
        keep_identifying_resource_attributes: otlp.keep_identifying_resource_attributes,
        promote_scope_metadata: otlp.promote_scope_metadata,
        delta: match otlp.delta {
            DeltaSetting::Accumulate => DeltaTemporality::Accumulate,
            DeltaSetting::Store => DeltaTemporality::Store,
            DeltaSetting::Refuse => DeltaTemporality::Refuse,
        },
    }
}

/// The query engine.
#[must_use]
pub fn engine(config: &Config) -> EngineOptions {
    let query = &config.query;
    let defaults = EngineOptions::default();
    EngineOptions {
        timeout: query.timeout,
        lookback: query.lookback,
        max_samples: query.max_samples as u64,
        max_points_per_series: u64::from(query.max_steps),
        max_memory_bytes: query.max_memory_bytes.0,
        max_query_bytes: query.max_query_bytes.as_usize(),
        delayed_name_removal: query.delayed_name_removal,
        threads: query.threads.or(defaults.threads),
        nice: niceness(config),
        ..defaults
    }
}

/// The query API.
#[must_use]
pub fn api(config: &Config) -> ApiOptions {
    let query = &config.query;
    let defaults = ApiOptions::default();
    ApiOptions {
        max_running: query.max_running.or(defaults.max_running),
        nice: niceness(config),
        max_waiting: query.max_waiting,
        max_wait: query.max_wait,
        read_after_timeout: query.read_after_timeout,
        max_steps: i64::from(query.max_steps),
        lookback: query.lookback,
        stale_after: query.stale_after,
        slow_threshold: query.slow_log_threshold,
        remote_read_samples: query.remote_read_samples as u64,
        cors_origin: query.cors_origin.as_ref().map(|pattern| {
            CorsOrigin::new(pattern).expect("a checked configuration has a checked pattern")
        }),
        flags: flags(config),
        ..defaults
    }
}

/// The live feed. `connections` are there at most: others are to find some too.
#[must_use]
pub fn live(config: &Config, connections: usize) -> LiveOptions {
    let live = &config.live;
    LiveOptions {
        max_subscribers: live.max_subscribers.min(connections / 2).max(1),
        ring_bytes: live.ring_bytes.as_usize(),
        heartbeat: live.heartbeat,
        reconnect: live.reconnect,
        ..LiveOptions::default()
    }
}

/// Of query threads. The rules have seen that it is small.
fn niceness(config: &Config) -> i32 {
    i32::try_from(config.query.nice).unwrap_or(19)
}

/// All settings with their values, as `status/flags` shows them.
fn flags(config: &Config) -> BTreeMap<String, String> {
    SETTINGS
        .iter()
        .filter(|setting| !setting.secret)
        .map(|setting| {
            let value = (setting.show)(config.parsed());
            (setting.key.to_owned(), value.trim_matches('"').to_owned())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Layers, load};
    use millrace_log::fs::OsFs;

    #[test]
    fn partitions_are_what_was_said_or_what_there_is_or_one_per_processor() {
        let config = load(&OsFs, &Layers::default()).unwrap();
        let partitions =
            |config: &Config, existing, processors| queue(config, existing, processors).partitions;
        for (processors, expect) in [(0, 1), (1, 1), (2, 2), (8, 8), (64, 8)] {
            assert_eq!(partitions(&config, None, processors), expect);
        }
        assert_eq!(partitions(&config, Some(5), 2), 5);
        let three = ("--set", "queue.partitions".to_owned(), "3".to_owned());
        let layers = Layers {
            flags: vec![three],
            ..Layers::default()
        };
        let config = load(&OsFs, &layers).unwrap();
        assert_eq!(
            partitions(&config, Some(5), 2),
            3,
            "refused when the queue is opened"
        );
    }

    #[test]
    fn a_node_owns_each_nth_partition() {
        let owned = |ordinal: u32, nodes: u32| {
            let flag = |key: &str, value: String| ("--set", key.to_owned(), value);
            let layers = Layers {
                flags: vec![
                    flag("queue.backend", "kafka".to_owned()),
                    flag("queue.kafka.brokers", "b:1".to_owned()),
                    flag("roles", "store".to_owned()),
                    flag("cluster.nodes", nodes.to_string()),
                    flag("cluster.ordinal", ordinal.to_string()),
                ],
                ..Layers::default()
            };
            let config = load(&OsFs, &layers).unwrap();
            let owned = super::owned(&config, 7);
            owned.into_iter().map(|p| p.0).collect::<Vec<_>>()
        };
        if cfg!(feature = "kafka") {
            assert_eq!(owned(0, 1), [0, 1, 2, 3, 4, 5, 6]);
            assert_eq!(owned(0, 3), [0, 3, 6]);
            assert_eq!(owned(1, 3), [1, 4]);
            assert_eq!(owned(2, 3), [2, 5]);
        }
    }

    /// A default that stands in two places must be the same in both.
    #[test]
    fn the_defaults_of_the_settings_are_those_of_the_parts() {
        let config = load(&OsFs, &Layers::default()).unwrap();
        let same = |ours: String, theirs: String| assert_eq!(ours, theirs);
        same(
            format!("{:?}", ingest(&config)),
            format!("{:?}", IngestOptions::default()),
        );
        same(
            format!("{:?}", queue(&config, None, 4)),
            format!("{:?}", EmbeddedOptions::default()),
        );
        same(
            format!("{:?}", appender(&config)),
            format!("{:?}", AppenderOptions::default()),
        );
        same(
            format!("{:?}", store(&config)),
            format!("{:?}", StoreOptions::default()),
        );
        same(
            format!("{:?}", engine(&config)),
            format!("{:?}", EngineOptions::default()),
        );
        let ours = ApiOptions {
            flags: BTreeMap::new(),
            ..api(&config)
        };
        same(format!("{ours:?}"), format!("{:?}", ApiOptions::default()));
    }
}
