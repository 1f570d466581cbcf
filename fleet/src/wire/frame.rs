//! Frames: the checksummed units of a stream.

use bytes::{Buf as _, Bytes, BytesMut};
use millrace_model::{Offset, PartitionId, QueueId, write_varint};
use millrace_queue::Position;

use super::{Input, VERSION, WireError};

/// Longest body of a frame.
pub const FRAME_BYTES_MAX: usize = 4 << 20;
/// Length, checksum, kind.
pub const FRAME_HEADER_BYTES: usize = 9;
/// Longest text of an error frame; more is cut off.
const ERROR_TEXT_BYTES_MAX: usize = 4 << 10;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum FrameKind {
    /// The first one: who answers, and how fresh.
    Hello = 1,
    /// Series with samples.
    Series = 2,
    /// Label sets.
    Labels = 3,
    /// Names or values of labels.
    Texts = 4,
    /// Metadata of metrics.
    Metadata = 5,
    /// What whoever asked should be told beside the answer.
    Warnings = 6,
    /// The stream ends early, and why.
    Error = 254,
    /// The stream is complete.
    End = 255,
}

impl FrameKind {
    fn of(code: u8) -> Result<Self, WireError> {
        Ok(match code {
            1 => Self::Hello,
            2 => Self::Series,
            3 => Self::Labels,
            4 => Self::Texts,
            5 => Self::Metadata,
            6 => Self::Warnings,
            254 => Self::Error,
            255 => Self::End,
            _ => {
                return Err(WireError::Invalid {
                    what: "kind of a frame",
                });
            }
        })
    }
}

/// One frame as it came.
#[derive(Clone, Debug)]
pub struct Frame {
    /// What it is.
    pub kind: FrameKind,
    /// What is in it.
    pub body: Bytes,
}

/// A frame that is being written: its body behind room for the header.
#[derive(Debug)]
pub struct FrameBuffer(Vec<u8>);

impl Default for FrameBuffer {
    fn default() -> Self {
        Self(vec![0; FRAME_HEADER_BYTES])
    }
}

impl FrameBuffer {
    /// Where the body is appended to. Positions in the body are its positions less
    /// [`FRAME_HEADER_BYTES`].
    pub fn body(&mut self) -> &mut Vec<u8> {
        &mut self.0
    }

    /// Length of the body.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len() - FRAME_HEADER_BYTES
    }

    /// Whether nothing was written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The frame as it is sent.
    ///
    /// # Panics
    ///
    /// If the body is over [`FRAME_BYTES_MAX`]; who writes it keeps below.
    #[must_use]
    pub fn finish(self, kind: FrameKind) -> Bytes {
        let len = self.len();
        assert!(len <= FRAME_BYTES_MAX, "a frame of {len} bytes");
        let mut bytes = self.0;
        let len = u32::try_from(len).expect("bounded above").to_le_bytes();
        bytes[..4].copy_from_slice(&len);
        bytes[8] = kind as u8;
        let crc = crc32c::crc32c_append(crc32c::crc32c(&len), &bytes[8..]);
        bytes[4..8].copy_from_slice(&crc.to_le_bytes());
        Bytes::from(bytes)
    }
}

/// Cuts a stream of bytes into frames.
#[derive(Debug, Default)]
pub struct FrameReader {
    buffer: BytesMut,
}

impl FrameReader {
    /// Takes what has come.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole frame, if there is one.
    ///
    /// # Errors
    ///
    /// Bytes that are no frame. The reader is of no use then.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, WireError> {
        let Some(header) = self.buffer.first_chunk::<FRAME_HEADER_BYTES>() else {
            return Ok(None);
        };
        let len_bytes = [header[0], header[1], header[2], header[3]];
        let stored = u32::from_le_bytes([header[4], header[5], header[6], header[7]]);
        let len = u32::from_le_bytes(len_bytes) as usize;
        if len > FRAME_BYTES_MAX {
            return Err(WireError::FrameTooLong {
                bytes: len,
                limit: FRAME_BYTES_MAX,
            });
        }
        let end = FRAME_HEADER_BYTES + len;
        if self.buffer.len() < end {
            self.buffer.reserve(end - self.buffer.len());
            return Ok(None);
        }
        let found = crc32c::crc32c_append(crc32c::crc32c(&len_bytes), &self.buffer[8..end]);
        if found != stored {
            return Err(WireError::Checksum { found, stored });
        }
        let kind = FrameKind::of(self.buffer[8])?;
        // Copied, so that a frame that is kept does not keep the buffer.
        let body = Bytes::copy_from_slice(&self.buffer[FRAME_HEADER_BYTES..end]);
        self.buffer.advance(end);
        Ok(Some(Frame { kind, body }))
    }

    /// Whether nothing is left over.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }
}

/// The first frame: who answers, and up to where its answer includes everything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The store's name.
    pub store: String,
    /// The queue that it reads, and for each partition of the answer the offset below which
    /// everything is included.
    pub applied: Position,
}

impl Hello {
    /// As a frame.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut frame = FrameBuffer::default();
        let out = frame.body();
        out.push(VERSION);
        out.extend_from_slice(&self.applied.queue.0.to_le_bytes());
        write_text(out, &self.store);
        write_varint(out, self.applied.next.len() as u64);
        for (partition, offset) in &self.applied.next {
            write_varint(out, u64::from(partition.0));
            write_varint(out, offset.0);
        }
        frame.finish(FrameKind::Hello)
    }

    /// Of a frame's body.
    ///
    /// # Errors
    ///
    /// See [`WireError`].
    pub fn decode(body: &[u8]) -> Result<Self, WireError> {
        let what = "hello";
        let mut input = Input::new(body);
        let found = input.u8(what)?;
        if found != VERSION {
            return Err(WireError::Version {
                found,
                supported: VERSION,
            });
        }
        let mut applied = Position::new(QueueId(u128::from_le_bytes(input.array(what)?)));
        let store = input.text(what)?.to_owned();
        for _ in 0..input.varint(what)? {
            let partition = PartitionId(input.number(what)?);
            applied.advance(partition, Offset(input.varint(what)?));
        }
        if !input.is_empty() {
            return Err(WireError::Invalid { what });
        }
        Ok(Self { store, applied })
    }
}

/// What the end frame says has been sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct End {
    /// Frames between the first and this one.
    pub frames: u64,
    /// Series, label sets, texts or entries in them.
    pub items: u64,
    /// Samples in them.
    pub samples: u64,
}

impl End {
    /// As a frame.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut frame = FrameBuffer::default();
        for count in [self.frames, self.items, self.samples] {
            write_varint(frame.body(), count);
        }
        frame.finish(FrameKind::End)
    }

    /// Of a frame's body.
    ///
    /// # Errors
    ///
    /// See [`WireError`].
    pub fn decode(body: &[u8]) -> Result<Self, WireError> {
        let what = "end";
        let mut input = Input::new(body);
        let end = Self {
            frames: input.varint(what)?,
            items: input.varint(what)?,
            samples: input.varint(what)?,
        };
        if input.is_empty() {
            Ok(end)
        } else {
            Err(WireError::Invalid { what })
        }
    }

    /// # Errors
    ///
    /// [`WireError::Count`] unless exactly that has come.
    pub fn check(&self, came: &Self) -> Result<(), WireError> {
        for (what, told, came) in [
            ("frames", self.frames, came.frames),
            ("items", self.items, came.items),
            ("samples", self.samples, came.samples),
        ] {
            if told != came {
                return Err(WireError::Count { what, told, came });
            }
        }
        Ok(())
    }
}

/// Why a store's answer ends early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ErrorCode {
    /// Data in the range are damaged.
    DataUnavailable = 1,
    /// A bound of the store.
    Limit = 2,
    /// The store or its shard is not there for reads.
    NotReady = 3,
    /// The deadline that came with the request has passed.
    Deadline = 4,
    /// A bug in the store.
    Internal = 5,
}

/// An error frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamError {
    /// Which kind.
    pub code: ErrorCode,
    /// In words.
    pub message: String,
}

impl StreamError {
    /// As a frame.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut frame = FrameBuffer::default();
        frame.body().push(self.code as u8);
        let end = self.message.floor_char_boundary(ERROR_TEXT_BYTES_MAX);
        write_text(frame.body(), &self.message[..end]);
        frame.finish(FrameKind::Error)
    }

    /// Of a frame's body.
    ///
    /// # Errors
    ///
    /// See [`WireError`].
    pub fn decode(body: &[u8]) -> Result<Self, WireError> {
        let what = "error";
        let mut input = Input::new(body);
        let code = match input.u8(what)? {
            1 => ErrorCode::DataUnavailable,
            2 => ErrorCode::Limit,
            3 => ErrorCode::NotReady,
            4 => ErrorCode::Deadline,
            5 => ErrorCode::Internal,
            _ => return Err(WireError::Invalid { what }),
        };
        let message = input.text(what)?.to_owned();
        if input.is_empty() {
            Ok(Self { code, message })
        } else {
            Err(WireError::Invalid { what })
        }
    }
}

pub(crate) fn write_text(out: &mut Vec<u8>, text: &str) {
    write_varint(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn hello() -> Hello {
        let mut applied = Position::new(QueueId(7));
        applied.advance(PartitionId(3), Offset(1 << 40));
        Hello {
            store: "a".into(),
            applied,
        }
    }

    fn read(bytes: &[u8]) -> Result<Vec<Frame>, WireError> {
        let mut reader = FrameReader::default();
        let mut frames = Vec::new();
        for byte in bytes {
            reader.push(&[*byte]);
            while let Some(frame) = reader.next_frame()? {
                frames.push(frame);
            }
        }
        Ok(frames)
    }

    #[test]
    fn frames_survive_any_cut_of_the_stream() {
        let end = End {
            frames: 1,
            items: 2,
            samples: 300,
        };
        let error = StreamError {
            code: ErrorCode::Limit,
            message: "ä".repeat(5000),
        };
        let stream = [hello().encode(), end.encode(), error.encode()].concat();
        let frames = read(&stream).unwrap();
        assert_eq!(Hello::decode(&frames[0].body), Ok(hello()));
        assert_eq!(End::decode(&frames[1].body), Ok(end));
        let told = StreamError::decode(&frames[2].body).unwrap();
        assert!(told.code == ErrorCode::Limit && told.message.len() == 4096);
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let good = hello().encode();
        for bit in 0..good.len() * 8 {
            let mut bad = good.to_vec();
            bad[bit / 8] ^= 1 << (bit % 8);
            // A longer length leaves the frame unfinished, which the end of the stream tells.
            let read = read(&bad);
            assert!(read.is_err() || read == Ok(Vec::new()), "bit {bit}");
        }
    }

    impl PartialEq for Frame {
        fn eq(&self, other: &Self) -> bool {
            self.kind == other.kind && self.body == other.body
        }
    }

    proptest! {
        #[test]
        fn any_bytes_end_in_a_message_or_an_error(
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            let mut reader = FrameReader::default();
            reader.push(&bytes);
            while let Ok(Some(_)) = reader.next_frame() {}
            drop((Hello::decode(&bytes), End::decode(&bytes)));
            drop(StreamError::decode(&bytes));
        }
    }
}
