//! From raw label bytes to series: hashing, the cache of known series, validation, and the
//! sections that a request's samples end up in.
//!
//! The cost model: a sample of a known series costs one hash of its raw label bytes and one
//! look-up. Nothing of it is parsed, copied into a string or allocated; the read lock is taken
//! once per request and passed on every few hundred look-ups. Only a series that is not in the
//! cache is parsed, validated and given its identity, and then it is in the cache, refused ones
//! with the reason.

mod builder;
mod cache;
mod collector;
mod hasher;
mod output;

pub(crate) use builder::{BadSeries, SeriesBuilder, text};
pub(crate) use cache::{KeyMap, SeriesCache};
pub(crate) use collector::{Collected, Collector, Context, Entry, Submit};
pub(crate) use hasher::{Key, KeyHasher, combine};

pub(crate) use output::metadata_sections;

use collector::CollectScratch;
use millrace_model::SeriesId;

use crate::decode::DecodeScratch;
use crate::scraped::ScrapeWriter;

/// The buffers of one decode thread, kept from request to request.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    /// What decompression writes into.
    pub(crate) decoded: Vec<u8>,
    pub(crate) collect: CollectScratch,
    pub(crate) decode: DecodeScratch,
    pub(crate) scraped: ScrapeWriter,
    /// What a request brings that its tenant had not.
    pub(crate) new_series: Vec<SeriesId>,
}

impl Scratch {
    /// A buffer that one large body made this large is given back after it.
    const KEEP_BYTES: usize = 8 << 20;
    /// The same for new series.
    const KEEP_SERIES: usize = 16 << 10;

    /// Gives back memory that ordinary requests do not need.
    pub(crate) fn trim(&mut self) {
        if self.decoded.len() > Self::KEEP_BYTES {
            self.decoded = Vec::new();
        }
        if self.new_series.capacity() > Self::KEEP_SERIES {
            self.new_series = Vec::new();
        }
        self.collect.trim();
    }
}
