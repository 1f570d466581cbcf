//! Reading batches.

use super::{
    FLAG_ORIGINAL_POSITION, HEADER_BYTES, KIND_DELETES, KIND_FLOAT, KIND_METADATA, MAGIC,
    MAX_BODY_BYTES, OP_DELETE, OP_REVOKE, OriginalPosition, VERSION,
};
use crate::{
    Delete, DeleteEntry, DeleteId, Labels, MatchOp, Matcher, MetricMetadata, MetricType, Offset,
    PartitionId, QueueId, Sample, SeriesId, TenantId, TimeRange, TimestampMs, read_varint,
    unzigzag,
};

/// Why bytes are no batch.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// Fewer bytes than the header, or than the header says.
    #[error("batch of {have} bytes is cut short, {need} expected")]
    Truncated {
        /// Bytes there are.
        have: usize,
        /// Bytes there should be.
        need: usize,
    },
    /// Something else than a batch.
    #[error("batch begins with {got:02x?}, not with {MAGIC:02x?}")]
    Magic {
        /// The first four bytes.
        got: [u8; 4],
    },
    /// Written by another version, or with a feature that this one does not know.
    #[error("batch has {what} {got}, which this version does not read")]
    Unsupported {
        /// Which field.
        what: &'static str,
        /// Its value.
        got: u64,
    },
    /// A header or body that is not what was written.
    #[error("batch {part}: crc32c {got:#010x}, stored {stored:#010x}")]
    Checksum {
        /// `header` or `body`.
        part: &'static str,
        /// Computed.
        got: u32,
        /// Read.
        stored: u32,
    },
    /// Right checksums around content that breaks the format: a bug of the writer.
    #[error("batch body at byte {at}: {what}")]
    Malformed {
        /// Position in the body.
        at: usize,
        /// What is wrong there.
        what: &'static str,
    },
}

/// A checked view over the bytes of a batch.
#[derive(Clone, Debug)]
pub struct Batch<'a> {
    tenant: TenantId,
    original: Option<OriginalPosition>,
    series: u32,
    samples: u32,
    body: &'a [u8],
    sections_at: usize,
}

impl<'a> Batch<'a> {
    /// Checks magic, version and both checksums, and reads the tenant.
    ///
    /// # Errors
    ///
    /// See [`BatchError`]. Sections are checked when they are read.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, BatchError> {
        let (header, body) = split_header(bytes)?;
        let mut pos = 0;
        let tenant_len = read_len(body, &mut pos, "length of the tenant's name")?;
        let tenant = std::str::from_utf8(take(body, &mut pos, tenant_len, "tenant's name")?)
            .ok()
            .and_then(|name| name.parse().ok())
            .ok_or(BatchError::Malformed {
                at: 0,
                what: "tenant's name",
            })?;
        let original = if header[5] & FLAG_ORIGINAL_POSITION != 0 {
            let at = take(body, &mut pos, 28, "original position")?;
            Some(OriginalPosition {
                queue: QueueId(u128::from_le_bytes(array(&at[..16]))),
                partition: PartitionId(u32::from_le_bytes(array(&at[16..20]))),
                offset: Offset(u64::from_le_bytes(array(&at[20..28]))),
            })
        } else {
            None
        };
        let series = u32::from_le_bytes(array(&header[12..16]));
        let samples = u32::from_le_bytes(array(&header[16..20]));
        Ok(Self {
            tenant,
            original,
            series,
            samples,
            body,
            sections_at: pos,
        })
    }

    /// Whose batch it is.
    #[must_use]
    pub fn tenant(&self) -> &TenantId {
        &self.tenant
    }

    /// Where it was first queued, if it was queued again.
    #[must_use]
    pub fn original_position(&self) -> Option<OriginalPosition> {
        self.original
    }

    /// Number of series entries that the header states.
    #[must_use]
    pub fn series(&self) -> u32 {
        self.series
    }

    /// Number of samples that the header states.
    #[must_use]
    pub fn samples(&self) -> u32 {
        self.samples
    }

    /// The sections in order. Ends after the first error.
    pub fn sections(&self) -> impl Iterator<Item = Result<Section<'a>, BatchError>> + use<'a> {
        let body = self.body;
        let mut pos = self.sections_at;
        std::iter::from_fn(move || {
            if pos >= body.len() {
                return None;
            }
            let result = read_section(body, &mut pos);
            if result.is_err() {
                pos = body.len();
            }
            Some(result)
        })
    }
}

fn split_header(bytes: &[u8]) -> Result<(&[u8], &[u8]), BatchError> {
    let Some((header, rest)) = bytes.split_at_checked(HEADER_BYTES) else {
        return Err(BatchError::Truncated {
            have: bytes.len(),
            need: HEADER_BYTES,
        });
    };
    if header[0..4] != MAGIC {
        return Err(BatchError::Magic {
            got: array(&header[0..4]),
        });
    }
    check_crc("header", &header[..24], &header[24..28])?;
    let unsupported = |what, got| {
        Err(BatchError::Unsupported {
            what,
            got: u64::from(got),
        })
    };
    if header[4] != VERSION {
        return unsupported("version", header[4]);
    }
    if header[5] & !FLAG_ORIGINAL_POSITION != 0 {
        return unsupported("flags", header[5]);
    }
    if header[6] != 0 {
        return unsupported("compression", header[6]);
    }
    if header[7] != 0 {
        return unsupported("reserved byte", header[7]);
    }
    let body_len = u32::from_le_bytes(array(&header[8..12])) as usize;
    if body_len > MAX_BODY_BYTES {
        return Err(BatchError::Unsupported {
            what: "body length",
            got: body_len as u64,
        });
    }
    if rest.len() != body_len {
        let (have, need) = (bytes.len(), HEADER_BYTES + body_len);
        if have > need {
            return Err(BatchError::Malformed {
                at: body_len,
                what: "bytes behind the body",
            });
        }
        return Err(BatchError::Truncated { have, need });
    }
    check_crc("body", rest, &header[20..24])?;
    Ok((header, rest))
}

fn check_crc(part: &'static str, bytes: &[u8], stored: &[u8]) -> Result<(), BatchError> {
    let (got, stored) = (crc32c::crc32c(bytes), u32::from_le_bytes(array(stored)));
    if got == stored {
        Ok(())
    } else {
        Err(BatchError::Checksum { part, got, stored })
    }
}

fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    bytes.try_into().expect("a slice of the array's length")
}

fn take<'a>(
    bytes: &'a [u8],
    pos: &mut usize,
    len: usize,
    what: &'static str,
) -> Result<&'a [u8], BatchError> {
    let end = pos.checked_add(len).filter(|end| *end <= bytes.len());
    let end = end.ok_or(BatchError::Malformed { at: *pos, what })?;
    let taken = &bytes[*pos..end];
    *pos = end;
    Ok(taken)
}

fn read_len(bytes: &[u8], pos: &mut usize, what: &'static str) -> Result<usize, BatchError> {
    let at = *pos;
    read_varint(bytes, pos)
        .and_then(|v| usize::try_from(v).ok())
        .ok_or(BatchError::Malformed { at, what })
}

/// One section of a batch.
#[derive(Clone, Debug)]
pub struct Section<'a> {
    kind: u8,
    content: &'a [u8],
}

/// A section by its kind.
#[derive(Debug)]
pub enum SectionContent<'a> {
    /// Series of floats.
    Float(FloatSeries<'a>),
    /// Metric metadata.
    Metadata(Vec<MetricMetadata>),
    /// Deletes and revocations, in order.
    Deletes(Vec<DeleteEntry>),
}

fn read_section<'a>(body: &'a [u8], pos: &mut usize) -> Result<Section<'a>, BatchError> {
    let head = take(body, pos, 2, "section header")?;
    if head[1] != 0 {
        return Err(BatchError::Unsupported {
            what: "section flags",
            got: u64::from(head[1]),
        });
    }
    let len = read_len(body, pos, "length of a section")?;
    let content = take(body, pos, len, "section longer than the body")?;
    Ok(Section {
        kind: head[0],
        content,
    })
}

impl<'a> Section<'a> {
    /// Opens the section by its kind.
    ///
    /// # Errors
    ///
    /// An unknown kind (histograms and states are reserved for later versions), or metadata that
    /// break the format.
    pub fn content(&self) -> Result<SectionContent<'a>, BatchError> {
        match self.kind {
            KIND_FLOAT => Ok(SectionContent::Float(FloatSeries::new(self.content)?)),
            KIND_METADATA => Ok(SectionContent::Metadata(read_metadata(self.content)?)),
            KIND_DELETES => Ok(SectionContent::Deletes(read_deletes(self.content)?)),
            kind => Err(BatchError::Unsupported {
                what: "value kind",
                got: u64::from(kind),
            }),
        }
    }
}

fn read_metadata(content: &[u8]) -> Result<Vec<MetricMetadata>, BatchError> {
    let mut pos = 0;
    let count = read_len(content, &mut pos, "number of metadata entries")?;
    // An entry takes four bytes at least, so a count beyond that is a lie.
    if count > content.len() / 4 {
        return Err(BatchError::Malformed {
            at: 0,
            what: "number of metadata entries",
        });
    }
    let mut entries = Vec::with_capacity(count);
    for _ in 0..count {
        let at = pos;
        let code = take(content, &mut pos, 1, "metric type")?[0];
        let metric_type = MetricType::from_code(u64::from(code)).ok_or(BatchError::Malformed {
            at,
            what: "metric type",
        })?;
        let mut text = || -> Result<String, BatchError> {
            let at = pos;
            let len = read_len(content, &mut pos, "length of a metadata text")?;
            let bytes = take(content, &mut pos, len, "metadata text")?;
            let text = std::str::from_utf8(bytes);
            text.map(str::to_owned).map_err(|_| BatchError::Malformed {
                at,
                what: "metadata text",
            })
        };
        let (metric, help, unit) = (text()?, text()?, text()?);
        entries.push(MetricMetadata {
            metric,
            metric_type,
            help,
            unit,
        });
    }
    if pos != content.len() {
        return Err(BatchError::Malformed {
            at: pos,
            what: "bytes behind the metadata",
        });
    }
    Ok(entries)
}

fn read_deletes(content: &[u8]) -> Result<Vec<DeleteEntry>, BatchError> {
    let mut pos = 0;
    let count = read_count(content, &mut pos, MIN_REVOKE_BYTES, "number of deletes")?;
    let mut entries = Vec::with_capacity(count);
    for _ in 0..count {
        let at = pos;
        let entry = match take(content, &mut pos, 1, "kind of a delete")?[0] {
            OP_DELETE => DeleteEntry::Delete(decode_delete(content, &mut pos)?),
            OP_REVOKE => DeleteEntry::Revoke {
                id: DeleteId(u128::from_le_bytes(array(take(
                    content,
                    &mut pos,
                    16,
                    "identity of a delete",
                )?))),
                requested_at: read_time(content, &mut pos)?,
            },
            _ => {
                let what = "kind of a delete";
                return Err(BatchError::Malformed { at, what });
            }
        };
        entries.push(entry);
    }
    if pos != content.len() {
        return Err(BatchError::Malformed {
            at: pos,
            what: "bytes behind the deletes",
        });
    }
    Ok(entries)
}

/// The least that an entry takes: kind, identity, time.
const MIN_REVOKE_BYTES: usize = 25;

/// Reads a delete as [`encode_delete`](super::encode_delete) writes it, from `pos` on, which is
/// moved behind it.
///
/// # Errors
///
/// Bytes that break the format, a selector without matchers, or a pattern that is no regular
/// expression.
pub fn decode_delete(bytes: &[u8], pos: &mut usize) -> Result<Delete, BatchError> {
    let id = take(bytes, pos, 16, "identity of a delete")?;
    let id = DeleteId(u128::from_le_bytes(array(id)));
    let (requested_at, undo_until) = (read_time(bytes, pos)?, read_time(bytes, pos)?);
    let range = TimeRange {
        start: read_time(bytes, pos)?,
        end: read_time(bytes, pos)?,
    };
    // A set takes its count and one matcher.
    let sets = read_count(bytes, pos, 4, "number of selectors")?;
    let mut selectors = Vec::with_capacity(sets);
    for _ in 0..sets {
        let at = *pos;
        let count = read_count(bytes, pos, 3, "number of matchers")?;
        if count == 0 {
            // It would stand for everything that the tenant has.
            let what = "a selector without matchers";
            return Err(BatchError::Malformed { at, what });
        }
        let matchers = (0..count).map(|_| read_matcher(bytes, pos));
        selectors.push(matchers.collect::<Result<_, _>>()?);
    }
    Ok(Delete {
        id,
        requested_at,
        undo_until,
        range,
        selectors,
    })
}

fn read_matcher(bytes: &[u8], pos: &mut usize) -> Result<Matcher, BatchError> {
    let at = *pos;
    let malformed = |what| BatchError::Malformed { at, what };
    let op = MatchOp::from_code(take(bytes, pos, 1, "matcher")?[0]);
    let op = op.ok_or_else(|| malformed("operator of a matcher"))?;
    let mut text = || -> Result<&str, BatchError> {
        let len = read_len(bytes, pos, "length of a matcher's text")?;
        let text = take(bytes, pos, len, "matcher's text")?;
        std::str::from_utf8(text).map_err(|_| malformed("matcher's text"))
    };
    let (name, value) = (text()?, text()?);
    Matcher::new(name, op, value).map_err(|_| malformed("regular expression of a matcher"))
}

fn read_time(bytes: &[u8], pos: &mut usize) -> Result<TimestampMs, BatchError> {
    let time = take(bytes, pos, 8, "time of a delete")?;
    Ok(TimestampMs(i64::from_le_bytes(array(time))))
}

/// A number of things, each of which takes at least `least` bytes.
fn read_count(
    bytes: &[u8],
    pos: &mut usize,
    least: usize,
    what: &'static str,
) -> Result<usize, BatchError> {
    let at = *pos;
    let count = read_len(bytes, pos, what)?;
    if count > (bytes.len() - *pos) / least {
        return Err(BatchError::Malformed { at, what });
    }
    Ok(count)
}

/// Walks the series of a float section.
///
/// [`next_series`](Self::next_series) steps to a series and decodes its samples;
/// [`labels`](Self::labels) puts the labels of that series together. Calling it for few series is
/// cheap for all: the differences since the last call are applied in one go.
#[derive(Debug)]
pub struct FloatSeries<'a> {
    content: &'a [u8],
    pos: usize,
    left: u64,
    previous_timestamp: i64,
    /// Label bytes of the last series that was put together.
    labels: Vec<u8>,
    spare: Vec<u8>,
    /// (prefix, suffix, middle) of the series behind it, the current one last.
    pending: Vec<(usize, usize, &'a [u8])>,
}

/// The least that a series entry takes: identity, three lengths, a count, one sample.
const MIN_SERIES_BYTES: usize = SeriesId::BYTES + 4 + MIN_SAMPLE_BYTES;
/// The least that a sample takes: a timestamp's difference and a value.
const MIN_SAMPLE_BYTES: usize = 9;

impl<'a> FloatSeries<'a> {
    fn new(content: &'a [u8]) -> Result<Self, BatchError> {
        let mut pos = 0;
        let base = take(content, &mut pos, 8, "base timestamp")?;
        let previous_timestamp = i64::from_le_bytes(array(base));
        let left = read_len(content, &mut pos, "number of series")?;
        if left > content.len() / MIN_SERIES_BYTES {
            return Err(BatchError::Malformed {
                at: 8,
                what: "number of series",
            });
        }
        Ok(Self {
            content,
            pos,
            left: left as u64,
            previous_timestamp,
            labels: Vec::new(),
            spare: Vec::new(),
            pending: Vec::new(),
        })
    }

    /// Series that were not stepped to yet.
    #[must_use]
    pub fn remaining(&self) -> u64 {
        self.left
    }

    /// Steps to the next series and appends its samples to `samples`. `None` behind the last one.
    ///
    /// # Errors
    ///
    /// Content that breaks the format; the section is of no use afterwards.
    pub fn next_series(
        &mut self,
        samples: &mut Vec<Sample>,
    ) -> Result<Option<SeriesId>, BatchError> {
        if self.left == 0 {
            return if self.pos == self.content.len() {
                Ok(None)
            } else {
                Err(BatchError::Malformed {
                    at: self.pos,
                    what: "bytes behind the last series",
                })
            };
        }
        self.left -= 1;
        let (content, pos) = (self.content, &mut self.pos);
        let id = take(content, pos, SeriesId::BYTES, "series identity")?;
        let id = SeriesId(u128::from_le_bytes(array(id)));
        let prefix = read_len(content, pos, "shared prefix")?;
        let suffix = read_len(content, pos, "shared suffix")?;
        let middle_len = read_len(content, pos, "length of label bytes")?;
        let middle = take(content, pos, middle_len, "label bytes")?;
        self.pending.push((prefix, suffix, middle));
        let at = *pos;
        let count = read_len(content, pos, "number of samples")?;
        if count == 0 || count > (content.len() - *pos) / MIN_SAMPLE_BYTES {
            return Err(BatchError::Malformed {
                at,
                what: "number of samples",
            });
        }
        samples.reserve(count);
        for _ in 0..count {
            let at = *pos;
            let delta = read_varint(content, pos).ok_or(BatchError::Malformed {
                at,
                what: "timestamp",
            })?;
            self.previous_timestamp = self.previous_timestamp.wrapping_add(unzigzag(delta));
            let value = take(content, pos, 8, "value")?;
            samples.push(Sample {
                timestamp: TimestampMs(self.previous_timestamp),
                value: f64::from_bits(u64::from_le_bytes(array(value))),
            });
        }
        Ok(Some(id))
    }

    /// The labels of the series that [`next_series`](Self::next_series) stepped to last.
    ///
    /// # Errors
    ///
    /// Differences that reach outside the series before, or bytes that are no label set.
    pub fn labels(&mut self) -> Result<Labels, BatchError> {
        let malformed = BatchError::Malformed {
            at: self.pos,
            what: "labels",
        };
        for (prefix, suffix, middle) in self.pending.drain(..) {
            let previous = &self.labels;
            let (Some(head), Some(tail_at)) =
                (previous.get(..prefix), previous.len().checked_sub(suffix))
            else {
                return Err(malformed);
            };
            if tail_at < prefix {
                return Err(malformed);
            }
            self.spare.clear();
            self.spare.extend_from_slice(head);
            self.spare.extend_from_slice(middle);
            self.spare.extend_from_slice(&previous[tail_at..]);
            std::mem::swap(&mut self.labels, &mut self.spare);
        }
        Labels::from_canonical(&self.labels).map_err(|_| malformed)
    }
}
