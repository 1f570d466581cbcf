//! Sends alerts to Alertmanagers, as Prometheus's notifier does.
//!
//! **Invariants:**
//! - What waits is bounded: beyond that the oldest alerts go, and are counted.
//! - An Alertmanager that does not answer holds up nobody longer than its timeout.

mod target;
#[cfg(test)]
mod tests;
mod wire;

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use millrace_model::{Clock, Labels, LabelsBuilder};
use millrace_relabel::{LabelSet, Rules};
use parking_lot::{Condvar, Mutex};

use crate::alert::ActiveAlert;
use crate::config::{AlertingConfig, Files};
use crate::metrics::Metrics;

use target::{Alertmanagers, Endpoint};
pub(crate) use wire::Notification;

/// Alerts of one request.
const BATCH: usize = 256;

/// One request to an Alertmanager.
#[derive(Debug)]
pub struct Post<'a> {
    /// Where to.
    pub url: &'a str,
    /// JSON.
    pub body: &'a [u8],
    /// What proves who we are: the value of `Authorization`.
    pub authorization: Option<String>,
    /// How long it may take.
    pub timeout: Duration,
}

/// Sends requests. The server implements it.
pub trait Transport: Send + Sync + fmt::Debug {
    /// Posts JSON and returns the status. Blocks.
    ///
    /// # Errors
    ///
    /// In words, if there was no answer.
    fn post(&self, post: &Post<'_>) -> Result<u16, String>;
}

/// The queue of alerts, and who they go to. Cloning gives another handle.
#[derive(Clone)]
pub(crate) struct Notifier {
    inner: Arc<Inner>,
}

struct Inner {
    transport: Arc<dyn Transport>,
    files: Arc<dyn Files>,
    clock: Arc<dyn Clock>,
    metrics: Metrics,
    capacity: usize,
    state: Mutex<State>,
    /// Something waits, or the end has come.
    wake: Condvar,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Notification>,
    relabel: Rules,
    external_labels: Vec<(String, String)>,
    alertmanagers: Alertmanagers,
    closed: bool,
}

impl fmt::Debug for Notifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Notifier")
    }
}

impl Notifier {
    pub(crate) fn new(
        transport: Arc<dyn Transport>,
        files: Arc<dyn Files>,
        clock: Arc<dyn Clock>,
        metrics: Metrics,
        capacity: usize,
    ) -> Self {
        metrics
            .queue_capacity
            .set(i64::try_from(capacity).unwrap_or(i64::MAX));
        let inner = Inner {
            transport,
            files,
            clock,
            metrics,
            capacity,
            state: Mutex::default(),
            wake: Condvar::new(),
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// Sends to these from now on.
    pub(crate) fn configure(&self, config: &AlertingConfig, external_labels: &[(String, String)]) {
        let mut alertmanagers = Alertmanagers::new(config.groups.clone());
        alertmanagers.look(&*self.inner.files, self.inner.clock.monotonic());
        let mut state = self.inner.state.lock();
        state.relabel = config.relabel.clone();
        state.external_labels = external_labels.to_vec();
        self.inner.count(&alertmanagers);
        state.alertmanagers = alertmanagers;
    }

    /// The URLs of the Alertmanagers that are sent to, and of those that relabelling drops.
    pub(crate) fn alertmanagers(&self) -> (Vec<String>, Vec<String>) {
        let state = self.inner.state.lock();
        let active = state
            .alertmanagers
            .active()
            .iter()
            .map(|one| one.url.clone());
        (active.collect(), state.alertmanagers.dropped().to_vec())
    }

    /// Queues alerts.
    pub(crate) fn send(&self, alerts: &[ActiveAlert], generator_url: &str) {
        if alerts.is_empty() {
            return;
        }
        let mut state = self.inner.state.lock();
        for alert in alerts {
            let Some(labels) = relabelled(&alert.labels, &state.external_labels, &state.relabel)
            else {
                continue;
            };
            state
                .queue
                .push_back(Notification::new(alert, labels, generator_url));
        }
        let over = state.queue.len().saturating_sub(self.inner.capacity);
        if over > 0 {
            state.queue.drain(..over);
            self.inner.metrics.dropped.inc_by(over as u64);
            tracing::warn!(
                dropped = over,
                "too many alerts wait to be sent: the oldest are dropped"
            );
        }
        self.inner.waiting(&state);
        drop(state);
        self.inner.wake.notify_one();
    }

    /// Sends until the end. Runs on a thread of its own.
    pub(crate) fn run(&self) {
        let inner = &self.inner;
        loop {
            let mut state = inner.state.lock();
            while state.queue.is_empty() && !state.closed {
                inner.wake.wait(&mut state);
            }
            // What has been queued is tried once more at the end, and no more.
            if state.queue.is_empty() {
                return;
            }
            let count = state.queue.len().min(BATCH);
            let batch: Vec<Notification> = state.queue.drain(..count).collect();
            inner.waiting(&state);
            state
                .alertmanagers
                .look(&*inner.files, inner.clock.monotonic());
            inner.count(&state.alertmanagers);
            let endpoints = state.alertmanagers.active().to_vec();
            drop(state);
            inner.deliver(&batch, &endpoints);
        }
    }

    /// Ends [`run`](Self::run) once it has sent what waits.
    pub(crate) fn close(&self) {
        self.inner.state.lock().closed = true;
        self.inner.wake.notify_all();
    }
}

impl Inner {
    fn waiting(&self, state: &State) {
        let length = i64::try_from(state.queue.len()).unwrap_or(i64::MAX);
        self.metrics.queue_length.set(length);
    }

    fn count(&self, alertmanagers: &Alertmanagers) {
        let count = i64::try_from(alertmanagers.active().len()).unwrap_or(i64::MAX);
        self.metrics.alertmanagers.set(count);
    }

    /// Sends a batch to all Alertmanagers at once. It is lost if none takes it: what goes on firing comes
    /// again with the next evaluations.
    fn deliver(&self, batch: &[Notification], endpoints: &[Endpoint]) {
        let taken = std::thread::scope(|scope| {
            let sending: Vec<_> = endpoints
                .iter()
                .map(|endpoint| scope.spawn(|| self.deliver_to(batch, endpoint)))
                .collect();
            let results: Vec<bool> = sending
                .into_iter()
                .map(|thread| thread.join().unwrap_or(false))
                .collect();
            results.contains(&true)
        });
        if !taken {
            self.metrics.dropped.inc_by(batch.len() as u64);
        }
    }

    fn deliver_to(&self, batch: &[Notification], endpoint: &Endpoint) -> bool {
        let alerts: Vec<Notification> = batch
            .iter()
            .filter_map(|alert| {
                let labels = relabelled(&alert.labels, &[], &endpoint.alert_relabel)?;
                Some(alert.with(labels))
            })
            .collect();
        if alerts.is_empty() {
            return true;
        }
        let begun = self.clock.monotonic();
        let sent = endpoint
            .authorization(&*self.files)
            .and_then(|authorization| {
                self.transport.post(&Post {
                    url: &endpoint.url,
                    body: &wire::body(&alerts),
                    authorization,
                    timeout: endpoint.timeout,
                })
            });
        let spent = self.clock.monotonic().saturating_sub(begun);
        self.metrics.send_seconds.observe(spent.as_secs_f64());
        let of = &[endpoint.url.as_str()];
        let count = alerts.len() as u64;
        self.metrics.sent.with_label_values(of).inc_by(count);
        let error = match sent {
            Ok(status) if (200..300).contains(&status) => return true,
            Ok(status) => format!("bad response status {status}"),
            Err(error) => error,
        };
        self.metrics.send_errors.with_label_values(of).inc_by(count);
        tracing::error!(
            alertmanager = endpoint.url,
            alerts = count,
            error,
            "alerts cannot be sent"
        );
        false
    }
}

/// The labels of an alert as it leaves; `None` if the rules drop it.
fn relabelled(labels: &Labels, external: &[(String, String)], rules: &Rules) -> Option<Labels> {
    if external.is_empty() && rules.is_empty() {
        return Some(labels.clone());
    }
    let mut set: LabelSet = labels.iter().collect();
    for (name, value) in external {
        if !set.has(name) {
            set.set(name, value);
        }
    }
    if !rules.apply(&mut set) {
        return None;
    }
    let mut builder = LabelsBuilder::new();
    for (name, value) in set.iter() {
        builder.push(name, value);
    }
    // A set has each name once, and relabelling gives no empty names.
    builder.build().ok()
}
