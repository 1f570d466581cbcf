//! The simulated file system: in memory, deterministic, with everything that a real one may do to
//! its users between two syncs.
//!
//! For each file it keeps the bytes that are durable and the writes and length changes that are
//! not yet, in order; for each directory the same with names. From that follow:
//! - [`enumerate`]: run a workload **once**, then look at the disk as a power cut after each of its
//!   operations may have left it, in every variant of [`Variant`];
//! - [`Fault`]: calls that fail, once or for ever, and syncs that lose what they should settle;
//! - the **ordering lint** ([`SimFs::violations`]): orders of operations that are wrong whatever a
//!   crash makes of them.
//!
//! **Invariants:** operations (what changes something) are numbered from 1, so "after operation k"
//! means that k were done, and 0 is the beginning; calls (those that only read as well) are
//! numbered apart. Nothing depends on the time, on the operating system or on a hash map's order.

mod crash;
mod enumerate;
mod fault;
mod lint;
mod tree;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use self::fault::Effect;
use self::lint::Lint;
use self::tree::{Change, Ino, NameChange, Tree};
use super::{DirEntry, Fs, FsFile, FsLock, Space};

pub use self::crash::{CrashPlan, Variant};
pub use self::enumerate::{CrashCase, CrashFailure, Ledger, Sweep, Tally, enumerate, fault_sweep};
pub use self::fault::{Fault, FaultKind};
pub use self::lint::{Rule, Violation};

/// A simulated file system. A clone is another handle to the same one; see
/// [`fork`](Self::fork) for a copy.
#[derive(Clone, Debug)]
pub struct SimFs {
    state: Arc<Mutex<State>>,
}

/// What an operation did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// A file was created.
    Create,
    /// Bytes were written.
    Write {
        /// Where.
        at: u64,
        /// How many.
        len: usize,
    },
    /// The length was set.
    SetLen(u64),
    /// Bytes and length were settled.
    SyncData,
    /// The name became another.
    Rename(PathBuf),
    /// A further name was given.
    Link(PathBuf),
    /// The name was removed.
    Unlink,
    /// A directory was created.
    Mkdir,
    /// A directory was removed.
    Rmdir,
    /// The names in a directory were settled.
    SyncDir,
}

/// One operation of the trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceEntry {
    /// Its number.
    pub op: u64,
    /// What it did.
    pub what: Op,
    /// To which path. Writes and syncs name the file as it was opened.
    pub path: PathBuf,
}

#[derive(Debug)]
struct State {
    tree: Tree,
    /// What a running process reads: everything that was written, durable or not.
    contents: BTreeMap<Ino, Arc<Vec<u8>>>,
    calls: u64,
    trace: Vec<TraceEntry>,
    /// The tree after each operation, the first before all of them; while recording.
    journal: Option<Vec<Tree>>,
    /// Number of the operation that the journal begins after.
    journal_start: u64,
    fault: Option<Fault>,
    faults_fired: u64,
    /// In which ways each call could have failed, until faults were lifted.
    fallible: Vec<&'static [FaultKind]>,
    faults_lifted: bool,
    lint: Lint,
    /// By the number of the call that took them, so that a guard from before
    /// [`kill`](SimFs::kill) gives back nothing.
    locks: BTreeMap<Ino, u64>,
    capacity_bytes: u64,
}

impl Default for SimFs {
    fn default() -> Self {
        Self::new()
    }
}

impl SimFs {
    /// An empty file system.
    #[must_use]
    pub fn new() -> Self {
        Self::from_tree(Tree::new())
    }

    /// What a machine finds when it starts with this on its disk.
    fn from_tree(tree: Tree) -> Self {
        let contents = tree.durable_contents();
        let state = State {
            tree,
            contents,
            calls: 0,
            trace: Vec::new(),
            journal: None,
            journal_start: 0,
            fault: None,
            faults_fired: 0,
            fallible: Vec::new(),
            faults_lifted: false,
            lint: Lint::default(),
            locks: BTreeMap::new(),
            capacity_bytes: 1 << 40,
        };
        Self {
            state: Arc::new(Mutex::new(state)),
        }
    }

    /// A copy with the same files, durable and not, that shares nothing with this one. Counters,
    /// trace, faults, locks and lint start anew.
    #[must_use]
    pub fn fork(&self) -> Self {
        let state = self.state.lock();
        let fork = Self::from_tree(state.tree.clone());
        {
            let mut copy = fork.state.lock();
            copy.contents.clone_from(&state.contents);
            copy.capacity_bytes = state.capacity_bytes;
        }
        fork
    }

    /// Ends the process, not the machine (kill -9): locks are free, what was written can be read
    /// and is as durable as before. Files that are there now count as old for the lint.
    pub fn kill(&self) {
        let mut state = self.state.lock();
        state.locks.clear();
        state.tree.mark_old();
    }

    /// The disk after a power cut that nothing pending survives. See [`enumerate`] for all others.
    #[must_use]
    pub fn power_cut(&self) -> Self {
        let state = self.state.lock();
        let image = crash::CrashPoint::new(&state.tree).image(Variant::NothingPending, 0);
        Self::from_tree(image.into_tree(&state.tree))
    }

    /// Drops from the page cache what failed syncs left there: reads now see what the disk holds
    /// or will hold.
    pub fn evict(&self) {
        let mut state = self.state.lock();
        let State { tree, contents, .. } = &mut *state;
        for (ino, bytes) in contents.iter_mut() {
            *bytes = tree.file(*ino).settled();
        }
    }

    /// From now on, keeps what [`enumerate`] needs. The trace and operations before stay.
    pub fn record(&self) {
        let mut state = self.state.lock();
        state.journal_start = state.op();
        state.journal = Some(vec![state.tree.clone()]);
    }

    /// Number of operations so far.
    #[must_use]
    pub fn op_count(&self) -> u64 {
        self.state.lock().op()
    }

    /// Number of calls so far, those that failed and those that only read included.
    #[must_use]
    pub fn call_count(&self) -> u64 {
        self.state.lock().calls
    }

    /// Everything that was done.
    #[must_use]
    pub fn trace(&self) -> Vec<TraceEntry> {
        self.state.lock().trace.clone()
    }

    /// Plans a fault, in place of one that was planned before; `None` for no more faults.
    pub fn inject(&self, fault: Option<Fault>) {
        let mut state = self.state.lock();
        state.fault = fault;
        state.faults_lifted |= fault.is_none();
    }

    /// How many calls faults have struck.
    #[must_use]
    pub fn faults_fired(&self) -> u64 {
        self.state.lock().faults_fired
    }

    /// Sets the size of the disk. Writes beyond it fail with "no space".
    pub fn set_capacity(&self, bytes: u64) {
        self.state.lock().capacity_bytes = bytes;
    }

    /// For the lint: says that a client is told now that what stands in `paths` (files, or
    /// directories with all that is below) is durable.
    pub fn acknowledge(&self, paths: &[&Path]) -> io::Result<()> {
        let mut state = self.state.lock();
        let op = state.op();
        for path in paths {
            let State { tree, lint, .. } = &mut *state;
            lint.acknowledge(op, tree, path)?;
        }
        Ok(())
    }

    /// For the lint: before a file below `removed` is unlinked, everything in `settled` (a file, or
    /// a directory with all that is below) must be durable.
    pub fn forbid_unlink_before(&self, removed: &Path, settled: &Path) {
        self.state
            .lock()
            .lint
            .unlink_rules
            .push((removed.into(), settled.into()));
    }

    /// The orders that were wrong.
    #[must_use]
    pub fn violations(&self) -> Vec<Violation> {
        self.state.lock().lint.violations.clone()
    }

    /// Every file with its content as the running process reads it, sorted by path. For comparing
    /// file systems, and for damaging them on purpose.
    #[must_use]
    pub fn files(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let state = self.state.lock();
        let mut files = Vec::new();
        state.tree.walk(&mut |path, ino| {
            files.push((path.to_path_buf(), state.contents[&ino].to_vec()));
        });
        files
    }

    /// Puts `bytes` durably into the file at `path`, which is created if need be; its directory
    /// must be there. Bypasses counters, faults and lint: a disk that went bad.
    pub fn damage(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.state.lock();
        let ino = match state.tree.find(path) {
            Ok(ino) => ino,
            Err(_) => {
                let (dir, name) = state.tree.place(path)?;
                let ino = state.tree.new_file(true);
                state.tree.name(dir, NameChange::Set { name, ino });
                state.tree.sync_dir(dir);
                ino
            }
        };
        let content = Arc::new(bytes.to_vec());
        state.tree.file_mut(ino).replace(Arc::clone(&content));
        state.contents.insert(ino, content);
        Ok(())
    }
}

impl State {
    fn op(&self) -> u64 {
        self.trace.len() as u64
    }

    /// Counts a call, and says how it is to fail.
    fn call(&mut self, able: &'static [FaultKind]) -> io::Result<Effect> {
        self.calls += 1;
        if !self.faults_lifted {
            self.fallible.push(able);
        }
        let Some(kind) = self.fault.and_then(|fault| fault.strikes(self.calls)) else {
            return Ok(Effect::None);
        };
        if !able.contains(&kind) {
            return Ok(Effect::None);
        }
        self.faults_fired += 1;
        kind.effect()
    }

    /// As [`call`](Self::call), for a call of which no half can be done.
    fn refusable(&mut self, able: &'static [FaultKind]) -> io::Result<Effect> {
        match self.call(able)? {
            Effect::HalfThenNoSpace => Err(fault::no_space()),
            effect => Ok(effect),
        }
    }

    fn done(&mut self, what: Op, path: &Path) {
        let op = self.op() + 1;
        self.trace.push(TraceEntry {
            op,
            what,
            path: path.to_path_buf(),
        });
        if let Some(journal) = &mut self.journal {
            journal.push(self.tree.clone());
        }
    }

    fn used_bytes(&self) -> u64 {
        self.contents.values().map(|bytes| bytes.len() as u64).sum()
    }

    fn change(&mut self, ino: Ino, change: Change) {
        change.apply(Arc::make_mut(
            self.contents.get_mut(&ino).expect("an open file"),
        ));
        self.tree.file_mut(ino).pending.push(change);
    }
}

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
        let total_bytes = state.capacity_bytes;
        Ok(Space {
            total_bytes,
            available_bytes: total_bytes.saturating_sub(state.used_bytes()),
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
        let full = state.used_bytes() + growth > state.capacity_bytes;
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

#[cfg(test)]
mod tests;
