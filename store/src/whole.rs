//! A store seen whole, by those who compare, export or copy it: whose series it holds, and which
//! queue a directory was fed from.

use std::collections::BTreeSet;
use std::path::Path;

use millrace_log::fs::Fs;
use millrace_model::{PartitionId, ShardKey, TenantId};
use millrace_queue::QueueIdentity;

use crate::error::{IoContext, StoreError};
use crate::manifest;
use crate::paths::ShardDir;
use crate::store::Store;

impl Store {
    /// The queue that fed the store in `dir`, as its manifests say; `None` where there is no store.
    /// They do not know the shard key: it is that of `shard_key`.
    ///
    /// # Errors
    ///
    /// A damaged manifest, or of the file system.
    pub fn stored_identity(
        fs: &dyn Fs,
        dir: &Path,
        shard_key: ShardKey,
    ) -> Result<Option<QueueIdentity>, StoreError> {
        if !fs.exists(dir).context("look for", dir)? {
            return Ok(None);
        }
        let entries = fs.list(dir).context("list", dir)?;
        let mut partitions = entries.iter().filter_map(|entry| entry.name.parse().ok());
        let Some(partition) = partitions.next().map(PartitionId) else {
            return Ok(None);
        };
        let found = manifest::stored_queue(fs, &ShardDir::new(dir, partition))?;
        Ok(found.map(|(id, partitions)| QueueIdentity {
            id,
            partitions,
            shard_key,
        }))
    }

    /// The tenants that have series, sorted.
    ///
    /// # Errors
    ///
    /// A block that is damaged or cannot be read.
    pub fn tenants(&self) -> Result<Vec<TenantId>, StoreError> {
        let mut found = BTreeSet::new();
        for view in self.shard_views() {
            for block in &view.blocks {
                found.extend(block.reader.tenants()?);
            }
            for table in &view.tables {
                found.extend(table.table.tenants());
            }
        }
        Ok(found.into_iter().collect())
    }
}
