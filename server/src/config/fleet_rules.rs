//! The rules of running in several processes: roles, the queue between them, who owns what.

use std::time::Duration;

use millrace_queue::is_address;

use super::error::{ConfigError, Origin};
use super::kind::{Bytes, QueueBackend, Roles};
use super::load::Config;
use super::rules::broken;

/// A batch must hold one series with the longest labels that are allowed.
const MIN_BATCH_BYTES: u64 = 64 << 10;

/// Above, one batch would hold up a partition for too long.
const MAX_BATCH_BYTES: u64 = 64 << 20;

/// Between two announcements: shorter ones would fill the topic, longer ones find nobody.
const ANNOUNCE_INTERVAL: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(100)..=Duration::from_secs(150);

/// The longest name whose control topic Kafka still takes: 249 without `.control`.
const TOPIC_NAME_MAX: usize = 241;

/// Checks the settings of roles, Kafka and the cluster.
///
/// # Errors
///
/// The first rule that is broken.
pub(super) fn check(config: &Config) -> Result<(), ConfigError> {
    no_secret_from_a_flag(config)?;
    match config.queue.backend {
        QueueBackend::Embedded if config.needs_queue() => check_embedded(config)?,
        QueueBackend::Kafka if needs_brokers(config) => check_kafka(config)?,
        QueueBackend::Embedded | QueueBackend::Kafka => {}
    }
    let cluster = &config.cluster;
    if cluster.nodes == 0 {
        return Err(broken(config, "cluster.nodes", "must be at least 1".into()));
    }
    if cluster.ordinal >= cluster.nodes {
        let reason = format!(
            "must be less than cluster.nodes, which is {}: nodes are counted from 0",
            cluster.nodes
        );
        return Err(broken(config, "cluster.ordinal", reason));
    }
    if !ANNOUNCE_INTERVAL.contains(&cluster.announce_interval) {
        let reason = "must be from 100ms to 2m30s".to_owned();
        return Err(broken(config, "cluster.announce_interval", reason));
    }
    if let Some(store) = config.fleet.stores.iter().find(|store| !is_address(store)) {
        let reason = format!("{store:?} is no address: host:port is needed");
        return Err(broken(config, "fleet.stores", reason));
    }
    check_tls(config)?;
    check_query(config)
}

/// How stores are spoken to.
fn check_tls(config: &Config) -> Result<(), ConfigError> {
    let fleet = &config.fleet;
    let fail = |key, reason: &str| Err(broken(config, key, reason.to_owned()));
    match (&fleet.tls_certificate_file, &fleet.tls_key_file) {
        (Some(_), None) => return fail("fleet.tls_certificate_file", "needs fleet.tls_key_file"),
        (None, Some(_)) => return fail("fleet.tls_key_file", "needs fleet.tls_certificate_file"),
        (Some(_), Some(_)) | (None, None) => {}
    }
    let without = "says how stores are spoken to by TLS, which fleet.tls=true switches on";
    let given = [
        ("fleet.tls_ca_file", fleet.tls_ca_file.is_some()),
        (
            "fleet.tls_certificate_file",
            fleet.tls_certificate_file.is_some(),
        ),
        ("fleet.tls_server_name", fleet.tls_server_name.is_some()),
    ];
    match given.iter().find(|(_, given)| *given && !fleet.tls) {
        Some((key, _)) => fail(key, without),
        None => Ok(()),
    }
}

/// Whether a process of this configuration talks to brokers: for its queue, or to find stores.
fn needs_brokers(config: &Config) -> bool {
    config.needs_queue() || config.fleet.stores.is_empty()
}

/// Every user of the machine can see the flags of a process.
fn no_secret_from_a_flag(config: &Config) -> Result<(), ConfigError> {
    let secrets = [
        ("queue.kafka.sasl_password", &config.kafka.sasl_password),
        (
            "queue.kafka.tls_key_password",
            &config.kafka.tls_key_password,
        ),
    ];
    for (key, secret) in secrets {
        let seen = matches!(config.origin(key), Origin::Flag(_));
        if seen && secret.reveal().is_some() {
            let reason = format!(
                "every user of the machine sees the flags of a process; use {key}_file, the \
                 environment or the config file"
            );
            return Err(broken(config, key, reason));
        }
    }
    Ok(())
}

fn check_embedded(config: &Config) -> Result<(), ConfigError> {
    if config.top.roles != Roles::ALL {
        let reason = "the embedded queue is inside one process, so all parts are; a queue between \
                      processes takes queue.backend=kafka"
            .to_owned();
        return Err(broken(config, "roles", reason));
    }
    if config.cluster.nodes > 1 {
        let reason = "the embedded queue feeds the one store of its process; sharing partitions \
                      takes queue.backend=kafka"
            .to_owned();
        return Err(broken(config, "cluster.nodes", reason));
    }
    Ok(())
}

fn check_kafka(config: &Config) -> Result<(), ConfigError> {
    let kafka = &config.kafka;
    let fail = |key, reason: &str| Err(broken(config, key, reason.to_owned()));
    if cfg!(not(feature = "kafka")) {
        return fail(
            "queue.backend",
            "this millrace was built without Kafka; build it with the feature `kafka`, which is \
             on by default",
        );
    }
    if kafka.brokers.is_empty() {
        return fail(
            "queue.kafka.brokers",
            "queue.backend=kafka needs the address of a broker, such as 127.0.0.1:9092",
        );
    }
    if kafka.topic.is_empty() || kafka.topic.len() > TOPIC_NAME_MAX {
        let reason = format!("must have 1 to {TOPIC_NAME_MAX} letters");
        return fail("queue.kafka.topic", &reason);
    }
    if kafka.group.is_empty() {
        return fail("queue.kafka.group", "must not be empty");
    }
    if kafka.delivery_timeout.is_zero() {
        return fail("queue.kafka.delivery_timeout", "must be more than zero");
    }
    if !(MIN_BATCH_BYTES..=MAX_BATCH_BYTES).contains(&kafka.max_batch_bytes.0) {
        let reason = format!(
            "must be from {} to {}",
            Bytes(MIN_BATCH_BYTES),
            Bytes(MAX_BATCH_BYTES)
        );
        return fail("queue.kafka.max_batch_bytes", &reason);
    }
    if kafka.max_in_flight_bytes < kafka.max_batch_bytes {
        let reason = format!(
            "must not be less than queue.kafka.max_batch_bytes, which is {}",
            kafka.max_batch_bytes
        );
        return fail("queue.kafka.max_in_flight_bytes", &reason);
    }
    let twice = "is given in two ways: by value and by file";
    if kafka.sasl_password.reveal().is_some() && kafka.sasl_password_file.is_some() {
        return fail("queue.kafka.sasl_password_file", twice);
    }
    if kafka.tls_key_password.reveal().is_some() && kafka.tls_key_password_file.is_some() {
        return fail("queue.kafka.tls_key_password_file", twice);
    }
    check_security(config)
}

/// A login or a key that would be passed over in silence is a mistake.
fn check_security(config: &Config) -> Result<(), ConfigError> {
    let kafka = &config.kafka;
    let security = kafka.security_protocol;
    let fail = |key, reason: String| Err(broken(config, key, reason));
    if cfg!(not(feature = "kafka-tls")) {
        let reason = "this millrace was built without TLS for Kafka; build it with the feature \
                      `kafka-tls`, which is on by default and takes OpenSSL with its headers";
        if security.tls() {
            return fail("queue.kafka.security_protocol", reason.to_owned());
        }
        if security.sasl() && kafka.sasl_mechanism.starts_with("SCRAM-") {
            return fail("queue.kafka.sasl_mechanism", reason.to_owned());
        }
    }
    let tls = [
        ("queue.kafka.tls_ca_file", kafka.tls_ca_file.is_some()),
        (
            "queue.kafka.tls_certificate_file",
            kafka.tls_certificate_file.is_some(),
        ),
        ("queue.kafka.tls_key_file", kafka.tls_key_file.is_some()),
    ];
    if !security.tls()
        && let Some((key, _)) = tls.into_iter().find(|(_, given)| *given)
    {
        let reason = "is only used with TLS: queue.kafka.security_protocol=ssl or sasl_ssl";
        return fail(key, reason.to_owned());
    }
    let password = kafka.sasl_password.reveal().is_some() || kafka.sasl_password_file.is_some();
    if !security.sasl() && (password || kafka.sasl_username.is_some()) {
        let key = "queue.kafka.sasl_username";
        let reason = "user and password are only used with SASL: \
                      queue.kafka.security_protocol=sasl_ssl or sasl_plaintext";
        return fail(key, reason.to_owned());
    }
    let by_password = kafka.sasl_mechanism != "OAUTHBEARER" && kafka.sasl_mechanism != "GSSAPI";
    if security.sasl() && by_password && (kafka.sasl_username.is_none() || !password) {
        let key = "queue.kafka.sasl_username";
        let reason = format!(
            "{} needs sasl_username and sasl_password_file",
            kafka.sasl_mechanism
        );
        return fail(key, reason);
    }
    Ok(())
}

/// A query process must find all partitions.
fn check_query(config: &Config) -> Result<(), ConfigError> {
    let embedded = config.queue.backend == QueueBackend::Embedded;
    if config.queries_fleet() && config.fleet.stores.is_empty() && embedded {
        let reason = "queries need stores: name their addresses in fleet.stores, or take \
                      queue.backend=kafka, where stores announce themselves"
            .to_owned();
        return Err(broken(config, "roles", reason));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use millrace_log::fs::OsFs;

    use crate::config::{Layers, load};

    fn refusal(settings: &[&str]) -> String {
        let flags = settings.iter().map(|setting| {
            let (key, value) = setting.split_once('=').unwrap();
            ("--set", key.to_owned(), value.to_owned())
        });
        let layers = Layers {
            flags: flags.collect(),
            ..Layers::default()
        };
        load(&OsFs, &layers).map_or_else(|error| error.to_string(), |_| "fine".to_owned())
    }

    #[test]
    fn roles_that_cannot_work_are_refused_with_what_would() {
        const KAFKA: &str = "queue.backend=kafka";
        const BROKERS: &str = "queue.kafka.brokers=b:9092";
        let table: &[(&[&str], &str)] = &[
            (
                &["roles=ingest"],
                "the embedded queue is inside one process",
            ),
            (
                &["cluster.nodes=2"],
                "the embedded queue feeds the one store",
            ),
            (&["roles=query"], "name their addresses in fleet.stores"),
            (&["roles=query", "fleet.stores=s:1"], "fine"),
            (&["roles=query", "fleet.stores=s"], "\"s\" is no address"),
            (&["cluster.advertise=s"], "\"s\" is no address"),
            (&["cluster.announce_interval=1h"], "must be from 100ms"),
            #[cfg(not(feature = "kafka"))]
            (&[KAFKA, BROKERS], "was built without Kafka"),
        ];
        let with_kafka: &[(&[&str], &str)] = &[
            (&[KAFKA], "needs the address of a broker"),
            (&[KAFKA, BROKERS], "fine"),
            (&[KAFKA, BROKERS, "roles=ingest"], "fine"),
            (&[KAFKA, BROKERS, "roles=query"], "fine"),
            (&[KAFKA, "roles=query"], "needs the address of a broker"),
            (&[KAFKA, "roles=query", "fleet.stores=s:1,t:2"], "fine"),
            (&[KAFKA, BROKERS, "cluster.nodes=2"], "fine"),
            (&[KAFKA, BROKERS, "cluster.nodes=2", "roles=store"], "fine"),
            (
                &[KAFKA, BROKERS, "cluster.nodes=2", "cluster.ordinal=2"],
                "must be less than cluster.nodes, which is 2",
            ),
            (&[KAFKA, BROKERS, "cluster.nodes=0"], "must be at least 1"),
            (
                &[KAFKA, BROKERS, "queue.kafka.tls_ca_file=a"],
                "is only used with TLS",
            ),
            (
                &[KAFKA, BROKERS, "queue.kafka.sasl_username=a"],
                "are only used with SASL",
            ),
            #[cfg(not(feature = "kafka-tls"))]
            (
                &[KAFKA, BROKERS, "queue.kafka.security_protocol=ssl"],
                "was built without TLS for Kafka",
            ),
            (
                &[
                    KAFKA,
                    BROKERS,
                    "queue.kafka.security_protocol=sasl_plaintext",
                ],
                "PLAIN needs sasl_username and sasl_password_file",
            ),
            (
                &[KAFKA, BROKERS, "queue.kafka.max_batch_bytes=1"],
                "must be from 64KiB to 64MiB",
            ),
        ];
        let table = table.iter();
        let all = table.chain(with_kafka.iter().filter(|_| cfg!(feature = "kafka")));
        for (settings, expect) in all {
            let found = refusal(settings);
            assert!(found.contains(expect), "{settings:?}: {found}");
        }
    }

    #[test]
    fn a_secret_in_a_flag_is_refused_and_not_repeated() {
        let found = refusal(&["queue.kafka.sasl_password=canary"]);
        assert!(found.contains("sees the flags"), "{found}");
        assert!(!found.contains("canary"), "{found}");
        let found = refusal(&["queue.kafka.properties=sasl.password=canary"]);
        assert!(found.contains("properties_file"), "{found}");
        assert!(!found.contains("canary"), "{found}");
    }
}
