//! One target, asked at its moments.
//!
//! Invariants:
//! - A loop that is stopped for good waits before it writes markers, so that a target that has only
//!   moved does not go stale; on shutdown none are written, so that a restart leaves no gap.
//! - A scrape in hand is stored, whatever the loop is told; one that the process's end cuts is counted as
//!   lost.
//! - What was submitted is noted, whenever the loop is stopped.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use http::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue};
use millrace_ingest::{Ingest, IngestError, Scrape, ScrapeBody, ScrapeFailure, TargetSeries};
use millrace_model::{Clock, SeriesId, TimestampMs};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};

use crate::config::Job;
use crate::http::{Client, Kept, accept_header, format_of};
use crate::metrics::Metrics;
use crate::status::{Health, Standing};
use crate::target::Target;

/// What every loop has in common.
#[derive(Clone, Debug)]
pub(crate) struct Shared {
    pub(crate) ingest: Ingest,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) metrics: Metrics,
    /// Spreads the moments of this machine's scrapes.
    pub(crate) seed: u64,
    /// The tenant that scraped series are of.
    pub(crate) tenant: millrace_model::TenantId,
}

/// What a loop is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// Goes on.
    Run,
    /// Ends with the scrape in hand; somebody else goes on with its series.
    Leave,
    /// Ends with the scrape in hand, and writes markers: the target is no more.
    End,
    /// Stops: the process ends.
    Stop,
}

/// Finds the series that other targets have by the time that this one has ended.
pub(crate) type Elsewhere = Arc<dyn Fn(&Target) -> HashSet<SeriesId> + Send + Sync>;

/// One target's loop.
pub(crate) struct ScrapeLoop {
    pub(crate) shared: Shared,
    pub(crate) job: Arc<Job>,
    pub(crate) client: Client,
    pub(crate) target: Arc<Target>,
    pub(crate) series: Arc<Mutex<TargetSeries>>,
    pub(crate) standing: Arc<Mutex<Standing>>,
    /// Why every scrape of the job fails, whatever its targets say.
    pub(crate) forced_error: Arc<Mutex<Option<String>>>,
    pub(crate) orders: watch::Receiver<Order>,
    /// Whether the target has been scraped by a loop before this one.
    pub(crate) carried: bool,
    pub(crate) elsewhere: Elsewhere,
}

/// Timers are late by this much without anything being wrong; timestamps are put right then, since
/// regular ones take a fraction of the space.
const TOLERANCE: Duration = Duration::from_millis(2);

impl ScrapeLoop {
    /// Runs until it is told otherwise.
    pub(crate) async fn run(self) {
        let mut orders = self.orders.clone();
        let now = self.shared.clock.now();
        let first = self.target.first_after(now.0, self.shared.seed);
        let mut ticks = interval_at(Instant::now() + first, self.target.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut kept = Kept::default();
        let mut aligned: Option<TimestampMs> = None;
        let mut expected: Option<Instant> = None;
        let mut scraped = self.carried;
        loop {
            tokio::select! {
                biased;
                () = ordered(&mut orders) => break,
                tick = ticks.tick() => self.count_skipped(&mut expected, tick),
            }
            let now = self.shared.clock.now();
            let time = align(&mut aligned, now, self.target.interval);
            let began = self.shared.clock.monotonic();
            let fetched = tokio::select! {
                biased;
                () = stopped(&mut orders) => {
                    self.shared.metrics.lost("stopped");
                    break;
                }
                fetched = self.fetch(&mut kept) => fetched,
            };
            self.store(fetched, time, began).await;
            scraped = true;
        }
        if scraped && *self.orders.borrow() == Order::End {
            self.end(ticks).await;
        }
    }

    fn count_skipped(&self, expected: &mut Option<Instant>, tick: Instant) {
        if let Some(expected) = *expected {
            let late = tick.saturating_duration_since(expected).as_nanos();
            let skipped = late / self.target.interval.as_nanos().max(1);
            self.shared
                .metrics
                .skipped
                .inc_by(u64::try_from(skipped).unwrap_or(u64::MAX));
        }
        *expected = Some(tick + self.target.interval);
    }

    /// What the target says within its time. The outer error means that the scrape is lost.
    async fn fetch(
        &self,
        kept: &mut Kept,
    ) -> Result<Result<ScrapeBody, ScrapeFailure>, IngestError> {
        let forced = self.forced_error.lock().clone();
        if let Some(error) = forced {
            return Ok(Err(ScrapeFailure::Fetch(error)));
        }
        let asked = timeout(self.target.timeout, self.ask(kept)).await;
        asked.unwrap_or_else(|_| {
            *kept = Kept::default();
            let url = self.target.url.as_str();
            let error = format!("Get {url:?}: context deadline exceeded");
            Ok(Err(ScrapeFailure::Fetch(error)))
        })
    }

    async fn ask(&self, kept: &mut Kept) -> Result<Result<ScrapeBody, ScrapeFailure>, IngestError> {
        let failed = |error: String| Ok(Err(ScrapeFailure::Fetch(error)));
        let headers = match self.headers() {
            Ok(headers) => headers,
            Err(error) => return failed(error),
        };
        let mut answer = match self.client.get(kept, &self.target.url, &headers).await {
            Ok(answer) => answer,
            Err(error) => return failed(error),
        };
        let fallback = self.job.yaml.fallback_scrape_protocol;
        let format = match format_of(answer.header(CONTENT_TYPE), fallback) {
            Ok(format) => format,
            Err(error) => return failed(error),
        };
        let encoding = answer
            .header(CONTENT_ENCODING)
            .map(|text| text.as_bytes().to_vec());
        let limit = self.job.limits.body_size;
        let (ingest, tenant) = (&self.shared.ingest, &self.shared.tenant);
        let mut body = match ingest.scrape_body(tenant, format, encoding.as_deref(), limit) {
            Ok(body) => body,
            Err(error) if error.is_retryable() => return Err(error),
            Err(error) => return failed(error.to_string()),
        };
        loop {
            match answer.next().await {
                Ok(Some(bytes)) => match body.push(&bytes) {
                    Ok(()) => {}
                    Err(error) if error.is_retryable() => return Err(error),
                    Err(_) => return Ok(Err(ScrapeFailure::BodySize)),
                },
                Ok(None) => return Ok(Ok(body)),
                Err(error) => return failed(error),
            }
        }
    }

    fn headers(&self) -> Result<HeaderMap, String> {
        let mut headers = HeaderMap::new();
        let accept = accept_header(&self.job.protocols);
        let value = |text: &str| HeaderValue::from_str(text).map_err(|error| error.to_string());
        headers.insert(ACCEPT, value(&accept)?);
        let encoding = if self.job.yaml.enable_compression {
            "gzip"
        } else {
            "identity"
        };
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static(encoding));
        let timeout = self.target.timeout.as_secs_f64().to_string();
        headers.insert("x-prometheus-scrape-timeout-seconds", value(&timeout)?);
        Ok(headers)
    }

    async fn store(
        &self,
        fetched: Result<Result<ScrapeBody, ScrapeFailure>, IngestError>,
        time: TimestampMs,
        began: Duration,
    ) {
        let metrics = &self.shared.metrics;
        let stored = match fetched {
            Ok(body) => {
                let scrape = Scrape { body, time, began };
                self.shared.ingest.scrape(&self.series, scrape).await
            }
            Err(error) => Err(error),
        };
        let took = self.shared.clock.monotonic().saturating_sub(began);
        let mut standing = self.standing.lock();
        standing.last_scrape = Some(time);
        standing.last_scrape_duration = took;
        match stored {
            Ok(outcome) => {
                let health = match &outcome.error {
                    None => Health::Up,
                    Some(_) => Health::Down,
                };
                match health {
                    Health::Up => metrics.up.inc(),
                    Health::Down | Health::Unknown => metrics.down.inc(),
                }
                metrics.markers.inc_by(outcome.markers);
                metrics.duplicates.inc_by(outcome.duplicates);
                if let Some(limit) = outcome.exceeded {
                    metrics.exceeded(limit);
                }
                standing.health = health;
                standing.last_scrape_duration = outcome.duration;
                standing.last_error = match (outcome.error, outcome.refusal) {
                    (Some(error), _) => error,
                    (None, Some(first)) => {
                        format!("{} samples are not stored; {first}", outcome.refused)
                    }
                    (None, None) => String::new(),
                };
                if health == Health::Down {
                    let (job, url) = (self.job.name(), self.target.url.as_str());
                    tracing::debug!(job, url, error = standing.last_error, "scrape failed");
                }
            }
            Err(error) => {
                metrics.lost(error.reason());
                standing.last_error = format!("the scrape is lost: {error}");
                let (job, url) = (self.job.name(), self.target.url.as_str());
                tracing::warn!(job, url, %error, "a scrape is lost");
            }
        }
    }

    /// Markers for a target that is no more, once it is clear that it does not come back.
    async fn end(&self, mut ticks: tokio::time::Interval) {
        let mut orders = self.orders.clone();
        let waiting = async {
            ticks.tick().await;
            let time = self.shared.clock.now();
            ticks.tick().await;
            let a_little = Instant::now() + self.target.interval / 10;
            interval_at(a_little, self.target.interval).tick().await;
            time
        };
        let time = tokio::select! {
            time = waiting => time,
            // The process ends.
            () = stopped(&mut orders) => return,
        };
        let elsewhere = (self.elsewhere)(&self.target);
        let ended = self
            .shared
            .ingest
            .end_target(&self.series, time, elsewhere)
            .await;
        match ended {
            Ok(outcome) => self.shared.metrics.markers.inc_by(outcome.markers),
            Err(error) => {
                self.shared.metrics.lost(error.reason());
                let (job, url) = (self.job.name(), self.target.url.as_str());
                tracing::warn!(job, url, %error, "the markers of a target that is gone are lost");
            }
        }
    }
}

/// Until there is another order than to run.
async fn ordered(orders: &mut watch::Receiver<Order>) {
    // Nobody can give orders any more: the process ends.
    drop(orders.wait_for(|order| *order != Order::Run).await);
}

/// Until the process ends.
async fn stopped(orders: &mut watch::Receiver<Order>) {
    drop(orders.wait_for(|order| *order == Order::Stop).await);
}

/// The time of a scrape: that of the timer, if it came at about its moment.
fn align(aligned: &mut Option<TimestampMs>, now: TimestampMs, interval: Duration) -> TimestampMs {
    let step = i64::try_from(interval.as_millis())
        .unwrap_or(i64::MAX)
        .max(1);
    let tolerance = i64::try_from(TOLERANCE.as_millis()).unwrap_or(0);
    let Some(at) = aligned else {
        *aligned = Some(now);
        return now;
    };
    if step <= 100 * tolerance {
        return now;
    }
    let behind = now.0.saturating_sub(at.0);
    if behind >= step {
        at.0 += behind / step * step;
    }
    match now.0 - at.0 {
        0..=2 => *at,
        _ => now,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_that_are_late_by_a_timer_are_put_right() {
        let interval = Duration::from_secs(1);
        let mut aligned = None;
        let mut at = |ms| align(&mut aligned, TimestampMs(ms), interval).0;
        assert_eq!(at(10_000), 10_000);
        assert_eq!(at(11_002), 11_000);
        assert_eq!(at(12_003), 12_003);
        assert_eq!(at(13_001), 13_000);
        // A tick was skipped.
        assert_eq!(at(15_000), 15_000);
        // The clock was set back.
        assert_eq!(at(9_000), 9_000);
        // Intervals that are not long against the tolerance are left alone.
        let mut aligned = None;
        let mut at = |ms| align(&mut aligned, TimestampMs(ms), Duration::from_millis(200)).0;
        assert_eq!((at(0), at(201)), (0, 201));
    }
}
