//! What becomes of an alerting rule's answers: alerts that are pending, fire, and are resolved.
//!
//! The rules are Prometheus's, moment by moment: `for`, `keep_firing_for`, how long a resolved alert is
//! kept, when it is sent again.

use std::collections::BTreeMap;
use std::time::Duration;

use millrace_model::{Labels, LabelsBuilder, METRIC_NAME, Sample, TimestampMs};

/// The series with the state of each alert.
pub(crate) const ALERTS: &str = "ALERTS";
/// The series with the moment since when each alert is active.
pub(crate) const ALERTS_FOR_STATE: &str = "ALERTS_FOR_STATE";
pub(crate) const ALERT_NAME: &str = "alertname";
const ALERT_STATE: &str = "alertstate";

/// So long a resolved alert is told of, so that an Alertmanager that was away hears of it.
const RESOLVED_RETENTION: Duration = Duration::from_secs(15 * 60);

/// Where an alert stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AlertState {
    Inactive,
    Pending,
    Firing,
}

impl AlertState {
    fn as_str(self) -> &'static str {
        match self {
            Self::Inactive => "inactive",
            Self::Pending => "pending",
            Self::Firing => "firing",
        }
    }
}

/// One alert of a rule.
#[derive(Clone, Debug)]
pub(crate) struct ActiveAlert {
    pub(crate) state: AlertState,
    pub(crate) labels: Labels,
    pub(crate) annotations: Vec<(String, String)>,
    pub(crate) value: f64,
    pub(crate) active_at: TimestampMs,
    pub(crate) fired_at: Option<TimestampMs>,
    pub(crate) resolved_at: Option<TimestampMs>,
    pub(crate) last_sent_at: Option<TimestampMs>,
    pub(crate) valid_until: Option<TimestampMs>,
    pub(crate) keep_firing_since: Option<TimestampMs>,
}

/// An alert as an evaluation has found it.
#[derive(Clone, Debug)]
pub(crate) struct FoundAlert {
    pub(crate) labels: Labels,
    pub(crate) annotations: Vec<(String, String)>,
    pub(crate) value: f64,
}

/// The alerts of one rule.
#[derive(Clone, Debug, Default)]
pub(crate) struct Alerts {
    pub(crate) active: BTreeMap<Labels, ActiveAlert>,
    /// Whether the moments since when alerts are active have been looked for in the store; until then no
    /// series are written.
    pub(crate) restored: bool,
}

/// What a rule says of time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Holds {
    pub(crate) hold: Duration,
    pub(crate) keep_firing: Duration,
    /// Most alerts; 0 for no limit.
    pub(crate) limit: u64,
}

fn since(later: TimestampMs, earlier: TimestampMs) -> i64 {
    later.0.saturating_sub(earlier.0)
}

pub(crate) fn ms(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

impl Alerts {
    /// Takes the alerts that the evaluation at `ts` has found.
    ///
    /// # Errors
    ///
    /// More alerts than the limit: all are forgotten.
    pub(crate) fn update(
        &mut self,
        found: Vec<FoundAlert>,
        ts: TimestampMs,
        holds: Holds,
    ) -> Result<(), String> {
        let found: BTreeMap<Labels, FoundAlert> = found
            .into_iter()
            .map(|alert| (alert.labels.clone(), alert))
            .collect();
        for (labels, alert) in &found {
            let known = self.active.get_mut(labels);
            if let Some(known) = known.filter(|known| known.state != AlertState::Inactive) {
                known.value = alert.value;
                known.annotations.clone_from(&alert.annotations);
                continue;
            }
            let fresh = ActiveAlert {
                state: AlertState::Pending,
                labels: labels.clone(),
                annotations: alert.annotations.clone(),
                value: alert.value,
                active_at: ts,
                fired_at: None,
                resolved_at: None,
                last_sent_at: None,
                valid_until: None,
                keep_firing_since: None,
            };
            self.active.insert(labels.clone(), fresh);
        }
        let mut count = 0_u64;
        self.active.retain(|labels, alert| {
            if found.contains_key(labels) {
                alert.keep_firing_since = None;
            } else if !gone(alert, ts, holds.keep_firing) {
                return false;
            } else if alert.state == AlertState::Inactive {
                return true;
            }
            count += 1;
            let held = since(ts, alert.active_at) >= ms(holds.hold);
            if alert.state == AlertState::Pending && held {
                alert.state = AlertState::Firing;
                alert.fired_at = Some(ts);
            }
            true
        });
        if holds.limit > 0 && count > holds.limit {
            self.active.clear();
            return Err(format!(
                "exceeded limit of {} with {count} alerts",
                holds.limit
            ));
        }
        Ok(())
    }

    /// Those that are pending or firing.
    pub(crate) fn shown(&self) -> impl Iterator<Item = &ActiveAlert> {
        self.active
            .values()
            .filter(|alert| alert.resolved_at.is_none())
    }

    /// The series of all alerts that are pending or firing. `labels` are the rule's own, not expanded.
    pub(crate) fn samples(
        &self,
        name: &str,
        labels: &BTreeMap<String, String>,
        at: TimestampMs,
    ) -> Result<Vec<(Labels, Sample)>, String> {
        let mut samples = Vec::new();
        let alerts = self.active.values();
        for alert in alerts.filter(|alert| alert.state != AlertState::Inactive) {
            let mut add = |metric: &str, state: Option<AlertState>, value: f64| {
                let mut builder = LabelsBuilder::new();
                for (name, value) in labels {
                    builder.push(name, value);
                }
                for (name, value) in &alert.labels {
                    builder.set(name, value);
                }
                builder.set(METRIC_NAME, metric);
                builder.set(ALERT_NAME, name);
                if let Some(state) = state {
                    builder.set(ALERT_STATE, state.as_str());
                }
                let labels = builder.build().map_err(|error| error.to_string())?;
                samples.push((labels, Sample::new(at.0, value)));
                Ok::<(), String>(())
            };
            add(ALERTS, Some(alert.state), 1.0)?;
            add(
                ALERTS_FOR_STATE,
                None,
                alert.active_at.0.div_euclid(1000) as f64,
            )?;
        }
        Ok(samples)
    }

    /// The alerts that an Alertmanager is to be told of now; they are noted as told.
    pub(crate) fn take_unsent(
        &mut self,
        ts: TimestampMs,
        resend_delay: Duration,
        interval: Duration,
    ) -> Vec<ActiveAlert> {
        let mut send = Vec::new();
        for alert in self.active.values_mut() {
            let resolved_since = alert
                .resolved_at
                .is_some_and(|at| alert.last_sent_at.is_none_or(|sent| at > sent));
            let again = alert
                .last_sent_at
                .is_none_or(|sent| sent.saturating_add(resend_delay) < ts);
            if alert.state == AlertState::Pending || !(resolved_since || again) {
                continue;
            }
            alert.last_sent_at = Some(ts);
            // Room for two evaluations, or two tries, that fail.
            alert.valid_until = Some(ts.saturating_add(4 * resend_delay.max(interval)));
            send.push(alert.clone());
        }
        send
    }

    /// Puts alerts back to where they stood before a restart at `ts`, as their series tell: for each alert
    /// the last sample, when it was and since when it was active.
    pub(crate) fn restore(
        &mut self,
        ts: TimestampMs,
        hold: Duration,
        grace: Duration,
        known: &BTreeMap<Labels, (TimestampMs, f64)>,
    ) {
        for alert in self.active.values_mut() {
            let Some((down_at, active_since)) = known.get(&alert.labels) else {
                continue;
            };
            let down_at = TimestampMs(down_at.0.div_euclid(1000) * 1000);
            let active_since = TimestampMs((*active_since as i64).saturating_mul(1000));
            let left = ms(hold) - since(down_at, active_since);
            alert.active_at = if left <= 0 {
                // It fired, and will again at its next evaluation.
                active_since
            } else if left < ms(grace) {
                ts.saturating_add(grace).saturating_sub(hold)
            } else {
                TimestampMs(active_since.0.saturating_add(since(ts, down_at)))
            };
        }
    }
}

/// An alert whose condition does not hold any more. Whether it is kept.
fn gone(alert: &mut ActiveAlert, ts: TimestampMs, keep_firing: Duration) -> bool {
    let mut keeps = false;
    if alert.state == AlertState::Firing && !keep_firing.is_zero() {
        let begun = *alert.keep_firing_since.get_or_insert(ts);
        keeps = since(ts, begun) < ms(keep_firing);
    }
    let forgotten = alert
        .resolved_at
        .is_some_and(|at| since(ts, at) > ms(RESOLVED_RETENTION));
    if alert.state == AlertState::Pending || forgotten {
        return false;
    }
    if alert.state != AlertState::Inactive && !keeps {
        alert.state = AlertState::Inactive;
        alert.resolved_at = Some(ts);
    }
    true
}

#[cfg(test)]
mod tests;
