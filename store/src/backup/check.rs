//! Whether a backup is what it was: its files against its list, and a restored store against both.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use millrace_log::examine as examine_log;
use millrace_log::fs::{Fs, remove_tree};
use millrace_model::{Clock, Offset};
use millrace_queue::HeldQueue;
use prometheus::Registry;

use super::write::checksum;
use super::{Backup, BackupProblem, SAVED_DIR, SavedChecksum, SavedFile, problem, saved_path};
use crate::block::BlockReader;
use crate::error::{IoContext, StoreError};
use crate::examine::{Depth, ExaminedShard, Finding, examine};
use crate::options::StoreOptions;
use crate::paths::is_temporary;
use crate::store::Store;

/// What was found in a backup.
#[derive(Clone, Debug)]
pub struct Checked {
    /// What it holds.
    pub backup: Backup,
    /// What is wrong.
    pub damages: Vec<Finding>,
    /// Files that it does not list. They do no harm.
    pub strangers: Vec<Finding>,
}

/// Reads all files of the backup at `dir` and compares them with its list. `progress` is told of each
/// file's bytes.
///
/// # Errors
///
/// [`StoreError::Backup`] if there is no list that can be believed; of the file system.
pub fn check(
    fs: &dyn Fs,
    dir: &Path,
    progress: &mut dyn FnMut(u64),
) -> Result<Checked, StoreError> {
    let backup = Backup::read(fs, dir)?;
    let mut damages = Vec::new();
    for file in &backup.files {
        let path = saved_path(dir, &file.name);
        if let Err(error) = check_file(fs, &path, file) {
            let what = match &error {
                StoreError::Backup { problem, .. } => problem.to_string(),
                other => other.to_string(),
            };
            damages.push(Finding { path, what });
        }
        progress(file.bytes);
    }
    let listed: BTreeSet<&str> = backup.files.iter().map(|f| f.name.as_str()).collect();
    let mut strangers = Vec::new();
    let saved = dir.join(SAVED_DIR);
    if fs.exists(&saved).context("look for", &saved)? {
        strays(fs, &saved, "", &listed, &mut strangers)?;
    }
    Ok(Checked {
        backup,
        damages,
        strangers,
    })
}

fn strays(
    fs: &dyn Fs,
    dir: &Path,
    prefix: &str,
    listed: &BTreeSet<&str>,
    found: &mut Vec<Finding>,
) -> Result<(), StoreError> {
    for entry in fs.list(dir).context("list", dir)? {
        let (path, name) = (dir.join(&entry.name), format!("{prefix}{}", entry.name));
        if entry.is_dir {
            strays(fs, &path, &format!("{name}/"), listed, found)?;
        } else if !listed.contains(name.as_str()) {
            let what = if is_temporary(&name) {
                "a file that was not finished"
            } else {
                "the backup does not list it"
            };
            let what = what.to_owned();
            found.push(Finding { path, what });
        }
    }
    Ok(())
}

/// Compares one file with what the list says of it; a block with itself as well, every byte.
pub(super) fn check_file(fs: &dyn Fs, path: &Path, listed: &SavedFile) -> Result<(), StoreError> {
    if !fs.exists(path).context("look for", path)? {
        return Err(problem(path, BackupProblem::Missing));
    }
    let file = fs.open(path).context("open", path)?;
    let found = file.len().context("look at", path)?;
    if found != listed.bytes {
        let listed = listed.bytes;
        return Err(problem(path, BackupProblem::Length { found, listed }));
    }
    let (found, listed) = match listed.checksum {
        SavedChecksum::Content(crc) => (checksum(&*file, listed.bytes, path)?, crc),
        SavedChecksum::Footer(crc) => {
            let reader = BlockReader::open(fs, path)?;
            reader.verify()?;
            (reader.summary().footer_crc, crc)
        }
    };
    if found != listed {
        return Err(problem(path, BackupProblem::Checksum { found, listed }));
    }
    Ok(())
}

/// Restores the backup at `dir` to `scratch`, which is empty or not there, opens the store there and
/// compares all counts with the list. Then removes `scratch`. Returns what does not agree.
///
/// # Errors
///
/// Those of [`restore`](super::restore()) and of opening a store.
pub fn verify(
    fs: &Arc<dyn Fs>,
    clock: Arc<dyn Clock>,
    dir: &Path,
    scratch: &Path,
    options: StoreOptions,
    progress: &mut dyn FnMut(u64),
) -> Result<(Backup, Vec<Finding>), StoreError> {
    let backup = super::restore(&**fs, dir, scratch, progress)?;
    let mut found = Vec::new();
    compare_store(&**fs, &backup, scratch, &mut found)?;
    compare_queue(&**fs, &backup, scratch, &mut found)?;
    let owned: Vec<_> = backup.shards.iter().map(|s| s.partition).collect();
    let store = Store::open_partitions(
        Arc::clone(fs),
        clock,
        &scratch.join("store"),
        options,
        &backup.identity(),
        &owned,
        &Registry::new(),
    )?;
    for (shard, opened) in backup.shards.iter().zip(store.status()) {
        let expected = (shard.partition, shard.applied, shard.sealed);
        let got = (opened.partition, opened.applied, opened.sealed);
        if got.0 != expected.0 || got.1 != expected.1 {
            found.push(disagrees(scratch, "position", &expected, &got));
        }
    }
    store.close()?;
    drop(store);
    remove_tree(&**fs, scratch).context("remove", scratch)?;
    Ok((backup, found))
}

fn disagrees<T: std::fmt::Debug>(path: &Path, of: &str, listed: &T, found: &T) -> Finding {
    Finding {
        path: path.to_owned(),
        what: format!("{of}: {found:?}, the backup lists {listed:?}"),
    }
}

fn compare_store(
    fs: &dyn Fs,
    backup: &Backup,
    scratch: &Path,
    found: &mut Vec<Finding>,
) -> Result<(), StoreError> {
    let shards = examine(fs, &scratch.join("store"), Depth::Outline, &mut |_| ())?;
    let mut shards: BTreeMap<_, ExaminedShard> =
        shards.into_iter().map(|s| (s.partition, s)).collect();
    for listed in &backup.shards {
        let Some(shard) = shards.remove(&listed.partition) else {
            found.push(Finding {
                path: scratch.to_owned(),
                what: format!("partition {} is not there", listed.partition),
            });
            continue;
        };
        let samples: u64 = shard.blocks.iter().map(|b| b.summary.samples).sum();
        let sealed = shard.manifest.as_ref().map_or(Offset::ZERO, |m| m.sealed);
        let got = (
            sealed,
            shard.blocks.len() as u64,
            samples,
            shard.wal_records.0,
        );
        let expected = (
            listed.sealed,
            listed.blocks,
            listed.samples,
            listed.wal_records,
        );
        if got != expected {
            let of = "sealed offset, blocks, samples in them, records in the WAL";
            found.push(disagrees(&shard.dir, of, &expected, &got));
        }
        found.extend(shard.damages);
    }
    Ok(())
}

fn compare_queue(
    fs: &dyn Fs,
    backup: &Backup,
    scratch: &Path,
    found: &mut Vec<Finding>,
) -> Result<(), StoreError> {
    for (partition, records) in &backup.records {
        let dir = scratch
            .join("queue")
            .join(HeldQueue::partition_dir(*partition));
        let examined = examine_log(fs, &dir, &mut |_| ()).map_err(|source| StoreError::Log {
            what: "queue",
            source,
        })?;
        let damages = examined.damages.iter().map(|error| Finding {
            path: dir.clone(),
            what: error.to_string(),
        });
        found.extend(damages);
        let ends = (examined.segments.first(), examined.segments.last());
        let got = match ends {
            (Some(first), Some(last)) => Offset(first.first.0)..Offset(last.next.0),
            _ => records.end..records.end,
        };
        if got != *records {
            found.push(disagrees(&dir, "records", records, &got));
        }
    }
    Ok(())
}
