//! Walking over the frames of a segment, one after the other, through a bounded window.

use std::io;

use crate::format::{
    ALIGN, FRAME_HEADER_BYTES, FRAME_MAGIC, FrameHeader, Place, frame_bytes, verify_body,
};
use crate::fs::FsFile;
use crate::planted::{self, Bug};
use crate::{Damage, Lsn};

/// What is read at once: large enough that a system call costs nothing beside the checksums.
const WINDOW_BYTES: u64 = 256 * 1024;

/// A part of a file in memory.
struct Window<'a> {
    file: &'a dyn FsFile,
    bytes: Vec<u8>,
    at: u64,
}

impl<'a> Window<'a> {
    fn new(file: &'a dyn FsFile) -> Self {
        let bytes = Vec::new();
        Self { file, bytes, at: 0 }
    }

    /// The `need` bytes from `position` on, which must lie before `end`.
    fn get(&mut self, position: u64, need: u64, end: u64) -> io::Result<&[u8]> {
        assert!(
            position + need <= end,
            "reading {need} bytes at {position} of {end}"
        );
        let have = self.at + self.bytes.len() as u64;
        if position < self.at || have < position + need {
            let len = WINDOW_BYTES.max(need).min(end - position);
            // `need` came from a length that was compared with the file's, which the file system
            // bounds: so this allocates no more than the file is long.
            self.bytes
                .resize(usize::try_from(len).expect("a window fits into memory"), 0);
            self.at = position;
            if let Err(error) = self.file.read_exact_at(&mut self.bytes, position) {
                self.bytes.clear();
                return Err(error);
            }
        }
        let start = usize::try_from(position - self.at).expect("inside the window");
        Ok(&self.bytes[start..start + usize::try_from(need).expect("inside the window")])
    }
}

/// One step of a [`Scanner`].
#[derive(Debug)]
pub(crate) enum Step<'a> {
    /// The next record.
    Frame {
        header: FrameHeader,
        payload: &'a [u8],
    },
    /// There is no more, exactly.
    End,
    /// Something else than the next record.
    Damaged { offset: u64, damage: Damage },
}

/// Walks over frames, verifying everything.
pub(crate) struct Scanner<'a> {
    window: Window<'a>,
    file_id: u64,
    position: u64,
    expected: Lsn,
    end: u64,
}

impl<'a> Scanner<'a> {
    /// Starts at `position`, where record `expected` should stand; `end` bounds what is read.
    pub(crate) fn new(
        file: &'a dyn FsFile,
        file_id: u64,
        position: u64,
        expected: Lsn,
        end: u64,
    ) -> Self {
        let window = Window::new(file);
        Self {
            window,
            file_id,
            position,
            expected,
            end,
        }
    }

    /// Where the next frame should begin.
    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    /// Which record should come next.
    pub(crate) fn expected(&self) -> Lsn {
        self.expected
    }

    /// The next record. After anything but a frame it says the same again.
    pub(crate) fn next(&mut self) -> io::Result<Step<'_>> {
        let (position, expected, end) = (self.position, self.expected, self.end);
        let left = end - position;
        if left == 0 {
            return Ok(Step::End);
        }
        let damaged = |damage| {
            Ok(Step::Damaged {
                offset: position,
                damage,
            })
        };
        let head_bytes = FRAME_HEADER_BYTES as u64;
        if left < head_bytes {
            return damaged(Damage::CutShort {
                need: head_bytes,
                have: left,
            });
        }
        let head: &[u8; FRAME_HEADER_BYTES] = self
            .window
            .get(position, head_bytes, end)?
            .try_into()
            .expect("as long as asked for");
        if planted::active(Bug::LENGTH_TRUSTED) {
            let length = u32::from_le_bytes(head[4..8].try_into().expect("four bytes"));
            if frame_bytes(length as usize) as u64 > left {
                return Ok(Step::End);
            }
        }
        let place = Place {
            file_id: self.file_id,
            position,
        };
        let header = match FrameHeader::decode(head, place) {
            Ok(header) => header,
            Err(_) if planted::active(Bug::ZERO_FRAME_ACCEPTED) && head.iter().all(|b| *b == 0) => {
                FrameHeader {
                    payload_bytes: 0,
                    lsn: expected,
                    time: millrace_model::TimestampMs(0),
                    synced: Lsn(0),
                    payload_crc: 0,
                }
            }
            Err(damage) => return damaged(damage),
        };
        if header.lsn != expected {
            return damaged(Damage::Order {
                expected,
                found: header.lsn,
            });
        }
        if header.synced > header.lsn {
            return damaged(Damage::Mark {
                lsn: header.lsn,
                synced: header.synced,
            });
        }
        let need = header.frame_bytes();
        if left < need {
            return damaged(Damage::CutShort { need, have: left });
        }
        let frame = self.window.get(position, need, end)?;
        let body = &frame[FRAME_HEADER_BYTES..];
        if let Err(damage) = verify_body(&header, body) {
            return damaged(damage);
        }
        self.position += need;
        // A log never hands out the last number (`LogError::Exhausted`).
        self.expected = Lsn(expected.0.saturating_add(1));
        Ok(Step::Frame {
            header,
            payload: &body[..header.payload_bytes as usize],
        })
    }
}

/// Looks behind `from` for a frame that proves that everything below some record beyond `next` had
/// been synced before it was written: then what is damaged at `from` was once durable.
pub(crate) fn find_proof(
    file: &dyn FsFile,
    file_id: u64,
    from: u64,
    end: u64,
    next: Lsn,
) -> io::Result<Option<u64>> {
    let head_bytes = FRAME_HEADER_BYTES as u64;
    let mut window = Window::new(file);
    let mut position = from.next_multiple_of(ALIGN as u64);
    while position + head_bytes <= end {
        let head: &[u8; FRAME_HEADER_BYTES] = window
            .get(position, head_bytes, end)?
            .try_into()
            .expect("as long as asked for");
        if head[..4] == FRAME_MAGIC
            && let Ok(header) = FrameHeader::decode(head, Place { file_id, position })
            && header.synced > next
        {
            return Ok(Some(position));
        }
        position += ALIGN as u64;
    }
    Ok(None)
}
