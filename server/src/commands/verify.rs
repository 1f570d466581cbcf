//! `millrace verify`: every checksum of a data directory, and whether its parts agree.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use millrace_log::fs::{Fs, OsFs};
use millrace_log::{Examined, examine as examine_log};
use millrace_model::PartitionId;
use millrace_model::batch::Batch;
use millrace_queue::EmbeddedQueue;
use millrace_store::StoreError;
use millrace_store::backup::Backup;
use millrace_store::examine::{Depth, ExaminedShard, Finding, examine};

use super::backup::describe;
use super::progress::Progress;
use crate::failure::Failure;
use crate::lock::DirLock;

/// Which directory.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// The data directory, which no server may have open; or a backup
    pub dir: PathBuf,
}

/// Reads everything, prints what is wrong, and says how much is right.
///
/// # Errors
///
/// A directory that cannot be read; anything that is damaged.
pub fn run(args: &VerifyArgs) -> Result<(), Failure> {
    let fs: Arc<dyn Fs> = Arc::new(OsFs);
    let dir = &args.dir;
    if Backup::is_at(&*fs, dir).map_err(|error| Failure::Data(error.to_string()))? {
        return backup(&*fs, dir);
    }
    let held = hold(&fs, dir)?;
    let (queue, store) = (dir.join("queue"), dir.join("store"));
    let there = |path: &Path| {
        fs.exists(path)
            .map_err(|error| Failure::Data(format!("{path:?}: {error}")))
    };
    let (has_queue, has_store) = (there(&queue)?, there(&store)?);
    if !has_queue && !has_store {
        return Err(Failure::Data(format!(
            "there is neither a queue nor a store in {}; name a data directory",
            dir.display()
        )));
    }
    let mut report = Report {
        progress: Progress::new("verify", "bytes", bytes_in(&*fs, dir)?),
        read: 0,
        damages: Vec::new(),
        leftovers: Vec::new(),
        lines: Vec::new(),
    };
    if has_queue {
        report.queue(&*fs, &queue)?;
    }
    if has_store {
        report.store(&*fs, &store)?;
    }
    drop(held);
    report.finish()
}

/// The files of a backup against its list.
fn backup(fs: &dyn Fs, dir: &Path) -> Result<(), Failure> {
    let mut report = Report {
        progress: Progress::new("verify", "bytes", bytes_in(fs, dir)?),
        read: 0,
        damages: Vec::new(),
        leftovers: Vec::new(),
        lines: Vec::new(),
    };
    let (progress, read) = (&mut report.progress, &mut report.read);
    let checked = millrace_store::backup::check(fs, dir, &mut |bytes| {
        *read += bytes;
        progress.set(*read);
    });
    match checked {
        Ok(checked) => {
            report
                .lines
                .push(describe(&checked.backup).trim_end().to_owned());
            report.damages = checked.damages;
            report.leftovers = checked.strangers;
        }
        Err(StoreError::Backup { path, problem }) => report.damages.push(finding(&path, problem)),
        Err(error) => return Err(Failure::Data(error.to_string())),
    }
    report.finish()
}

/// Holds a data directory that a server may have had. One that was only copied has no lock file,
/// and gets none.
fn hold(fs: &Arc<dyn Fs>, dir: &Path) -> Result<Option<DirLock>, Failure> {
    let lock = dir.join(crate::lock::LOCK_FILE);
    match fs.exists(&lock) {
        Ok(true) => {
            let holder = format!("pid {}, verifying\n", std::process::id());
            DirLock::take(fs, dir, &holder).map(Some)
        }
        Ok(false) => Ok(None),
        Err(error) => Err(Failure::Data(format!("{lock:?}: {error}"))),
    }
}

/// Bytes of all files below a directory.
fn bytes_in(fs: &dyn Fs, dir: &Path) -> Result<u64, Failure> {
    let failed = |error| Failure::Data(format!("{dir:?}: {error}"));
    let mut sum = 0;
    for entry in fs.list(dir).map_err(failed)? {
        let path = dir.join(&entry.name);
        sum += if entry.is_dir {
            bytes_in(fs, &path)?
        } else {
            let file = fs.open(&path).map_err(failed)?;
            file.len().map_err(failed)?
        };
    }
    Ok(sum)
}

struct Report {
    progress: Progress,
    read: u64,
    damages: Vec<Finding>,
    leftovers: Vec<Finding>,
    /// What is there, a line for each part.
    lines: Vec<String>,
}

impl Report {
    fn queue(&mut self, fs: &dyn Fs, dir: &Path) -> Result<(), Failure> {
        let identity = match EmbeddedQueue::stored_identity(fs, dir) {
            Ok(Some(identity)) => identity,
            Ok(None) => {
                self.damages.push(finding(dir, "there is no identity"));
                return Ok(());
            }
            Err(error) => {
                self.damages.push(finding(&dir.join("identity"), error));
                return Ok(());
            }
        };
        for partition in (0..identity.partitions).map(PartitionId) {
            let path = dir.join(partition.to_string());
            let (mut records, mut samples, mut bad) = (0u64, 0u64, 0u64);
            let examined = examine_log(fs, &path, &mut |record| {
                records += 1;
                match Batch::decode(&record.payload) {
                    Ok(batch) => samples += u64::from(batch.samples()),
                    Err(_) => bad += 1,
                }
            });
            let examined = match examined {
                Ok(examined) => examined,
                Err(error) => {
                    self.damages.push(finding(&path, error));
                    continue;
                }
            };
            self.log(&path, &examined);
            let dead = match bad {
                0 => String::new(),
                bad => format!(", {bad} of them no batch (the store keeps such as dead letters)"),
            };
            self.lines.push(format!(
                "queue partition {partition}: {records} records{dead}, {samples} samples"
            ));
        }
        Ok(())
    }

    fn log(&mut self, dir: &Path, examined: &Examined) {
        let damages = examined.damages.iter();
        self.damages
            .extend(damages.map(|error| finding(dir, error)));
        if examined.torn_bytes > 0 {
            let what = format!(
                "{} bytes of an append that was not finished",
                examined.torn_bytes
            );
            self.leftovers.push(finding(dir, what));
        }
        for path in &examined.temporary {
            self.leftovers
                .push(finding(path, "a file that was not finished"));
        }
        self.read += examined.segments.iter().map(|s| s.bytes).sum::<u64>();
        self.progress.set(self.read);
    }

    fn store(&mut self, fs: &dyn Fs, dir: &Path) -> Result<(), Failure> {
        let (progress, read) = (&mut self.progress, &mut self.read);
        let shards = examine(fs, dir, Depth::Whole, &mut |bytes| {
            *read += bytes;
            progress.set(*read);
        })
        .map_err(|error| Failure::Data(error.to_string()))?;
        for shard in shards {
            self.lines.push(shard_line(&shard));
            self.damages.extend(shard.damages);
            self.leftovers.extend(shard.leftovers);
        }
        Ok(())
    }

    fn finish(self) -> Result<(), Failure> {
        self.progress.finish();
        let mut out = String::new();
        for line in &self.lines {
            out.push_str(&format!("{line}\n"));
        }
        for leftover in &self.leftovers {
            let Finding { path, what } = leftover;
            out.push_str(&format!("left over: {}: {what}\n", path.display()));
        }
        for damage in &self.damages {
            let Finding { path, what } = damage;
            out.push_str(&format!("DAMAGED: {}: {what}\n", path.display()));
        }
        if self.damages.is_empty() {
            out.push_str("all is well\n");
            return crate::print(&out);
        }
        crate::print(&out)?;
        Err(Failure::Data(format!(
            "{} damages found; docs/durability.md says what can be done about each",
            self.damages.len()
        )))
    }
}

fn finding(path: &Path, what: impl ToString) -> Finding {
    Finding {
        path: path.to_owned(),
        what: what.to_string(),
    }
}

fn shard_line(shard: &ExaminedShard) -> String {
    let samples: u64 = shard.blocks.iter().map(|b| b.summary.samples).sum();
    let bytes: u64 = shard.blocks.iter().map(|b| b.summary.bytes).sum();
    let sealed = shard.manifest.as_ref().map(|m| m.sealed);
    format!(
        "store partition {}: sealed below {}, {} blocks with {samples} samples in {bytes} bytes, {} \
         records with {} samples in the WAL alone, {} dead letters",
        shard.partition,
        sealed.map_or_else(|| "?".to_owned(), |sealed| sealed.to_string()),
        shard.blocks.len(),
        shard.wal_records.1,
        shard.wal_samples,
        shard.dead_letters
    )
}
