//! Orders of operations that are wrong whatever a crash makes of them.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use super::tree::{Ino, Node, Tree};

/// A rule about the order of operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// A file gets a further or another name only after its bytes were synced.
    NameAfterSync,
    /// Nothing is written below a directory whose own name was never synced.
    DirectorySettledFirst,
    /// Nothing is appended to a file that was there before the process started.
    OldFilesAreNotWritten,
    /// What is acknowledged was synced, bytes and names.
    AcknowledgeAfterSync,
    /// What replaces a file was synced before the file is removed.
    UnlinkAfterSync,
}

/// A broken [`Rule`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The operation that broke it, or that the acknowledgement came after.
    pub op: u64,
    /// Which one.
    pub rule: Rule,
    /// What was not settled.
    pub path: PathBuf,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "operation {} breaks {:?}: {:?}",
            self.op, self.rule, self.path
        )
    }
}

/// Watches operations as they come.
#[derive(Debug, Default)]
pub(super) struct Lint {
    pub(super) violations: Vec<Violation>,
    /// Before a file below the first path is removed, everything below the second is durable.
    pub(super) unlink_rules: Vec<(PathBuf, PathBuf)>,
}

impl Lint {
    pub(super) fn name_given(&mut self, op: u64, tree: &Tree, ino: Ino, path: &Path) {
        if let Node::File(file) = &tree.nodes[&ino]
            && file.is_unsettled()
        {
            self.broken(op, Rule::NameAfterSync, path);
        }
    }

    pub(super) fn written(&mut self, op: u64, tree: &Tree, ino: Ino, path: &Path) {
        if tree.file(ino).old {
            self.broken(op, Rule::OldFilesAreNotWritten, path);
        }
        // The file's own name may come later, as when a file is published; its directory's not.
        for dir in path.ancestors().skip(1) {
            if let Ok((above, name)) = tree.place(dir)
                && is_name_pending(tree, above, &name)
            {
                self.broken(op, Rule::DirectorySettledFirst, dir);
            }
        }
    }

    pub(super) fn unlinked(&mut self, op: u64, tree: &Tree, path: &Path) {
        for (removed, settled) in self.unlink_rules.clone() {
            if path.starts_with(&removed) {
                // What is not there cannot be unsettled.
                for path in unsettled(tree, &settled).unwrap_or_default() {
                    self.broken(op, Rule::UnlinkAfterSync, &path);
                }
            }
        }
    }

    pub(super) fn acknowledge(&mut self, op: u64, tree: &Tree, path: &Path) -> io::Result<()> {
        for path in unsettled(tree, path)? {
            self.broken(op, Rule::AcknowledgeAfterSync, &path);
        }
        Ok(())
    }

    fn broken(&mut self, op: u64, rule: Rule, path: &Path) {
        self.violations.push(Violation {
            op,
            rule,
            path: path.to_path_buf(),
        });
    }
}

/// The files at or below `path` of which bytes or names are not durable. Removals and cuts do not
/// count: undone, they lose nothing.
fn unsettled(tree: &Tree, path: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for above in path.ancestors() {
        if let Ok((dir, name)) = tree.place(above)
            && is_name_pending(tree, dir, &name)
        {
            found.push(above.to_path_buf());
        }
    }
    let ino = tree.find(path)?;
    if !tree.is_dir(ino) {
        if tree.file(ino).is_unsettled() {
            found.push(path.to_path_buf());
        }
        return Ok(found);
    }
    tree.walk_below(ino, &mut path.to_path_buf(), &mut |path, ino| {
        let named = tree
            .place(path)
            .is_ok_and(|(dir, name)| !is_name_pending(tree, dir, &name));
        if !named || tree.file(ino).is_unsettled() {
            found.push(path.to_path_buf());
        }
    });
    Ok(found)
}

/// Whether a name stands for something else than it does durably.
fn is_name_pending(tree: &Tree, dir: Ino, name: &str) -> bool {
    let dir = tree.dir(dir);
    dir.current.get(name) != dir.durable.get(name)
}
