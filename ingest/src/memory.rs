//! The bytes that all requests in hand may hold together.
//!
//! Memory is reserved *before* it is filled, step by step as a body arrives or is decompressed,
//! so neither a `Content-Length` nor a bomb's header reserves what never comes. Nobody waits for
//! memory: whoever does not get it is answered 503 at once, since waiting requests would hold
//! theirs meanwhile.
//!
//! Where several tenants push, none may hold more than [`SHARE`] times what is left free: one that
//! floods alone gets four fifths at most, and whoever comes finds room.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use prometheus::IntGauge;

use crate::IngestError;

/// A tenant may hold so many times what is free.
const SHARE: usize = 4;

/// Whether a tenant that holds `mine` of a bound may have `more`, if `used` of it are taken by all.
pub(crate) fn is_fair(mine: usize, more: usize, used: usize, limit: usize) -> bool {
    let free = limit.saturating_sub(used);
    mine.saturating_add(more) <= free.saturating_mul(SHARE)
}

/// What one tenant holds of a bound.
#[derive(Debug, Default)]
pub(crate) struct Usage(AtomicUsize);

impl Usage {
    /// Bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// What a budget says when it has no more.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Words {
    /// All of it is taken.
    pub(crate) all: &'static str,
    /// This tenant has its share.
    pub(crate) share: &'static str,
}

/// Bodies in hand, encoded and decoded.
pub(crate) const DECODING: Words = Words {
    all: "requests in hand hold all memory for decoding (ingest.decode_memory_bytes)",
    share: "requests of this tenant hold its share of the memory for decoding, which others need too \
            (ingest.decode_memory_bytes)",
};

/// Samples on their way to the disk.
pub(crate) const PENDING: Words = Words {
    all: "too many bytes wait to become durable (queue.max_pending_bytes)",
    share: "too many bytes of this tenant wait to become durable, which others need too \
            (queue.max_pending_bytes)",
};

/// The shared bound.
#[derive(Clone, Debug)]
pub(crate) struct MemoryBudget(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    limit: usize,
    used: AtomicUsize,
    /// Whether it has to be shared by tenants.
    several: Arc<AtomicBool>,
    words: Words,
    gauge: Option<IntGauge>,
}

impl MemoryBudget {
    pub(crate) fn new(
        limit: usize,
        several: Arc<AtomicBool>,
        words: Words,
        gauge: Option<IntGauge>,
    ) -> Self {
        Self(Arc::new(Inner {
            limit,
            used: AtomicUsize::new(0),
            several,
            words,
            gauge,
        }))
    }

    /// A reservation of nothing for a tenant, to be grown.
    pub(crate) fn reserve_none(&self, of: &Arc<Usage>) -> Reservation {
        Reservation {
            budget: self.clone(),
            of: Arc::clone(of),
            bytes: 0,
        }
    }
}

/// Bytes reserved by one request; given back when dropped.
#[derive(Debug)]
pub(crate) struct Reservation {
    budget: MemoryBudget,
    of: Arc<Usage>,
    bytes: usize,
}

impl Reservation {
    /// Reserves `more` bytes on top.
    ///
    /// # Errors
    ///
    /// [`IngestError::Overloaded`] if the others hold too much.
    pub(crate) fn grow(&mut self, more: usize) -> Result<(), IngestError> {
        let inner = &self.budget.0;
        if inner.several.load(Ordering::Relaxed) {
            let used = inner.used.load(Ordering::Relaxed);
            if !is_fair(self.of.bytes(), more, used, inner.limit) {
                let what = inner.words.share;
                return Err(IngestError::Overloaded { what });
            }
        }
        let fits = |used: usize| used.checked_add(more).filter(|sum| *sum <= inner.limit);
        let taken = inner
            .used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits);
        if taken.is_err() {
            let what = inner.words.all;
            return Err(IngestError::Overloaded { what });
        }
        self.of.0.fetch_add(more, Ordering::Relaxed);
        self.bytes += more;
        if let Some(gauge) = &inner.gauge {
            gauge.add(i64::try_from(more).unwrap_or(i64::MAX));
        }
        Ok(())
    }

    /// As [`grow`](Self::grow), but where it is more than there could ever be it reserves nothing:
    /// somebody behind will say so.
    ///
    /// # Errors
    ///
    /// [`IngestError::Overloaded`] if the others hold too much.
    pub(crate) fn grow_or_leave(&mut self, more: usize) -> Result<(), IngestError> {
        match more > self.budget.0.limit {
            true => Ok(()),
            false => self.grow(more),
        }
    }

    /// A reservation of nothing in the same budget, for the same tenant.
    pub(crate) fn share(&self) -> Self {
        self.budget.reserve_none(&self.of)
    }

    /// Gives back all but `bytes`.
    fn shrink_to(&mut self, bytes: usize) {
        let less = self.bytes.saturating_sub(bytes);
        let inner = &self.budget.0;
        inner.used.fetch_sub(less, Ordering::Relaxed);
        self.of.0.fetch_sub(less, Ordering::Relaxed);
        if let Some(gauge) = &inner.gauge {
            gauge.sub(i64::try_from(less).unwrap_or(i64::MAX));
        }
        self.bytes -= less;
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.shrink_to(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(limit: usize, several: bool) -> (MemoryBudget, IntGauge) {
        let gauge = IntGauge::new("g", "g").unwrap();
        let several = Arc::new(AtomicBool::new(several));
        let budget = MemoryBudget::new(limit, several, DECODING, Some(gauge.clone()));
        (budget, gauge)
    }

    #[test]
    fn the_bound_is_shared_and_given_back() {
        let (budget, gauge) = budget(100, false);
        let tenant = Arc::default();
        let (mut a, mut b) = (budget.reserve_none(&tenant), budget.reserve_none(&tenant));
        a.grow(60).unwrap();
        b.grow(40).unwrap();
        assert!(matches!(b.grow(1), Err(IngestError::Overloaded { .. })));
        assert_eq!((gauge.get(), tenant.bytes()), (100, 100));
        a.shrink_to(10);
        b.grow(50).unwrap();
        drop((a, b));
        assert_eq!((gauge.get(), tenant.bytes()), (0, 0));
        budget.reserve_none(&tenant).grow(100).unwrap();
        assert!(budget.reserve_none(&tenant).grow(usize::MAX).is_err());
    }

    #[test]
    fn where_several_push_one_that_floods_leaves_room_for_others() {
        let (budget, _) = budget(1000, true);
        let (flood, quiet) = (Arc::default(), Arc::default());
        let mut held = Vec::new();
        loop {
            let mut one = budget.reserve_none(&flood);
            match one.grow(10) {
                Ok(()) => held.push(one),
                Err(error) => {
                    assert!(error.to_string().contains("of this tenant"), "{error}");
                    break;
                }
            }
        }
        assert!((790..=800).contains(&flood.bytes()), "{}", flood.bytes());
        let mut late = budget.reserve_none(&quiet);
        late.grow(160).unwrap();
        // The flood gets no more until it has given back, whoever has the rest.
        assert!(budget.reserve_none(&flood).grow(1).is_err());
        held.clear();
        budget.reserve_none(&flood).grow(600).unwrap();
    }
}
