//! The only door to the disk.
//!
//! `log`, `queue` and `store` reach files through [`Fs`] alone, so that a test can stop them at
//! every single write, sync and rename, lose what was not synced, and open them again
//! (`sim`, behind the feature of that name).
//!
//! What a real file system promises, and all that callers may rely on:
//! - [`FsFile::sync_data`] settles a file's bytes and length, **not** its name;
//! - [`Fs::sync_dir`] settles the names in a directory, not the contents behind them;
//! - a write may be short, and may be torn by a crash at any byte;
//! - after a failed sync nothing is known about the file: callers never retry it.

use std::fmt::Debug;
use std::io;
use std::path::{Path, PathBuf};

use crate::planted::{self, Bug};

mod os;
#[cfg(feature = "sim")]
pub mod sim;

pub use os::OsFs;

/// A file system. See the [module](self) for what each call does and does not promise.
pub trait Fs: Send + Sync + Debug {
    /// Creates a file that must not exist, open for reading and writing. Its name is settled only
    /// by [`sync_dir`](Self::sync_dir) on its directory.
    fn create_new(&self, path: &Path) -> io::Result<Box<dyn FsFile>>;

    /// Opens an existing file for reading.
    fn open(&self, path: &Path) -> io::Result<Box<dyn FsFile>>;

    /// Opens an existing file for reading and writing. Only recovery does, to cut a torn tail;
    /// nothing ever appends to a file that existed before the process started.
    fn open_rw(&self, path: &Path) -> io::Result<Box<dyn FsFile>>;

    /// Renames, replacing `to` if it exists. Settled by [`sync_dir`](Self::sync_dir) on the
    /// directories of both names.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Gives the file `from` the further name `to`, which must not exist.
    fn link(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file's name.
    fn unlink(&self, path: &Path) -> io::Result<()>;

    /// Creates a directory whose parent exists. An existing one is an error.
    fn mkdir(&self, path: &Path) -> io::Result<()>;

    /// Removes an empty directory.
    fn rmdir(&self, path: &Path) -> io::Result<()>;

    /// The names in a directory, sorted.
    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>>;

    /// Settles the names in a directory.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// Whether a file or directory of that name is there.
    fn exists(&self, path: &Path) -> io::Result<bool>;

    /// Creates the file if it is not there, and locks it against other processes until the
    /// returned guard is dropped.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::WouldBlock`] if another holder has it.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn FsLock>>;

    /// Space on the file system that holds `path`.
    fn space(&self, path: &Path) -> io::Result<Space>;

    /// A number that no one was given before: from the system's random source, or counted in a
    /// simulation. Salts checksums and names new queues; no secret.
    fn unique_id(&self) -> io::Result<u128>;
}

/// An open file. All positions are in bytes from its start.
pub trait FsFile: Send + Sync + Debug {
    /// Reads at most `buffer.len()` bytes; 0 only at the end of the file.
    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize>;

    /// Writes at least one and at most `bytes.len()` bytes, extending the file if need be.
    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<usize>;

    /// Cuts or extends (with zeros) the file.
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// Length in bytes.
    fn len(&self) -> io::Result<u64>;

    /// Whether the file has no bytes.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Settles bytes and length (`fdatasync`).
    fn sync_data(&self) -> io::Result<()>;

    /// Reads exactly `buffer.len()` bytes, going on after short reads and interrupts.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::UnexpectedEof`] if the file ends before.
    fn read_exact_at(&self, buffer: &mut [u8], at: u64) -> io::Result<()> {
        let mut done = 0;
        while done < buffer.len() {
            match self.read_at(&mut buffer[done..], at + done as u64) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(n) => done += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Writes all of `bytes`, going on after short writes and interrupts. After an error any part
    /// of them may have been written.
    fn write_all_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        let mut done = 0;
        while done < bytes.len() {
            match self.write_at(&bytes[done..], at + done as u64) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => done += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Keeps a lock until it is dropped.
pub trait FsLock: Send + Sync + Debug {}

/// A name in a directory.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DirEntry {
    /// The name, without its directory.
    pub name: String,
    /// Whether it is a directory.
    pub is_dir: bool,
}

/// Space on a file system, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// All of it.
    pub total_bytes: u64,
    /// What is left for this process.
    pub available_bytes: u64,
}

/// Puts a complete file under `path`, so that a crash leaves either the old file or the new one:
/// temporary name, write, sync, rename, sync of the directory. Returns when it is durable.
///
/// # Errors
///
/// Of the file system. The temporary file (`<name>.tmp`) may then be left over; whoever opens the
/// directory removes such files. After an error in the last step, and after the process died before
/// it, the new file is *there* but may go with the next power cut: so whoever finds it at start
/// calls [`Fs::sync_dir`] before relying on it.
pub fn publish(fs: &dyn Fs, path: &Path, bytes: &[u8]) -> io::Result<()> {
    publish_with(fs, path, |file| file.write_all_at(bytes, 0)).map(drop)
}

/// As [`publish`], for a file that `fill` writes; returns it, still open for reading and writing.
///
/// # Errors
///
/// Those of `fill` and of the file system, as for [`publish`].
pub fn publish_with(
    fs: &dyn Fs,
    path: &Path,
    fill: impl FnOnce(&dyn FsFile) -> io::Result<()>,
) -> io::Result<Box<dyn FsFile>> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(TEMPORARY_SUFFIX);
    let temporary = PathBuf::from(temporary);
    if fs.exists(&temporary)? {
        fs.unlink(&temporary)?;
    }
    let file = fs.create_new(&temporary)?;
    fill(&*file)?;
    // IMPORTANT: the bytes before the name. The other way round, a crash leaves an empty file
    // under the final name.
    if !planted::active(Bug::RENAME_BEFORE_SYNC) {
        file.sync_data()?;
    }
    fs.rename(&temporary, path)?;
    if planted::active(Bug::RENAME_BEFORE_SYNC) {
        file.sync_data()?;
    }
    if !planted::active(Bug::PUBLISH_WITHOUT_DIR_SYNC) {
        fs.sync_dir(parent(path))?;
    }
    Ok(file)
}

/// Ends the names of files that are not complete yet.
pub const TEMPORARY_SUFFIX: &str = ".tmp";

/// Creates `dir` and what is missing above it, each name settled before the next.
///
/// # Errors
///
/// Of the file system.
pub fn create_dir_durable(fs: &dyn Fs, dir: &Path) -> io::Result<()> {
    if dir.as_os_str().is_empty() {
        return Ok(());
    }
    let above = parent(dir);
    if !fs.exists(dir)? {
        create_dir_durable(fs, above)?;
        match fs.mkdir(dir) {
            // Another thread was faster; shards that are opened at once share what is above them.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            made => made?,
        }
    }
    // IMPORTANT: also if it was there. An earlier attempt may have ended between the two calls;
    // above it each name was settled before the next was made.
    if above == dir {
        Ok(())
    } else {
        fs.sync_dir(above)
    }
}

/// Reads a whole file of at most `max_bytes`.
///
/// # Errors
///
/// Of the file system; [`io::ErrorKind::FileTooLarge`] beyond the bound.
pub fn read_all(fs: &dyn Fs, path: &Path, max_bytes: u64) -> io::Result<Vec<u8>> {
    let file = fs.open(path)?;
    let len = file.len()?;
    if len > max_bytes {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    let mut bytes = vec![0; usize::try_from(len).map_err(|_| io::ErrorKind::FileTooLarge)?];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

/// Removes a directory and all that is below it. Settles nothing: a crash may leave any part of it.
///
/// # Errors
///
/// Of the file system; some of it may be gone.
pub fn remove_tree(fs: &dyn Fs, dir: &Path) -> io::Result<()> {
    for entry in fs.list(dir)? {
        let path = dir.join(&entry.name);
        if entry.is_dir {
            remove_tree(fs, &path)?;
        } else {
            fs.unlink(&path)?;
        }
    }
    fs.rmdir(dir)
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_that_create_one_directory_at_once_all_find_it_there() {
        let root = tempfile::tempdir().unwrap();
        for round in 0..50 {
            let dir = root.path().join(format!("{round}/a/b"));
            std::thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| create_dir_durable(&OsFs, &dir).unwrap());
                }
            });
            assert!(OsFs.exists(&dir).unwrap());
        }
    }
}
