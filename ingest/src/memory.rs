//! The bytes that all requests in hand may hold together.
//!
//! Memory is reserved *before* it is filled, step by step as a body arrives or is decompressed,
//! so neither a `Content-Length` nor a bomb's header reserves what never comes. Nobody waits for
//! memory: whoever does not get it is answered 503 at once, since waiting requests would hold
//! theirs meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use prometheus::IntGauge;

use crate::IngestError;

/// The shared bound.
#[derive(Clone, Debug)]
pub(crate) struct MemoryBudget(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    limit: usize,
    used: AtomicUsize,
    gauge: IntGauge,
}

impl MemoryBudget {
    pub(crate) fn new(limit: usize, gauge: IntGauge) -> Self {
        Self(Arc::new(Inner {
            limit,
            used: AtomicUsize::new(0),
            gauge,
        }))
    }

    /// A reservation of nothing, to be grown.
    pub(crate) fn reserve_none(&self) -> Reservation {
        Reservation {
            budget: self.clone(),
            bytes: 0,
        }
    }
}

/// Bytes reserved by one request; given back when dropped.
#[derive(Debug)]
pub(crate) struct Reservation {
    budget: MemoryBudget,
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
        let fits = |used: usize| used.checked_add(more).filter(|sum| *sum <= inner.limit);
        inner
            .used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits)
            .map_err(|_| IngestError::Overloaded {
                what: "requests in hand hold all memory for decoding (ingest.decode_memory_bytes)",
            })?;
        self.bytes += more;
        inner.gauge.add(i64::try_from(more).unwrap_or(i64::MAX));
        Ok(())
    }

    /// A reservation of nothing in the same budget.
    pub(crate) fn share(&self) -> Self {
        self.budget.reserve_none()
    }

    /// Gives back all but `bytes`.
    fn shrink_to(&mut self, bytes: usize) {
        let less = self.bytes.saturating_sub(bytes);
        let inner = &self.budget.0;
        inner.used.fetch_sub(less, Ordering::Relaxed);
        inner.gauge.sub(i64::try_from(less).unwrap_or(i64::MAX));
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

    #[test]
    fn the_bound_is_shared_and_given_back() {
        let gauge = IntGauge::new("g", "g").unwrap();
        let budget = MemoryBudget::new(100, gauge.clone());
        let (mut a, mut b) = (budget.reserve_none(), budget.reserve_none());
        a.grow(60).unwrap();
        b.grow(40).unwrap();
        assert!(matches!(b.grow(1), Err(IngestError::Overloaded { .. })));
        assert_eq!(gauge.get(), 100);
        a.shrink_to(10);
        b.grow(50).unwrap();
        drop((a, b));
        assert_eq!(gauge.get(), 0);
        budget.reserve_none().grow(100).unwrap();
        assert!(budget.reserve_none().grow(usize::MAX).is_err());
    }
}
