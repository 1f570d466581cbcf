//! From a backup to a data directory.

use std::io;
use std::path::{Path, PathBuf};

use millrace_log::fs::{Fs, create_dir_durable, remove_tree};
use millrace_log::planted::active;

use super::check::check_file;
use super::write::{checksum, copy, publish_list, take_empty};
use super::{Backup, BackupProblem, problem, saved_path};
use crate::error::{IoContext, StoreError};
use crate::planted::{RESTORE_IN_PLACE, RESTORE_UNCHECKED};

/// Ends the name of a directory that a restore is filling.
const SUFFIX: &str = ".restoring";
/// Says in a data directory which backup it was restored from. It is there from the first moment, so
/// that the next restore may remove what an interrupted one has left.
const MARK: &str = "restored-from";

/// Makes `dir`, which is empty or not there, a data directory with all that is in `backup`. Every
/// file's checksum is verified, every block whole. `progress` is told of each file's bytes.
///
/// # Errors
///
/// [`BackupProblem::NotEmpty`]; a backup that is not whole or is damaged, the file named; of the file
/// system. `dir` is then empty or not there, as it was.
pub fn restore(
    fs: &dyn Fs,
    backup: &Path,
    dir: &Path,
    progress: &mut dyn FnMut(u64),
) -> Result<Backup, StoreError> {
    let list = Backup::read(fs, backup)?;
    take_empty(fs, dir)?;
    let scratch = if active(RESTORE_IN_PLACE) {
        dir.to_owned()
    } else {
        begin(fs, dir, &list)?
    };
    let dirs = list.dirs(list.files.iter().map(|file| file.name.as_str()));
    for of in &dirs {
        let path = scratch.join(of);
        create_dir_durable(fs, &path).context("create", &path)?;
    }
    for file in &list.files {
        let (from, to) = (saved_path(backup, &file.name), scratch.join(&file.name));
        if !active(RESTORE_UNCHECKED) {
            check_file(fs, &from, file)?;
        }
        let source = fs.open(&from).context("open", &from)?;
        let read = copy(fs, &*source, &from, file.bytes, &to)?;
        let copied = fs.open(&to).context("open", &to)?;
        let found = checksum(&*copied, file.bytes, &to)?;
        if found != read {
            let listed = read;
            return Err(problem(&to, BackupProblem::Checksum { found, listed }));
        }
        progress(file.bytes);
    }
    for of in &dirs {
        let path = scratch.join(of);
        fs.sync_dir(&path).context("sync", &path)?;
    }
    if scratch != dir {
        // IMPORTANT: the last step. Until here there is no data directory, from here on a whole one.
        fs.rename(&scratch, dir).context("rename", &scratch)?;
        let above = above(dir);
        fs.sync_dir(above).context("sync", above)?;
    }
    Ok(list)
}

/// Moves a backup to `to`, which is empty or not there: under another name where the file system can do
/// that, as a verified copy elsewhere. The list comes last there, too.
///
/// # Errors
///
/// As [`restore`]. The backup at `from` is then as it was.
pub fn relocate(fs: &dyn Fs, from: &Path, to: &Path) -> Result<(), StoreError> {
    let list = Backup::read(fs, from)?;
    take_empty(fs, to)?;
    match fs.rename(from, to) {
        Ok(()) => return fs.sync_dir(above(to)).context("sync", above(to)),
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {}
        Err(error) => return Err(error).context("rename", from),
    }
    let dirs = list.dirs(list.files.iter().map(|file| file.name.as_str()));
    let dirs: Vec<_> = dirs.iter().map(|of| saved_path(to, of)).collect();
    for path in &dirs {
        create_dir_durable(fs, path).context("create", path)?;
    }
    for file in &list.files {
        let (source, target) = (saved_path(from, &file.name), saved_path(to, &file.name));
        check_file(fs, &source, file)?;
        let bytes = fs.open(&source).context("open", &source)?;
        copy(fs, &*bytes, &source, file.bytes, &target)?;
        check_file(fs, &target, file)?;
    }
    for path in &dirs {
        fs.sync_dir(path).context("sync", path)?;
    }
    publish_list(fs, to, &list)?;
    remove_tree(fs, from).context("remove", from)
}

/// An empty directory beside `dir`, which nobody takes for a whole one.
fn begin(fs: &dyn Fs, dir: &Path, list: &Backup) -> Result<PathBuf, StoreError> {
    let mut name = dir.as_os_str().to_owned();
    name.push(SUFFIX);
    let scratch = PathBuf::from(name);
    let mark = scratch.join(MARK);
    if fs.exists(&mark).context("look for", &mark)? {
        remove_tree(fs, &scratch).context("remove", &scratch)?;
    }
    take_empty(fs, &scratch)?;
    let text = format!("backup {:032x}, taken at {} ms\n", list.id, list.taken_at.0);
    // Under its own name at once: a directory with anything else in it is not ours to remove.
    let file = fs.create_new(&mark).context("create", &mark)?;
    file.write_all_at(text.as_bytes(), 0)
        .context("write", &mark)?;
    file.sync_data().context("sync", &mark)?;
    fs.sync_dir(&scratch).context("sync", &scratch)?;
    Ok(scratch)
}

fn above(dir: &Path) -> &Path {
    match dir.parent() {
        Some(above) if !above.as_os_str().is_empty() => above,
        _ => Path::new("."),
    }
}
