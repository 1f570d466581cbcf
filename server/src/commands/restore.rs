//! `millrace restore BACKUP DIR`: a data directory from a backup.

use std::path::PathBuf;

use clap::Args;
use millrace_log::fs::OsFs;
use millrace_store::backup::{self, Backup};

use super::progress::Progress;
use crate::failure::Failure;

/// From where to where.
#[derive(Debug, Args)]
pub struct RestoreArgs {
    /// The backup
    pub backup: PathBuf,
    /// The data directory: empty, or not there yet
    pub dir: PathBuf,
}

/// Verifies and copies everything, and says where the store stands.
///
/// # Errors
///
/// A backup that is not whole or is damaged; a directory with something in it.
pub fn run(args: &RestoreArgs) -> Result<(), Failure> {
    let data = |error: millrace_store::StoreError| Failure::Data(error.to_string());
    let list = Backup::read(&OsFs, &args.backup).map_err(data)?;
    let (mut progress, mut done) = (Progress::new("restore", "bytes", list.bytes()), 0);
    let list = backup::restore(&OsFs, &args.backup, &args.dir, &mut |bytes| {
        done += bytes;
        progress.set(done);
    })
    .map_err(data)?;
    progress.finish();
    crate::print(&format!(
        "{}start a server on it with `millrace --data-dir {}`\n",
        super::backup::describe(&list),
        args.dir.display()
    ))
}
