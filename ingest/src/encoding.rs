//! Content encodings, each bounded while it is undone.
//!
//! Output goes into the decode thread's buffer, which grows only after the memory for it has been
//! reserved. What a header claims is compared with what could be true before anything is
//! allocated: a snappy copy element makes at most 64 bytes out of 3.

use std::borrow::Cow;
use std::io::{self, BufRead, Read};

use crate::IngestError;
use crate::memory::Reservation;
use crate::report::excerpt;

/// How a body is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoding {
    Identity,
    Gzip,
    Deflate,
    Zstd,
    /// The block format, as in remote write, not the framed one.
    Snappy,
}

const KNOWN: &str = "identity, gzip, deflate, zstd, snappy";

impl Encoding {
    /// The encoding that a `Content-Encoding` header names; `None` where there is none.
    ///
    /// # Errors
    ///
    /// [`IngestError::UnsupportedEncoding`], for a list of several encodings too.
    pub(crate) fn parse(header: Option<&[u8]>) -> Result<Option<Self>, IngestError> {
        let Some(header) = header else {
            return Ok(None);
        };
        let name = header.trim_ascii().to_ascii_lowercase();
        Ok(Some(match name.as_slice() {
            b"" | b"identity" => Self::Identity,
            b"gzip" | b"x-gzip" => Self::Gzip,
            b"deflate" => Self::Deflate,
            b"zstd" => Self::Zstd,
            b"snappy" => Self::Snappy,
            _ => {
                return Err(IngestError::UnsupportedEncoding {
                    got: excerpt(header),
                    expected: KNOWN,
                });
            }
        }))
    }

    fn name(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Gzip => "gzip",
            Self::Deflate => "deflate (zlib)",
            Self::Zstd => "zstd",
            Self::Snappy => "snappy (block format)",
        }
    }

    /// The decoded body: `body` itself, or what was written to `buffer`.
    ///
    /// # Errors
    ///
    /// A body that is not in this encoding, one that would be longer than `limit`, and memory
    /// that is not to be had.
    pub(crate) fn decode<'a>(
        self,
        body: &'a [u8],
        limit: usize,
        buffer: &'a mut Vec<u8>,
        memory: &mut Reservation,
    ) -> Result<&'a [u8], IngestError> {
        match self {
            Self::Identity if body.len() > limit => Err(too_large(Some(body.len()), limit)),
            Self::Identity => Ok(body),
            Self::Snappy => unpack_snappy(body, limit, buffer, memory),
            Self::Gzip => {
                let reader = flate2::bufread::MultiGzDecoder::new(body);
                self.unpack(reader, limit, buffer, memory)
            }
            Self::Deflate => {
                let mut reader = flate2::bufread::ZlibDecoder::new(body);
                let len = self.unpack_len(&mut reader, limit, buffer, memory)?;
                // Unlike the gzip and zstd readers, this one stops at the end of its stream.
                if !reader.into_inner().fill_buf().is_ok_and(<[u8]>::is_empty) {
                    return Err(self.malformed("bytes behind the end"));
                }
                Ok(&buffer[..len])
            }
            Self::Zstd => {
                let malformed = |error: io::Error| self.malformed(&error.to_string());
                let mut reader =
                    zstd::stream::read::Decoder::with_buffer(body).map_err(malformed)?;
                reader
                    .window_log_max(ZSTD_WINDOW_LOG_MAX)
                    .map_err(malformed)?;
                self.unpack(reader, limit, buffer, memory)
            }
        }
    }

    fn malformed(self, detail: &str) -> IngestError {
        IngestError::MalformedEncoding {
            encoding: self.name(),
            detail: excerpt(detail.as_bytes()),
        }
    }

    fn unpack<'a>(
        self,
        mut reader: impl Read,
        limit: usize,
        buffer: &'a mut Vec<u8>,
        memory: &mut Reservation,
    ) -> Result<&'a [u8], IngestError> {
        let len = self.unpack_len(&mut reader, limit, buffer, memory)?;
        Ok(&buffer[..len])
    }

    fn unpack_len(
        self,
        reader: &mut impl Read,
        limit: usize,
        buffer: &mut Vec<u8>,
        memory: &mut Reservation,
    ) -> Result<usize, IngestError> {
        // One byte above the limit is room enough to see that it is exceeded.
        let room = limit.saturating_add(1);
        let (mut len, mut reserved) = (0, 0);
        loop {
            if len == reserved {
                let more = STEP_BYTES.max(reserved).min(room - reserved);
                memory.grow(more)?;
                reserved += more;
                if buffer.len() < reserved {
                    buffer.resize(reserved, 0);
                }
            }
            match reader.read(&mut buffer[len..reserved]) {
                Ok(0) => return Ok(len),
                Ok(n) => len += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.malformed(&error.to_string())),
            }
            if len > limit {
                return Err(too_large(None, limit));
            }
        }
    }
}

/// First step of a buffer's growth; it doubles from there.
const STEP_BYTES: usize = 256 << 10;
/// Windows of up to 8 MiB, what RFC 8878 recommends decoders to support.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;

fn too_large(got: Option<usize>, limit: usize) -> IngestError {
    IngestError::TooLarge {
        what: "decoded body (ingest.limits.decoded_bytes)",
        reason: "decoded_too_large",
        got: got.map(|n| n as u64),
        limit: limit as u64,
        unit: " bytes",
    }
}

fn unpack_snappy<'a>(
    body: &[u8],
    limit: usize,
    buffer: &'a mut Vec<u8>,
    memory: &mut Reservation,
) -> Result<&'a [u8], IngestError> {
    let malformed = |detail: Cow<'_, str>| Encoding::Snappy.malformed(&detail);
    let claimed =
        snap::raw::decompress_len(body).map_err(|error| malformed(error.to_string().into()))?;
    if claimed > limit {
        return Err(too_large(Some(claimed), limit));
    }
    let possible = body.len().saturating_mul(22).saturating_add(64);
    if claimed > possible {
        let detail = format!("{} bytes cannot hold the claimed {claimed}", body.len());
        return Err(malformed(detail.into()));
    }
    memory.grow(claimed)?;
    if buffer.len() < claimed {
        buffer.resize(claimed, 0);
    }
    let len = snap::raw::Decoder::new()
        .decompress(body, &mut buffer[..claimed])
        .map_err(|error| malformed(error.to_string().into()))?;
    Ok(&buffer[..len])
}

#[cfg(test)]
mod tests;
