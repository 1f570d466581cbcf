//! Settings for librdkafka, passed through without ever being printed.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use rdkafka::ClientConfig;

use super::KafkaOptions;
use super::topic::RECORD_OVERHEAD_BYTES;

/// librdkafka's own settings by their own names (`bootstrap.servers`, `security.protocol`,
/// `sasl.password` …).
#[derive(Clone, Default)]
pub struct ClientSettings {
    values: BTreeMap<String, String>,
}

/// Settings that millrace's guarantees hang on, and that nobody may set otherwise.
const OWN: [&str; 16] = [
    "acks",
    "allow.auto.create.topics",
    "auto.offset.reset",
    "check.crcs",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "enable.idempotence",
    "enable.partition.eof",
    "group.id",
    "isolation.level",
    "max.in.flight",
    "max.in.flight.requests.per.connection",
    "message.timeout.ms",
    "partitioner",
    "request.required.acks",
    "transactional.id",
];

impl ClientSettings {
    /// Settings that reach the brokers at `bootstrap` (`host:port`, comma-separated).
    #[must_use]
    pub fn new(bootstrap: impl Into<String>) -> Self {
        let values = BTreeMap::from([("bootstrap.servers".to_owned(), bootstrap.into())]);
        Self { values }
    }

    /// Adds a setting.
    ///
    /// # Errors
    ///
    /// One that millrace sets itself, because its guarantees hang on it.
    pub fn set(&mut self, name: &str, value: impl Into<String>) -> Result<(), SettingsError> {
        if OWN.contains(&name) {
            return Err(SettingsError::Own {
                name: name.to_owned(),
            });
        }
        self.values.insert(name.to_owned(), value.into());
        Ok(())
    }

    fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        for (name, value) in &self.values {
            config.set(name, value);
        }
        config
            .set("allow.auto.create.topics", "false")
            // A stalled broker is noticed by its socket, not after the default minute.
            .set("socket.timeout.ms", "10000")
            .set("socket.keepalive.enable", "true")
            // Only the producer's are looked at.
            .set("statistics.interval.ms", "0");
        config
    }
}

/// A setting that is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// It is millrace's own.
    #[error("kafka setting {name:?} cannot be changed: exactly-once hangs on it")]
    Own {
        /// Its name.
        name: String,
    },
}

pub(super) fn admin(options: &KafkaOptions) -> ClientConfig {
    options.client.config()
}

pub(super) fn producer(options: &KafkaOptions) -> ClientConfig {
    let mut config = options.client.config();
    let longest = (options.max_batch_bytes + RECORD_OVERHEAD_BYTES).to_string();
    config
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("message.timeout.ms", millis(options.delivery_timeout))
        // Our own bound on bytes in flight comes first; this one is the backstop.
        .set(
            "queue.buffering.max.kbytes",
            (options.max_in_flight_bytes / 512).max(4096).to_string(),
        )
        .set("queue.buffering.max.messages", "50000")
        // What the topic was checked to take; several records that go together are one for it.
        .set("message.max.bytes", longest.clone())
        .set("batch.size", longest)
        .set("statistics.interval.ms", "5000")
        // Batches are joined before they come here; waiting would only add latency.
        .set("linger.ms", "1");
    config
}

pub(super) fn consumer(options: &KafkaOptions) -> ClientConfig {
    let mut config = options.client.config();
    config
        .set("group.id", &options.group)
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("auto.offset.reset", "error")
        .set("check.crcs", "true")
        .set("enable.partition.eof", "false")
        .set("queued.min.messages", "1000")
        .set("queued.max.messages.kbytes", "4096")
        // How long no fetch is sent once that much waits. A second, the default, is the whole time of
        // catching up: a shard applies 4 MiB in a fraction of it.
        .set("fetch.queue.backoff.ms", "5")
        .set("fetch.message.max.bytes", "1048576")
        .set("fetch.wait.max.ms", "100");
    config
}

fn millis(duration: Duration) -> String {
    duration.as_millis().to_string()
}

/// Names without the values that could be secrets.
impl fmt::Debug for ClientSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |name: &str| {
            [
                "bootstrap.servers",
                "security.protocol",
                "client.id",
                "sasl.mechanism",
            ]
            .contains(&name)
        };
        let entries = self
            .values
            .iter()
            .map(|(name, value)| (name, if shown(name) { value.as_str() } else { "…" }));
        f.debug_map().entries(entries).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_never_printed() {
        let mut settings = ClientSettings::new("b:9092");
        settings.set("sasl.password", "canary").unwrap();
        settings.set("ssl.key.pem", "canary").unwrap();
        let options = KafkaOptions::new("t", settings);
        let text = format!("{options:?}");
        assert!(!text.contains("canary"), "{text}");
        assert!(
            text.contains("b:9092") && text.contains("sasl.password"),
            "{text}"
        );
    }

    #[test]
    fn what_exactly_once_hangs_on_cannot_be_set() {
        for name in OWN {
            let refused = ClientSettings::default().set(name, "x");
            assert_eq!(
                refused,
                Err(SettingsError::Own {
                    name: name.to_owned()
                })
            );
        }
        let config = producer(&KafkaOptions::new("t", ClientSettings::new("b:1")));
        assert_eq!(config.get("enable.idempotence"), Some("true"));
        assert_eq!(config.get("acks"), Some("all"));
    }
}
