//! What librdkafka tells about itself, as metrics.

use prometheus::{Gauge, GaugeVec, IntGauge, IntGaugeVec, Opts, Registry};
use rdkafka::statistics::Statistics;

/// The metrics of the process's producer, renewed every 5 seconds.
#[derive(Clone, Debug)]
pub struct KafkaMetrics {
    queued_records: IntGauge,
    queued_bytes: IntGauge,
    reply_queue: IntGauge,
    broker_rtt_seconds: GaugeVec,
    broker_errors: IntGaugeVec,
    broker_timeouts: IntGaugeVec,
    broker_up: IntGaugeVec,
    age_seconds: Gauge,
}

impl KafkaMetrics {
    /// Registers the metrics.
    ///
    /// # Errors
    ///
    /// If the registry has metrics of these names already.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let gauge = |name: &str, help: &str| {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        let by_broker = |name: &str, help: &str| {
            let gauge = IntGaugeVec::new(Opts::new(name, help), &["broker"])?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        let rtt = GaugeVec::new(
            Opts::new(
                "millrace_kafka_broker_rtt_p99_seconds",
                "Round trip to the broker, 99th percentile of the last seconds.",
            ),
            &["broker"],
        )?;
        registry.register(Box::new(rtt.clone()))?;
        let age = Gauge::new(
            "millrace_kafka_client_age_seconds",
            "Time since the producer's client was made: it begins again after a fatal error.",
        )?;
        registry.register(Box::new(age.clone()))?;
        Ok(Self {
            queued_records: gauge(
                "millrace_kafka_producer_queued_records",
                "Records that the client library holds, waiting or in flight.",
            )?,
            queued_bytes: gauge(
                "millrace_kafka_producer_queued_bytes",
                "Bytes of those records.",
            )?,
            reply_queue: gauge(
                "millrace_kafka_producer_reply_queue",
                "Events of the client library that are not taken yet.",
            )?,
            broker_rtt_seconds: rtt,
            broker_errors: by_broker(
                "millrace_kafka_broker_errors",
                "Requests to the broker that failed, since the client was made.",
            )?,
            broker_timeouts: by_broker(
                "millrace_kafka_broker_timeouts",
                "Requests to the broker that timed out, since the client was made.",
            )?,
            broker_up: by_broker(
                "millrace_kafka_broker_up",
                "1 while there is a connection to the broker.",
            )?,
            age_seconds: age,
        })
    }

    /// Takes what one round of statistics says.
    pub(super) fn note(&self, statistics: &Statistics) {
        let count = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        self.queued_records.set(count(statistics.msg_cnt));
        self.queued_bytes.set(count(statistics.msg_size));
        self.reply_queue.set(statistics.replyq);
        self.age_seconds.set(statistics.age as f64 / 1e6);
        for broker in statistics.brokers.values() {
            // Negative ids are those of the addresses to begin with, and of librdkafka's inner ones.
            if broker.nodeid < 0 {
                continue;
            }
            let node = broker.nodeid.to_string();
            let labels = [node.as_str()];
            let errors = broker.txerrs.saturating_add(broker.rxerrs);
            self.broker_errors
                .with_label_values(&labels)
                .set(count(errors));
            self.broker_timeouts
                .with_label_values(&labels)
                .set(count(broker.req_timeouts));
            self.broker_up
                .with_label_values(&labels)
                .set(i64::from(broker.state == "UP"));
            if let Some(rtt) = &broker.rtt {
                self.broker_rtt_seconds
                    .with_label_values(&labels)
                    .set(rtt.p99 as f64 / 1e6);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_become_metrics_by_broker() {
        let registry = Registry::new();
        let metrics = KafkaMetrics::register(&registry).unwrap();
        let mut statistics = Statistics {
            msg_cnt: 3,
            msg_size: 900,
            age: 2_500_000,
            ..Statistics::default()
        };
        let broker = |nodeid, state: &str| rdkafka::statistics::Broker {
            nodeid,
            state: state.to_owned(),
            txerrs: 2,
            rxerrs: 1,
            ..Default::default()
        };
        let brokers = &mut statistics.brokers;
        brokers.insert("a".into(), broker(1, "UP"));
        brokers.insert("b".into(), broker(2, "CONNECT"));
        brokers.insert("bootstrap".into(), broker(-1, "UP"));
        metrics.note(&statistics);
        assert_eq!(metrics.queued_records.get(), 3);
        assert_eq!(metrics.broker_up.with_label_values(&["1"]).get(), 1);
        assert_eq!(metrics.broker_up.with_label_values(&["2"]).get(), 0);
        assert_eq!(metrics.broker_errors.with_label_values(&["1"]).get(), 3);
        let brokers = registry.gather();
        let up = brokers
            .iter()
            .find(|family| family.name() == "millrace_kafka_broker_up")
            .unwrap();
        assert_eq!(up.get_metric().len(), 2);
    }
}
