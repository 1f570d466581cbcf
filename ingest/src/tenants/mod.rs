//! What each tenant may push, and how much of it it uses: limits with their overrides, active series,
//! samples per second, shares of memory.
//!
//! Invariants:
//! - Limits are decided before anything is acknowledged; what was accepted is never dropped for one.
//! - Per sample nothing is counted. Per request the rate's bucket is asked, per series and epoch the
//!   set of active ones ([`active`]).
//! - Counts are of this process. Whoever runs several divides the limits (`TenantLimits::processes`).

mod active;
mod offenders;
mod rate;
mod report;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use millrace_model::{SeriesId, TenantId};
use parking_lot::{Mutex, RwLock};

pub(crate) use active::{Epoch, Full, Seen, epoch_at};
pub use report::{LimitsReport, Offender, TenantReport};

use crate::IngestError;
use crate::memory::Usage;
use crate::options::TenantLimits;
use crate::report::Reason;
use crate::series::BadSeries;
use active::{Active, Bounds, Tracked};
use offenders::{Offenders, Top};
use rate::{Bucket, Rate};

/// All tenants that push.
#[derive(Debug)]
pub(crate) struct Tenants {
    by_id: RwLock<HashMap<TenantId, Arc<Tenant>>>,
    limits: RwLock<Table>,
    tracked: Tracked,
    /// The epoch up to which the series of all tenants are swept, or are being swept.
    swept: AtomicU32,
    /// Whether more than one has come, so that they have to share.
    several: Arc<AtomicBool>,
}

#[derive(Debug)]
struct Table {
    defaults: Arc<TenantLimits>,
    overrides: BTreeMap<TenantId, Arc<TenantLimits>>,
}

impl Table {
    fn of(&self, tenant: &TenantId) -> Arc<TenantLimits> {
        Arc::clone(self.overrides.get(tenant).unwrap_or(&self.defaults))
    }
}

/// One tenant.
#[derive(Debug)]
pub(crate) struct Tenant {
    id: TenantId,
    limits: RwLock<Arc<TenantLimits>>,
    active: Active,
    offenders: Mutex<Offenders>,
    rate: Bucket,
    /// Bytes of its bodies in hand.
    pub(crate) decoding: Arc<Usage>,
    /// Bytes that wait to become durable.
    pub(crate) pending: Arc<Usage>,
    refused_series: AtomicU64,
    refused_requests: AtomicU64,
}

impl Tenants {
    /// Names may come from a header that a proxy sets, so their number is bounded; each takes some
    /// 30 KiB at most besides its series.
    const MAX_TENANTS: usize = 4096;

    pub(crate) fn new(defaults: TenantLimits, tracked_series: u64) -> Self {
        Self {
            by_id: RwLock::default(),
            limits: RwLock::new(Table {
                defaults: Arc::new(defaults),
                overrides: BTreeMap::new(),
            }),
            tracked: Tracked::new(tracked_series),
            swept: AtomicU32::new(0),
            several: Arc::default(),
        }
    }

    /// Whether more than one has come.
    pub(crate) fn several(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.several)
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.by_id.read().len()
    }

    /// How many series are kept count of.
    pub(crate) fn tracked_series(&self) -> u64 {
        self.tracked.series()
    }

    /// The tenant of that name, who is new if it has not pushed before.
    ///
    /// # Errors
    ///
    /// [`IngestError::Overloaded`] if there are too many.
    pub(crate) fn get(&self, id: &TenantId, now: Duration) -> Result<Arc<Tenant>, IngestError> {
        if let Some(known) = self.by_id.read().get(id) {
            return Ok(Arc::clone(known));
        }
        let mut by_id = self.by_id.write();
        if by_id.len() >= Self::MAX_TENANTS {
            let epoch = epoch_at(now);
            by_id.retain(|_, tenant| {
                tenant.active.advance(epoch, &self.tracked);
                Arc::strong_count(tenant) > 1 || tenant.active.series() > 0
            });
        }
        if by_id.len() >= Self::MAX_TENANTS {
            return Err(IngestError::Overloaded {
                what: "4096 tenants push already, no more are kept count of",
            });
        }
        if !by_id.is_empty() && !by_id.contains_key(id) {
            self.several.store(true, Ordering::Relaxed);
        }
        let limits = self.limits.read().of(id);
        let tenant = by_id
            .entry(id.clone())
            .or_insert_with(|| Arc::new(Tenant::new(id.clone(), limits, epoch_at(now))));
        Ok(Arc::clone(tenant))
    }

    /// Lets go the series of all tenants that have ended before `epoch`: those of a tenant that no longer
    /// pushes would take room from the others otherwise. Cheap if that was done already.
    fn advance(&self, epoch: Epoch) {
        let done = epoch <= self.swept.load(Ordering::Relaxed);
        if done || epoch <= self.swept.fetch_max(epoch, Ordering::Relaxed) {
            return;
        }
        // Sweeping millions takes its time; nobody is to wait for the map meanwhile.
        let tenants: Vec<_> = self.by_id.read().values().cloned().collect();
        for tenant in tenants {
            tenant.active.advance(epoch, &self.tracked);
        }
    }

    /// Puts other overrides in force, for requests that come from now on.
    pub(crate) fn set_overrides(&self, overrides: BTreeMap<TenantId, TenantLimits>) {
        let overrides = overrides.into_iter();
        let overrides = overrides.map(|(id, limits)| (id, Arc::new(limits)));
        // Under the lock, so that no tenant that is new meanwhile gets those of before.
        let by_id = self.by_id.write();
        let mut table = self.limits.write();
        table.overrides = overrides.collect();
        for tenant in by_id.values() {
            *tenant.limits.write() = table.of(&tenant.id);
        }
    }
}

impl Tenant {
    fn new(id: TenantId, limits: Arc<TenantLimits>, epoch: Epoch) -> Self {
        Self {
            id,
            limits: RwLock::new(limits),
            active: Active::new(epoch),
            offenders: Mutex::default(),
            rate: Bucket::default(),
            decoding: Arc::default(),
            pending: Arc::default(),
            refused_series: AtomicU64::new(0),
            refused_requests: AtomicU64::new(0),
        }
    }

    pub(crate) fn id(&self) -> &TenantId {
        &self.id
    }

    /// The limits that are in force now.
    pub(crate) fn limits(&self) -> Arc<TenantLimits> {
        Arc::clone(&self.limits.read())
    }

    /// Gives back samples that were taken and then not stored.
    pub(crate) fn give_back_samples(&self, samples: u64) {
        self.rate.give_back(samples);
    }

    /// Takes samples of the rate; 0 only asks.
    ///
    /// # Errors
    ///
    /// [`IngestError::RateLimited`].
    pub(crate) fn take_samples(
        &self,
        limits: &TenantLimits,
        samples: u64,
        now: Duration,
    ) -> Result<(), IngestError> {
        let Some(per_second) = limits.per_process(limits.samples_per_second) else {
            return Ok(());
        };
        let burst = limits.per_process(limits.samples_burst);
        let burst = burst.unwrap_or(per_second.saturating_mul(TenantLimits::BURST_SECONDS));
        let rate = Rate { per_second, burst };
        self.rate.take(rate, samples, now).map_err(|wait| {
            self.refused_requests.fetch_add(1, Ordering::Relaxed);
            IngestError::RateLimited {
                tenant: self.id.clone(),
                per_second,
                burst,
                status: limits.rate_limited_status,
                wait,
            }
        })
    }
}

/// One request's way to its tenant's count of series. What it has brought that is new is taken back
/// unless it is [committed](Self::commit).
#[derive(Debug)]
pub(crate) struct Gate<'a> {
    tenant: &'a Tenant,
    tracked: &'a Tracked,
    limits: &'a TenantLimits,
    epoch: Epoch,
    new: &'a mut Vec<SeriesId>,
    /// What is said of those beyond a limit, put together once.
    said: Vec<(Full, BadSeries)>,
}

impl<'a> Gate<'a> {
    /// `now` is of the monotonic clock, `new` a buffer.
    pub(crate) fn open(
        tenants: &'a Tenants,
        tenant: &'a Tenant,
        limits: &'a TenantLimits,
        now: Duration,
        new: &'a mut Vec<SeriesId>,
    ) -> Self {
        let epoch = epoch_at(now);
        tenants.advance(epoch);
        // Another request may still be at it.
        tenant.active.advance(epoch, &tenants.tracked);
        new.clear();
        Self {
            tenant,
            tracked: &tenants.tracked,
            limits,
            epoch,
            new,
            said: Vec::new(),
        }
    }

    /// The epoch of the request, as the cache of known series notes it: never 0.
    pub(crate) fn mark(&self) -> u16 {
        const MARKS: Epoch = 0xffff;
        u16::try_from(self.epoch % MARKS + 1).unwrap_or(u16::MAX)
    }

    /// Asks whether samples of a series may be taken.
    ///
    /// # Errors
    ///
    /// The limit that it is beyond.
    pub(crate) fn ask(&mut self, id: SeriesId, labels: &[u8]) -> Result<(), Full> {
        let bounds = Bounds {
            active: self.limits.per_process(self.limits.active_series),
            new_per_hour: self.limits.per_process(self.limits.new_series_per_hour),
        };
        let active = &self.tenant.active;
        let new = match active.see(id, self.epoch, bounds, self.tracked)? {
            Seen::Known => false,
            Seen::New => {
                self.new.push(id);
                true
            }
            Seen::Uncounted => true,
        };
        let mut offenders = self.tenant.offenders.lock();
        offenders.count(id, labels, self.epoch, new);
        Ok(())
    }

    /// What to say of a series that is beyond a limit.
    pub(crate) fn refusal(&mut self, full: Full) -> &BadSeries {
        self.tenant.refused_series.fetch_add(1, Ordering::Relaxed);
        let at = self.said.iter().position(|(known, _)| *known == full);
        let at = at.unwrap_or_else(|| {
            let top = self.tenant.offenders.lock().top(self.epoch, 3);
            self.said.push((full, self.describe(full, &top)));
            self.said.len() - 1
        });
        &self.said[at].1
    }

    fn describe(&self, full: Full, top: &Top) -> BadSeries {
        let limits = self.limits;
        let active = self.tenant.active.series();
        let (reason, value, limit, text) = match full {
            Full::Active => (
                Reason::TooManyActiveSeries,
                active,
                limits.per_process(limits.active_series),
                "active series of the tenant (ingest.tenants.active_series)",
            ),
            Full::New => (
                Reason::TooManyNewSeries,
                self.tenant.active.new_series(),
                limits.per_process(limits.new_series_per_hour),
                "new series of the tenant in the last hour (ingest.tenants.new_series_per_hour)",
            ),
            Full::Process => (
                Reason::TooManyActiveSeries,
                self.tracked.series(),
                Some(self.tracked.max()),
                "series of all tenants that are kept count of (ingest.tenants.tracked_series)",
            ),
        };
        let limit = limit.unwrap_or(u64::MAX);
        let message = format!(
            "a new series, and there are {value} {text}, the limit is {limit}; known series go on{}",
            most(top)
        );
        let bad = BadSeries::new(reason, message).value(value.to_string().as_bytes());
        bad.limit(usize::try_from(limit).unwrap_or(usize::MAX))
    }

    /// What was new stays counted.
    pub(crate) fn commit(self) {
        self.new.clear();
    }
}

impl Drop for Gate<'_> {
    fn drop(&mut self) {
        for id in self.new.drain(..) {
            self.tenant.active.forget(id, self.epoch, self.tracked);
        }
    }
}

/// The worst offenders in words, or nothing.
fn most(top: &Top) -> String {
    let list = |entries: &[(String, u64)]| {
        let one = |(name, count): &(String, u64)| format!("{name} {count}");
        entries.iter().map(one).collect::<Vec<_>>().join(", ")
    };
    match (top.metrics.is_empty(), top.labels.is_empty()) {
        (true, true) => String::new(),
        (false, true) => format!("; most series: {}", list(&top.metrics)),
        (true, false) => format!("; most label values: {}", list(&top.labels)),
        (false, false) => format!(
            "; most series: {}; most label values: {}",
            list(&top.metrics),
            list(&top.labels)
        ),
    }
}

#[cfg(test)]
mod tests;
