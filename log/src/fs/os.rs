//! The operating system's file system: thin, and the one place of the product that opens files.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt as _, fchown};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Mode};

use super::{DirEntry, Fs, FsFile, FsLock, Space, parent};

/// The real file system. Every descriptor is closed on exec. A new file that root makes belongs to whoever has
/// its directory: a server that runs as another user must be able to write what root's commands have made.
#[derive(Clone, Copy, Debug, Default)]
pub struct OsFs;

impl Fs for OsFs {
    fn create_new(&self, path: &Path) -> io::Result<Box<dyn FsFile>> {
        boxed(create_new(path))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn FsFile>> {
        boxed(OpenOptions::new().read(true).open(path))
    }

    fn open_rw(&self, path: &Path) -> io::Result<Box<dyn FsFile>> {
        boxed(OpenOptions::new().read(true).write(true).open(path))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        Ok(rustix::fs::rename(from, to)?)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        Ok(rustix::fs::linkat(CWD, from, CWD, to, AtFlags::empty())?)
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        Ok(rustix::fs::unlink(path)?)
    }

    fn mkdir(&self, path: &Path) -> io::Result<()> {
        Ok(rustix::fs::mkdir(path, Mode::from_raw_mode(0o777))?)
    }

    fn rmdir(&self, path: &Path) -> io::Result<()> {
        Ok(rustix::fs::rmdir(path)?)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        let mut entries = Vec::new();
        for entry in std::fs::read_dir(dir)? {
            let entry = entry?;
            let name = entry.file_name().into_string().map_err(|name| {
                io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("a name in {} is not UTF-8: {name:?}", dir.display()),
                )
            })?;
            let is_dir = entry.file_type()?.is_dir();
            entries.push(DirEntry { name, is_dir });
        }
        entries.sort();
        Ok(entries)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        OpenOptions::new().read(true).open(dir)?.sync_all()
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        path.try_exists()
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn FsLock>> {
        let file = match create_new(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                OpenOptions::new().read(true).write(true).open(path)?
            }
            made => made?,
        };
        match file.try_lock() {
            Ok(()) => Ok(Box::new(OsLock { _file: file })),
            Err(TryLockError::WouldBlock) => Err(io::ErrorKind::WouldBlock.into()),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        let stat = rustix::fs::statvfs(path)?;
        Ok(Space {
            total_bytes: stat.f_blocks.saturating_mul(stat.f_frsize),
            available_bytes: stat.f_bavail.saturating_mul(stat.f_frsize),
        })
    }

    fn unique_id(&self) -> io::Result<u128> {
        let mut bytes = [0u8; 16];
        let mut done = 0;
        while done < bytes.len() {
            done +=
                rustix::rand::getrandom(&mut bytes[done..], rustix::rand::GetRandomFlags::empty())?;
        }
        Ok(u128::from_le_bytes(bytes))
    }
}

fn create_new(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    let file = options.read(true).write(true).create_new(true).open(path)?;
    if file.metadata()?.uid() == 0 {
        let dir = std::fs::metadata(parent(path))?;
        if dir.uid() != 0
            && let Err(error) = fchown(&file, Some(dir.uid()), Some(dir.gid()))
        {
            // The root of a container may not be the system's; then it stays as it is.
            tracing::debug!(?path, %error, "a new file stays root's");
        }
    }
    Ok(file)
}

#[derive(Debug)]
struct OsFile(File);

fn boxed(file: io::Result<File>) -> io::Result<Box<dyn FsFile>> {
    Ok(Box::new(OsFile(file?)))
}

impl FsFile for OsFile {
    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        self.0.read_at(buffer, at)
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<usize> {
        self.0.write_at(bytes, at)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }
}

/// The lock belongs to the open file, so closing the file gives it back.
#[derive(Debug)]
struct OsLock {
    _file: File,
}

impl FsLock for OsLock {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_names_and_lengths_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        let file = OsFs.create_new(&a).unwrap();
        assert_eq!(
            OsFs.create_new(&a).unwrap_err().kind(),
            io::ErrorKind::AlreadyExists
        );
        file.write_all_at(b"hello", 3).unwrap();
        file.sync_data().unwrap();
        assert_eq!(file.len().unwrap(), 8);
        OsFs.rename(&a, &b).unwrap();
        OsFs.link(&b, &a).unwrap();
        OsFs.mkdir(&dir.path().join("d")).unwrap();
        OsFs.sync_dir(dir.path()).unwrap();
        let names: Vec<_> = OsFs
            .list(dir.path())
            .unwrap()
            .into_iter()
            .map(|e| (e.name, e.is_dir))
            .collect();
        assert_eq!(
            names,
            [("a".into(), false), ("b".into(), false), ("d".into(), true)]
        );
        OsFs.open_rw(&b).unwrap().set_len(4).unwrap();
        assert_eq!(super::super::read_all(&OsFs, &a, 4).unwrap(), b"\0\0\0h");
        assert!(super::super::read_all(&OsFs, &a, 3).is_err());
        OsFs.unlink(&a).unwrap();
        OsFs.rmdir(&dir.path().join("d")).unwrap();
        assert!(!OsFs.exists(&a).unwrap());
        assert!(
            OsFs.open(&b).unwrap().write_at(b"x", 0).is_err(),
            "opened for reading only"
        );
    }

    #[test]
    fn a_lock_has_one_holder() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let held = OsFs.lock(&path).unwrap();
        assert_eq!(
            OsFs.lock(&path).unwrap_err().kind(),
            io::ErrorKind::WouldBlock
        );
        drop(held);
        OsFs.lock(&path).unwrap();
    }

    #[test]
    fn what_root_makes_belongs_to_whoever_has_the_directory() {
        let dir = tempfile::tempdir().unwrap();
        let owner = Some(12_345);
        if std::os::unix::fs::chown(dir.path(), owner, owner).is_err() {
            println!("only root can give a directory away");
            return;
        }
        let path = |name: &str| dir.path().join(name);
        OsFs.create_new(&path("new")).unwrap();
        OsFs.lock(&path("lock")).unwrap();
        super::super::publish(&OsFs, &path("published"), b"x").unwrap();
        for name in ["new", "lock", "published"] {
            let found = std::fs::metadata(path(name)).unwrap();
            assert_eq!((found.uid(), found.gid()), (12_345, 12_345), "{name}");
        }
        // What was there stays whose it is.
        std::os::unix::fs::chown(path("lock"), Some(0), Some(0)).unwrap();
        OsFs.lock(&path("lock")).unwrap();
        assert_eq!(std::fs::metadata(path("lock")).unwrap().uid(), 0);
    }

    #[test]
    fn space_and_identities_are_told() {
        let dir = tempfile::tempdir().unwrap();
        let space = OsFs.space(dir.path()).unwrap();
        assert!(0 < space.total_bytes && space.available_bytes <= space.total_bytes);
        assert_ne!(OsFs.unique_id().unwrap(), OsFs.unique_id().unwrap());
    }
}
