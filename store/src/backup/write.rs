//! Writing a backup: directories, files, and at last the list that makes it one.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use millrace_log::HeldSegment;
use millrace_log::fs::{Fs, FsFile, create_dir_durable, publish};
use millrace_log::planted::active;
use millrace_model::TimestampMs;
use millrace_queue::HeldQueue;

use super::{
    Backup, BackupProblem, LIST_FILE, SAVED_DIR, SavedChecksum, SavedFile, StoreSnapshot, codec,
    problem,
};
use crate::error::{IoContext, StoreError};
use crate::manifest::BlockEntry;
use crate::paths::{ShardDir, view_list};
use crate::planted::{BACKUP_LIST_FIRST, BACKUP_OPEN_SEGMENT_LINKED};
use crate::views::SheetEntry;

/// Files are read and written in pieces of this size.
const PIECE_BYTES: usize = 256 << 10;

/// Where the bytes of a file come from.
enum Source<'a> {
    Bytes(Cow<'a, [u8]>),
    Segment(&'a HeldSegment),
    Block(PathBuf, &'a BlockEntry),
    /// Rows of a view: never written to again.
    Sheet(PathBuf, &'a SheetEntry),
}

/// Saves `snapshot`, and the embedded queue that was held behind it, in `dir`: a directory that is
/// empty or not there. `store` is where the store's files are. `progress` is told of each file's bytes.
///
/// # Errors
///
/// [`BackupProblem::NotEmpty`]; of the file system. What is there then is no backup.
pub fn write(
    fs: &dyn Fs,
    store: &Path,
    dir: &Path,
    snapshot: &StoreSnapshot,
    queue: Option<&HeldQueue>,
    taken_at: TimestampMs,
    progress: &mut dyn FnMut(u64),
) -> Result<Backup, StoreError> {
    take_empty(fs, dir)?;
    let sources = sources(store, snapshot, queue);
    let mut backup = Backup {
        id: fs.unique_id().context("draw a number for", dir)?,
        taken_at,
        queue: snapshot.identity.id,
        partitions: snapshot.identity.partitions,
        shards: snapshot.shards().copied().collect(),
        records: queue.map_or_else(Vec::new, |queue| {
            let partitions = queue.partitions.iter();
            let records = partitions.map(|p| (p.partition, p.records.clone()));
            records.collect()
        }),
        files: Vec::new(),
    };
    let saved = dir.join(SAVED_DIR);
    let dirs = backup.dirs(sources.keys().map(String::as_str));
    for of in &dirs {
        let path = saved.join(of);
        create_dir_durable(fs, &path).context("create", &path)?;
    }
    if active(BACKUP_LIST_FIRST) {
        publish_list(fs, dir, &backup)?;
    }
    for (name, source) in &sources {
        let file = save(fs, name, &saved.join(name), source)?;
        progress(file.bytes);
        backup.files.push(file);
    }
    for of in &dirs {
        let path = saved.join(of);
        fs.sync_dir(&path).context("sync", &path)?;
    }
    // IMPORTANT: behind all that it lists. It is what makes this a backup.
    publish_list(fs, dir, &backup)?;
    Ok(backup)
}

pub(super) fn publish_list(fs: &dyn Fs, dir: &Path, backup: &Backup) -> Result<(), StoreError> {
    let list = dir.join(LIST_FILE);
    publish(fs, &list, &codec::encode(backup)).context("publish", &list)
}

/// Creates a directory, or takes one that is there and empty.
pub(super) fn take_empty(fs: &dyn Fs, dir: &Path) -> Result<(), StoreError> {
    create_dir_durable(fs, dir).context("create", dir)?;
    if fs.list(dir).context("list", dir)?.is_empty() {
        return Ok(());
    }
    Err(problem(dir, BackupProblem::NotEmpty))
}

/// All files by their names in a data directory.
fn sources<'a>(
    store: &Path,
    snapshot: &'a StoreSnapshot,
    queue: Option<&'a HeldQueue>,
) -> BTreeMap<String, Source<'a>> {
    let mut found = BTreeMap::new();
    let mut add = |path: &Path, source| found.insert(name(path), source);
    for shard in &snapshot.shards {
        let of = |root: &Path| ShardDir::new(root, shard.saved.partition);
        let (from, to) = (of(store), of(Path::new("store")));
        let (generation, bytes) = &shard.manifest;
        add(
            &to.manifest(*generation),
            Source::Bytes(Cow::Borrowed(bytes)),
        );
        for block in &shard.view.blocks {
            let entry = &block.entry;
            let path = from.block(entry.id);
            add(&to.block(entry.id), Source::Block(path, entry));
        }
        for cover in &shard.covers {
            let path = to.cover(cover.view);
            add(&path, Source::Bytes(Cow::Owned(cover.encode())));
            for (cell, entry) in &cover.sheets {
                let of = |dir: &ShardDir| dir.sheet(cover.view, *cell, entry.generation);
                add(&of(&to), Source::Sheet(of(&from), entry));
            }
        }
        let list = view_list(Path::new("store"));
        add(&list, Source::Bytes(Cow::Borrowed(&shard.view_list)));
        let logs = [(to.wal(), &shard.wal), (to.dead_letters(), &shard.letters)];
        for (dir, segments) in logs {
            for segment in segments {
                add(&under(&dir, segment), Source::Segment(segment));
            }
        }
    }
    if let Some(queue) = queue {
        let (path, bytes) = queue.identity_file();
        let root = Path::new("queue");
        add(&root.join(path), Source::Bytes(Cow::Owned(bytes)));
        for partition in &queue.partitions {
            let dir = root.join(HeldQueue::partition_dir(partition.partition));
            for segment in &partition.segments {
                add(&under(&dir, segment), Source::Segment(segment));
            }
        }
    }
    found
}

fn under(dir: &Path, segment: &HeldSegment) -> PathBuf {
    let name = segment.path.file_name();
    name.map_or_else(|| dir.to_owned(), |name| dir.join(name))
}

/// Our own names are ASCII.
fn name(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// Puts one file into the backup, durably but for its name.
fn save(fs: &dyn Fs, name: &str, to: &Path, source: &Source<'_>) -> Result<SavedFile, StoreError> {
    let (bytes, checksum) = match source {
        Source::Bytes(bytes) => {
            let file = fs.create_new(to).context("create", to)?;
            file.write_all_at(bytes, 0).context("write", to)?;
            file.sync_data().context("sync", to)?;
            let crc = crc32c::crc32c(bytes);
            (bytes.len() as u64, SavedChecksum::Content(crc))
        }
        Source::Segment(segment) => {
            let HeldSegment {
                path, file, bytes, ..
            } = segment;
            let complete = segment.closed && file.len().context("look at", path)? == *bytes;
            let may_link = complete || active(BACKUP_OPEN_SEGMENT_LINKED);
            let crc = if may_link && link(fs, path, to)? {
                checksum(&**file, *bytes, path)?
            } else {
                copy(fs, &**file, path, *bytes, to)?
            };
            (*bytes, SavedChecksum::Content(crc))
        }
        Source::Block(path, entry) => {
            if !link(fs, path, to)? {
                let file = fs.open(path).context("open", path)?;
                copy(fs, &*file, path, entry.bytes, to)?;
            }
            (entry.bytes, SavedChecksum::Footer(entry.footer_crc))
        }
        Source::Sheet(path, entry) => {
            if !link(fs, path, to)? {
                let file = fs.open(path).context("open", path)?;
                copy(fs, &*file, path, entry.bytes, to)?;
            }
            (entry.bytes, SavedChecksum::Content(entry.crc))
        }
    };
    Ok(SavedFile {
        name: name.to_owned(),
        bytes,
        checksum,
    })
}

/// Whether the file could be given a second name. Where it cannot, as on another file system, it is
/// copied; so is one whose first name is gone by now.
fn link(fs: &dyn Fs, from: &Path, to: &Path) -> Result<bool, StoreError> {
    match fs.link(from, to) {
        Ok(()) => Ok(true),
        Err(error) => match error.kind() {
            io::ErrorKind::CrossesDevices
            | io::ErrorKind::NotFound
            | io::ErrorKind::TooManyLinks
            | io::ErrorKind::PermissionDenied
            | io::ErrorKind::Unsupported => Ok(false),
            _ => Err(error).context("link", from),
        },
    }
}

/// Copies the first `bytes` bytes of a file to a new one, durably but for its name. Returns their
/// CRC-32C.
pub(super) fn copy(
    fs: &dyn Fs,
    file: &dyn FsFile,
    from: &Path,
    bytes: u64,
    to: &Path,
) -> Result<u32, StoreError> {
    let target = fs.create_new(to).context("create", to)?;
    let crc = pieces(file, bytes, from, |piece, at| {
        target.write_all_at(piece, at).context("write", to)
    })?;
    target.sync_data().context("sync", to)?;
    Ok(crc)
}

/// The CRC-32C of the first `bytes` bytes of a file.
pub(super) fn checksum(file: &dyn FsFile, bytes: u64, path: &Path) -> Result<u32, StoreError> {
    pieces(file, bytes, path, |_, _| Ok(()))
}

fn pieces(
    file: &dyn FsFile,
    bytes: u64,
    path: &Path,
    mut each: impl FnMut(&[u8], u64) -> Result<(), StoreError>,
) -> Result<u32, StoreError> {
    let mut buffer = vec![0; PIECE_BYTES];
    let (mut at, mut crc) = (0, 0);
    while at < bytes {
        let len = usize::try_from(bytes - at).map_or(PIECE_BYTES, |left| left.min(PIECE_BYTES));
        let piece = &mut buffer[..len];
        file.read_exact_at(piece, at).context("read", path)?;
        crc = crc32c::crc32c_append(crc, piece);
        each(piece, at)?;
        at += len as u64;
    }
    Ok(crc)
}
