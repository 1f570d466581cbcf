//! What of a view is derived in one shard, from what, and in which files: the view's root of truth.

use std::collections::BTreeMap;

use millrace_model::{DeleteId, read_varint, unzigzag, write_varint, zigzag};
use millrace_views::{Span, Spans, ViewId};

pub(super) const MAGIC: [u8; 4] = *b"MRVC";
pub(super) const VERSION: u8 = 1;
/// Magic, version, reserved bytes, view.
const HEADER_BYTES: usize = 16;

/// A piece of time whose buckets are derived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    /// Whole buckets.
    pub(crate) span: Span,
    /// Blocks of seals up to this one are in it.
    pub(crate) sequence: u64,
    /// The deletes that were applied, sorted.
    pub(crate) deletes: Vec<DeleteId>,
    /// Samples were let go here: it stays as it is.
    pub(crate) frozen: bool,
}

/// A file of rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SheetEntry {
    /// Tells it from others of the same cell.
    pub(crate) generation: u64,
    /// Its length.
    pub(crate) bytes: u64,
    /// CRC-32C of all of it.
    pub(crate) crc: u32,
}

/// See the [module](self).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cover {
    pub(crate) view: ViewId,
    /// In order of time, without overlap.
    pub(crate) segments: Vec<Segment>,
    /// By the start of their cells. What they have outside of the segments does not count.
    pub(crate) sheets: BTreeMap<i64, SheetEntry>,
    pub(crate) next_generation: u64,
}

impl Cover {
    pub(crate) fn empty(view: ViewId) -> Self {
        Self {
            view,
            segments: Vec::new(),
            sheets: BTreeMap::new(),
            next_generation: 1,
        }
    }

    /// All that is derived, whether it still holds or not.
    pub(crate) fn spans(&self) -> Spans {
        self.segments.iter().map(|s| s.span).collect()
    }

    pub(crate) fn frozen(&self) -> Spans {
        let frozen = self.segments.iter().filter(|s| s.frozen);
        frozen.map(|s| s.span).collect()
    }

    /// The last seal that it names.
    pub(crate) fn last_sequence(&self) -> u64 {
        self.segments.iter().map(|s| s.sequence).max().unwrap_or(0)
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&[VERSION, 0, 0, 0]);
        out.extend_from_slice(&self.view.0.to_le_bytes());
        write_varint(&mut out, self.next_generation);
        write_varint(&mut out, self.segments.len() as u64);
        for segment in &self.segments {
            write_varint(&mut out, zigzag(segment.span.from));
            write_varint(&mut out, segment.span.to.abs_diff(segment.span.from));
            write_varint(&mut out, segment.sequence);
            out.push(u8::from(segment.frozen));
            write_varint(&mut out, segment.deletes.len() as u64);
            for id in &segment.deletes {
                out.extend_from_slice(&id.0.to_le_bytes());
            }
        }
        write_varint(&mut out, self.sheets.len() as u64);
        for (cell, sheet) in &self.sheets {
            write_varint(&mut out, zigzag(*cell));
            write_varint(&mut out, sheet.generation);
            write_varint(&mut out, sheet.bytes);
            out.extend_from_slice(&sheet.crc.to_le_bytes());
        }
        let crc = crc32c::crc32c(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        out
    }
}

/// Reads a cover. What is wrong with it, if it is none.
pub(crate) fn decode(bytes: &[u8]) -> Result<Cover, &'static str> {
    let Some((body, stored)) = bytes.split_last_chunk::<4>() else {
        return Err("is cut short");
    };
    if body.len() < HEADER_BYTES || body[..4] != MAGIC {
        return Err("is no cover of a view");
    }
    if crc32c::crc32c(body) != u32::from_le_bytes(*stored) {
        return Err("checksum");
    }
    if body[4] != VERSION {
        return Err("was written by a later version");
    }
    content(body).ok_or("content breaks the format")
}

fn content(body: &[u8]) -> Option<Cover> {
    let pos = &mut 8;
    let view = ViewId(u64::from_le_bytes(chunk(body, pos)?));
    let next_generation = read_varint(body, pos)?;
    let mut segments: Vec<Segment> = Vec::new();
    for _ in 0..read_varint(body, pos)? {
        let from = unzigzag(read_varint(body, pos)?);
        let to = from.checked_add_unsigned(read_varint(body, pos)?)?;
        let sequence = read_varint(body, pos)?;
        let frozen = match chunk(body, pos)? {
            [0] => false,
            [1] => true,
            _ => return None,
        };
        let mut deletes = Vec::new();
        for _ in 0..read_varint(body, pos)? {
            deletes.push(DeleteId(u128::from_le_bytes(chunk(body, pos)?)));
        }
        let in_order = segments.last().is_none_or(|last| last.span.to <= from);
        (in_order && from < to).then_some(())?;
        segments.push(Segment {
            span: Span::new(from, to),
            sequence,
            deletes,
            frozen,
        });
    }
    let mut sheets = BTreeMap::new();
    for _ in 0..read_varint(body, pos)? {
        let cell = unzigzag(read_varint(body, pos)?);
        let sheet = SheetEntry {
            generation: read_varint(body, pos)?,
            bytes: read_varint(body, pos)?,
            crc: u32::from_le_bytes(chunk(body, pos)?),
        };
        (sheet.generation < next_generation).then_some(())?;
        sheets.insert(cell, sheet).is_none().then_some(())?;
    }
    (*pos == body.len()).then_some(Cover {
        view,
        segments,
        sheets,
        next_generation,
    })
}

pub(super) fn chunk<const N: usize>(bytes: &[u8], pos: &mut usize) -> Option<[u8; N]> {
    let found = bytes.get(*pos..)?.first_chunk::<N>()?;
    *pos += N;
    Some(*found)
}
