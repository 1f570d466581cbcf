//! What rules work with: the engine, the way into the queue, the time.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use millrace_model::{
    Clock, Labels, METRIC_NAME, Matcher, Sample, TenantId, TimeRange, TimestampMs, is_stale,
};
use millrace_query::api::Freshness;
use millrace_query::{
    CancelFlag, Engine, QueryRequest, QueryTime, QueryValue, ReadContext, ReadPoint, SampleColumns,
    Select, SeriesSource,
};

use crate::alert::{ALERT_NAME, ALERTS_FOR_STATE};
use crate::metrics::Metrics;
use crate::notify::Notifier;

/// How long it is waited until what a rule has written can be read by the next one.
const VISIBLE_WITHIN: Duration = Duration::from_secs(10);

/// Where results go. The server implements it on the way that pushed data take.
pub trait Sink: Send + Sync + fmt::Debug {
    /// Whether the data that were there at the start can be read, so that rules may begin.
    fn is_ready(&self) -> bool;

    /// Stores samples of a tenant and waits until they are durable. Blocks. Samples of one series take
    /// effect in their order, and writing the same again changes nothing.
    ///
    /// # Errors
    ///
    /// In words, if it is not known that they are durable.
    fn append(&self, tenant: &TenantId, samples: Vec<(Labels, Sample)>)
    -> Result<Appended, String>;
}

/// What became of samples.
#[derive(Clone, Debug, Default)]
pub struct Appended {
    /// The position in the queue behind them, as the text of a `Millrace-Position`.
    pub position: Option<String>,
    /// Samples that were refused, for a limit of the tenant, and why the first of them was.
    pub refused: Option<(u64, String)>,
}

/// What rules see and do outside of themselves.
#[derive(Clone, Debug)]
pub struct RulesWorld {
    /// Evaluates expressions.
    pub engine: Arc<Engine>,
    /// The same data, for what no expression can ask.
    pub source: Arc<dyn SeriesSource>,
    /// Knows how far the data are applied.
    pub freshness: Arc<dyn Freshness>,
    /// Takes results.
    pub sink: Arc<dyn Sink>,
    /// The time.
    pub clock: Arc<dyn Clock>,
}

/// How rules are evaluated, and how their alerts are sent.
#[derive(Clone, Debug)]
pub struct RulesOptions {
    /// The URL under which others reach this server, without a `/` at its end.
    pub external_url: String,
    /// Groups that are evaluated at the same time, at most.
    pub threads: usize,
    /// Alerts that are older than this are not looked for after a restart.
    pub outage_tolerance: Duration,
    /// An alert that was pending before a restart waits at least so long, and one that waits less altogether
    /// is not looked for.
    pub for_grace_period: Duration,
    /// An alert that goes on firing is sent again after this time.
    pub resend_delay: Duration,
    /// Alerts that wait to be sent, at most; the oldest go first.
    pub notification_capacity: usize,
    /// How far back recording rules are evaluated again for data that came late; zero for never.
    pub correct_window: Duration,
}

impl Default for RulesOptions {
    fn default() -> Self {
        Self {
            external_url: String::new(),
            threads: 2,
            outage_tolerance: Duration::from_secs(3600),
            for_grace_period: Duration::from_secs(600),
            resend_delay: Duration::from_secs(60),
            notification_capacity: 10_000,
            correct_window: Duration::from_secs(600),
        }
    }
}

/// The last sample of each series `ALERTS_FOR_STATE`, by the alert's labels.
pub(crate) type ForStates = Vec<(Labels, (TimestampMs, f64))>;

/// What every group shares.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) world: RulesWorld,
    pub(crate) options: RulesOptions,
    pub(crate) metrics: Metrics,
    pub(crate) notifier: Notifier,
    pub(crate) cancel: CancelFlag,
}

impl Shared {
    /// Waits until what was written up to `position` can be read.
    pub(crate) fn wait(&self, position: &str) -> Result<(), String> {
        let freshness = &self.world.freshness;
        let waited = freshness.wait(position, VISIBLE_WITHIN);
        waited.map_err(|error| error.to_string())
    }

    /// Evaluates an expression at one moment. What was written up to `after` is seen.
    pub(crate) fn query(
        &self,
        tenant: &TenantId,
        text: &str,
        at: TimestampMs,
        after: Option<&str>,
    ) -> Result<Vec<(Labels, f64)>, String> {
        let mut point = ReadPoint::default();
        if let Some(position) = after {
            self.wait(position)?;
            point = ReadPoint::after(position);
        }
        let outcome = self.world.engine.query(&QueryRequest {
            tenant: tenant.clone(),
            text: text.to_owned(),
            time: QueryTime::Instant(at),
            lookback: None,
            timeout: None,
            cancel: self.cancel.clone(),
            partial: false,
            point: Arc::new(point),
        });
        match outcome.map_err(|error| error.to_string())?.value {
            QueryValue::Vector(samples) => {
                Ok(samples.into_iter().map(|s| (s.labels, s.value)).collect())
            }
            QueryValue::Scalar { value, .. } => Ok(vec![(Labels::empty(), value)]),
            QueryValue::String { .. } | QueryValue::Matrix(_) => {
                Err("rule result is not a vector or scalar".to_owned())
            }
        }
    }

    /// The last sample of each series `ALERTS_FOR_STATE` of a rule before `at`, by the alert's labels; none
    /// of those that had ended.
    pub(crate) fn for_states(
        &self,
        tenant: &TenantId,
        alert: &str,
        at: TimestampMs,
    ) -> Result<ForStates, String> {
        let matchers = [
            Matcher::equal(METRIC_NAME, ALERTS_FOR_STATE),
            Matcher::equal(ALERT_NAME, alert),
        ];
        let context = Arc::new(ReadContext::new(false, self.cancel.clone(), None));
        let range = TimeRange {
            start: at.saturating_sub(self.options.outage_tolerance),
            end: at,
        };
        let series = self.world.source.select(&Select {
            tenant,
            matchers: &matchers,
            range,
            context: &context,
        });
        let mut found = Vec::new();
        let mut columns = SampleColumns::default();
        for series in series.map_err(|error| error.to_string())? {
            columns.clear();
            series
                .read(&mut columns)
                .map_err(|error| error.to_string())?;
            let last = columns.timestamps.last().zip(columns.values.last());
            let Some((time, value)) = last.filter(|(_, value)| !is_stale(**value)) else {
                continue;
            };
            let own = series
                .labels()
                .iter()
                .filter(|(name, _)| *name != METRIC_NAME);
            let labels = Labels::from_pairs(own).map_err(|error| error.to_string())?;
            found.push((labels, (TimestampMs(*time), *value)));
        }
        Ok(found)
    }
}
