//! How far a view is.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use millrace_model::TenantId;
use millrace_views::{Spans, ViewCatalog, ViewCoverage, ViewDefinition};

use super::cover::Cover;
use super::stale::{stale, with_samples};
use crate::error::StoreError;
use crate::store::Store;

/// One view in figures, over all partitions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ViewStatus {
    /// Buckets in the time that has samples in blocks.
    pub buckets: u64,
    /// Of these, the ones that are derived and hold.
    pub derived: u64,
    /// Of these, the ones whose samples have expired.
    pub frozen: u64,
    /// Samples that were read for it and for views beside it since the start.
    pub samples: u64,
    /// How long the time is that is in blocks and not derived, in ms. Answers are right all the same: it is
    /// computed from samples.
    pub behind_ms: u64,
    /// Its files.
    pub files: u64,
    /// Their size.
    pub bytes: u64,
    /// What keeps it from being derived. It is tried again.
    pub failure: Option<String>,
}

impl Store {
    /// How far a view is.
    #[must_use]
    pub fn view_status(&self, definition: &ViewDefinition) -> ViewStatus {
        let mut status = ViewStatus::default();
        let buckets = |spans: &Spans| spans.len_ms() / definition.width_ms.unsigned_abs().max(1);
        for shared in self.shared() {
            let view = with_samples(&shared.view(), false);
            let cover = shared.views.cover(definition.id());
            let stale = stale(&view, definition, &cover);
            let data = stale.or(&cover.spans());
            status.buckets += buckets(&data);
            status.derived += buckets(&data.minus(&stale));
            status.frozen += buckets(&cover.frozen());
            status.samples += shared.views.samples.load(Ordering::Relaxed);
            status.behind_ms = status.behind_ms.max(stale.len_ms());
            status.files += cover.sheets.len() as u64;
            status.bytes += cover.sheets.values().map(|sheet| sheet.bytes).sum::<u64>();
            let failure = shared.views.failure.lock().clone();
            status.failure = status.failure.or(failure);
        }
        status
    }

    /// Derives a view anew, but for what is frozen. Returns when what was there is forgotten; until it is
    /// derived, answers are computed from samples.
    ///
    /// # Errors
    ///
    /// Of the file system.
    pub fn rebuild_view(&self, definition: &ViewDefinition) -> Result<(), StoreError> {
        for shared in self.shared() {
            let shelf = &shared.views;
            let turn = shelf.turn();
            let cover = shelf.cover(definition.id());
            let mut next = Cover::clone(&cover);
            next.segments.retain(|segment| segment.frozen);
            drop(cover);
            let fs = Arc::clone(&shelf.fs);
            shelf.put(&*fs, next, &turn)?;
        }
        self.views().wake();
        Ok(())
    }
}

impl ViewCatalog for Store {
    fn views(&self, tenant: &TenantId) -> Vec<Arc<ViewDefinition>> {
        self.views().of(tenant)
    }

    fn coverage(&self, definition: &ViewDefinition) -> ViewCoverage {
        let mut all: Option<ViewCoverage> = None;
        for shared in self.shared() {
            let view = with_samples(&shared.view(), true);
            let cover = shared.views.cover(definition.id());
            let derived = cover.spans().minus(&stale(&view, definition, &cover));
            let frozen = cover.frozen();
            all = Some(match all {
                None => ViewCoverage { derived, frozen },
                Some(all) => ViewCoverage {
                    derived: all.derived.and(&derived),
                    frozen: all.frozen.or(&frozen),
                },
            });
        }
        all.unwrap_or_default()
    }
}
