//! The bytes of a manifest. Written by hand, little-endian; the page is `docs/formats/manifest.md`.

use std::path::Path;
use std::sync::Arc;

use millrace_model::batch::{decode_delete, encode_delete};
use millrace_model::{
    DeleteId, MetricMetadata, MetricType, Offset, PartitionId, QueueId, TenantId, TimestampMs,
    read_varint, write_varint,
};
use millrace_queue::Fingerprint;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::{BlockEntry, Edit, Gap, GapCause, ManifestState};
use crate::error::StoreError;
use crate::paths::BlockId;
use crate::tombstone::{Tombstone, TombstoneState};

pub(super) const MAGIC: [u8; 4] = *b"MRMF";
pub(super) const VERSION: u8 = 1;
pub(super) const FILE_HEADER_BYTES: usize = 28;
pub(super) const FRAME_MAGIC: [u8; 4] = *b"MRME";
pub(super) const FRAME_HEADER_BYTES: usize = 32;
/// A block in a frame.
const BLOCK_BYTES: usize = 90;
const KIND_SNAPSHOT: u8 = 1;
const KIND_EDIT: u8 = 2;
const KIND_GAP: u8 = 3;
const GAP_BYTES: usize = 16 + 8 + 16 + 8 + 8 + 1;

/// Where a chain of frames ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tail {
    /// Number of the next frame.
    pub(super) next: u64,
    /// Hash over all frames.
    pub(super) chain: u64,
}

/// What a file holds.
#[derive(Debug)]
pub(super) struct ReadFile {
    pub(super) state: ManifestState,
    pub(super) chain: u64,
    pub(super) torn_bytes: u64,
}

/// A whole file without edits.
pub(super) fn encode_file(generation: u64, chain: u64, state: &ManifestState) -> (Vec<u8>, Tail) {
    let mut out = Vec::new();
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&[VERSION, 0, 0, 0]);
    out.extend_from_slice(&generation.to_le_bytes());
    out.extend_from_slice(&chain.to_le_bytes());
    let crc = crc32c::crc32c(&out);
    out.extend_from_slice(&crc.to_le_bytes());
    let tail = Tail { next: 0, chain };
    let (frame, tail) = encode_frame(generation, &tail, &snapshot_payload(state));
    out.extend_from_slice(&frame);
    (out, tail)
}

/// The frame of one edit.
pub(super) fn encode_edit(generation: u64, tail: &Tail, edit: &Edit) -> (Vec<u8>, Tail) {
    encode_frame(generation, tail, &edit_payload(edit))
}

/// The frame of a gap.
pub(super) fn encode_gap(generation: u64, tail: &Tail, gap: &Gap, wal_lsn: u64) -> (Vec<u8>, Tail) {
    let mut payload = vec![KIND_GAP];
    payload.extend_from_slice(&wal_lsn.to_le_bytes());
    put_gap(&mut payload, gap);
    encode_frame(generation, tail, &payload)
}

fn encode_frame(generation: u64, tail: &Tail, payload: &[u8]) -> (Vec<u8>, Tail) {
    let chain = xxh3_64_with_seed(payload, tail.chain);
    let len = u32::try_from(payload.len()).expect("a manifest frame stays far below 4 GiB");
    let mut out = Vec::with_capacity(FRAME_HEADER_BYTES + payload.len());
    out.extend_from_slice(&FRAME_MAGIC);
    out.extend_from_slice(&len.to_le_bytes());
    out.extend_from_slice(&tail.next.to_le_bytes());
    out.extend_from_slice(&chain.to_le_bytes());
    out.extend_from_slice(&crc32c::crc32c(payload).to_le_bytes());
    let crc = header_crc(generation, &out);
    out.extend_from_slice(&crc.to_le_bytes());
    out.extend_from_slice(payload);
    let next = tail.next + 1;
    (out, Tail { next, chain })
}

/// Covers the generation too, so that a frame of another file does not pass.
fn header_crc(generation: u64, header: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&generation.to_le_bytes()), &header[..28])
}

/// Reads a file: its snapshot, and all its edits up to a torn one.
pub(super) fn decode_file(
    path: &Path,
    generation: u64,
    bytes: &[u8],
) -> Result<ReadFile, StoreError> {
    let damaged = |at: usize, what| StoreError::ManifestDamaged {
        path: path.to_owned(),
        at: at as u64,
        what,
    };
    let header = bytes
        .get(..FILE_HEADER_BYTES)
        .ok_or_else(|| damaged(0, "header is cut short"))?;
    if header[..4] != MAGIC {
        return Err(damaged(0, "no manifest"));
    }
    if crc32c::crc32c(&header[..24]) != u32::from_le_bytes(array(&header[24..28])) {
        return Err(damaged(0, "checksum of the header"));
    }
    if header[4] != VERSION {
        return Err(StoreError::ManifestVersion {
            path: path.to_owned(),
            got: header[4],
            supported: VERSION,
        });
    }
    if header[5..8] != [0; 3] {
        return Err(damaged(5, "reserved bytes are not zero"));
    }
    if u64::from_le_bytes(array(&header[8..16])) != generation {
        return Err(damaged(8, "generation is not that of the file's name"));
    }
    let mut tail = Tail {
        next: 0,
        chain: u64::from_le_bytes(array(&header[16..24])),
    };
    let mut at = FILE_HEADER_BYTES;
    let mut state: Option<ManifestState> = None;
    while at < bytes.len() {
        let Some((payload, next_tail)) = read_frame(&bytes[at..], generation, &tail) else {
            break;
        };
        let body = at + FRAME_HEADER_BYTES;
        let mut fields = Fields { payload, pos: 0 };
        let content = match (fields.u8(), &mut state) {
            (Some(KIND_SNAPSHOT), None) => fields.snapshot().map(|s| state = Some(s)),
            (Some(KIND_EDIT), Some(state)) => fields.edit().map(|edit| state.apply(edit)),
            (Some(KIND_GAP), Some(state)) => {
                let gap = fields.u64().zip(fields.gap());
                gap.map(|(wal_lsn, gap)| state.apply_gap(gap, wal_lsn))
            }
            _ => None,
        };
        if content.is_none() || fields.pos != payload.len() {
            return Err(damaged(body + fields.pos, "content breaks the format"));
        }
        tail = next_tail;
        at = body + payload.len();
    }
    // The snapshot was synced before the file got its name: without it there is no torn tail.
    let state = state.ok_or_else(|| damaged(FILE_HEADER_BYTES, "snapshot"))?;
    if later_frame(&bytes[at..], generation, &tail) {
        return Err(damaged(at, "an edit that a later one stands behind"));
    }
    Ok(ReadFile {
        state,
        chain: tail.chain,
        torn_bytes: (bytes.len() - at) as u64,
    })
}

/// A frame is synced before the next is written; so a later frame proves that the one which fails
/// its checksum was whole once.
fn later_frame(tail_bytes: &[u8], generation: u64, tail: &Tail) -> bool {
    (1..tail_bytes.len()).any(|at| {
        frame_header(&tail_bytes[at..], generation)
            .is_some_and(|header| u64::from_le_bytes(array(&header[8..16])) > tail.next)
    })
}

fn frame_header(bytes: &[u8], generation: u64) -> Option<&[u8]> {
    let header = bytes.get(..FRAME_HEADER_BYTES)?;
    (header[..4] == FRAME_MAGIC).then_some(())?;
    let stored = u32::from_le_bytes(array(&header[28..32]));
    (header_crc(generation, header) == stored).then_some(header)
}

fn read_frame<'a>(bytes: &'a [u8], generation: u64, tail: &Tail) -> Option<(&'a [u8], Tail)> {
    let header = frame_header(bytes, generation)?;
    let len = u32::from_le_bytes(array(&header[4..8])) as usize;
    let payload = bytes[FRAME_HEADER_BYTES..].get(..len)?;
    let number = u64::from_le_bytes(array(&header[8..16]));
    let chain = u64::from_le_bytes(array(&header[16..24]));
    let crc = u32::from_le_bytes(array(&header[24..28]));
    let right = number == tail.next
        && crc32c::crc32c(payload) == crc
        && xxh3_64_with_seed(payload, tail.chain) == chain;
    let next = number.checked_add(1)?;
    right.then_some((payload, Tail { next, chain }))
}

fn snapshot_payload(state: &ManifestState) -> Vec<u8> {
    let mut out = vec![KIND_SNAPSHOT];
    out.extend_from_slice(&state.epoch.to_le_bytes());
    out.extend_from_slice(&state.queue.0.to_le_bytes());
    out.extend_from_slice(&state.partitions.to_le_bytes());
    out.extend_from_slice(&state.partition.0.to_le_bytes());
    put_watermarks(&mut out, state.sealed, state.wal_lsn, state.next_sequence);
    put_fingerprint(&mut out, state.sealed_last);
    write_varint(&mut out, state.blocks.len() as u64);
    state.blocks.values().for_each(|b| put_block(&mut out, b));
    let metadata = state.metadata.iter();
    let metadata: Vec<_> = metadata
        .flat_map(|(tenant, entries)| entries.values().map(move |entry| (tenant, entry)))
        .collect();
    put_metadata(&mut out, &metadata);
    put_tombstones(&mut out, state.tombstones.values());
    out.extend_from_slice(&state.high_water.to_le_bytes());
    write_varint(&mut out, state.gaps.len() as u64);
    state.gaps.iter().for_each(|gap| put_gap(&mut out, gap));
    out
}

fn edit_payload(edit: &Edit) -> Vec<u8> {
    let mut out = vec![KIND_EDIT];
    put_watermarks(&mut out, edit.sealed, edit.wal_lsn, edit.next_sequence);
    put_fingerprint(&mut out, edit.sealed_last);
    write_varint(&mut out, edit.removed.len() as u64);
    edit.removed.iter().for_each(|id| put_id(&mut out, *id));
    write_varint(&mut out, edit.added.len() as u64);
    edit.added.iter().for_each(|b| put_block(&mut out, b));
    let metadata: Vec<_> = edit.metadata.iter().map(|(t, m)| (t, m)).collect();
    put_metadata(&mut out, &metadata);
    put_tombstones(&mut out, edit.tombstones.iter());
    write_varint(&mut out, edit.forgotten.len() as u64);
    for id in &edit.forgotten {
        out.extend_from_slice(&id.0.to_le_bytes());
    }
    out.extend_from_slice(&edit.high_water.to_le_bytes());
    out
}

fn put_watermarks(out: &mut Vec<u8>, sealed: Offset, wal_lsn: u64, next_sequence: u64) {
    out.extend_from_slice(&sealed.0.to_le_bytes());
    out.extend_from_slice(&wal_lsn.to_le_bytes());
    out.extend_from_slice(&next_sequence.to_le_bytes());
}

fn put_fingerprint(out: &mut Vec<u8>, last: Option<Fingerprint>) {
    out.push(u8::from(last.is_some()));
    out.extend_from_slice(&last.map_or(0, |last| last.0).to_le_bytes());
}

fn put_gap(out: &mut Vec<u8>, gap: &Gap) {
    for (queue, offset) in [gap.from, gap.to] {
        out.extend_from_slice(&queue.0.to_le_bytes());
        out.extend_from_slice(&offset.0.to_le_bytes());
    }
    out.extend_from_slice(&gap.at.0.to_le_bytes());
    out.push(match gap.cause {
        GapCause::Fresh => 1,
        GapCause::Operator => 2,
    });
}

fn put_id(out: &mut Vec<u8>, id: BlockId) {
    out.extend_from_slice(&id.sequence.to_le_bytes());
    out.extend_from_slice(&id.ordinal.to_le_bytes());
}

fn put_block(out: &mut Vec<u8>, block: &BlockEntry) {
    put_id(out, block.id);
    out.extend_from_slice(&block.bytes.to_le_bytes());
    out.extend_from_slice(&block.footer_crc.to_le_bytes());
    out.extend_from_slice(&block.min_time.to_le_bytes());
    out.extend_from_slice(&block.max_time.to_le_bytes());
    out.extend_from_slice(&block.offsets.0.0.to_le_bytes());
    out.extend_from_slice(&block.offsets.1.0.to_le_bytes());
    out.extend_from_slice(&block.series.to_le_bytes());
    out.extend_from_slice(&block.samples.to_le_bytes());
    out.extend_from_slice(&block.sequences.0.to_le_bytes());
    out.extend_from_slice(&block.sequences.1.to_le_bytes());
    out.extend_from_slice(&[block.level, block.rewrites]);
}

fn put_tombstones<'a>(
    out: &mut Vec<u8>,
    tombstones: impl ExactSizeIterator<Item = &'a Arc<Tombstone>>,
) {
    write_varint(out, tombstones.len() as u64);
    for tombstone in tombstones {
        out.push(tombstone.state.code());
        out.extend_from_slice(&tombstone.offset.0.to_le_bytes());
        out.extend_from_slice(&tombstone.before.to_le_bytes());
        write_varint(out, tombstone.tenant.as_str().len() as u64);
        out.extend_from_slice(tombstone.tenant.as_str().as_bytes());
        encode_delete(out, &tombstone.delete);
    }
}

fn put_metadata(out: &mut Vec<u8>, entries: &[(&TenantId, &MetricMetadata)]) {
    write_varint(out, entries.len() as u64);
    for (tenant, entry) in entries {
        out.push(entry.metric_type.code());
        for text in [tenant.as_str(), &entry.metric, &entry.help, &entry.unit] {
            write_varint(out, text.len() as u64);
            out.extend_from_slice(text.as_bytes());
        }
    }
}

/// Reads fields one after the other; `None` where the payload ends too early or makes no sense.
struct Fields<'a> {
    payload: &'a [u8],
    pos: usize,
}

impl<'a> Fields<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let end = self.pos.checked_add(len)?;
        let taken = self.payload.get(self.pos..end)?;
        self.pos = end;
        Some(taken)
    }

    fn u8(&mut self) -> Option<u8> {
        Some(self.take(1)?[0])
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(array(self.take(4)?)))
    }

    fn u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(array(self.take(8)?)))
    }

    fn i64(&mut self) -> Option<i64> {
        Some(i64::from_le_bytes(array(self.take(8)?)))
    }

    fn queue_id(&mut self) -> Option<QueueId> {
        Some(QueueId(u128::from_le_bytes(array(self.take(16)?))))
    }

    fn fingerprint(&mut self) -> Option<Option<Fingerprint>> {
        match (self.u8()?, self.u64()?) {
            (0, 0) => Some(None),
            (1, value) => Some(Some(Fingerprint(value))),
            _ => None,
        }
    }

    fn gap(&mut self) -> Option<Gap> {
        Some(Gap {
            from: (self.queue_id()?, Offset(self.u64()?)),
            to: (self.queue_id()?, Offset(self.u64()?)),
            at: TimestampMs(self.i64()?),
            cause: match self.u8()? {
                1 => GapCause::Fresh,
                2 => GapCause::Operator,
                _ => return None,
            },
        })
    }

    /// A number of entries, each of which takes at least `least` bytes.
    fn count(&mut self, least: usize) -> Option<usize> {
        let count = usize::try_from(read_varint(self.payload, &mut self.pos)?).ok()?;
        (count <= (self.payload.len() - self.pos) / least).then_some(count)
    }

    fn text(&mut self) -> Option<&'a str> {
        let len = self.count(1)?;
        std::str::from_utf8(self.take(len)?).ok()
    }

    fn id(&mut self) -> Option<BlockId> {
        Some(BlockId {
            sequence: self.u64()?,
            ordinal: self.u32()?,
        })
    }

    fn block(&mut self) -> Option<BlockEntry> {
        Some(BlockEntry {
            id: self.id()?,
            bytes: self.u64()?,
            footer_crc: self.u32()?,
            min_time: self.i64()?,
            max_time: self.i64()?,
            offsets: (Offset(self.u64()?), Offset(self.u64()?)),
            series: self.u64()?,
            samples: self.u64()?,
            sequences: (self.u64()?, self.u64()?),
            level: self.u8()?,
            rewrites: self.u8()?,
        })
    }

    fn tombstones(&mut self) -> Option<Vec<Arc<Tombstone>>> {
        // State, offset, tenant, and a delete without selectors.
        let count = self.count(1 + 16 + 2 + 49)?;
        let tombstone = |fields: &mut Self| {
            let state = TombstoneState::from_code(fields.u8()?)?;
            let (offset, before) = (Offset(fields.u64()?), fields.u64()?);
            let tenant = fields.text()?.parse().ok()?;
            let delete = decode_delete(fields.payload, &mut fields.pos).ok()?;
            Some(Arc::new(Tombstone {
                tenant,
                offset,
                before,
                state,
                delete,
            }))
        };
        (0..count).map(|_| tombstone(self)).collect()
    }

    fn delete_ids(&mut self) -> Option<Vec<DeleteId>> {
        let count = self.count(16)?;
        let id = |fields: &mut Self| {
            let bytes = fields.take(16)?;
            Some(DeleteId(u128::from_le_bytes(array(bytes))))
        };
        (0..count).map(|_| id(self)).collect()
    }

    fn blocks(&mut self) -> Option<Vec<BlockEntry>> {
        let count = self.count(BLOCK_BYTES)?;
        (0..count).map(|_| self.block()).collect()
    }

    fn metadata(&mut self) -> Option<Vec<(TenantId, MetricMetadata)>> {
        let count = self.count(5)?;
        let entry = |fields: &mut Self| {
            let metric_type = MetricType::from_code(u64::from(fields.u8()?))?;
            let tenant = fields.text()?.parse().ok()?;
            let entry = MetricMetadata {
                metric: fields.text()?.to_owned(),
                metric_type,
                help: fields.text()?.to_owned(),
                unit: fields.text()?.to_owned(),
            };
            Some((tenant, entry))
        };
        (0..count).map(|_| entry(self)).collect()
    }

    fn snapshot(&mut self) -> Option<ManifestState> {
        let epoch = self.u64()?;
        let queue = self.queue_id()?;
        let partitions = self.u32()?;
        let partition = PartitionId(self.u32()?);
        let mut state = ManifestState {
            epoch,
            queue,
            partitions,
            partition,
            sealed: Offset::ZERO,
            sealed_last: None,
            wal_lsn: 0,
            next_sequence: 0,
            blocks: std::collections::BTreeMap::new(),
            metadata: std::collections::BTreeMap::new(),
            tombstones: std::collections::BTreeMap::new(),
            high_water: i64::MIN,
            gaps: Vec::new(),
        };
        state.apply(Edit {
            sealed: Offset(self.u64()?),
            wal_lsn: self.u64()?,
            next_sequence: self.u64()?,
            sealed_last: self.fingerprint()?,
            removed: Vec::new(),
            added: self.blocks()?,
            metadata: self.metadata()?,
            tombstones: self.tombstones()?,
            forgotten: Vec::new(),
            high_water: self.i64()?,
        });
        let gaps = self.count(GAP_BYTES)?;
        state.gaps = (0..gaps).map(|_| self.gap()).collect::<Option<_>>()?;
        Some(state)
    }

    fn edit(&mut self) -> Option<Edit> {
        let (sealed, wal_lsn, next_sequence) = (Offset(self.u64()?), self.u64()?, self.u64()?);
        let sealed_last = self.fingerprint()?;
        let removed = self.count(12)?;
        Some(Edit {
            sealed,
            sealed_last,
            wal_lsn,
            next_sequence,
            removed: (0..removed).map(|_| self.id()).collect::<Option<_>>()?,
            added: self.blocks()?,
            metadata: self.metadata()?,
            tombstones: self.tombstones()?,
            forgotten: self.delete_ids()?,
            high_water: self.i64()?,
        })
    }
}

fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    bytes.try_into().expect("a slice of the array's length")
}
