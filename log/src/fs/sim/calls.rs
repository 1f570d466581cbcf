//! The calls of [`Fs`] and [`FsFile`].
//!
//! **Invariants:** each is counted and may be struck by a fault before it does anything; each that
//! changes something ends in [`State::done`], once.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::fault::{self, Effect};
use super::tree::{Change, Ino, NameChange};
use super::{FaultKind, Op, SimFs, State};
use crate::fs::{DirEntry, Fs, FsFile, FsLock, Space};

/// Faults that may strike any call.
const ANY: &[FaultKind] = &[FaultKind::Io];
/// Calls that take space.
const GROWING: &[FaultKind] = &[FaultKind::Io, FaultKind::NoSpace];
const READ: &[FaultKind] = &[FaultKind::Io, FaultKind::Interrupted];
const WRITE: &[FaultKind] = &[
    FaultKind::Io,
    FaultKind::NoSpace,
    FaultKind::Short,
    FaultKind::Interrupted,
];
const SYNC: &[FaultKind] = &[FaultKind::Io, FaultKind::NoSpace, FaultKind::SyncLost];
/// Names go through the file system's journal: where that fails, nothing more is written, and
/// nothing is lost unseen.
const SYNC_DIR: &[FaultKind] = &[FaultKind::Io, FaultKind::NoSpace];

impl Fs for SimFs {
    fn create_new(&self, path: &Path) -> io::Result<Box<dyn FsFile>> {
        let mut state = self.state.lock();
        state.refusable(GROWING)?;
        let (dir, name) = state.tree.place(path)?;
        if state.tree.dir(dir).current.contains_key(&name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let ino = state.tree.new_file(false);
        state.tree.name(dir, NameChange::Set { name, ino });
        state.contents.insert(ino, Arc::default());
        state.done(Op::Create, path);
        Ok(self.handle(ino, path, true))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn FsFile>> {
        let mut state = self.state.lock();
        state.refusable(ANY)?;
        let ino = state.tree.find_file(path)?;
        Ok(self.handle(ino, path, false))
    }

    fn open_rw(&self, path: &Path) -> io::Result<Box<dyn FsFile>> {
        let mut state = self.state.lock();
        state.refusable(ANY)?;
        let ino = state.tree.find_file(path)?;
        Ok(self.handle(ino, path, true))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.refusable(GROWING)?;
        let ino = state.tree.find(from)?;
        let (from_dir, from_name) = state.tree.place(from)?;
        let (to_dir, to_name) = state.tree.place(to)?;
        let op = state.op() + 1;
        let State { tree, lint, .. } = &mut *state;
        lint.name_given(op, tree, ino, from);
        if from_dir == to_dir {
            tree.name(
                to_dir,
                NameChange::Move {
                    from: from_name,
                    to: to_name,
                    ino,
                },
            );
        } else {
            // Two directories settle apart, so a crash may leave both names, or neither.
            tree.name(to_dir, NameChange::Set { name: to_name, ino });
            tree.name(from_dir, NameChange::Remove { name: from_name });
        }
        state.done(Op::Rename(to.to_path_buf()), from);
        Ok(())
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.refusable(GROWING)?;
        let ino = state.tree.find_file(from)?;
        let (dir, name) = state.tree.place(to)?;
        if state.tree.dir(dir).current.contains_key(&name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let op = state.op() + 1;
        let State { tree, lint, .. } = &mut *state;
        lint.name_given(op, tree, ino, from);
        tree.name(dir, NameChange::Set { name, ino });
        state.done(Op::Link(to.to_path_buf()), from);
        Ok(())
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.refusable(ANY)?;
        state.tree.find_file(path)?;
        let (dir, name) = state.tree.place(path)?;
        let op = state.op() + 1;
        let State { tree, lint, .. } = &mut *state;
        lint.unlinked(op, tree, path);
        tree.name(dir, NameChange::Remove { name });
        state.done(Op::Unlink, path);
        Ok(())
    }

    fn mkdir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.refusable(GROWING)?;
        let (dir, name) = state.tree.place(path)?;
        if state.tree.dir(dir).current.contains_key(&name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let ino = state.tree.new_dir();
        state.tree.name(dir, NameChange::Set { name, ino });
        state.done(Op::Mkdir, path);
        Ok(())
    }

    fn rmdir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.refusable(ANY)?;
        let ino = state.tree.find_dir(path)?;
        if !state.tree.dir(ino).current.is_empty() {
            return Err(io::ErrorKind::DirectoryNotEmpty.into());
        }
        let (dir, name) = state.tree.place(path)?;
        state.tree.name(dir, NameChange::Remove { name });
        state.done(Op::Rmdir, path);
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        let mut state = self.state.lock();
        state.refusable(ANY)?;
        let ino = state.tree.find_dir(dir)?;
        let entry = |(name, ino): (&String, &Ino)| DirEntry {
            name: name.clone(),
            is_dir: state.tree.is_dir(*ino),
        };
        Ok(state.tree.dir(ino).current.iter().map(entry).collect())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.refusable(SYNC_DIR)?;
        let ino = state.tree.find_dir(dir)?;
        state.tree.sync_dir(ino);
        state.done(Op::SyncDir, dir);
        Ok(())
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        let mut state = self.state.lock();
        state.refusable(ANY)?;
        match state.tree.find(path) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn FsLock>> {
        if !self.exists(path)? {
            self.create_new(path)?;
        }
        let mut state = self.state.lock();
        let ino = state.tree.find_file(path)?;
        if state.locks.contains_key(&ino) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let taken = state.calls;
        state.locks.insert(ino, taken);
        Ok(Box::new(SimLock {
            fs: self.clone(),
            ino,
            taken,
        }))
    }

    fn space(&self, _path: &Path) -> io::Result<Space> {
        let mut state = self.state.lock();
        state.refusable(ANY)?;
        let total_bytes = state.capacity_bytes.unwrap_or(1 << 40);
        let available_bytes = total_bytes.saturating_sub(state.used_bytes());
        Ok(Space {
            total_bytes,
            available_bytes,
        })
    }

    fn unique_id(&self) -> io::Result<u128> {
        let mut state = self.state.lock();
        state.refusable(ANY)?;
        Ok(state.tree.unique_id())
    }
}

impl SimFs {
    fn handle(&self, ino: Ino, path: &Path, writable: bool) -> Box<dyn FsFile> {
        Box::new(SimFile {
            fs: self.clone(),
            ino,
            path: path.to_path_buf(),
            writable,
        })
    }
}

/// An open file; it stays open when its name changes or goes.
#[derive(Debug)]
struct SimFile {
    fs: SimFs,
    ino: Ino,
    path: PathBuf,
    writable: bool,
}

impl SimFile {
    fn refuse_unless_writable(&self) -> io::Result<()> {
        if self.writable {
            Ok(())
        } else {
            Err(io::ErrorKind::PermissionDenied.into())
        }
    }
}

impl FsFile for SimFile {
    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        let mut state = self.fs.state.lock();
        state.refusable(READ)?;
        let bytes = &state.contents[&self.ino];
        let start = usize::try_from(at).map_or(bytes.len(), |at| at.min(bytes.len()));
        let count = buffer.len().min(bytes.len() - start);
        buffer[..count].copy_from_slice(&bytes[start..start + count]);
        Ok(count)
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<usize> {
        self.refuse_unless_writable()?;
        let mut state = self.fs.state.lock();
        let effect = state.call(WRITE)?;
        if bytes.is_empty() {
            return Ok(0);
        }
        let end = at + bytes.len() as u64;
        let growth = end.saturating_sub(state.contents[&self.ino].len() as u64);
        let full = state.is_full(growth);
        // A write that fails for lack of space has used up what there was.
        let (taken, result) = match effect {
            Effect::Short => (bytes.len().div_ceil(2), Ok(bytes.len().div_ceil(2))),
            Effect::HalfThenNoSpace => (bytes.len() / 2, Err(fault::no_space())),
            _ if full => (bytes.len() / 2, Err(fault::no_space())),
            _ => (bytes.len(), Ok(bytes.len())),
        };
        if taken > 0 {
            let op = state.op() + 1;
            let State { tree, lint, .. } = &mut *state;
            lint.written(op, tree, self.ino, &self.path);
            state.change(
                self.ino,
                Change::Write {
                    at,
                    bytes: bytes[..taken].into(),
                },
            );
            state.done(Op::Write { at, len: taken }, &self.path);
        }
        result
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.refuse_unless_writable()?;
        let mut state = self.fs.state.lock();
        state.refusable(GROWING)?;
        state.change(self.ino, Change::SetLen(len));
        state.done(Op::SetLen(len), &self.path);
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        let mut state = self.fs.state.lock();
        state.refusable(ANY)?;
        Ok(state.contents[&self.ino].len() as u64)
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.fs.state.lock();
        let effect = state.refusable(SYNC)?;
        let current = Arc::clone(&state.contents[&self.ino]);
        let file = state.tree.file_mut(self.ino);
        if effect == Effect::LosePending {
            file.lose_pending();
            state.done(Op::SyncData, &self.path);
            return Err(fault::io_error());
        }
        file.sync(current);
        state.done(Op::SyncData, &self.path);
        Ok(())
    }
}

#[derive(Debug)]
struct SimLock {
    fs: SimFs,
    ino: Ino,
    taken: u64,
}

impl FsLock for SimLock {}

impl Drop for SimLock {
    fn drop(&mut self) {
        let mut state = self.fs.state.lock();
        if state.locks.get(&self.ino) == Some(&self.taken) {
            state.locks.remove(&self.ino);
        }
    }
}
