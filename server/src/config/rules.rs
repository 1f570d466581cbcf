//! The rules between settings.

use std::time::Duration;

use millrace_query::api::CorsOrigin;
use millrace_queue::MAX_PARTITIONS;

use super::error::ConfigError;
use super::fleet_rules;
use super::kind::Bytes;
use super::load::Config;
use super::settings::find;

/// Below, the head of a segment weighs more than what it carries.
const MIN_SEGMENT_BYTES: u64 = 64 << 10;

/// A batch must hold one series with the longest labels that are allowed.
const MIN_BATCH_BYTES: u64 = 64 << 10;

/// Above, one batch would hold up a partition for too long.
const MAX_BATCH_BYTES: u64 = 64 << 20;

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
    access(config)?;
    if let Some(pattern) = &config.query.cors_origin
        && let Err(error) = CorsOrigin::new(pattern)
    {
        let reason = format!("is no regular expression: {error}");
        return Err(broken(config, "query.cors_origin", reason));
    }
    rule(
        config.scrape.config_file.is_none() || config.top.roles.ingest,
        "scrape.config_file",
        &|| "needs the part ingest, which this process does not run (roles)".to_owned(),
    )?;
    let rules = &config.rules;
    let evaluates = rules.config_file.is_some() || !rules.files.is_empty();
    let key = match rules.config_file {
        Some(_) => "rules.config_file",
        None => "rules.files",
    };
    let roles = config.top.roles;
    rule(!evaluates || (roles.ingest && roles.query), key, &|| {
        "needs the parts ingest and query, which this process does not both run (roles)".to_owned()
    })?;
    rule(
        config.queue.partitions.or(1) <= MAX_PARTITIONS as usize,
        "queue.partitions",
        &|| format!("must be from 1 to {MAX_PARTITIONS}"),
    )?;
    one_request_fits(
        config.limits.body_bytes,
        config.limits.decoded_bytes,
        config.ingest.decode_memory_bytes,
    )
    .map_err(|(key, reason)| broken(config, key, reason))?;
    let batches = MIN_BATCH_BYTES..=MAX_BATCH_BYTES;
    rule(
        batches.contains(&config.queue.max_batch_bytes.0),
        "queue.max_batch_bytes",
        &|| {
            format!(
                "must be from {} to {}",
                Bytes(MIN_BATCH_BYTES),
                Bytes(MAX_BATCH_BYTES)
            )
        },
    )?;
    rule(
        config.queue.max_pending_bytes >= config.queue.max_batch_bytes,
        "queue.max_pending_bytes",
        &|| {
            format!(
                "must not be less than queue.max_batch_bytes, which is {}",
                config.queue.max_batch_bytes
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
    fleet_rules::check(config)?;
    positive(config)
}

/// Whether one request can be decoded: its body, what it decodes to, and the memory for both of all requests.
///
/// # Errors
///
/// Which setting is wrong, and why.
pub fn one_request_fits(
    body: Bytes,
    decoded: Bytes,
    memory: Bytes,
) -> Result<(), (&'static str, String)> {
    if decoded < body {
        let reason = format!("must not be less than ingest.limits.body_bytes, which is {body}");
        return Err(("ingest.limits.decoded_bytes", reason));
    }
    // A compressed body and what it decodes to are in memory together.
    let both = Bytes(decoded.0.saturating_add(body.0));
    if memory < both {
        let reason = format!("must not be less than what one request may take, which is {both}");
        return Err(("ingest.decode_memory_bytes", reason));
    }
    Ok(())
}

/// Who reaches the server, and how it knows them.
fn access(config: &Config) -> Result<(), ConfigError> {
    let guarded = config.auth.enabled || config.server.allow_public_without_auth;
    let addresses = [
        ("listen", Some(config.top.listen)),
        ("server.admin_listen", config.server.admin_listen),
    ];
    for (key, address) in addresses {
        if address.is_some_and(|address| !address.ip().is_loopback()) && !guarded {
            let reason = "others can reach this address, and no token is asked for; listen on \
                          127.0.0.1, make tokens and set `auth.enabled=true` (docs/security.md), or say \
                          `--set server.allow_public_without_auth=true`";
            return Err(broken(config, key, reason.to_owned()));
        }
    }
    let tls = &config.tls;
    if tls.certificate_file.is_some() != tls.key_file.is_some() {
        let key = match tls.key_file {
            None => "server.tls.key_file",
            Some(_) => "server.tls.certificate_file",
        };
        let reason = "TLS takes a certificate and its key".to_owned();
        return Err(broken(config, key, reason));
    }
    if tls.client_ca_file.is_some() && tls.certificate_file.is_none() {
        let reason = "clients show certificates only to a server that has one itself: \
                      server.tls.certificate_file";
        return Err(broken(
            config,
            "server.tls.client_ca_file",
            reason.to_owned(),
        ));
    }
    Ok(())
}

/// Zero would switch the server off rather than the bound.
fn positive(config: &Config) -> Result<(), ConfigError> {
    let durations: [(&'static str, Duration); 12] = [
        (
            "rules.evaluation_interval",
            config.rules.evaluation_interval,
        ),
        ("server.header_timeout", config.server.header_timeout),
        ("server.body_timeout", config.server.body_timeout),
        ("server.write_timeout", config.server.write_timeout),
        ("server.idle_timeout", config.server.idle_timeout),
        ("server.shutdown_timeout", config.server.shutdown_timeout),
        ("store.memtable_max_age", config.store.memtable_max_age),
        ("store.block_window", config.store.block_window),
        ("query.timeout", config.query.timeout),
        ("query.lookback", config.query.lookback),
        ("live.heartbeat", config.live.heartbeat),
        ("live.reconnect", config.live.reconnect),
    ];
    for (key, duration) in durations {
        if duration.is_zero() {
            return Err(broken(config, key, "must be more than zero".to_owned()));
        }
    }
    let counts: [(&'static str, u64); 22] = [
        (
            "rules.notification_queue",
            config.rules.notification_queue as u64,
        ),
        ("ingest.tenants.processes", config.tenants.processes),
        (
            "server.max_connections",
            config.server.max_connections as u64,
        ),
        (
            "server.max_connections_per_peer",
            config.server.max_connections_per_peer as u64,
        ),
        ("ingest.decode_queue", config.ingest.decode_queue as u64),
        ("ingest.limits.body_bytes", config.limits.body_bytes.0),
        ("ingest.limits.samples", config.limits.samples as u64),
        ("ingest.limits.series", config.limits.series as u64),
        ("ingest.limits.labels", config.limits.labels as u64),
        (
            "ingest.limits.label_name_bytes",
            config.limits.label_name_bytes.0,
        ),
        (
            "ingest.limits.label_value_bytes",
            config.limits.label_value_bytes.0,
        ),
        ("ingest.limits.labels_bytes", config.limits.labels_bytes.0),
        ("store.wal_segment_bytes", config.store.wal_segment_bytes.0),
        ("store.wal_bytes_max", config.store.wal_bytes_max.0),
        ("store.memtable_bytes", config.store.memtable_bytes.0),
        ("query.max_samples", config.query.max_samples as u64),
        ("query.max_memory_bytes", config.query.max_memory_bytes.0),
        ("query.max_query_bytes", config.query.max_query_bytes.0),
        ("live.max_subscribers", config.live.max_subscribers as u64),
        ("live.ring_bytes", config.live.ring_bytes.0),
        ("query.max_waiting", config.query.max_waiting as u64),
        ("query.max_steps", u64::from(config.query.max_steps)),
    ];
    for (key, count) in counts {
        if count == 0 {
            return Err(broken(config, key, "must be at least 1".to_owned()));
        }
    }
    if !(1..=100).contains(&config.retention.hourly_percent) {
        let key = "store.retention.hourly_percent";
        return Err(broken(config, key, "must be 1 to 100".to_owned()));
    }
    if config.query.nice > 19 {
        return Err(broken(config, "query.nice", "must be 0 to 19".to_owned()));
    }
    Ok(())
}

/// The error of a setting that breaks a rule, with its value as it may be shown.
pub(crate) fn broken(config: &Config, key: &'static str, reason: String) -> ConfigError {
    let setting = find(key).expect("rules name settings that there are");
    ConfigError::Rule {
        key,
        value: (setting.show)(config.parsed()),
        origin: config.origin(key),
        reason,
    }
}
