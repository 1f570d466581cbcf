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
//! ```
//! use std::path::Path;
//! use millrace_log::fs::sim::{CrashPlan, Ledger, SimFs, enumerate};
//! use millrace_log::fs::{Fs, FsFile, read_all};
//!
//! let fs = SimFs::new();
//! fs.record();
//! let mut ledger = Ledger::new(&fs);
//! let file = fs.create_new(Path::new("/a"))?;
//! file.write_all_at(b"42", 0)?;
//! file.sync_data()?;
//! fs.sync_dir(Path::new("/"))?;
//! fs.acknowledge(&[Path::new("/a")])?; // the lint: is it settled?
//! ledger.note("acknowledged"); // the oracle: it must be found from now on
//!
//! assert_eq!(fs.violations(), []);
//! let tally = enumerate(&fs, &ledger, &CrashPlan::default(), |case| {
//!     let found = read_all(&case.fs, Path::new("/a"), 100).ok();
//!     let acknowledged = case.events().next().is_some();
//!     if acknowledged && found.as_deref() != Some(b"42") {
//!         return Err(format!("lost: {found:?}"));
//!     }
//!     Ok(())
//! })?;
//! println!("{tally}");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! **Invariants:** operations (what changes something) are numbered from 1, so "after operation k"
//! means that k were done, and 0 is the beginning; calls (those that only read as well) are
//! numbered apart. Nothing depends on the time, on the operating system or on a hash map's order.

mod calls;
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
    capacity_bytes: Option<u64>,
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
            capacity_bytes: None,
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

    /// Sets the size of the disk, which is unbounded before. Writes beyond it fail with "no space".
    pub fn set_capacity(&self, bytes: u64) {
        self.state.lock().capacity_bytes = Some(bytes);
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

    /// Bytes of all files that have a name.
    fn used_bytes(&self) -> u64 {
        let mut used = 0;
        self.tree
            .walk(&mut |_, ino| used += self.contents[&ino].len() as u64);
        used
    }

    /// Whether `growth` bytes more are too many.
    fn is_full(&self, growth: u64) -> bool {
        self.capacity_bytes
            .is_some_and(|capacity| self.used_bytes() + growth > capacity)
    }

    fn change(&mut self, ino: Ino, change: Change) {
        change.apply(Arc::make_mut(
            self.contents.get_mut(&ino).expect("an open file"),
        ));
        self.tree.file_mut(ino).pending.push(change);
    }
}

#[cfg(test)]
mod tests;
