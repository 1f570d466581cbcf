//! A shard's covers, as readers see them, and the files that are behind them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use millrace_log::fs::{Fs, create_dir_durable, publish, read_all};
use millrace_views::{Span, ViewId};
use parking_lot::{Mutex, MutexGuard, RwLock};

use super::cover::{Cover, decode};
use crate::error::{IoContext, StoreError};
use crate::paths::{ShardDir, is_temporary, parse_cover, parse_sheet};

/// A cover is read whole; beyond this it is not one.
const MAX_COVER_BYTES: u64 = 256 << 20;

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Shelf {
    pub(super) fs: Arc<dyn Fs>,
    dir: ShardDir,
    covers: RwLock<BTreeMap<ViewId, Arc<Cover>>>,
    /// Held by who changes covers, from the look at the blocks to the last rename.
    turn: Mutex<()>,
    /// Covers that were replaced, oldest first, each with the files that its successor has not.
    replaced: Mutex<Vec<(Arc<Cover>, Vec<PathBuf>)>>,
    /// Samples that were folded, views times, since the open.
    pub(super) samples: AtomicU64,
    /// How many doublings of a cell the next piece of work is long.
    doublings: AtomicU32,
    /// What kept the last turn from its end.
    pub(super) failure: Mutex<Option<String>>,
}

impl Shelf {
    /// Reads what there is. A cover that is damaged, or names a seal that the manifest does not know, is set
    /// aside: what it covers is derived again.
    pub(crate) fn open(
        shared_fs: &Arc<dyn Fs>,
        dir: &ShardDir,
        next_sequence: u64,
    ) -> Result<Self, StoreError> {
        let fs = &**shared_fs;
        let root = dir.views();
        create_dir_durable(fs, &root).context("create", &root)?;
        let mut covers = BTreeMap::new();
        let mut named = BTreeSet::new();
        let entries = fs.list(&root).context("list", &root)?;
        let mut changed = false;
        for id in entries.iter().filter_map(|entry| parse_cover(&entry.name)) {
            let path = dir.cover(id);
            let bytes = read_all(fs, &path, MAX_COVER_BYTES).context("read", &path)?;
            let cover = decode(&bytes).and_then(|cover| {
                let known = cover.view == id && cover.last_sequence() < next_sequence;
                known
                    .then_some(cover)
                    .ok_or("is not of this shard's blocks")
            });
            match cover {
                Ok(cover) => {
                    let sheets = cover.sheets.iter();
                    named.extend(sheets.map(|(cell, sheet)| (id, *cell, sheet.generation)));
                    covers.insert(id, Arc::new(cover));
                }
                Err(what) => {
                    tracing::error!(
                        ?path,
                        what,
                        "cover of a view set aside: it is derived again"
                    );
                    let aside = dir.damaged_cover(id);
                    fs.rename(&path, &aside).context("rename", &path)?;
                    changed = true;
                }
            }
        }
        for entry in &entries {
            let orphan = parse_sheet(&entry.name).is_some_and(|sheet| !named.contains(&sheet));
            if orphan || is_temporary(&entry.name) {
                let path = root.join(&entry.name);
                fs.unlink(&path).context("remove", &path)?;
                changed = true;
            }
        }
        if changed {
            fs.sync_dir(&root).context("sync", &root)?;
        }
        Ok(Self {
            fs: Arc::clone(shared_fs),
            dir: dir.clone(),
            covers: RwLock::new(covers),
            turn: Mutex::new(()),
            replaced: Mutex::new(Vec::new()),
            samples: AtomicU64::new(0),
            doublings: AtomicU32::new(0),
            failure: Mutex::new(None),
        })
    }

    /// Waits until nobody else changes covers.
    pub(super) fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock()
    }

    /// The view's cover. Taken behind the shard's blocks: what retention let go before they were taken is
    /// then frozen in it.
    pub(crate) fn cover(&self, view: ViewId) -> Arc<Cover> {
        let known = self.covers.read().get(&view).cloned();
        known.unwrap_or_else(|| Arc::new(Cover::empty(view)))
    }

    /// All covers.
    pub(crate) fn covers(&self) -> Vec<Arc<Cover>> {
        self.covers.read().values().cloned().collect()
    }

    pub(super) fn sheet(&self, view: ViewId, cell: i64, generation: u64) -> PathBuf {
        self.dir.sheet(view, cell, generation)
    }

    /// Makes a cover durable, then visible. Its sheets are durable.
    pub(super) fn put(
        &self,
        fs: &dyn Fs,
        cover: Cover,
        _turn: &MutexGuard<'_, ()>,
    ) -> Result<(), StoreError> {
        let path = self.dir.cover(cover.view);
        publish(fs, &path, &cover.encode()).context("publish", &path)?;
        let view = cover.view;
        let kept: BTreeSet<_> = cover
            .sheets
            .iter()
            .map(|(c, s)| (*c, s.generation))
            .collect();
        let before = self.covers.write().insert(view, Arc::new(cover));
        if let Some(before) = before {
            let gone = before.sheets.iter().map(|(cell, s)| (*cell, s.generation));
            let gone = gone.filter(|sheet| !kept.contains(sheet));
            let paths = gone.map(|(cell, generation)| self.sheet(view, cell, generation));
            let paths = paths.collect();
            self.replaced.lock().push((before, paths));
        }
        self.remove_replaced(fs)
    }

    /// Forgets a view that nobody defines any more.
    pub(super) fn remove(
        &self,
        fs: &dyn Fs,
        view: ViewId,
        _turn: &MutexGuard<'_, ()>,
    ) -> Result<(), StoreError> {
        let path = self.dir.cover(view);
        if fs.exists(&path).context("look for", &path)? {
            fs.unlink(&path).context("remove", &path)?;
            let root = self.dir.views();
            // The sheets are orphans only when this is durable.
            fs.sync_dir(&root).context("sync", &root)?;
        }
        if let Some(before) = self.covers.write().remove(&view) {
            let sheets = before.sheets.iter();
            let paths = sheets.map(|(cell, s)| self.sheet(view, *cell, s.generation));
            let paths = paths.collect();
            self.replaced.lock().push((before, paths));
        }
        self.remove_replaced(fs)
    }

    /// Removes the files of covers that no reader holds. One that is held holds up those behind it, which
    /// may be in it too.
    pub(super) fn remove_replaced(&self, fs: &dyn Fs) -> Result<(), StoreError> {
        let mut replaced = self.replaced.lock();
        let free = replaced
            .iter()
            .take_while(|(cover, _)| Arc::strong_count(cover) == 1);
        let free = free.count();
        for (_, paths) in replaced.drain(..free) {
            for path in paths {
                fs.unlink(&path).context("remove", &path)?;
            }
        }
        Ok(())
    }

    /// The piece of work that ends with `cell`.
    pub(super) fn piece(&self, cell: Span) -> Span {
        let cells = 1i64 << self.doublings.load(Ordering::Relaxed);
        let len = (cell.to - cell.from).saturating_mul(cells);
        Span::new(cell.to.saturating_sub(len), cell.to)
    }

    /// Notes whether there was something in the last piece.
    pub(super) fn note_piece(&self, found: bool) {
        let before = self.doublings.load(Ordering::Relaxed);
        let next = if found { 0 } else { (before + 1).min(40) };
        self.doublings.store(next, Ordering::Relaxed);
    }

    pub(super) fn note_samples(&self, samples: u64) {
        self.samples.fetch_add(samples, Ordering::Relaxed);
    }
}

/// For tests: what is read without what is derived.
#[cfg(test)]
impl Shelf {
    pub(crate) fn hide(&self, view: ViewId) -> Option<Arc<Cover>> {
        self.covers.write().remove(&view)
    }

    pub(crate) fn show(&self, cover: Option<Arc<Cover>>) {
        if let Some(cover) = cover {
            self.covers.write().insert(cover.view, cover);
        }
    }
}
