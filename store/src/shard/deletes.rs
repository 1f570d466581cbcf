//! Applying deletes and revocations, which come out of the queue like samples.
//!
//! A delete becomes a [`Tombstone`] that masks reads from then on. If the memtable that takes samples
//! has something that it hides, that memtable is closed first: a place is wholly before a tombstone
//! or wholly behind it, so no sample needs a position of its own.

use std::collections::BTreeMap;
use std::sync::Arc;

use millrace_log::planted::active;
use millrace_model::{Delete, DeleteEntry, DeleteId, Offset, TenantId, TimestampMs};
use millrace_queue::Record;

use super::{Shard, View};
use crate::manifest::Edit;
use crate::planted::{REVOKE_NOT_KEPT, SEAL_FORGETS_DELETES};
use crate::tombstone::{Tombstone, TombstoneState};

/// What the manifest does not have yet: a tombstone, or that there is none any more.
#[derive(Clone, Debug, Default)]
pub(crate) struct DeleteChanges {
    changes: BTreeMap<DeleteId, Option<Arc<Tombstone>>>,
}

impl DeleteChanges {
    /// The edit with the changes in it.
    pub(super) fn into_edit(self, mut edit: Edit) -> Edit {
        for (id, change) in self.changes {
            match change {
                Some(_) if active(SEAL_FORGETS_DELETES) => {}
                None if active(REVOKE_NOT_KEPT) => {}
                Some(tombstone) => edit.tombstones.push(tombstone),
                None => edit.forgotten.push(id),
            }
        }
        edit
    }
}

impl View {
    /// Replaces the tombstones.
    pub(crate) fn set_tombstones(&mut self, mut tombstones: Vec<Arc<Tombstone>>) {
        tombstones.sort_by_key(|t| (t.offset, t.id()));
        self.tombstones = tombstones.into();
    }

    pub(crate) fn tombstone(&self, id: DeleteId) -> Option<&Arc<Tombstone>> {
        self.tombstones.iter().find(|t| t.id() == id)
    }

    /// Puts `tombstone` in the place of the one with its identity, or beside the others.
    pub(crate) fn put_tombstone(&mut self, tombstone: Arc<Tombstone>) {
        let others = self.tombstones.iter().filter(|t| t.id() != tombstone.id());
        let mut all: Vec<_> = others.cloned().collect();
        all.push(tombstone);
        self.set_tombstones(all);
    }

    pub(crate) fn drop_tombstone(&mut self, id: DeleteId) {
        let others = self.tombstones.iter().filter(|t| t.id() != id);
        self.tombstones = others.cloned().collect();
    }
}

impl Shard {
    /// Whether one of the decoded deletes hides something in the memtable that takes samples.
    pub(super) fn delete_needs_boundary(&self) -> bool {
        let Some(tenant) = &self.decoded.tenant else {
            return false;
        };
        self.decoded.deletes.iter().any(|entry| match entry {
            DeleteEntry::Delete(delete) => self.active_holds(tenant, delete),
            DeleteEntry::Revoke { .. } => false,
        })
    }

    fn active_holds(&self, tenant: &TenantId, delete: &Delete) -> bool {
        let ends = (delete.range.start.0, delete.range.end.0);
        delete.selectors.iter().any(|matchers| {
            let mut found = false;
            self.active
                .select(tenant, matchers, ends, |_, _, _, _| found = true);
            found
        })
    }

    /// Applies the decoded deletes of `record`.
    pub(super) fn apply_deletes(&mut self, record: &Record) {
        let Some(tenant) = self.decoded.tenant.clone() else {
            return;
        };
        for entry in std::mem::take(&mut self.decoded.deletes) {
            match entry {
                DeleteEntry::Delete(delete) => {
                    self.apply_delete(tenant.clone(), record.offset, delete);
                }
                DeleteEntry::Revoke { id, .. } => {
                    self.apply_revoke(&tenant, id, record.appended_at);
                }
            }
        }
    }

    fn apply_delete(&mut self, tenant: TenantId, offset: Offset, delete: Delete) {
        let tombstone = Arc::new(Tombstone {
            tenant,
            offset,
            before: self.shared.next_sequence(),
            state: TombstoneState::Pending,
            delete,
        });
        let id = tombstone.id();
        tracing::info!(
            partition = self.partition().0,
            offset = offset.0,
            tenant = %tombstone.tenant,
            %id,
            "delete applied"
        );
        self.shared.metrics.deletes.inc();
        let changes = &mut self.unsealed_deletes.changes;
        changes.insert(id, Some(Arc::clone(&tombstone)));
        self.shared
            .change_view(|view| view.put_tombstone(tombstone));
    }

    fn apply_revoke(&mut self, tenant: &TenantId, id: DeleteId, appended_at: TimestampMs) {
        let partition = self.partition().0;
        let view = self.shared.view();
        let known = view.tombstone(id).filter(|t| t.tenant == *tenant);
        match known {
            Some(tombstone) if tombstone.revocable_at(appended_at) => {
                tracing::info!(partition, %tenant, %id, "delete revoked");
                self.shared.metrics.revoked_deletes.inc();
                self.unsealed_deletes.changes.insert(id, None);
                self.shared.change_view(|view| view.drop_tombstone(id));
            }
            Some(_) => {
                tracing::warn!(partition, %tenant, %id, "revoke came too late");
                self.shared.metrics.late_revokes.inc();
            }
            None => {
                tracing::warn!(partition, %tenant, %id, "revoke of a delete that is not known");
                self.shared.metrics.late_revokes.inc();
            }
        }
    }
}
