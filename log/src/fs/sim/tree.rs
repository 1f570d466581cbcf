//! The disk: files and directories, each with what is durable and what is pending.
//!
//! **Invariants:** a clone is cheap (files and directories are shared until they change), so one is
//! kept for every operation. What a running process reads is *not* here, since it would have to be
//! copied with every write.

use std::collections::BTreeMap;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

/// A file's or directory's identity, whatever its names are.
pub(super) type Ino = u64;

/// The directory `/`, which relative paths start from, too.
pub(super) const ROOT: Ino = 0;

/// A change of a file that is not durable yet.
#[derive(Clone, Debug)]
pub(super) enum Change {
    Write { at: u64, bytes: Arc<[u8]> },
    SetLen(u64),
}

impl Change {
    pub(super) fn apply(&self, content: &mut Vec<u8>) {
        match self {
            Self::Write { at, bytes } => {
                let at = index(*at);
                let end = at + bytes.len();
                if content.len() < end {
                    content.resize(end, 0);
                }
                content[at..end].copy_from_slice(bytes);
            }
            Self::SetLen(len) => content.resize(index(*len), 0),
        }
    }
}

/// A position in a file that is held in memory.
pub(super) fn index(at: u64) -> usize {
    usize::try_from(at).expect("simulated files are small")
}

#[derive(Clone, Debug, Default)]
pub(super) struct File {
    pub(super) durable: Arc<Vec<u8>>,
    pub(super) pending: Vec<Change>,
    /// Whether a failed sync dropped changes that a process still reads.
    lossy: bool,
    /// Whether it was there before the process started.
    pub(super) old: bool,
}

impl File {
    /// A file that a starting machine finds.
    pub(super) fn found(content: Arc<Vec<u8>>) -> Self {
        Self {
            durable: content,
            old: true,
            ..Self::default()
        }
    }

    /// Settles everything; `current` is what a process reads.
    pub(super) fn sync(&mut self, current: Arc<Vec<u8>>) {
        self.durable = if self.lossy { self.settled() } else { current };
        self.pending.clear();
    }

    /// What a failed sync does: the changes count as clean, and never reach the disk.
    pub(super) fn lose_pending(&mut self) {
        self.lossy |= !self.pending.is_empty();
        self.pending.clear();
    }

    /// Whether there are bytes that are not durable. What is cut already, though not durably, does
    /// not count: if it comes back, nothing is lost.
    pub(super) fn is_unsettled(&self) -> bool {
        if self.pending.is_empty() {
            return false;
        }
        let settled = self.settled();
        let inside = |change: &Change| match change {
            Change::Write { at, .. } => index(*at) < settled.len(),
            Change::SetLen(len) => index(*len) < settled.len(),
        };
        !self.durable.starts_with(&settled) || self.pending.iter().any(inside)
    }

    /// The content once everything pending is durable.
    pub(super) fn settled(&self) -> Arc<Vec<u8>> {
        if self.pending.is_empty() {
            return Arc::clone(&self.durable);
        }
        let mut content = self.durable.to_vec();
        self.pending
            .iter()
            .for_each(|change| change.apply(&mut content));
        Arc::new(content)
    }

    pub(super) fn replace(&mut self, content: Arc<Vec<u8>>) {
        self.durable = content;
        self.pending.clear();
        self.lossy = false;
    }
}

pub(super) type Names = BTreeMap<String, Ino>;

/// A change of a directory that is not durable yet.
#[derive(Clone, Debug)]
pub(super) enum NameChange {
    Set { name: String, ino: Ino },
    Remove { name: String },
    Move { from: String, to: String, ino: Ino },
}

impl NameChange {
    pub(super) fn apply(&self, names: &mut Names) {
        match self {
            Self::Set { name, ino } => {
                names.insert(name.clone(), *ino);
            }
            Self::Remove { name } => {
                names.remove(name);
            }
            Self::Move { from, to, ino } => {
                names.remove(from);
                names.insert(to.clone(), *ino);
            }
        }
    }

    /// What it gives a name to.
    pub(super) fn names(&self) -> Option<Ino> {
        match self {
            Self::Set { ino, .. } | Self::Move { ino, .. } => Some(*ino),
            Self::Remove { .. } => None,
        }
    }
}

#[derive(Clone, Debug, Default)]
pub(super) struct Dir {
    pub(super) durable: Arc<Names>,
    /// As a process sees them.
    pub(super) current: Names,
    pub(super) pending: Vec<NameChange>,
}

#[derive(Clone, Debug)]
pub(super) enum Node {
    File(Arc<File>),
    Dir(Arc<Dir>),
}

#[derive(Clone, Debug)]
pub(super) struct Tree {
    pub(super) nodes: BTreeMap<Ino, Node>,
    next: Ino,
    ids: u64,
}

impl Tree {
    pub(super) fn new() -> Self {
        let nodes = BTreeMap::from([(ROOT, Node::Dir(Arc::default()))]);
        Self {
            nodes,
            next: ROOT + 1,
            ids: 0,
        }
    }

    /// A disk with exactly these durable files and directories, as `template` had them.
    pub(super) fn settled(template: &Self, nodes: BTreeMap<Ino, Node>) -> Self {
        Self {
            nodes,
            next: template.next,
            ids: template.ids,
        }
    }

    /// What processes find: of every file what is durable and pending.
    pub(super) fn durable_contents(&self) -> BTreeMap<Ino, Arc<Vec<u8>>> {
        let content = |(ino, node): (&Ino, &Node)| match node {
            Node::File(file) => Some((*ino, file.settled())),
            Node::Dir(_) => None,
        };
        self.nodes.iter().filter_map(content).collect()
    }

    pub(super) fn mark_old(&mut self) {
        for node in self.nodes.values_mut() {
            if let Node::File(file) = node {
                Arc::make_mut(file).old = true;
            }
        }
    }

    /// Counted, then scrambled, so that identities differ in all their bits.
    pub(super) fn unique_id(&mut self) -> u128 {
        self.ids += 1;
        xxhash_rust::xxh3::xxh3_128(&self.ids.to_le_bytes())
    }

    pub(super) fn new_file(&mut self, old: bool) -> Ino {
        self.add(Node::File(Arc::new(File {
            old,
            ..File::default()
        })))
    }

    pub(super) fn new_dir(&mut self) -> Ino {
        self.add(Node::Dir(Arc::default()))
    }

    fn add(&mut self, node: Node) -> Ino {
        let ino = self.next;
        self.next += 1;
        self.nodes.insert(ino, node);
        ino
    }

    pub(super) fn is_dir(&self, ino: Ino) -> bool {
        matches!(self.nodes[&ino], Node::Dir(_))
    }

    /// # Panics
    ///
    /// If it is a directory.
    pub(super) fn file(&self, ino: Ino) -> &File {
        match &self.nodes[&ino] {
            Node::File(file) => file,
            Node::Dir(_) => panic!("{ino} is a directory"),
        }
    }

    pub(super) fn file_mut(&mut self, ino: Ino) -> &mut File {
        match self.nodes.get_mut(&ino) {
            Some(Node::File(file)) => Arc::make_mut(file),
            other => panic!("{ino} is no file: {other:?}"),
        }
    }

    pub(super) fn dir(&self, ino: Ino) -> &Dir {
        match &self.nodes[&ino] {
            Node::Dir(dir) => dir,
            Node::File(_) => panic!("{ino} is a file"),
        }
    }

    pub(super) fn dir_mut(&mut self, ino: Ino) -> &mut Dir {
        match self.nodes.get_mut(&ino) {
            Some(Node::Dir(dir)) => Arc::make_mut(dir),
            other => panic!("{ino} is no directory: {other:?}"),
        }
    }

    /// Changes a name in a directory, not durably.
    pub(super) fn name(&mut self, dir: Ino, change: NameChange) {
        let dir = self.dir_mut(dir);
        change.apply(&mut dir.current);
        dir.pending.push(change);
    }

    pub(super) fn sync_dir(&mut self, dir: Ino) {
        let dir = self.dir_mut(dir);
        let mut durable = Names::clone(&dir.durable);
        dir.pending
            .drain(..)
            .for_each(|change| change.apply(&mut durable));
        dir.durable = Arc::new(durable);
    }

    /// What a path names now.
    pub(super) fn find(&self, path: &Path) -> io::Result<Ino> {
        let mut ino = ROOT;
        for component in path.components() {
            match component {
                Component::RootDir | Component::CurDir => {}
                Component::Normal(name) => {
                    let Node::Dir(dir) = &self.nodes[&ino] else {
                        return Err(io::ErrorKind::NotADirectory.into());
                    };
                    let name = name.to_str().ok_or(io::ErrorKind::InvalidInput)?;
                    ino = *dir.current.get(name).ok_or(io::ErrorKind::NotFound)?;
                }
                Component::Prefix(_) | Component::ParentDir => {
                    return Err(io::ErrorKind::InvalidInput.into());
                }
            }
        }
        Ok(ino)
    }

    pub(super) fn find_file(&self, path: &Path) -> io::Result<Ino> {
        let ino = self.find(path)?;
        if self.is_dir(ino) {
            Err(io::ErrorKind::IsADirectory.into())
        } else {
            Ok(ino)
        }
    }

    pub(super) fn find_dir(&self, path: &Path) -> io::Result<Ino> {
        let ino = self.find(path)?;
        if self.is_dir(ino) {
            Ok(ino)
        } else {
            Err(io::ErrorKind::NotADirectory.into())
        }
    }

    /// The directory of a path, which must be there, and the name in it.
    pub(super) fn place(&self, path: &Path) -> io::Result<(Ino, String)> {
        let name = path.file_name().and_then(|name| name.to_str());
        let name = name.ok_or(io::ErrorKind::InvalidInput)?.to_owned();
        Ok((self.find_dir(path.parent().unwrap_or(Path::new("")))?, name))
    }

    /// Visits all files in order of their paths, as a process sees them.
    pub(super) fn walk(&self, visit: &mut dyn FnMut(&Path, Ino)) {
        self.walk_below(ROOT, &mut PathBuf::from("/"), visit);
    }

    pub(super) fn walk_below(
        &self,
        dir: Ino,
        path: &mut PathBuf,
        visit: &mut dyn FnMut(&Path, Ino),
    ) {
        for (name, ino) in &self.dir(dir).current {
            path.push(name);
            match &self.nodes[ino] {
                Node::Dir(_) => self.walk_below(*ino, path, visit),
                Node::File(_) => visit(path, *ino),
            }
            path.pop();
        }
    }
}
