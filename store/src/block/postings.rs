//! Postings in a block: a few numbers beside their value, many in a bitmap of their own.
//!
//! Numbers count from the tenant's first series, so that a tenant's bitmaps are dense wherever its
//! series stand.

use millrace_model::write_varint;
use roaring::RoaringBitmap;

use super::CRC_BYTES;
use super::fields::Fields;

/// Up to so many are listed: a bitmap takes 16 bytes before its first number, and a read.
const LISTED_MAX: u64 = 16;

/// The section of bitmaps, while it is written.
#[derive(Debug, Default)]
pub(super) struct PostingsWriter {
    pub(super) bytes: Vec<u8>,
}

impl PostingsWriter {
    /// Writes `series` into `out`, or into the section and where it is into `out`.
    pub(super) fn put(&mut self, out: &mut Vec<u8>, series: &RoaringBitmap) {
        let count = series.len();
        if count <= LISTED_MAX {
            write_varint(out, count << 1);
            let mut next = 0;
            for at in series {
                write_varint(out, u64::from(at - next));
                next = at.wrapping_add(1);
            }
            return;
        }
        let mut series = series.clone();
        series.optimize();
        let start = self.bytes.len();
        let written = series.serialize_into(&mut self.bytes);
        written.expect("writing to memory");
        let len = self.bytes.len() - start;
        let crc = crc32c::crc32c(&self.bytes[start..]);
        self.bytes.extend_from_slice(&crc.to_le_bytes());
        write_varint(out, (len as u64) << 1 | 1);
        write_varint(out, start as u64);
    }
}

/// Postings as their value has them.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum PostingsEntry {
    Listed(Listed),
    /// In the section of bitmaps: where, and how many bytes without their checksum.
    Stored {
        offset: u64,
        bytes: usize,
    },
}

/// A few series, without memory of their own: a walk over values makes and drops a million of
/// these.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Listed {
    series: [u32; LISTED_MAX as usize],
    count: u8,
}

impl Listed {
    /// Rising.
    pub(super) fn series(&self) -> &[u32] {
        &self.series[..usize::from(self.count)]
    }

    pub(super) fn to_bitmap(&self) -> RoaringBitmap {
        self.series().iter().copied().collect()
    }

    pub(super) fn meets(&self, of: &RoaringBitmap) -> bool {
        self.series().iter().any(|&at| of.contains(at))
    }
}

impl PostingsEntry {
    /// Reads what [`PostingsWriter::put`] left in `out`; `series` of the tenant are numbered below.
    pub(super) fn decode(fields: &mut Fields<'_>, series: u32) -> Option<Self> {
        let head = fields.varint()?;
        if head & 1 == 1 {
            return Some(Self::Stored {
                offset: fields.varint()?,
                bytes: usize::try_from(head >> 1).ok()?,
            });
        }
        let count = head >> 1;
        (1..=LISTED_MAX).contains(&count).then_some(())?;
        let mut listed = Listed {
            series: [0; LISTED_MAX as usize],
            // At most LISTED_MAX.
            count: count as u8,
        };
        let mut next = 0u32;
        for place in &mut listed.series[..count as usize] {
            let at = next.checked_add(fields.varint_u32()?)?;
            (at < series).then_some(())?;
            *place = at;
            next = at.checked_add(1)?;
        }
        Some(Self::Listed(listed))
    }

    /// Passes over what [`decode`](Self::decode) reads.
    pub(super) fn skip(fields: &mut Fields<'_>) -> Option<()> {
        let head = fields.varint()?;
        let numbers = if head & 1 == 1 { 1 } else { head >> 1 };
        (1..=LISTED_MAX).contains(&numbers).then_some(())?;
        for _ in 0..numbers {
            fields.varint()?;
        }
        Some(())
    }
}

/// Reads a bitmap of the section whose checksum was right; `series` of the tenant are numbered
/// below.
pub(super) fn decode_bitmap(bytes: &[u8], series: u32) -> Option<RoaringBitmap> {
    let mut rest = bytes;
    let found = RoaringBitmap::deserialize_from(&mut rest).ok()?;
    let fits = found.max().is_some_and(|max| max < series);
    (rest.is_empty() && fits && found.len() > LISTED_MAX).then_some(found)
}

/// Bytes of a bitmap in the section, with its checksum.
pub(super) fn stored_bytes(bytes: usize) -> usize {
    bytes + CRC_BYTES
}
