//! The bound on what is pending.

use std::sync::atomic::{AtomicUsize, Ordering};

use millrace_log::planted as log_planted;
use prometheus::IntGauge;

use crate::metrics;
use crate::planted;

/// Bytes that may be pending, and how many are.
pub(super) struct Budget {
    max: usize,
    taken: AtomicUsize,
    gauge: IntGauge,
}

impl Budget {
    pub(super) fn new(max: usize, gauge: IntGauge) -> Self {
        gauge.set(0);
        Self {
            max,
            taken: AtomicUsize::new(0),
            gauge,
        }
    }

    pub(super) fn max(&self) -> usize {
        self.max
    }

    /// Takes `bytes`, or says how many are taken if that is too many.
    pub(super) fn take(&self, bytes: usize) -> Result<(), usize> {
        let counted = if log_planted::active(planted::PENDING_NOT_COUNTED) {
            0
        } else {
            bytes
        };
        let add = |taken: usize| {
            taken.checked_add(bytes).filter(|sum| *sum <= self.max)?;
            Some(taken + counted)
        };
        let before = self
            .taken
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, add)?;
        metrics::set(&self.gauge, (before + counted) as u64);
        Ok(())
    }

    /// Gives back what was taken.
    pub(super) fn give_back(&self, bytes: usize) {
        let subtract = |taken: usize| Some(taken.saturating_sub(bytes));
        let before = self
            .taken
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, subtract)
            .expect("the update always gives a value");
        metrics::set(&self.gauge, before.saturating_sub(bytes) as u64);
    }
}
