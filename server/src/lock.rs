//! One process per data directory.

use std::io;
use std::path::Path;
use std::sync::Arc;

use millrace_log::fs::{Fs, FsLock, create_dir_durable, read_all};

use crate::failure::Failure;

/// The lock's name in the data directory.
pub const LOCK_FILE: &str = "lock";

/// What the holder writes about itself is one line.
const MAX_HOLDER_BYTES: u64 = 4096;

/// Held as long as the process uses the data directory. The system gives it up when the process
/// dies, however it dies, so a lock file that is left over means nothing.
#[derive(Debug)]
pub struct DirLock {
    _held: Box<dyn FsLock>,
}

impl DirLock {
    /// Creates the directory if need be and takes its lock. `holder` is what others are told.
    ///
    /// # Errors
    ///
    /// The directory cannot be used, or another process has it.
    pub fn take(fs: &Arc<dyn Fs>, dir: &Path, holder: &str) -> Result<Self, Failure> {
        let unusable = |source| Failure::DataDir {
            path: dir.to_owned(),
            source,
        };
        create_dir_durable(&**fs, dir).map_err(unusable)?;
        let path = dir.join(LOCK_FILE);
        let held = match fs.lock(&path) {
            Ok(held) => held,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Err(Failure::Locked {
                    path: dir.to_owned(),
                    holder: holder_of(&**fs, &path),
                });
            }
            Err(error) => return Err(unusable(error)),
        };
        write_holder(&**fs, &path, holder).map_err(unusable)?;
        Ok(Self { _held: held })
    }
}

fn write_holder(fs: &dyn Fs, path: &Path, holder: &str) -> io::Result<()> {
    let file = fs.open_rw(path)?;
    file.set_len(0)?;
    file.write_all_at(holder.as_bytes(), 0)
}

fn holder_of(fs: &dyn Fs, path: &Path) -> String {
    match read_all(fs, path, MAX_HOLDER_BYTES) {
        Ok(bytes) if !bytes.is_empty() => String::from_utf8_lossy(&bytes).trim().to_owned(),
        // It holds the lock and has not written its line yet.
        Ok(_) => "which is just starting".to_owned(),
        Err(error) => format!("which cannot be told: {error}"),
    }
}
