//! The payloads of the frames of a shard's dead letters. Page: `docs/formats/wal.md`.

use bytes::Bytes;
use millrace_model::{Offset, PartitionId, QueueId, TimestampMs, read_varint, write_varint};
use millrace_queue::{DeadLetter, Origin};

const KIND_LETTER: u8 = 1;
const KIND_PURGE: u8 = 2;
const KIND_PARDON: u8 = 3;
/// Kind, origin, both times.
pub(super) const FIXED_BYTES: usize = 1 + ORIGIN_BYTES + 16;
const ORIGIN_BYTES: usize = 16 + 4 + 8;

/// What one frame says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Frame {
    Letter(DeadLetter),
    Purge(Purge),
    /// Letters kept up to this moment do not count towards the limit.
    Pardon(TimestampMs),
}

/// Letters that are there no more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Purge {
    /// Everything before it was kept once: a replay of the WAL does not bring it back.
    pub(crate) kept_below: Option<Origin>,
    pub(crate) origins: Vec<Origin>,
}

/// A letter's frame, less its record's bytes.
pub(super) fn encode_head(
    origin: Origin,
    times: (TimestampMs, TimestampMs),
    reason: &str,
) -> Vec<u8> {
    let mut out = Vec::with_capacity(FIXED_BYTES + 10 + reason.len());
    out.push(KIND_LETTER);
    put_origin(&mut out, origin);
    out.extend_from_slice(&times.0.0.to_le_bytes());
    out.extend_from_slice(&times.1.0.to_le_bytes());
    write_varint(&mut out, reason.len() as u64);
    out.extend_from_slice(reason.as_bytes());
    out
}

pub(super) fn encode_purge(purge: &Purge) -> Vec<u8> {
    let mut out = vec![KIND_PURGE, u8::from(purge.kept_below.is_some())];
    if let Some(origin) = purge.kept_below {
        put_origin(&mut out, origin);
    }
    for origin in &purge.origins {
        put_origin(&mut out, *origin);
    }
    out
}

pub(super) fn encode_pardon(moment: TimestampMs) -> Vec<u8> {
    let mut out = vec![KIND_PARDON];
    out.extend_from_slice(&moment.0.to_le_bytes());
    out
}

fn put_origin(out: &mut Vec<u8>, origin: Origin) {
    out.extend_from_slice(&origin.queue.0.to_le_bytes());
    out.extend_from_slice(&origin.partition.0.to_le_bytes());
    out.extend_from_slice(&origin.offset.0.to_le_bytes());
}

/// Reads a frame; `None` if it is none of this version.
pub(super) fn decode(payload: &Bytes) -> Option<Frame> {
    let (kind, rest) = payload.split_first()?;
    match *kind {
        KIND_LETTER => decode_letter(payload).map(Frame::Letter),
        KIND_PURGE => decode_purge(rest).map(Frame::Purge),
        KIND_PARDON => {
            let moment = i64::from_le_bytes(rest.try_into().ok()?);
            Some(Frame::Pardon(TimestampMs(moment)))
        }
        _ => None,
    }
}

fn decode_letter(payload: &Bytes) -> Option<DeadLetter> {
    let fixed = payload.get(..FIXED_BYTES)?;
    let (origin, times) = fixed[1..].split_at(ORIGIN_BYTES);
    let time = |at: usize| Some(i64::from_le_bytes(times.get(at..at + 8)?.try_into().ok()?));
    let mut pos = FIXED_BYTES;
    let len = usize::try_from(read_varint(payload, &mut pos)?).ok()?;
    let end = pos.checked_add(len)?;
    let reason = std::str::from_utf8(payload.get(pos..end)?).ok()?;
    Some(DeadLetter {
        origin: decode_origin(origin)?,
        appended_at: TimestampMs(time(0)?),
        kept_at: TimestampMs(time(8)?),
        reason: reason.to_owned(),
        payload: payload.slice(end..),
    })
}

fn decode_purge(bytes: &[u8]) -> Option<Purge> {
    let (there, mut rest) = bytes.split_first()?;
    let kept_below = match *there {
        0 => None,
        1 => {
            let (origin, behind) = rest.split_at_checked(ORIGIN_BYTES)?;
            rest = behind;
            Some(decode_origin(origin)?)
        }
        _ => return None,
    };
    let origins = rest.chunks(ORIGIN_BYTES).map(decode_origin);
    Some(Purge {
        kept_below,
        origins: origins.collect::<Option<_>>()?,
    })
}

fn decode_origin(bytes: &[u8]) -> Option<Origin> {
    let (queue, rest) = bytes.split_at_checked(16)?;
    let (partition, offset) = rest.split_at_checked(4)?;
    Some(Origin {
        queue: QueueId(u128::from_le_bytes(queue.try_into().ok()?)),
        partition: PartitionId(u32::from_le_bytes(partition.try_into().ok()?)),
        offset: Offset(u64::from_le_bytes(offset.try_into().ok()?)),
    })
}
