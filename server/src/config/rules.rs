//! The rules between settings.

use std::time::Duration;

use super::error::ConfigError;
use super::load::Config;
use super::settings::find;

/// A shard is a thread, and so is a lane of the queue: beyond this a start only costs memory.
const MAX_PARTITIONS: u32 = 1024;

/// The embedded log cannot put a record into a smaller segment than the longest batch.
const MIN_SEGMENT_BYTES: u64 = 64 << 10;

/// Checks the settings against one another.
///
/// # Errors
///
/// The first rule that is broken.
pub fn check(config: &Config) -> Result<(), ConfigError> {
    let rule = |ok: bool, key: &'static str, reason: &dyn Fn() -> String| {
        if ok {
            Ok(())
        } else {
            Err(broken(config, key, reason()))
        }
    };
    rule(
        config.top.listen.ip().is_loopback() || config.server.allow_public_without_auth,
        "listen",
        &|| {
            "others can reach this address, and there is no authentication yet; listen on \
             127.0.0.1, or say `--set server.allow_public_without_auth=true`"
                .to_owned()
        },
    )?;
    rule(
        (1..=MAX_PARTITIONS).contains(&config.queue.partitions),
        "queue.partitions",
        &|| format!("must be from 1 to {MAX_PARTITIONS}"),
    )?;
    rule(
        config.ingest.max_decoded >= config.ingest.max_body,
        "ingest.max_decoded",
        &|| {
            format!(
                "must not be less than ingest.max_body, which is {}",
                config.ingest.max_body
            )
        },
    )?;
    rule(
        config.ingest.decode_memory >= config.ingest.max_decoded,
        "ingest.decode_memory",
        &|| {
            format!(
                "must not be less than ingest.max_decoded, which is {}",
                config.ingest.max_decoded
            )
        },
    )?;
    rule(
        config.queue.segment_bytes.0 >= MIN_SEGMENT_BYTES,
        "queue.segment_bytes",
        &|| "must be at least 64KiB".to_owned(),
    )?;
    rule(
        config
            .queue
            .retention_bytes
            .is_none_or(|bytes| bytes >= config.queue.segment_bytes),
        "queue.retention_bytes",
        &|| {
            format!(
                "must not be less than queue.segment_bytes, which is {}",
                config.queue.segment_bytes
            )
        },
    )?;
    positive(config)
}

/// Zero would switch the server off rather than the bound.
fn positive(config: &Config) -> Result<(), ConfigError> {
    let durations: [(&'static str, Duration); 9] = [
        ("server.header_timeout", config.server.header_timeout),
        ("server.body_timeout", config.server.body_timeout),
        ("server.write_timeout", config.server.write_timeout),
        ("server.idle_timeout", config.server.idle_timeout),
        ("store.memtable_max_age", config.store.memtable_max_age),
        ("store.block_window", config.store.block_window),
        ("query.timeout", config.query.timeout),
        ("query.lookback", config.query.lookback),
        ("server.shutdown_timeout", config.server.shutdown_timeout),
    ];
    for (key, duration) in durations {
        if duration.is_zero() {
            return Err(broken(config, key, "must be more than zero".to_owned()));
        }
    }
    let counts: [(&'static str, u64); 12] = [
        (
            "server.max_connections",
            config.server.max_connections as u64,
        ),
        (
            "server.max_connections_per_peer",
            config.server.max_connections_per_peer as u64,
        ),
        ("ingest.max_body", config.ingest.max_body.0),
        ("ingest.max_samples", config.ingest.max_samples as u64),
        ("ingest.max_series", config.ingest.max_series as u64),
        ("ingest.max_labels", config.ingest.max_labels as u64),
        ("ingest.max_label_name", config.ingest.max_label_name.0),
        ("ingest.max_label_value", config.ingest.max_label_value.0),
        ("ingest.max_pending", config.ingest.max_pending.0),
        ("store.memtable_bytes", config.store.memtable_bytes.0),
        ("query.max_samples", config.query.max_samples as u64),
        ("query.concurrency", config.query.concurrency as u64),
    ];
    for (key, count) in counts {
        if count == 0 {
            return Err(broken(config, key, "must be at least 1".to_owned()));
        }
    }
    Ok(())
}

fn broken(config: &Config, key: &'static str, reason: String) -> ConfigError {
    let setting = find(key).expect("rules name settings that there are");
    ConfigError::Rule {
        key,
        value: (setting.show)(config.parsed()),
        origin: config.origin(key),
        reason,
    }
}
