//! Figures, under Prometheus's names behind `millrace_rules_`.

use prometheus::core::Collector;
use prometheus::{
    GaugeVec, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry,
};

/// Evaluations of groups take milliseconds; above some seconds something is wrong.
const DURATION_BUCKETS: [f64; 9] = [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0];

#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    pub(crate) evaluations: IntCounterVec,
    pub(crate) failures: IntCounterVec,
    pub(crate) iterations: IntCounterVec,
    pub(crate) missed: IntCounterVec,
    pub(crate) duration: Histogram,
    pub(crate) last_duration: GaugeVec,
    pub(crate) last_evaluation: GaugeVec,
    pub(crate) last_samples: IntGaugeVec,
    pub(crate) interval: GaugeVec,
    pub(crate) rules: IntGaugeVec,
    pub(crate) refused: IntCounter,
    pub(crate) corrected: IntCounter,
    pub(crate) reload_successful: IntGauge,
    pub(crate) sent: IntCounterVec,
    pub(crate) send_errors: IntCounterVec,
    pub(crate) dropped: IntCounter,
    pub(crate) queue_length: IntGauge,
    pub(crate) queue_capacity: IntGauge,
    pub(crate) alertmanagers: IntGauge,
    pub(crate) send_seconds: Histogram,
}

const GROUP: &[&str] = &["rule_group"];
const ALERTMANAGER: &[&str] = &["alertmanager"];

impl Metrics {
    pub(crate) fn new(registry: &Registry) -> prometheus::Result<Self> {
        fn add<C: Collector + Clone + 'static>(
            registry: &Registry,
            made: prometheus::Result<C>,
        ) -> prometheus::Result<C> {
            let made = made?;
            registry.register(Box::new(made.clone()))?;
            Ok(made)
        }
        let counters = |name: &str, help: &str, labels: &[&str]| {
            add(registry, IntCounterVec::new(Opts::new(name, help), labels))
        };
        let counter = |name: &str, help: &str| add(registry, IntCounter::new(name, help));
        let gauges =
            |name: &str, help: &str| add(registry, GaugeVec::new(Opts::new(name, help), GROUP));
        let counts =
            |name: &str, help: &str| add(registry, IntGaugeVec::new(Opts::new(name, help), GROUP));
        let gauge = |name: &str, help: &str| add(registry, IntGauge::new(name, help));
        let histogram = |name: &str, help: &str| {
            let opts = HistogramOpts::new(name, help).buckets(DURATION_BUCKETS.to_vec());
            add(registry, Histogram::with_opts(opts))
        };
        Ok(Self {
            evaluations: counters(
                "millrace_rules_evaluations_total",
                "Evaluations of rules",
                GROUP,
            )?,
            failures: counters(
                "millrace_rules_evaluation_failures_total",
                "Evaluations of rules that failed, or whose result could not be stored",
                GROUP,
            )?,
            iterations: counters(
                "millrace_rules_group_iterations_total",
                "Evaluations of groups that were due, missed ones included",
                GROUP,
            )?,
            missed: counters(
                "millrace_rules_group_iterations_missed_total",
                "Evaluations of groups that were missed because the one before took too long",
                GROUP,
            )?,
            duration: histogram(
                "millrace_rules_group_duration_seconds",
                "Time that the evaluation of a group takes",
            )?,
            last_duration: gauges(
                "millrace_rules_group_last_duration_seconds",
                "Time that the last evaluation of the group took",
            )?,
            last_evaluation: gauges(
                "millrace_rules_group_last_evaluation_timestamp_seconds",
                "When the group was evaluated last",
            )?,
            last_samples: counts(
                "millrace_rules_group_last_evaluation_samples",
                "Samples of the last evaluation of the group",
            )?,
            interval: gauges(
                "millrace_rules_group_interval_seconds",
                "Time between two evaluations of the group",
            )?,
            rules: counts("millrace_rules_group_rules", "Rules of the group")?,
            refused: counter(
                "millrace_rules_refused_samples_total",
                "Samples of results that a limit of their tenant refused",
            )?,
            corrected: counter(
                "millrace_rules_corrected_samples_total",
                "Recorded samples that were written again because data came late",
            )?,
            reload_successful: gauge(
                "millrace_rules_last_reload_successful",
                "Whether the last attempt to read rules succeeded",
            )?,
            sent: counters(
                "millrace_rules_notifications_sent_total",
                "Alerts sent",
                ALERTMANAGER,
            )?,
            send_errors: counters(
                "millrace_rules_notifications_errors_total",
                "Alerts that could not be sent",
                ALERTMANAGER,
            )?,
            dropped: counter(
                "millrace_rules_notifications_dropped_total",
                "Alerts dropped because the queue was full or no Alertmanager took them",
            )?,
            queue_length: gauge(
                "millrace_rules_notifications_queue_length",
                "Alerts that wait to be sent",
            )?,
            queue_capacity: gauge(
                "millrace_rules_notifications_queue_capacity",
                "Alerts that may wait",
            )?,
            alertmanagers: gauge(
                "millrace_rules_notifications_alertmanagers_discovered",
                "Alertmanagers that alerts are sent to",
            )?,
            send_seconds: histogram(
                "millrace_rules_notifications_latency_seconds",
                "Time that sending alerts takes",
            )?,
        })
    }

    /// Forgets the figures of a group that is no more.
    pub(crate) fn forget(&self, group: &str) {
        let labels = &[group];
        // What was never counted is not there.
        for counter in [
            &self.evaluations,
            &self.failures,
            &self.iterations,
            &self.missed,
        ] {
            drop(counter.remove_label_values(labels));
        }
        for gauge in [&self.last_duration, &self.last_evaluation, &self.interval] {
            drop(gauge.remove_label_values(labels));
        }
        for gauge in [&self.last_samples, &self.rules] {
            drop(gauge.remove_label_values(labels));
        }
    }
}
