//! The states that a power cut may leave behind.
//!
//! What is durable is there. Of what is pending anything may be there: each write whole, in part,
//! as zeros, as garbage, or not at all; each name changed or not; independently of their order.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use xxhash_rust::xxh3::Xxh3;

use super::tree::{Change, Dir, File, Ino, NameChange, Names, Node, ROOT, Tree, index};

/// Bytes that a disk writes as one.
const SECTOR_BYTES: u64 = 512;

/// Which states to look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CrashPlan {
    /// Seed of the random subsets.
    pub seed: u64,
    /// How many random subsets to look at after each operation.
    pub random_subsets: u64,
    /// At which distances the last write is torn, besides a few odd places.
    pub torn_step_bytes: usize,
    /// Of how many pending changes, the newest, each is left out and each is alone.
    pub singles_max: usize,
    /// Of every how many states the recovery is crashed as well, at each of its own operations;
    /// 0 for none.
    pub nested_every: u64,
    /// After every how many operations the process is killed with the machine running on, so that
    /// it recovers from what is *not* durable; each such recovery is crashed at each of its
    /// operations. 0 for none.
    pub kills_every: u64,
}

impl Default for CrashPlan {
    fn default() -> Self {
        Self {
            seed: 1,
            random_subsets: 8,
            torn_step_bytes: 512,
            singles_max: 32,
            nested_every: 0,
            kills_every: 0,
        }
    }
}

/// What became of the pending changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    /// None survives.
    NothingPending,
    /// All survive.
    Everything,
    /// Names and lengths survive; what the files grew by is zeros.
    LengthsWithoutData,
    /// The files' changes survive, the names' do not.
    DataWithoutNames,
    /// The names' changes survive, the files' do not.
    NamesWithoutData,
    /// All survive but renames.
    RenamesUndone,
    /// All survive but removals.
    RemovalsUndone,
    /// All survive but this one, counted over names and then files.
    Without(usize),
    /// Only this one survives; if it is a file's, the names do, too.
    Only(usize),
    /// All survive, but the last write only up to this byte.
    Torn {
        /// Bytes of it that survive.
        kept: usize,
        /// Whether the file is as long as if the rest had, which is zeros then.
        zeros_behind: bool,
    },
    /// The process ended and the machine did not: everything is still there, and still pending.
    Killed,
    /// Any subset, sector by sector, with old, new, zero and random content.
    Random(u64),
}

impl fmt::Display for Variant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// What becomes of one pending change of a file.
#[derive(Clone, Copy)]
enum Fate {
    Kept,
    Lost,
    /// The file is as long as if it had been kept.
    LengthOnly,
    Torn {
        kept: usize,
        zeros_behind: bool,
    },
    Sectors {
        seed: u64,
    },
}

/// The pending changes of a disk, and the states they may end in.
pub(super) struct CrashPoint<'a> {
    tree: &'a Tree,
    names: Vec<(Ino, usize)>,
    writes: Vec<(Ino, usize)>,
}

/// A disk after a power cut.
pub(super) struct Image {
    nodes: BTreeMap<Ino, Node>,
}

impl<'a> CrashPoint<'a> {
    pub(super) fn new(tree: &'a Tree) -> Self {
        let (mut names, mut writes) = (Vec::new(), Vec::new());
        for ino in reachable(tree) {
            match &tree.nodes[&ino] {
                Node::Dir(dir) => names.extend((0..dir.pending.len()).map(|i| (ino, i))),
                Node::File(file) => writes.extend((0..file.pending.len()).map(|i| (ino, i))),
            }
        }
        Self {
            tree,
            names,
            writes,
        }
    }

    /// The variants that differ here, more or less: images are to be compared.
    pub(super) fn variants(&self, plan: &CrashPlan) -> Vec<Variant> {
        if self.names.is_empty() && self.writes.is_empty() {
            return vec![Variant::Everything];
        }
        let mut variants = vec![
            Variant::NothingPending,
            Variant::Everything,
            Variant::LengthsWithoutData,
            Variant::DataWithoutNames,
            Variant::NamesWithoutData,
            Variant::RenamesUndone,
            Variant::RemovalsUndone,
        ];
        let pending = self.names.len() + self.writes.len();
        for i in pending.saturating_sub(plan.singles_max)..pending {
            variants.extend([Variant::Without(i), Variant::Only(i)]);
        }
        if let Some(len) = self.last_write_bytes() {
            let step = plan.torn_step_bytes.max(1);
            // Inside the first header, at its end, and just before the end of all.
            let odd = [1, 3, 17, 39, 40, 41, len / 2 + 1, len.saturating_sub(1)];
            let places: BTreeSet<_> = (step..len).step_by(step).chain(odd).collect();
            for kept in places.into_iter().filter(|kept| (1..len).contains(kept)) {
                variants
                    .extend([true, false].map(|zeros_behind| Variant::Torn { kept, zeros_behind }));
            }
        }
        variants.extend((0..plan.random_subsets).map(Variant::Random));
        variants
    }

    fn last_write_bytes(&self) -> Option<usize> {
        // Files are numbered in the order of their creation; the newest is the one written to.
        let (ino, i) = self.writes.last()?;
        match &self.tree.file(*ino).pending[*i] {
            Change::Write { bytes, .. } => Some(bytes.len()),
            Change::SetLen(_) => None,
        }
    }

    pub(super) fn image(&self, variant: Variant, seed: u64) -> Image {
        let names = self.names.len();
        let last = self.writes.len().wrapping_sub(1);
        let everything = |_: usize| Fate::Kept;
        let nothing = |_: usize| Fate::Lost;
        match variant {
            Variant::NothingPending => self.build(&|_| false, &nothing),
            Variant::Everything | Variant::Killed => self.build(&|_| true, &everything),
            Variant::LengthsWithoutData => self.build(&|_| true, &|_| Fate::LengthOnly),
            Variant::DataWithoutNames => self.build(&|_| false, &everything),
            Variant::NamesWithoutData => self.build(&|_| true, &nothing),
            Variant::RenamesUndone => {
                let keep = |i| !matches!(self.name_change(i), NameChange::Move { .. });
                self.build(&keep, &everything)
            }
            Variant::RemovalsUndone => {
                let keep = |i| !matches!(self.name_change(i), NameChange::Remove { .. });
                self.build(&keep, &everything)
            }
            Variant::Without(gone) => {
                let fate = |i| {
                    if names + i == gone {
                        Fate::Lost
                    } else {
                        Fate::Kept
                    }
                };
                self.build(&|i| i != gone, &fate)
            }
            Variant::Only(kept) => {
                let fate = |i| {
                    if names + i == kept {
                        Fate::Kept
                    } else {
                        Fate::Lost
                    }
                };
                self.build(&|i| i == kept || kept >= names, &fate)
            }
            Variant::Torn { kept, zeros_behind } => {
                let torn = Fate::Torn { kept, zeros_behind };
                self.build(&|_| true, &|i| if i == last { torn } else { Fate::Kept })
            }
            Variant::Random(n) => {
                let roll = |i: usize| mix(seed ^ mix(n) ^ mix(i as u64 + 1));
                let fate = |i| match roll(names + i) % 4 {
                    0 => Fate::Kept,
                    1 => Fate::Lost,
                    _ => Fate::Sectors {
                        seed: roll(names + i),
                    },
                };
                // Names mostly survive: without them there is nothing to see.
                self.build(&|i| roll(i) % 4 != 0, &fate)
            }
        }
    }

    fn name_change(&self, i: usize) -> &NameChange {
        let (dir, change) = self.names[i];
        &self.tree.dir(dir).pending[change]
    }

    fn build(&self, keep_name: &dyn Fn(usize) -> bool, fate: &dyn Fn(usize) -> Fate) -> Image {
        let mut dirs: BTreeMap<Ino, Arc<Names>> = BTreeMap::new();
        for (i, &(ino, change)) in self.names.iter().enumerate() {
            let dir = self.tree.dir(ino);
            let names = dirs.entry(ino).or_insert_with(|| Arc::clone(&dir.durable));
            if keep_name(i) {
                dir.pending[change].apply(Arc::make_mut(names));
            }
        }
        let mut files: BTreeMap<Ino, Vec<u8>> = BTreeMap::new();
        for (i, &(ino, change)) in self.writes.iter().enumerate() {
            let file = self.tree.file(ino);
            let content = files.entry(ino).or_insert_with(|| file.durable.to_vec());
            survive(&file.pending[change], fate(i), content);
        }
        let mut nodes = BTreeMap::new();
        let mut todo = vec![ROOT];
        while let Some(ino) = todo.pop() {
            let node = match &self.tree.nodes[&ino] {
                Node::Dir(dir) => {
                    let names = dirs
                        .remove(&ino)
                        .unwrap_or_else(|| Arc::clone(&dir.durable));
                    todo.extend(names.values().filter(|ino| !nodes.contains_key(*ino)));
                    let current = Names::clone(&names);
                    Node::Dir(Arc::new(Dir {
                        durable: names,
                        current,
                        pending: Vec::new(),
                    }))
                }
                Node::File(file) => {
                    let content = files.remove(&ino).map(Arc::new);
                    let content = content.unwrap_or_else(|| Arc::clone(&file.durable));
                    Node::File(Arc::new(File::found(content)))
                }
            };
            nodes.insert(ino, node);
        }
        Image { nodes }
    }
}

impl Image {
    /// Over all names and contents; equal for equal disks.
    pub(super) fn hash(&self) -> u64 {
        let mut hasher = Xxh3::new();
        self.hash_dir(ROOT, &mut hasher);
        hasher.digest()
    }

    fn hash_dir(&self, dir: Ino, hasher: &mut Xxh3) {
        let Node::Dir(dir) = &self.nodes[&dir] else {
            unreachable!("called for directories")
        };
        for (name, ino) in &*dir.durable {
            hasher.update(&(name.len() as u64).to_le_bytes());
            hasher.update(name.as_bytes());
            match &self.nodes[ino] {
                Node::Dir(_) => {
                    hasher.update(b"{");
                    self.hash_dir(*ino, hasher);
                    hasher.update(b"}");
                }
                Node::File(file) => {
                    hasher.update(&(file.durable.len() as u64).to_le_bytes());
                    hasher.update(&file.durable);
                }
            }
        }
    }

    pub(super) fn into_tree(self, of: &Tree) -> Tree {
        Tree::settled(of, self.nodes)
    }
}

/// Everything that has a name or may have one.
fn reachable(tree: &Tree) -> BTreeSet<Ino> {
    let mut found = BTreeSet::new();
    let mut todo = vec![ROOT];
    while let Some(ino) = todo.pop() {
        if found.insert(ino)
            && let Node::Dir(dir) = &tree.nodes[&ino]
        {
            todo.extend(dir.durable.values());
            todo.extend(dir.pending.iter().filter_map(NameChange::names));
        }
    }
    found
}

fn survive(change: &Change, fate: Fate, content: &mut Vec<u8>) {
    let (at, bytes) = match (change, fate) {
        (_, Fate::Lost) => return,
        (Change::SetLen(_), Fate::Sectors { seed }) if seed & 16 == 0 => return,
        (Change::SetLen(_), _) | (_, Fate::Kept) => return change.apply(content),
        (Change::Write { at, bytes }, _) => (*at, bytes),
    };
    let grow = |content: &mut Vec<u8>, end: u64| {
        let end = index(end);
        content.resize(content.len().max(end), 0);
    };
    let end = at + bytes.len() as u64;
    match fate {
        Fate::Kept | Fate::Lost => unreachable!("dealt with above"),
        Fate::LengthOnly => grow(content, end),
        Fate::Torn { kept, zeros_behind } => {
            Change::Write {
                at,
                bytes: bytes[..kept].into(),
            }
            .apply(content);
            if zeros_behind {
                grow(content, end);
            }
        }
        Fate::Sectors { seed } => {
            let mut start = at;
            while start < end {
                let stop = end.min((start / SECTOR_BYTES + 1) * SECTOR_BYTES);
                let fresh = &bytes[index(start - at)..index(stop - at)];
                let roll = mix(seed ^ start);
                let sector: Arc<[u8]> = match roll % 5 {
                    0 | 1 => fresh.into(),
                    2 => fresh.iter().map(|_| 0).collect(),
                    3 => (0..fresh.len() as u64)
                        .map(|i| mix(roll ^ i).to_le_bytes()[0])
                        .collect(),
                    _ => Arc::default(),
                };
                if !sector.is_empty() {
                    Change::Write {
                        at: start,
                        bytes: sector,
                    }
                    .apply(content);
                }
                start = stop;
            }
        }
    }
}

/// Spreads a number over 64 bits.
pub(super) fn mix(n: u64) -> u64 {
    xxhash_rust::xxh3::xxh3_64(&n.to_le_bytes())
}
