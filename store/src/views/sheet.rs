//! The rows of a view in one cell of time (a day, or a bucket that is wider): group by bucket.
//!
//! A query mostly wants some buckets of all groups, so buckets stand one after the other, each with a
//! checksum and an entry in the head, and the labels of the groups stand once in the head.

use std::collections::BTreeMap;
use std::path::Path;

use millrace_log::fs::{Fs, FsFile, publish, read_all};
use millrace_model::{Labels, read_varint, unzigzag, write_varint, zigzag};
use millrace_views::{Partial, Parts, Spans, ViewId};

use super::cover::{SheetEntry, chunk};
use crate::error::{IoContext, StoreError};

pub(super) const MAGIC: [u8; 4] = *b"MRVS";
pub(super) const VERSION: u8 = 1;
/// Magic, version, parts, reserved bytes, view, cell, length of the head.
const HEADER_BYTES: usize = 4 + 4 + 8 + 8 + 4;
/// A sheet that is read whole is bounded by its entry; beyond this it is damage.
const MAX_BYTES: u64 = 8 << 30;

/// Each group's buckets, by their ends, rising.
pub(crate) type Rows = BTreeMap<Labels, Vec<(i64, Partial)>>;

/// The identity of a sheet.
#[derive(Clone, Copy, Debug)]
pub(super) struct SheetOf {
    pub(super) view: ViewId,
    pub(super) cell: i64,
    pub(super) parts: Parts,
}

/// Where a bucket's rows are.
struct Bucket {
    end: i64,
    at: u64,
    bytes: u64,
    crc: u32,
}

pub(super) fn encode(of: SheetOf, rows: &Rows) -> Vec<u8> {
    let mut buckets: BTreeMap<i64, (u64, Vec<u8>)> = BTreeMap::new();
    let mut row = Vec::new();
    for (number, partials) in rows.values().enumerate() {
        for (end, partial) in partials {
            row.clear();
            partial.encode(&mut row, of.parts);
            let (count, out) = buckets.entry(*end).or_default();
            *count += 1;
            write_varint(out, number as u64);
            write_varint(out, row.len() as u64);
            out.extend_from_slice(&row);
        }
    }
    let mut head = Vec::new();
    write_varint(&mut head, rows.len() as u64);
    for labels in rows.keys() {
        write_varint(&mut head, labels.canonical().len() as u64);
        head.extend_from_slice(labels.canonical());
    }
    write_varint(&mut head, buckets.len() as u64);
    for (end, (count, bytes)) in &buckets {
        write_varint(&mut head, zigzag(*end));
        write_varint(&mut head, *count);
        write_varint(&mut head, bytes.len() as u64);
        head.extend_from_slice(&crc32c::crc32c(bytes).to_le_bytes());
    }
    let mut out = Vec::new();
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&[VERSION, of.parts.code(), 0, 0]);
    out.extend_from_slice(&of.view.0.to_le_bytes());
    out.extend_from_slice(&of.cell.to_le_bytes());
    let len = u32::try_from(head.len()).expect("the head of a sheet is bounded by its rows");
    out.extend_from_slice(&len.to_le_bytes());
    out.extend_from_slice(&head);
    let crc = crc32c::crc32c(&out);
    out.extend_from_slice(&crc.to_le_bytes());
    buckets.values().for_each(|(_, b)| out.extend_from_slice(b));
    out
}

/// Writes a sheet, durably under its name.
pub(super) fn write(
    fs: &dyn Fs,
    path: &Path,
    generation: u64,
    of: SheetOf,
    rows: &Rows,
) -> Result<SheetEntry, StoreError> {
    let bytes = encode(of, rows);
    publish(fs, path, &bytes).context("publish", path)?;
    Ok(SheetEntry {
        generation,
        bytes: bytes.len() as u64,
        crc: crc32c::crc32c(&bytes),
    })
}

/// Appends the rows of groups that `takes`, in buckets that are `wanted`. Returns the bytes that were read.
pub(super) fn read(
    fs: &dyn Fs,
    path: &Path,
    of: SheetOf,
    wanted: &Spans,
    takes: &dyn Fn(&Labels) -> bool,
    found: &mut Rows,
) -> Result<u64, StoreError> {
    let damaged = |what| StoreError::ViewDamaged {
        path: path.to_owned(),
        what,
    };
    let file = fs.open(path).context("open", path)?;
    let head = read_head(&*file, path)?;
    let mut read = head.len() as u64;
    let (groups, buckets) = parse_head(&head, of).ok_or_else(|| damaged("head"))?;
    let taken: Vec<bool> = groups.iter().map(takes).collect();
    let mut bytes = Vec::new();
    let mut by_group: Vec<Vec<(i64, Partial)>> = vec![Vec::new(); groups.len()];
    for bucket in buckets.iter().filter(|b| wanted.contains(b.end)) {
        let len = usize::try_from(bucket.bytes).map_err(|_| damaged("length of a bucket"))?;
        let file_len = file.len().context("look at", path)?;
        if bucket.at.saturating_add(bucket.bytes) > file_len {
            return Err(damaged("is cut short"));
        }
        bytes.resize(len, 0);
        file.read_exact_at(&mut bytes, bucket.at)
            .context("read", path)?;
        read += bucket.bytes;
        if crc32c::crc32c(&bytes) != bucket.crc {
            return Err(damaged("checksum of a bucket"));
        }
        let pos = &mut 0;
        while *pos < bytes.len() {
            let (number, partial) =
                parse_row(&bytes, pos, of.parts, &taken).ok_or_else(|| damaged("a row"))?;
            if let Some(partial) = partial {
                by_group[number].push((bucket.end, partial));
            }
        }
    }
    for (labels, partials) in groups.into_iter().zip(by_group) {
        if !partials.is_empty() {
            found.entry(labels).or_default().extend(partials);
        }
    }
    Ok(read)
}

/// Reads every byte, and compares it with its checksums.
pub(crate) fn verify(
    fs: &dyn Fs,
    path: &Path,
    view: ViewId,
    cell: i64,
    entry: &SheetEntry,
) -> Result<(), StoreError> {
    let damaged = |what| StoreError::ViewDamaged {
        path: path.to_owned(),
        what,
    };
    let bytes = read_all(fs, path, MAX_BYTES).context("read", path)?;
    if (bytes.len() as u64, crc32c::crc32c(&bytes)) != (entry.bytes, entry.crc) {
        return Err(damaged("is another one than its cover names"));
    }
    let parts = bytes.get(5).copied().and_then(Parts::from_code);
    let parts = parts.ok_or_else(|| damaged("kind of its rows"))?;
    let (mut rows, all) = (
        Rows::new(),
        Spans::of(millrace_views::Span::new(i64::MIN, i64::MAX)),
    );
    let of = SheetOf { view, cell, parts };
    read(fs, path, of, &all, &|_| true, &mut rows)?;
    Ok(())
}

/// Header and head, their checksum compared.
fn read_head(file: &dyn FsFile, path: &Path) -> Result<Vec<u8>, StoreError> {
    let damaged = |what| StoreError::ViewDamaged {
        path: path.to_owned(),
        what,
    };
    let file_len = file.len().context("look at", path)?;
    let mut header = [0; HEADER_BYTES];
    if file_len < HEADER_BYTES as u64 + 4 {
        return Err(damaged("is cut short"));
    }
    file.read_exact_at(&mut header, 0).context("read", path)?;
    let mut len = [0; 4];
    len.copy_from_slice(&header[HEADER_BYTES - 4..]);
    let len = u64::from(u32::from_le_bytes(len)) + HEADER_BYTES as u64 + 4;
    if header[..4] != MAGIC || len > file_len {
        return Err(damaged("is no sheet of a view"));
    }
    let len = usize::try_from(len).map_err(|_| damaged("length of the head"))?;
    let mut bytes = vec![0; len];
    file.read_exact_at(&mut bytes, 0).context("read", path)?;
    let stored = bytes.split_off(len - 4);
    if crc32c::crc32c(&bytes).to_le_bytes()[..] != stored[..] {
        return Err(damaged("checksum of the head"));
    }
    if bytes[4] != VERSION {
        return Err(damaged("was written by a later version"));
    }
    Ok(bytes)
}

fn parse_head(head: &[u8], of: SheetOf) -> Option<(Vec<Labels>, Vec<Bucket>)> {
    let pos = &mut 5;
    let [parts, _, _] = chunk(head, pos)?;
    let view = u64::from_le_bytes(chunk(head, pos)?);
    let cell = i64::from_le_bytes(chunk(head, pos)?);
    ((parts, view, cell) == (of.parts.code(), of.view.0, of.cell)).then_some(())?;
    *pos += 4;
    let mut groups = Vec::new();
    for _ in 0..read_varint(head, pos)? {
        let len = usize::try_from(read_varint(head, pos)?).ok()?;
        let end = pos.checked_add(len)?;
        groups.push(Labels::from_canonical(head.get(*pos..end)?).ok()?);
        *pos = end;
    }
    let mut buckets = Vec::new();
    let mut at = head.len() as u64 + 4;
    for _ in 0..read_varint(head, pos)? {
        let end = unzigzag(read_varint(head, pos)?);
        let _rows = read_varint(head, pos)?;
        let bytes = read_varint(head, pos)?;
        let crc = u32::from_le_bytes(chunk(head, pos)?);
        buckets.push(Bucket {
            end,
            at,
            bytes,
            crc,
        });
        at = at.checked_add(bytes)?;
    }
    (*pos == head.len()).then_some((groups, buckets))
}

/// A row's group, and what it has if that is taken.
fn parse_row(
    bytes: &[u8],
    pos: &mut usize,
    parts: Parts,
    taken: &[bool],
) -> Option<(usize, Option<Partial>)> {
    let number = usize::try_from(read_varint(bytes, pos)?).ok()?;
    let len = usize::try_from(read_varint(bytes, pos)?).ok()?;
    let end = pos.checked_add(len).filter(|&end| end <= bytes.len())?;
    if !*taken.get(number)? {
        *pos = end;
        return Some((number, None));
    }
    let partial = Partial::decode(&bytes[..end], pos, parts)?;
    (*pos == end).then_some((number, Some(partial)))
}
