//! The bytes of a segment: one header, then frames. Described in `docs/formats/log.md`.
//!
//! **Invariants:** everything is little-endian; every byte that is interpreted is covered by a
//! CRC-32C; a frame's checksum is salted with the file's identity and the frame's position, so that
//! a frame that stands elsewhere than it was written to does not pass, and neither do zeros.

use millrace_model::TimestampMs;

use crate::planted::{self, Bug};
use crate::{Damage, Lsn};

/// First bytes of a segment.
pub(crate) const SEGMENT_MAGIC: [u8; 4] = *b"MRLG";
/// First bytes of a frame.
pub(crate) const FRAME_MAGIC: [u8; 4] = *b"MRFR";
/// Version of segments and frames.
pub(crate) const VERSION: u32 = 1;
/// Length of the segment header, and so the position of the first frame.
pub(crate) const SEGMENT_HEADER_BYTES: usize = 40;
/// Length of a frame's header.
pub(crate) const FRAME_HEADER_BYTES: usize = 40;
/// Frames begin at multiples of this, so that the search for frames behind damage has few places
/// to look at.
pub(crate) const ALIGN: usize = 8;

const _: () = assert!(SEGMENT_HEADER_BYTES.is_multiple_of(ALIGN));
const _: () = assert!(FRAME_HEADER_BYTES.is_multiple_of(ALIGN));

/// Bytes that a record with this payload takes in the file.
pub(crate) fn frame_bytes(payload_bytes: usize) -> usize {
    (FRAME_HEADER_BYTES + payload_bytes).next_multiple_of(ALIGN)
}

/// The head of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    /// Random; salts the checksums of the file's frames.
    pub(crate) file_id: u64,
    /// Number of the first record. Everything below it was synced before this file got its name.
    pub(crate) first: Lsn,
    /// So many bytes of this file were synced before it got its name.
    pub(crate) synced_bytes: u64,
}

/// Why a segment header was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HeaderError {
    Damage(Damage),
    Version(u32),
}

impl SegmentHeader {
    pub(crate) fn encode(&self) -> [u8; SEGMENT_HEADER_BYTES] {
        let mut bytes = [0; SEGMENT_HEADER_BYTES];
        bytes[..4].copy_from_slice(&SEGMENT_MAGIC);
        bytes[4..8].copy_from_slice(&VERSION.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.file_id.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.first.0.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.synced_bytes.to_le_bytes());
        let crc = crc32c::crc32c(&bytes[..36]);
        bytes[36..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    pub(crate) fn decode(bytes: &[u8; SEGMENT_HEADER_BYTES]) -> Result<Self, HeaderError> {
        if bytes[..4] != SEGMENT_MAGIC {
            return Err(HeaderError::Damage(Damage::Magic));
        }
        // Before the checksum: another version may keep it elsewhere.
        let version = u32_at(bytes, 4);
        if version != VERSION {
            return Err(HeaderError::Version(version));
        }
        let (got, stored) = (crc32c::crc32c(&bytes[..36]), u32_at(bytes, 36));
        if got != stored {
            return Err(HeaderError::Damage(Damage::HeaderChecksum { got, stored }));
        }
        if u32_at(bytes, 32) != 0 {
            return Err(HeaderError::Damage(Damage::Padding));
        }
        Ok(Self {
            file_id: u64_at(bytes, 8),
            first: Lsn(u64_at(bytes, 16)),
            synced_bytes: u64_at(bytes, 24),
        })
    }
}

/// Where a frame stands; part of what its checksum covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) file_id: u64,
    pub(crate) position: u64,
}

/// The head of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrameHeader {
    pub(crate) payload_bytes: u32,
    pub(crate) lsn: Lsn,
    pub(crate) time: TimestampMs,
    /// The mark: everything below it was synced before this frame was written.
    pub(crate) synced: Lsn,
    pub(crate) payload_crc: u32,
}

impl FrameHeader {
    pub(crate) fn encode(&self, place: Place) -> [u8; FRAME_HEADER_BYTES] {
        let mut bytes = [0; FRAME_HEADER_BYTES];
        bytes[..4].copy_from_slice(&FRAME_MAGIC);
        bytes[4..8].copy_from_slice(&self.payload_bytes.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.lsn.0.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.time.0.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.synced.0.to_le_bytes());
        bytes[32..36].copy_from_slice(&self.payload_crc.to_le_bytes());
        let crc = salted_crc(&bytes, place);
        bytes[36..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    pub(crate) fn decode(bytes: &[u8; FRAME_HEADER_BYTES], place: Place) -> Result<Self, Damage> {
        let header = Self {
            payload_bytes: u32_at(bytes, 4),
            lsn: Lsn(u64_at(bytes, 8)),
            time: TimestampMs(u64_at(bytes, 16).cast_signed()),
            synced: Lsn(u64_at(bytes, 24)),
            payload_crc: u32_at(bytes, 32),
        };
        if bytes[..4] != FRAME_MAGIC {
            return Err(Damage::Magic);
        }
        let (got, stored) = (salted_crc(bytes, place), u32_at(bytes, 36));
        if got != stored {
            return Err(Damage::HeaderChecksum { got, stored });
        }
        Ok(header)
    }

    /// Bytes of the whole frame in the file.
    pub(crate) fn frame_bytes(&self) -> u64 {
        // Cannot wrap: a u32 and a few more.
        (FRAME_HEADER_BYTES as u64 + u64::from(self.payload_bytes)).next_multiple_of(ALIGN as u64)
    }
}

/// Checks what stands behind a frame's header: payload and padding.
pub(crate) fn verify_body(header: &FrameHeader, body: &[u8]) -> Result<(), Damage> {
    let (payload, padding) = body.split_at(header.payload_bytes as usize);
    let (got, stored) = (crc32c::crc32c(payload), header.payload_crc);
    if got != stored {
        return Err(Damage::PayloadChecksum { got, stored });
    }
    if padding.iter().any(|&byte| byte != 0) {
        return Err(Damage::Padding);
    }
    Ok(())
}

/// Over file identity, position and the header's bytes before the checksum.
fn salted_crc(header: &[u8; FRAME_HEADER_BYTES], place: Place) -> u32 {
    if planted::active(Bug::CHECKSUM_WITHOUT_PLACE) {
        return crc32c::crc32c(&header[..36]);
    }
    let mut covered = [0; 16 + 36];
    covered[..8].copy_from_slice(&place.file_id.to_le_bytes());
    covered[8..16].copy_from_slice(&place.position.to_le_bytes());
    covered[16..].copy_from_slice(&header[..36]);
    crc32c::crc32c(&covered)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: Place = Place {
        file_id: 7,
        position: 40,
    };

    fn frame() -> FrameHeader {
        FrameHeader {
            payload_bytes: 5,
            lsn: Lsn(3),
            time: TimestampMs(-1),
            synced: Lsn(2),
            payload_crc: crc32c::crc32c(b"hello"),
        }
    }

    #[test]
    fn the_checksum_is_crc32c() {
        assert_eq!(crc32c::crc32c(b"123456789"), 0xE306_9283);
    }

    #[test]
    fn headers_survive_and_every_flipped_bit_is_noticed() {
        let header = SegmentHeader {
            file_id: 9,
            first: Lsn(4),
            synced_bytes: 40,
        };
        let bytes = header.encode();
        assert_eq!(SegmentHeader::decode(&bytes), Ok(header));
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(
                SegmentHeader::decode(&bad).is_err(),
                "segment header bit {bit}"
            );
        }
        let bytes = frame().encode(PLACE);
        assert_eq!(FrameHeader::decode(&bytes, PLACE), Ok(frame()));
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(
                FrameHeader::decode(&bad, PLACE).is_err(),
                "frame header bit {bit}"
            );
        }
    }

    #[test]
    fn a_frame_passes_only_where_it_was_written() {
        let bytes = frame().encode(PLACE);
        assert!(
            FrameHeader::decode(
                &bytes,
                Place {
                    position: 48,
                    ..PLACE
                }
            )
            .is_err()
        );
        assert!(
            FrameHeader::decode(
                &bytes,
                Place {
                    file_id: 8,
                    ..PLACE
                }
            )
            .is_err()
        );
        assert!(FrameHeader::decode(&[0; FRAME_HEADER_BYTES], PLACE).is_err());
    }

    #[test]
    fn payload_and_padding_are_verified() {
        assert_eq!(verify_body(&frame(), b"hello\0\0\0"), Ok(()));
        assert_eq!(
            verify_body(&frame(), b"hello\0\x01\0"),
            Err(Damage::Padding)
        );
        assert!(matches!(
            verify_body(&frame(), b"hellO\0\0\0"),
            Err(Damage::PayloadChecksum { .. })
        ));
    }
}
