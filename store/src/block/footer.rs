//! Header, footer and tail.

use millrace_model::{Offset, PartitionId, TimeRange, TimestampMs};

use super::fields::Fields;
use super::rollup::RESOLUTIONS_MAX;
use super::{BlockMeta, BlockSummary, HEADER_BYTES, MAGIC, Section, VERSION};

/// Length and checksum of the footer, their own checksum, magic.
pub(super) const TAIL_BYTES: usize = 16;
const TAIL_MAGIC: [u8; 4] = *b"MRBE";

/// Meta, counts; flags, bytes of rollups, resolutions; number of sections.
const FIXED_BYTES: usize = 4 + 5 * 8 + 2 * 8 + 2 * 4 + 2 * 8 + (1 + 8 + RESOLUTIONS_MAX * 8) + 1;
/// Flag: the samples are gone, their rollups are there.
const WITHOUT_SAMPLES: u8 = 1;
const SECTION_BYTES: usize = 1 + 8 + 8 + 4;
/// Version 1 has exactly these; a later one may have more.
pub(super) const BODY: [Section; 5] = [
    Section::Chunks,
    Section::Series,
    Section::Labels,
    Section::Postings,
    Section::Directory,
];
pub(super) const FOOTER_BYTES: usize = FIXED_BYTES + BODY.len() * SECTION_BYTES;

/// Where a section is, and what it holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct SectionEntry {
    pub(super) offset: u64,
    pub(super) bytes: u64,
    pub(super) crc: u32,
}

/// All that stands in the footer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Footer {
    pub(super) meta: BlockMeta,
    pub(super) samples_range: TimeRange,
    pub(super) tenants: u32,
    pub(super) series: u32,
    pub(super) chunks: u64,
    pub(super) samples: u64,
    pub(super) without_samples: bool,
    /// How much of the section of chunks is rollups.
    pub(super) rollup_bytes: u64,
    /// Zero behind the last.
    pub(super) resolutions: [i64; RESOLUTIONS_MAX],
    /// In the order of [`BODY`].
    pub(super) sections: [SectionEntry; BODY.len()],
}

pub(super) fn encode_header() -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    header[..4].copy_from_slice(&MAGIC);
    header[4] = VERSION;
    let crc = crc32c::crc32c(&header[..8]);
    header[8..].copy_from_slice(&crc.to_le_bytes());
    header
}

impl Footer {
    pub(super) fn section(&self, section: Section) -> SectionEntry {
        let at = BODY.iter().position(|s| *s == section);
        self.sections[at.expect("a section that the footer lists")]
    }

    /// Where the footer itself begins: behind the last section.
    fn offset(&self) -> u64 {
        let last = self.sections[BODY.len() - 1];
        last.offset + last.bytes
    }

    pub(super) fn file_bytes(&self) -> u64 {
        self.offset() + (FOOTER_BYTES + TAIL_BYTES) as u64
    }

    pub(super) fn summary(&self, footer_crc: u32) -> BlockSummary {
        let bytes_of = |section| match section {
            Section::Header => HEADER_BYTES as u64,
            Section::Footer => FOOTER_BYTES as u64,
            Section::Tail => TAIL_BYTES as u64,
            Section::Rollups => self.rollup_bytes,
            Section::Chunks => self.section(Section::Chunks).bytes - self.rollup_bytes,
            section => self.section(section).bytes,
        };
        BlockSummary {
            meta: self.meta,
            samples_range: self.samples_range,
            tenants: self.tenants,
            series: self.series,
            chunks: self.chunks,
            samples: self.samples,
            without_samples: self.without_samples,
            resolutions: self.resolutions,
            bytes: self.file_bytes(),
            footer_crc,
            section_bytes: Section::ALL.map(bytes_of),
        }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(FOOTER_BYTES);
        let BlockMeta {
            partition,
            window,
            offsets,
            created_at,
        } = self.meta;
        out.extend_from_slice(&partition.0.to_le_bytes());
        for time in [window.start, window.end, created_at] {
            out.extend_from_slice(&time.0.to_le_bytes());
        }
        for offset in [offsets.0, offsets.1] {
            out.extend_from_slice(&offset.0.to_le_bytes());
        }
        for time in [self.samples_range.start, self.samples_range.end] {
            out.extend_from_slice(&time.0.to_le_bytes());
        }
        for count in [self.tenants, self.series] {
            out.extend_from_slice(&count.to_le_bytes());
        }
        for count in [self.chunks, self.samples] {
            out.extend_from_slice(&count.to_le_bytes());
        }
        out.push(if self.without_samples {
            WITHOUT_SAMPLES
        } else {
            0
        });
        out.extend_from_slice(&self.rollup_bytes.to_le_bytes());
        for resolution in self.resolutions {
            out.extend_from_slice(&resolution.to_le_bytes());
        }
        out.push(BODY.len() as u8);
        for (section, entry) in BODY.into_iter().zip(self.sections) {
            out.push(section as u8);
            out.extend_from_slice(&entry.offset.to_le_bytes());
            out.extend_from_slice(&entry.bytes.to_le_bytes());
            out.extend_from_slice(&entry.crc.to_le_bytes());
        }
        debug_assert_eq!(out.len(), FOOTER_BYTES);
        out
    }

    /// Reads a footer whose checksum was right. `Err` says what is wrong, and where.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, (usize, &'static str)> {
        let mut fields = Fields::new(bytes);
        let footer = Self::fields(&mut fields).ok_or((fields.pos, "footer breaks the format"))?;
        if !fields.is_at_end() {
            return Err((fields.pos, "footer goes on"));
        }
        footer.check().map_err(|what| (0, what))?;
        Ok(footer)
    }

    fn fields(fields: &mut Fields<'_>) -> Option<Self> {
        let partition = PartitionId(fields.u32()?);
        let window = TimeRange::new(fields.i64()?, fields.i64()?);
        let created_at = TimestampMs(fields.i64()?);
        let offsets = (Offset(fields.u64()?), Offset(fields.u64()?));
        let samples_range = TimeRange::new(fields.i64()?, fields.i64()?);
        let (tenants, series) = (fields.u32()?, fields.u32()?);
        let (chunks, samples) = (fields.u64()?, fields.u64()?);
        let flags = fields.u8().filter(|&f| f <= WITHOUT_SAMPLES)?;
        let rollup_bytes = fields.u64()?;
        let mut resolutions = [0; RESOLUTIONS_MAX];
        for resolution in &mut resolutions {
            *resolution = fields.i64()?;
        }
        (usize::from(fields.u8()?) == BODY.len()).then_some(())?;
        let mut sections = [SectionEntry::default(); BODY.len()];
        for (section, entry) in BODY.into_iter().zip(&mut sections) {
            (fields.u8()? == section as u8).then_some(())?;
            *entry = SectionEntry {
                offset: fields.u64()?,
                bytes: fields.u64()?,
                crc: fields.u32()?,
            };
        }
        let meta = BlockMeta {
            partition,
            window,
            offsets,
            created_at,
        };
        Some(Self {
            meta,
            samples_range,
            tenants,
            series,
            chunks,
            samples,
            without_samples: flags == WITHOUT_SAMPLES,
            rollup_bytes,
            resolutions,
            sections,
        })
    }

    fn check(&self) -> Result<(), &'static str> {
        let mut end = HEADER_BYTES as u64;
        for entry in self.sections {
            if entry.offset != end {
                return Err("a section does not begin where the one before ends");
            }
            let next = end.checked_add(entry.bytes).filter(|&e| e < 1 << 62);
            end = next.ok_or("a section is longer than any file")?;
        }
        let (window, range) = (self.meta.window, self.samples_range);
        if window.start > range.start || range.start > range.end || range.end > window.end {
            return Err("samples outside of the window");
        }
        if self.meta.offsets.0 > self.meta.offsets.1 {
            return Err("queue offsets end before they begin");
        }
        let (tenants, series) = (u64::from(self.tenants), u64::from(self.series));
        let chunks = if self.without_samples {
            self.chunks == 0 && series <= self.samples
        } else {
            series <= self.chunks && self.chunks <= self.samples
        };
        if tenants == 0 || tenants > series || !chunks {
            return Err("counts contradict one another");
        }
        let stored = self.resolutions();
        let rest = &self.resolutions[stored.len()..];
        let ordered = stored.is_sorted_by(|a, b| a < b) && stored.iter().all(|&r| r > 0);
        if !ordered || rest.iter().any(|&r| r != 0) {
            return Err("resolutions are not in order");
        }
        if self.rollup_bytes > self.section(Section::Chunks).bytes {
            return Err("more rollups than their section holds");
        }
        Ok(())
    }

    /// The resolutions whose rollups are stored, the finest first.
    pub(super) fn resolutions(&self) -> &[i64] {
        let stored = self.resolutions.iter().take_while(|&&r| r != 0).count();
        &self.resolutions[..stored]
    }
}

pub(super) fn encode_tail(footer: &[u8]) -> [u8; TAIL_BYTES] {
    let mut tail = [0; TAIL_BYTES];
    tail[..4].copy_from_slice(&(FOOTER_BYTES as u32).to_le_bytes());
    tail[4..8].copy_from_slice(&crc32c::crc32c(footer).to_le_bytes());
    let crc = crc32c::crc32c(&tail[..8]);
    tail[8..12].copy_from_slice(&crc.to_le_bytes());
    tail[12..].copy_from_slice(&TAIL_MAGIC);
    tail
}

/// What a tail says.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tail {
    pub(super) footer_bytes: u32,
    pub(super) footer_crc: u32,
    /// Its own checksum, as stored and as it should be.
    pub(super) stored: u32,
    pub(super) got: u32,
    pub(super) is_tail: bool,
}

pub(super) fn decode_tail(tail: &[u8; TAIL_BYTES]) -> Tail {
    let word = |at: usize| {
        let bytes = [tail[at], tail[at + 1], tail[at + 2], tail[at + 3]];
        u32::from_le_bytes(bytes)
    };
    Tail {
        footer_bytes: word(0),
        footer_crc: word(4),
        stored: word(8),
        got: crc32c::crc32c(&tail[..8]),
        is_tail: tail[12..] == TAIL_MAGIC,
    }
}
